"""Sources of the report in FHIR: the person, doctors, imaging studies, models, and their parts in it (Provenance)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_specs.dicom.reference import DicomReference
from data_specs.dicom.uids import is_uid
from data_specs.visit.opinion import Author, Opinion
from data_specs.visit.report import ReportInput
from service.language.zone import day_and_time
from service.report import words
from service.report.fhir.parts import (
    SHA256,
    SITE,
    URI,
    Document,
    Resource,
    accession,
    artificial_intelligence,
    asserted_by_ai,
    coding,
    moment,
    person_lines,
)

DICOM = "http://dicom.nema.org/resources/ontology/DCM"
PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
DICOM_UID_SYSTEM = "urn:dicom:uid"
UNKNOWN = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
SERVICE_NAME = "Sàng Lọc"

_OID_ROOTS = ("0.", "1.", "2.")
"""Beginnings of an identifier that may be written as ``urn:oid:`` (FHIR R4, data type oid; ISO/IEC 9834)."""


# ---------------------------------------------------------------- people
def patient(document: Document) -> Resource:
    person = document.report.person
    return document.put(
        "Patient",
        says=person_lines(person, document.language),
        identifier=[{"value": person.id}],
        name=[{"text": person.name}],
        gender=person.sex,
        birthDate=person.birth_date.isoformat() if person.birth_date else None,
    )


def organization(document: Document, name: str | None) -> Resource | None:
    return document.put("Organization", name, says=[name], name=name) if name and name.strip() else None


def doctor(document: Document, id_: str | None, name: str | None, facility: str | None, role: str) -> Resource | None:
    """The doctor in the facility; the facility alone if no doctor is named; ``None`` if nothing is known."""
    place = organization(document, facility)
    if not (id_ or "").strip() and not (name or "").strip():
        return place
    person = document.put(
        "Practitioner", id_, name, says=[name or id_ or ""], identifier=[{"value": id_}], name=[{"text": name}]
    )
    role_name = words.say(f"role_{role}", document.language)
    return document.put(
        "PractitionerRole",
        id_,
        name,
        facility,
        role,
        says=[", ".join(each for each in (name or id_, role_name, facility) if each)],
        practitioner=person,
        organization=place,
        code=[{"text": role_name}],
    )


def referrer(document: Document) -> Resource | None:
    by = document.report.referrer
    return doctor(document, by.id, by.name, by.facility, "referrer") if by else None


def author(document: Document, by: Author) -> Resource:
    reference = doctor(document, by.id, by.name, by.facility, by.role)
    return reference or document.put("Practitioner", "unnamed", says=[])


# ---------------------------------------------------------------- studies
def studies(document: Document, subject: Resource) -> dict[int, Resource]:
    """Add an ImagingStudy for each posted DICOM study, and return its reference by index of the posted file.

    A study whose identifier breaks the rules of DICOM has it as it came, without a system. Objects and series of such
    identifiers are counted, and not listed.
    """
    posted: dict[str, list[tuple[ReportInput, DicomReference]]] = {}
    for file in document.report.inputs:
        if file.dicom and file.dicom.names_its_study:
            posted.setdefault(file.dicom.StudyInstanceUID, []).append((file, file.dicom))
    return {
        file.index: _study(document, uid, [dicom for _, dicom in members], subject)
        for uid, members in posted.items()
        for file, _ in members
    }


def _study(document: Document, uid: str, objects: Sequence[DicomReference], subject: Resource) -> Resource:
    first = objects[0]
    series: dict[str, list[DicomReference]] = {}
    for dicom in (each for each in objects if each.may_be_referred_to):
        series.setdefault(dicom.SeriesInstanceUID, []).append(dicom)
    numbers = {each.AccessionNumber.strip(): None for each in objects if each.AccessionNumber.strip()}
    return document.put(
        "ImagingStudy",
        uid,
        says=[" ".join(each for each in (*_modalities(objects), _day(first.StudyDate)) if each)],
        identifier=[_identifier(uid), *map(accession, numbers)],
        status="available",
        modality=[coding(DICOM, each) for each in _modalities(objects)],
        subject=subject,
        started=_day(first.StudyDate),
        numberOfSeries=len({each.SeriesInstanceUID for each in objects}),
        numberOfInstances=len({each.SOPInstanceUID for each in objects}),
        series=[_series(uid, members) for uid, members in series.items()],
    )


def _identifier(uid: str) -> Resource:
    is_oid = is_uid(uid) and uid.startswith(_OID_ROOTS)
    return {"system": DICOM_UID_SYSTEM, "value": f"urn:oid:{uid}"} if is_oid else {"value": uid}


def _series(uid: str, objects: Sequence[DicomReference]) -> Resource:
    modality = objects[0].Modality.strip()
    instances = {each.SOPInstanceUID: each.SOPClassUID for each in objects}
    return {
        "uid": uid,
        "modality": coding(DICOM, modality)
        if modality
        else {"extension": [{"url": UNKNOWN, "valueCode": "unknown"}]},  # the member is required, but not known
        "numberOfInstances": len(instances),
        "instance": [
            {"uid": instance, "sopClass": {"system": URI, "code": f"urn:oid:{kind}"}}
            for instance, kind in instances.items()
        ],
    }


def _modalities(objects: Sequence[DicomReference]) -> list[str]:
    return list(dict.fromkeys(each.Modality.strip() for each in objects if each.Modality.strip()))


def _day(date: str) -> str | None:
    """A DICOM date as a FHIR date. The time is left out, because FHIR requires a time zone and DICOM gives none."""
    found = re.fullmatch(r"(\d{4})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", date.strip())
    return "-".join(found.groups()) if found else None


# ---------------------------------------------------------------- machines
def service(document: Document) -> Resource:
    """The Device of the service itself."""
    return document.put(
        "Device",
        "service",
        says=[SERVICE_NAME],
        status="active",
        deviceName=[{"name": SERVICE_NAME, "type": "manufacturer-name"}],
    )


def models(document: Document) -> dict[str, Resource]:
    """A Device for each model: name, version and hash. Returns its reference by name."""
    return {
        used.name: document.put(
            "Device",
            used.name,
            used.version,
            used.sha256,
            says=[f"{used.name} {used.version}, SHA-256 {used.sha256}"],
            identifier=[{"system": SHA256, "value": used.sha256}],
            status="active",
            deviceName=[{"name": used.name, "type": "model-name"}],
            type=artificial_intelligence(),
            version=[{"value": used.version}],
        )
        for used in document.report.models
    }


# ---------------------------------------------------------------- provenance
def computed(document: Document, targets: list[Resource], machine: Resource, by: dict[str, Resource]) -> None:
    """Add the Provenance of the machine's resources: files, models, and the site that posted the visit."""
    report = document.report
    site = document.put(
        "Organization",
        "site",
        says=[report.site],
        identifier=[{"system": SITE, "value": report.site}],
        name=report.site,
    )
    document.put(
        "Provenance",
        "computed",
        says=[f"{SERVICE_NAME}, {day_and_time(report.completed_at)}"],
        target=targets,
        occurredDateTime=moment(report.completed_at),
        recorded=moment(report.completed_at),
        reason=[{"coding": [asserted_by_ai()]}],
        agent=[
            _agent("assembler", "Assembler", machine),
            *(_agent("performer", "Performer", model) for model in by.values()),
            _agent("informant", "Informant", site),
        ],
        entity=[
            {"role": "source", "what": {"identifier": {"system": SHA256, "value": posted.sha256}}}
            for posted in report.inputs
            if posted.accepted
        ],
    )


def signed(document: Document, opinion: Opinion, targets: list[Resource], by: Resource) -> None:
    """Add the Provenance of one opinion: who signed it, and when."""
    document.put(
        "Provenance",
        "signed",
        opinion.number,
        says=words.opinion_sentences(opinion, document.language)[:1],
        target=targets,
        occurredDateTime=moment(opinion.signed_at),
        recorded=moment(opinion.signed_at),
        agent=[
            {
                **_agent("author", "Author", by),
                "onBehalfOf": organization(document, opinion.author.facility),
            }
        ],
    )


def _agent(code: str, shown: str, who: Resource) -> Resource:
    return {"type": {"coding": [coding(PARTICIPANT, code, shown)]}, "who": who}
