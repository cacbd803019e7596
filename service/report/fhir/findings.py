"""Findings in FHIR: a probability as RiskAssessment, a measured value or a doctor's judgement as Observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_specs.visit.contract import OperatingPoint, Organ
from data_specs.visit.opinion import Judgement, Opinion
from data_specs.visit.report import Report, ReportFinding
from data_specs.visit.result_assessment import assess_results
from data_specs.vocabulary import terms
from service.language.texts import measured, opening
from service.report import words
from service.report.fhir.parts import (
    UCUM,
    Document,
    Resource,
    coding,
    concept,
    distinct,
    made_by_ai,
    moment,
    number,
)

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
OPERATING_POINT = "urn:sangloc:fhir:operating-point"
BARE_OUTPUT = "urn:sangloc:fhir:uncalibrated-output"
"""Extensions of ``RiskAssessment.prediction``, described in ``docs/reference/fhir.md``."""

RESULT_ASSESSMENT = "urn:sangloc:ai-result-assessment"
"""Our own codes of what a doctor made of the machine's result: ``accepted``, ``amended``, ``rejected``."""

_CATEGORIES = {
    "lung": ("imaging", "Imaging"),
    "cardiac": ("procedure", "Procedure"),
    "kidney": ("laboratory", "Laboratory"),
}
_VITAL = ("vital-signs", "Vital Signs")
_VITAL_SIGNS = frozenset({"8867-4"})
"""FHIR R4, Vital Signs profile: an Observation with one of its LOINC codes has to be of its category."""


def finding(
    document: Document, found: ReportFinding, subject: Resource, device: Resource | None, studies: dict[int, Resource]
) -> Resource:
    """Add the resource of one finding, and return the reference to it."""
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
        meta=made_by_ai(),
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
    if found.calibrated is False:  # it ranks people, but must not be read as a probability
        prediction["extension"] = [*prediction["extension"], {"url": BARE_OUTPUT, "valueDecimal": found.probability}]
    else:
        prediction["probabilityDecimal"] = found.probability
    if found.positive is not None:
        flag = ("POS", "Positive") if found.positive else ("NEG", "Negative")
        prediction["qualitativeRisk"] = {"coding": [coding(INTERPRETATION, *flag)]}
    if found.organ != "kidney":  # a film or a recording is about its own day, a kidney's risk about the future
        prediction["whenPeriod"] = {"start": document.effective, "end": document.effective}
    evidence = {each.input: studies[each.input] for each in found.evidence if each.input in studies}
    point_sentence = opening(words.point_sentence(found, language))
    return document.put(
        "RiskAssessment",
        found.organ,
        found.name,
        says=[prediction["rationale"], point_sentence],
        meta=made_by_ai(),
        status=document.machine_status,
        subject=subject,
        occurrenceDateTime=document.effective,
        performer=device,
        basis=distinct(evidence.values()),
        prediction=[prediction],
        note=[{"text": point_sentence}],
    )


def _operating_point(point: OperatingPoint) -> list[Resource]:
    texts = {"name": point.name, "cohort": point.cohort}
    shares = {"threshold": point.threshold, "sensitivity": point.sensitivity, "specificity": point.specificity}
    parts: list[Resource] = [{"url": name, "valueString": value} for name, value in texts.items() if value.strip()]
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
            meta=made_by_ai(),
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
    """An Observation for each judged finding that can be present or absent. Its value is whether it is present."""
    return [
        document.put(
            "Observation",
            "judgement",
            opinion.number,
            judgement.finding,
            says=[words.judgement_sentence(judgement, document.language)],
            status="final",
            code=concept(judgement.finding, document.language),
            subject=subject,
            effectiveDateTime=document.effective,
            issued=moment(opinion.signed_at),
            performer=[author],
            valueBoolean=present,
            note=[{"text": words.judgement_sentence(judgement, document.language)}],
        )
        for judgement in opinion.judgements
        for present in [_present(document.report, judgement)]
        if present is not None
    ]


def result_assessments(
    document: Document, opinion: Opinion, subject: Resource, author: Resource, found: Mapping[Organ, Sequence[Resource]]
) -> list[Resource]:
    """An Observation for each organ: whether the doctor accepted, amended or rejected the machine's result.

    Parameters
    ----------
    found
        References to the machine's findings by organ, which the Observation is about (``focus``).
    """
    code = {"text": words.say("ai_result", document.language)}
    return [
        document.put(
            "Observation",
            "ai result",
            opinion.number,
            organ,
            says=[words.result_assessment(organ, outcome, document.language)],
            status="final",
            code={"coding": [coding(RESULT_ASSESSMENT, "result", words.say("ai_result", "en"))], **code},
            subject=subject,
            focus=list(found.get(organ, ())),
            effectiveDateTime=document.effective,
            issued=moment(opinion.signed_at),
            performer=[author],
            valueCodeableConcept={
                "coding": [coding(RESULT_ASSESSMENT, outcome, words.say(f"ai_{outcome}", "en"))],
                "text": words.say(f"ai_{outcome}", document.language),
            },
        )
        for organ, outcome in assess_results(document.report, opinion).items()
    ]


def _present(report: Report, judgement: Judgement) -> bool | None:
    """Whether the doctor says that the finding is present, by the rule of :attr:`Report.conclusions`.

    ``None`` for a measured value, which is not present or absent, and for an agreement with a finding on which the
    machine did not decide.
    """
    machine = next((each for each in report.findings if each.name == judgement.finding), None)
    if terms()[judgement.finding].measured or (machine is not None and machine.value is not None):
        return None
    positive = machine.positive if machine is not None else None
    if judgement.verdict == "agree":
        return positive
    return True if judgement.verdict == "add" else not positive
