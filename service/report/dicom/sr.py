"""The report as a DICOM structured report: Comprehensive SR with the content tree of TID 1500.

The content is that of :mod:`service.report.dicom.sr_content`. The document around it is written here, because
highdicom's document class requires images and takes the time of day.

References
----------
DICOM PS3.3 A.35.3 (Comprehensive SR), C.17 (SR modules).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.report.dicom.identity import (
    accession_number,
    encoded,
    made,
    new_dataset,
    own_scheme,
    prior_document,
    reference,
    study,
)
from service.report.dicom.values import author_name, day, day_time, short, time

if TYPE_CHECKING:
    from pydicom import Dataset


def render(report: Report, language: Language) -> bytes:
    """The report as a DICOM file: Comprehensive SR, explicit VR little endian, UTF-8.

    The same report and language give the same bytes.
    """
    return encoded(document(report, language))


def document(report: Report, language: Language) -> Dataset:
    """The SR as a data set, with its file meta information."""
    from service.report.dicom.sr_content import content_of  # noqa: PLC0415  loads highdicom

    dataset = new_dataset(report, language, made(report, language, "sr"))
    dataset.ContentDate, dataset.ContentTime = day(report.issued_at), time(report.issued_at)
    dataset.CodingSchemeIdentificationSequence = [own_scheme()]
    _add_state(dataset, report)
    _add_request(dataset, report)
    _add_evidence(dataset, report)
    prior = prior_document(report, language)
    if prior is not None:
        instance = (prior.sop_class_uid, prior.sop_instance_uid)
        dataset.PredecessorDocumentsSequence = _instances([(study(report), prior.series_instance_uid, *instance)])
    for element in content_of(report, language):
        dataset.add(element)
    return dataset


def _add_state(dataset: Dataset, report: Report) -> None:
    """Completion, verification, and each doctor who signed as verifying observer (PS3.3 C.17.2)."""
    from pydicom import Dataset  # noqa: PLC0415  only who renders DICOM loads pydicom

    dataset.CompletionFlag = "COMPLETE"
    dataset.PreliminaryFlag = "PRELIMINARY" if report.status == "preliminary" else "FINAL"
    dataset.VerificationFlag = "VERIFIED" if report.opinions else "UNVERIFIED"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    observers = []
    for opinion in report.opinions:
        item = Dataset()
        item.VerifyingObserverName = author_name(opinion.author)
        item.VerifyingObserverIdentificationCodeSequence = []
        item.VerifyingOrganization = short(opinion.author.facility) or "—"
        item.VerificationDateTime = day_time(opinion.signed_at)
        observers.append(item)
    if observers:
        dataset.VerifyingObserverSequence = observers


def _add_request(dataset: Dataset, report: Report) -> None:
    """The order that the report is for (PS3.3 C.17.2, Referenced Request Sequence)."""
    from pydicom import Dataset  # noqa: PLC0415

    order, accession = report.order, accession_number(report)
    if order is None and not accession:
        return
    item = Dataset()
    item.StudyInstanceUID = study(report)
    item.ReferencedStudySequence = []
    item.AccessionNumber = accession
    item.PlacerOrderNumberImagingServiceRequest = short(order.placer or "") if order else ""
    item.FillerOrderNumberImagingServiceRequest = ""
    item.RequestedProcedureID = ""
    item.RequestedProcedureDescription = ""
    item.RequestedProcedureCodeSequence = []
    if order and order.reason:
        item.ReasonForTheRequestedProcedure = short(order.reason)
    dataset.ReferencedRequestSequence = [item]


def _add_evidence(dataset: Dataset, report: Report) -> None:
    """Every object that the content refers to: those of the report's study, and others (PS3.3 C.17.2.3)."""
    references = [found for posted in report.inputs if (found := reference(report, posted.index))]
    rows = [
        (each.StudyInstanceUID, each.SeriesInstanceUID, each.SOPClassUID, each.SOPInstanceUID) for each in references
    ]
    own = [row for row in rows if row[0] == study(report)]
    other = [row for row in rows if row[0] != study(report)]
    if own:
        dataset.CurrentRequestedProcedureEvidenceSequence = _instances(own)
    if other:
        dataset.PertinentOtherEvidenceSequence = _instances(other)


def _instances(rows: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    """Items of the Hierarchical SOP Instance Reference macro (PS3.3 table C.17-3).

    Parameters
    ----------
    rows
        UIDs of study, series, SOP class and SOP instance.
    """
    from pydicom import Dataset  # noqa: PLC0415

    grouped: dict[str, dict[str, dict[str, str]]] = {}
    for study_uid, series_uid, class_uid, instance_uid in rows:
        grouped.setdefault(study_uid, {}).setdefault(series_uid, {})[instance_uid] = class_uid
    studies = []
    for study_uid, series in grouped.items():
        item = Dataset()
        item.ReferencedSeriesSequence = []
        for series_uid, found in series.items():
            series_item = Dataset()
            series_item.ReferencedSOPSequence = []
            for instance_uid, class_uid in found.items():
                instance = Dataset()
                instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = class_uid, instance_uid
                series_item.ReferencedSOPSequence.append(instance)
            series_item.SeriesInstanceUID = series_uid
            item.ReferencedSeriesSequence.append(series_item)
        item.StudyInstanceUID = study_uid
        studies.append(item)
    return studies
