"""What was found, in FHIR: probabilities as RiskAssessment, measured values and doctors' judgements as Observation."""

from __future__ import annotations

from typing import Any

from data_specs.visit.contract import OperatingPoint
from data_specs.visit.opinion import Judgement, Opinion
from data_specs.visit.report import Report, ReportFinding
from data_specs.vocabulary import terms
from service.language.texts import measured, opening
from service.report import words
from service.report.fhir.parts import UCUM, Document, Resource, coding, concept, distinct, moment, number

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
OPERATING_POINT = "urn:sangloc:fhir:operating-point"
BARE_OUTPUT = "urn:sangloc:fhir:uncalibrated-output"
"""Extensions of ``RiskAssessment.prediction``; ``docs/fhir.md`` says what they hold."""

_CATEGORIES = {
    "lung": ("imaging", "Imaging"),
    "cardiac": ("procedure", "Procedure"),
    "kidney": ("laboratory", "Laboratory"),
}
_VITAL = ("vital-signs", "Vital Signs")
_VITAL_SIGNS = frozenset({"8867-4"})
"""FHIR R4, Vital Signs profile: whatever carries one of its LOINC codes has to be of its category."""


def finding(
    document: Document, found: ReportFinding, subject: Resource, device: Resource | None, studies: dict[int, Resource]
) -> Resource:
    """The resource of one finding; returns the reference to it."""
    if found.value is not None:
        return _measured(document, found, found.value, subject, device)
    return _predicted(document, found, subject, device, studies)


def _measured(
    document: Document, found: ReportFinding, value: float | str, subject: Resource, device: Resource | None
) -> Resource:
    category = _VITAL if found.code.code in _VITAL_SIGNS else _CATEGORIES[found.organ]
    return document.put(
        "Observation",
        found.organ,
        found.name,
        says=[words.finding_sentence(found, document.language)],
        status=document.machine_status,
        category=[{"coding": [coding(CATEGORY, *category)]}],
        code=concept(found.name, document.language, found.code),
        subject=subject,
        effectiveDateTime=document.effective,
        **_value(document, value, found.unit),
        device=device,
    )


def _value(document: Document, value: float | str, unit: str | None) -> dict[str, Any]:
    shown, shown_unit = measured(value, unit, document.language)
    if isinstance(value, str):
        return {"valueCodeableConcept": {**concept(value, document.language), "text": shown}}
    quantity: Resource = {"value": number(value)}
    if unit:
        quantity |= {"unit": shown_unit, "system": UCUM, "code": unit}
    return {"valueQuantity": quantity}


def _predicted(
    document: Document, found: ReportFinding, subject: Resource, device: Resource | None, studies: dict[int, Resource]
) -> Resource:
    language = document.language
    point = found.operating_point
    prediction: Resource = {
        "extension": _operating_point(point) if point else [],
        "outcome": concept(found.name, language, found.code),
        "rationale": words.finding_sentence(found, language),
    }
    if found.calibrated is False:  # ranks people, and is no probability: it must not be read as one
        prediction["extension"] = [*prediction["extension"], {"url": BARE_OUTPUT, "valueDecimal": found.probability}]
    else:
        prediction["probabilityDecimal"] = found.probability
    if found.positive is not None:
        flag = ("POS", "Positive") if found.positive else ("NEG", "Negative")
        prediction["qualitativeRisk"] = {"coding": [coding(INTERPRETATION, *flag)]}
    if found.organ != "kidney":  # what an image or a recording shows, it shows of its day; a kidney's risk is to come
        prediction["whenPeriod"] = {"start": document.effective, "end": document.effective}
    looked_at = {each.input: studies[each.input] for each in found.evidence if each.input in studies}
    point_sentence = opening(words.point_sentence(found, language))
    return document.put(
        "RiskAssessment",
        found.organ,
        found.name,
        says=[prediction["rationale"], point_sentence],
        status=document.machine_status,
        subject=subject,
        occurrenceDateTime=document.effective,
        performer=device,
        basis=distinct(looked_at.values()),
        prediction=[prediction],
        note=[{"text": point_sentence}],
    )


def _operating_point(point: OperatingPoint) -> list[Resource]:
    words_of_it = {"name": point.name, "cohort": point.cohort}
    shares = {"threshold": point.threshold, "sensitivity": point.sensitivity, "specificity": point.specificity}
    parts: list[Resource] = [{"url": name, "valueString": said} for name, said in words_of_it.items() if said.strip()]
    parts += [{"url": name, "valueDecimal": share} for name, share in shares.items() if share is not None]
    return [{"url": OPERATING_POINT, "extension": parts}]


def not_assessed(document: Document, subject: Resource) -> list[Resource]:
    """An Observation without a value for each organ that was not assessed, with the reasons."""
    return [
        document.put(
            "Observation",
            "not assessed",
            name,
            says=[opening(concept(name, document.language)["text"]), *reasons],
            status=document.machine_status,
            code=concept(name, document.language, organ.code),
            subject=subject,
            effectiveDateTime=document.effective,
            dataAbsentReason={"coding": [coding(ABSENT, "not-performed", "Not Performed")]},
            bodySite=concept(name, document.language, organ.code),
            note=[{"text": reason} for reason in reasons],
        )
        for name, organ in document.report.organs.items()
        if organ.status == "not_assessed"
        for reasons in [words.organ_reasons(document.report, name, document.language)]
    ]


def judgements(document: Document, opinion: Opinion, subject: Resource, author: Resource) -> list[Resource]:
    """An Observation, there or not there, for each finding that a doctor judged and that can be there or not."""
    return [
        document.put(
            "Observation",
            "judgement",
            opinion.number,
            given.finding,
            says=[words.judgement_sentence(given, document.language)],
            status="final",
            code=concept(given.finding, document.language),
            subject=subject,
            effectiveDateTime=document.effective,
            issued=moment(opinion.signed_at),
            performer=[author],
            valueBoolean=present,
            note=[{"text": words.judgement_sentence(given, document.language)}],
        )
        for given in opinion.judgements
        for present in [_present(document.report, given)]
        if present is not None
    ]


def _present(report: Report, given: Judgement) -> bool | None:
    """Whether the doctor says that it is there, as :attr:`Report.conclusions` reads it; ``None``: cannot be said so.

    A measured value is agreed with or not, and is neither there nor absent; agreeing with what the machine left
    undecided decides nothing.
    """
    machine = next((each for each in report.findings if each.name == given.finding), None)
    if terms()[given.finding].unit or (machine is not None and machine.value is not None):
        return None
    positive = machine.positive if machine is not None else None
    if given.verdict == "agree":
        return positive
    return True if given.verdict == "add" else not positive
