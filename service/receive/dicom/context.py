"""Reads a visit's context from the headers of a study's objects: person, referrer, order. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from data_specs.dicom.reference import DicomReference
from data_specs.person import age_at_examination, dicom_day, read_age, read_sex
from data_specs.visit.context import Context, Order, Person, Referrer, known_members

T = TypeVar("T")
MAX_ID = 64
"""Longest identifier (LO, PS3.5, table 6.2-1). A longer one is not used: it may have been cut off on its way, and could
then be another person's."""


def by_person(objects: Sequence[T], reference: Callable[[T], DicomReference]) -> list[list[T]]:
    """Objects of one study, grouped by the person that their headers name, in the order in which they came.

    A study belongs to one person. Where its objects name several, some headers are wrong and it is not known which, so
    each person's objects are kept apart. A person is known by PatientID and IssuerOfPatientID, and by PatientName where
    no object has a PatientID. Objects that name no person belong to the one person of the study; where there are
    several persons, they are a group of their own.
    """
    headers = [reference(item) for item in objects]
    has_ids = any(header.PatientID.strip() for header in headers)
    issuers: dict[str, set[str]] = {}
    for header in headers:
        issuers.setdefault(header.PatientID.strip(), set()).add(header.IssuerOfPatientID.strip())

    def issuer_and_name(header: DicomReference) -> tuple[str, str]:
        id_ = header.PatientID.strip()
        if not has_ids:
            return "", agreed_value([header.PatientName])
        if not id_:
            return "", ""
        return header.IssuerOfPatientID.strip() or agreed_value(issuers[id_]), id_

    found: dict[tuple[str, str], list[T]] = {}
    for item, header in zip(objects, headers, strict=True):
        found.setdefault(issuer_and_name(header), []).append(item)
    several = sum(1 for _, name in found if name) > 1
    return list(found.values()) if several else [list(objects)]


def context_of(references: Sequence[DicomReference]) -> Context:
    """The context of one person's visit; a value on which the headers do not agree is left out."""

    def value(keyword: str) -> str:
        return agreed_value(getattr(each, keyword) for each in references)

    born, studied = dicom_day(value("PatientBirthDate")), dicom_day(value("StudyDate"))
    id_ = value("PatientID")
    person = known_members(
        id=id_ if 0 < len(id_) <= MAX_ID else None,
        name=readable_name(value("PatientName")),
        birth_date=born,
        age_years=age_at_examination(read_age(value("PatientAge"), unit=""), born, studied),
        sex=read_sex(value("PatientSex"), "dicom"),
    )
    referrer = readable_name(value("ReferringPhysicianName"))
    accession_number = value("AccessionNumber")
    has_number = 0 < len(accession_number) <= MAX_ID
    return Context.model_validate(
        known_members(
            person=Person.model_validate(person) if person else None,
            referrer=Referrer(name=referrer) if referrer else None,
            order=Order(accession_number=accession_number) if has_number else None,
            visited_on=studied,
        )
    )


def agreed_value(values: Iterable[str]) -> str:
    """The value of all that are not empty; ``""`` where they differ, or all are empty."""
    different = {value.strip() for value in values} - {""}
    return different.pop() if len(different) == 1 else ""


def readable_name(text: str) -> str | None:
    """A person's name with spaces between its components; their order stays, since it depends on the language.

    References
    ----------
    DICOM PS3.5, section 6.2.1 (PN: component groups are separated by ``=``, components by ``^``).
    """
    groups = (" ".join(group.replace("^", " ").split()) for group in text.split("="))
    return next((group[:200] for group in groups if group), None)
