"""What the headers of a study's objects say of the visit: whose it is, who asked, for which order; nothing guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from data_specs.dicom.reference import DicomReference
from data_specs.person import age_at_examination, dicom_day, read_age, read_sex
from data_specs.visit.context import Context, Order, Person, Referrer

T = TypeVar("T")
MAX_ID = 64
"""LO (PS3.5, table 6.2-1); what is longer may have been cut on its way, and half an identifier is somebody else's."""


def by_person(objects: Sequence[T], reference: Callable[[T], DicomReference]) -> list[list[T]]:
    """Objects of one study by the person that their headers name, in the order in which they came.

    A study is one person's. Where its objects name several (by PatientID, IssuerOfPatientID; by PatientName where none
    has an id), one of them is wrong and nobody here knows which: they are kept apart, and none says anything of the
    other. An object that names nobody goes with the one person of its study, and by itself where there are several.
    """
    references = [reference(each) for each in objects]
    has_ids = any(each.PatientID.strip() for each in references)
    issuers: dict[str, set[str]] = {}
    for each in references:
        issuers.setdefault(each.PatientID.strip(), set()).add(each.IssuerOfPatientID.strip())

    def named(one: DicomReference) -> tuple[str, str]:
        id_ = one.PatientID.strip()
        if not has_ids:
            return "", only([one.PatientName])
        if not id_:
            return "", ""
        return one.IssuerOfPatientID.strip() or only(issuers[id_]), id_

    found: dict[tuple[str, str], list[T]] = {}
    for item, header in zip(objects, references, strict=True):
        found.setdefault(named(header), []).append(item)
    several = sum(1 for _, name in found if name) > 1
    return list(found.values()) if several else [list(objects)]


def context_of(references: Sequence[DicomReference]) -> Context:
    """The context of a visit of one person; what its objects disagree about is left out."""

    def said(keyword: str) -> str:
        return only(getattr(each, keyword) for each in references)

    born, studied = dicom_day(said("PatientBirthDate")), dicom_day(said("StudyDate"))
    id_ = said("PatientID")
    person = given(
        id=id_ if 0 < len(id_) <= MAX_ID else None,
        name=readable_name(said("PatientName")),
        birth_date=born,
        age_years=age_at_examination(read_age(said("PatientAge"), unit=""), born, studied),
        sex=read_sex(said("PatientSex"), "dicom"),
    )
    referrer = readable_name(said("ReferringPhysicianName"))
    accession_number = said("AccessionNumber")
    numbered = 0 < len(accession_number) <= MAX_ID
    return Context.model_validate(
        given(
            person=Person.model_validate(person) if person else None,
            referrer=Referrer(name=referrer) if referrer else None,
            order=Order(accession_number=accession_number) if numbered else None,
            visited_on=studied,
        )
    )


def only(values: Iterable[str]) -> str:
    """The one value that those that say anything agree on; empty where they do not."""
    said = {value.strip() for value in values} - {""}
    return said.pop() if len(said) == 1 else ""


def readable_name(text: str) -> str | None:
    """A person's name as it is written, its components parted by spaces instead of ``^``, in their own order.

    Which of them is said first is a matter of language, and no header says in which language a name is.

    References
    ----------
    DICOM PS3.5, section 6.2.1 (component groups parted by ``=``, components by ``^``).
    """
    groups = (" ".join(group.replace("^", " ").split()) for group in text.split("="))
    return next((group[:200] for group in groups if group), None)


def given(**members: object) -> dict[str, object]:
    """The members that are known: what a visit's stored context holds is what was said."""
    return {name: value for name, value in members.items() if value is not None}
