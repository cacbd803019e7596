"""What all DICOM objects of a report share: which objects there are, their identifiers, patient, study and encoding.

No value comes from a clock, so a version that is rendered again gives the same file. Values from outside (a hospital's
headers, a client's context) are written if DICOM allows them, and left empty otherwise. An identifier is never
shortened, because the shortened one may be another person's.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data_specs.dicom.reference import RADIOGRAPH_CLASSES, DicomReference, named_study
from data_specs.dicom.uids import is_uid
from data_specs.visit.context import Referrer
from data_specs.visit.report import Report, own_study, uid
from data_specs.vocabulary import SYSTEMS, Language
from service.report.dicom.values import (
    day,
    header_date,
    header_name,
    header_time,
    person_name,
    short,
    time,
    whole,
)
from service.report.words import say

if TYPE_CHECKING:
    from pydicom import Dataset

Kind = Literal["sr", "sc", "gsps"]

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
GRAYSCALE_PRESENTATION = "1.2.840.10008.5.1.4.1.1.11.1"
"""SOP classes of the objects that are made here (PS3.4 table B.5-1)."""

MODALITIES: dict[Kind, str] = {"sr": "SR", "sc": "OT", "gsps": "PR"}
"""Modality (PS3.3 C.7.3.1.1.1)."""

SERIES_NUMBERS: dict[Kind, int] = {"sr": 9001, "sc": 9002, "gsps": 9003}
"""High numbers, so that a viewer lists the hospital's own series first."""

OWN_SCHEME = "99SANGLOC"
"""Private coding scheme designator (PS3.16 section 8.2: private ones begin with 99)."""

DESIGNATORS = {SYSTEMS["sct"]: "SCT", SYSTEMS["loinc"]: "LN", SYSTEMS["own"]: OWN_SCHEME}
"""Coding scheme designators of the vocabulary's systems (PS3.16 table 8-1)."""

MAKER = "Sàng Lọc"
IMPLEMENTATION_UID = uid("implementation", 1)
OWN_SCHEME_UID = uid("coding scheme", 1)

SEXES = {"female": "F", "male": "M", "other": "O"}
"""PatientSex (0010,0040) by the word in the context; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class MadeInstance:
    """The identifiers of one DICOM object of one version in one language.

    Parameters
    ----------
    finding, index
        Of ``sc`` and ``gsps``: the finding of the heatmap, and the index of the posted film.
    """

    kind: Kind
    finding: str | None
    index: int | None
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    series_number: int
    instance_number: int


def instances(report: Report, language: Language) -> list[MadeInstance]:
    """Every DICOM object of this version: its SR, then each heatmap as secondary capture, then each as GSPS.

    Identifiers depend on visit, version and language, so that a PACS keeps objects in two languages apart.
    """
    objects = [_made(report, language, "sr", None, None, 1)]
    maps = [
        (finding.name, evidence.input)
        for finding in report.findings
        for evidence in finding.evidence
        if evidence.kind == "heatmap"
    ]
    maps = list(dict.fromkeys(maps))
    objects += [_made(report, language, "sc", name, index, number) for number, (name, index) in enumerate(maps, 1)]
    outlined = [(name, index) for name, index in maps if presentable(report, index)]
    objects += [
        _made(report, language, "gsps", name, index, number) for number, (name, index) in enumerate(outlined, 1)
    ]
    return objects


def made(
    report: Report, language: Language, kind: Kind, finding: str | None = None, index: int | None = None
) -> MadeInstance:
    """One of :func:`instances`.

    Raises
    ------
    KeyError
        This version has no such object.
    """
    for instance in instances(report, language):
        if (instance.kind, instance.finding, instance.index) == (kind, finding, index):
            return instance
    raise KeyError(kind)


def prior_document(report: Report, language: Language) -> MadeInstance | None:
    """The SR of the version before; ``None`` for the first version."""
    if report.version == 1:
        return None
    return _made(report.model_copy(update={"version": report.version - 1}), language, "sr", None, None, 1)


def reference(report: Report, index: int) -> DicomReference | None:
    """The reference to a posted DICOM object; ``None`` if the file was not DICOM or one of its UIDs is not valid."""
    found = next((posted.dicom for posted in report.inputs if posted.index == index), None)
    return found if found is not None and found.may_be_referred_to else None


def presentable(report: Report, index: int) -> DicomReference | None:
    """The film if a GSPS may show it: a radiograph of the report's own study with known size; else ``None``.

    References
    ----------
    DICOM PS3.3 C.11.11 (Presentation State Relationship names series within the state's own study).
    """
    film = reference(report, index)
    if film is None or film.SOPClassUID not in RADIOGRAPH_CLASSES or film.StudyInstanceUID != study(report):
        return None
    return film if film.Rows and film.Columns else None


def study(report: Report) -> str:
    """The study in which the report's objects stand: the hospital's; one of the visit's own if that is no valid UID."""
    given = report.study_instance_uid
    return given if is_uid(given) else own_study(report.visit)


def new_dataset(report: Report, language: Language, instance: MadeInstance) -> Dataset:
    """A data set with the Patient, Study, Series, Equipment and SOP Common modules and the file meta information.

    Patient and study are copied from the first posted DICOM object of the report's study, if there is one. What that
    object leaves empty is taken from the context.

    References
    ----------
    DICOM PS3.3 C.7.1.1, C.7.2.1, C.7.2.2, C.7.3.1, C.7.5.1, C.12.1; PS3.10 section 7.1.
    """
    from pydicom import Dataset  # noqa: PLC0415  only who renders DICOM loads pydicom
    from pydicom.dataset import FileMetaDataset  # noqa: PLC0415
    from pydicom.uid import UID, ExplicitVRLittleEndian  # noqa: PLC0415

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(instance.sop_class_uid)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance.sop_instance_uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    dataset.file_meta.ImplementationVersionName = "SANGLOC"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = instance.sop_class_uid
    dataset.SOPInstanceUID = instance.sop_instance_uid
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = day(report.issued_at), time(report.issued_at)
    _add_patient(dataset, report)
    _add_study(dataset, report)
    dataset.StudyInstanceUID = instance.study_instance_uid
    dataset.SeriesInstanceUID = instance.series_instance_uid
    dataset.Modality = instance.modality
    dataset.SeriesNumber = instance.series_number
    dataset.InstanceNumber = instance.instance_number
    dataset.SeriesDate, dataset.SeriesTime = day(report.issued_at), time(report.issued_at)
    dataset.SeriesDescription = short(say("title", language))
    dataset.Manufacturer = MAKER
    dataset.InstitutionName = short(report.site)
    if report.models:
        dataset.SoftwareVersions = [short(f"{model.name} {model.version}") for model in report.models]
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """A DICOM file (PS3.10) in explicit VR little endian, which every archive accepts."""
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def own_scheme() -> Dataset:
    """Item of CodingSchemeIdentificationSequence (0008,0110) for our own coding scheme (PS3.3 C.12.1)."""
    from pydicom import Dataset  # noqa: PLC0415

    item = Dataset()
    item.CodingSchemeDesignator = OWN_SCHEME
    item.CodingSchemeUID = OWN_SCHEME_UID
    item.CodingSchemeName = f"{MAKER}, {SYSTEMS['own']}"
    return item


def _made(
    report: Report, language: Language, kind: Kind, finding: str | None, index: int | None, number: int
) -> MadeInstance:
    classes: dict[Kind, str] = {"sr": COMPREHENSIVE_SR, "sc": SECONDARY_CAPTURE, "gsps": GRAYSCALE_PRESENTATION}
    key = (kind, language) if finding is None else (kind, language, finding, index)
    return MadeInstance(
        kind=kind,
        finding=finding,
        index=index,
        sop_class_uid=classes[kind],
        sop_instance_uid=uid(report.visit, report.version, *key),
        study_instance_uid=study(report),
        series_instance_uid=uid(report.visit, report.version, "series", kind, language),
        modality=MODALITIES[kind],
        series_number=SERIES_NUMBERS[kind],
        instance_number=number,
    )


def _source(report: Report) -> DicomReference | None:
    """The first posted DICOM object of the report's study, from which patient and study are copied.

    Where no object names its study, the first one counts.
    """
    objects = [posted.dicom for posted in report.inputs if posted.dicom is not None]
    study = named_study(objects)
    return next((each for each in objects if not study or each.StudyInstanceUID == study), None)


def _add_patient(dataset: Dataset, report: Report) -> None:
    source, person = _source(report), report.person
    name = header_name(source.PatientName) if source else ""
    dataset.PatientName = name or (person_name(person.name) if person.name else "")
    dataset.PatientID = (whole(source.PatientID, 64) if source else "") or whole(person.id or "", 64)
    if source and dataset.PatientID and (issuer := whole(source.IssuerOfPatientID, 64)):
        dataset.IssuerOfPatientID = issuer
    birth_date = header_date(source.PatientBirthDate) if source else ""
    dataset.PatientBirthDate = birth_date or (f"{person.birth_date:%Y%m%d}" if person.birth_date else "")
    sex = source.PatientSex if source and source.PatientSex in SEXES.values() else ""
    dataset.PatientSex = sex or SEXES.get(person.sex or "", "")
    if person.age_years is not None:
        years = person.age_years
        dataset.PatientAge = f"{int(years):03d}Y" if years >= 2 else f"{int(12 * years):03d}M"


def _add_study(dataset: Dataset, report: Report) -> None:
    source = _source(report)
    if source is not None:
        dataset.StudyDate, dataset.StudyTime = header_date(source.StudyDate), header_time(source.StudyTime)
        dataset.StudyID = whole(source.StudyID, 16)
    else:
        # Stated only if all dates and times of the object are ours, because a hospital's have no known time zone.
        dataset.TimezoneOffsetFromUTC = "+0000"
        visited = report.visited_on
        dataset.StudyDate = f"{visited:%Y%m%d}" if visited else day(report.received_at)
        dataset.StudyTime = "" if visited else time(report.received_at)
        dataset.StudyID = ""
    dataset.AccessionNumber = accession_number(report)
    name = header_name(source.ReferringPhysicianName) if source else ""
    referrer = report.referrer or Referrer()
    dataset.ReferringPhysicianName = name or (person_name(referrer.name) if referrer.name else "")


def accession_number(report: Report) -> str:
    """AccessionNumber (0008,0050) of the study, else of the order; empty if it is too long for DICOM."""
    source = _source(report)
    number = whole(source.AccessionNumber, 16) if source else ""
    return number or whole((report.order.accession_number or "") if report.order else "", 16)
