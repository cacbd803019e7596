"""What the engine found, free of any language: stored as it is, and rendered as a visit in the reader's language."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from data_specs.problems import Problem
from data_specs.schema import Schema
from data_specs.visit.contract import (
    Category,
    Code,
    Evidence,
    Finding,
    InputProblem,
    ModelUsed,
    OperatingPoint,
    Organ,
    OrganResult,
    Priority,
    Reason,
)
from data_specs.vocabulary import Language, display, term_of


class EvidenceMap(Schema):
    """Where a finding came from: one small map per input.

    Parameters
    ----------
    kind
        ``heatmap``: ``(rows, columns)`` over the film. ``trace``: ``(1, steps)`` over the window of the recording.
    input
        Index of the posted file.
    span
        ``trace`` only: start and end of the map on the recording, in seconds.
    values
        0 to 255: share of the positive contribution to the finding's logit.
    """

    kind: Literal["heatmap", "trace"]
    input: int
    span: tuple[float, float] | None = None
    values: list[list[int]]


class FoundFinding(Schema):
    name: str
    value: float | str | None = None
    unit: str | None = None
    probability: float | None = None
    calibrated: bool | None = None
    positive: bool | None = None
    operating_point: OperatingPoint | None = None
    evidence: list[EvidenceMap] = Field(default=[])


class AssessedOrgan(Schema):
    status: Literal["assessed", "not_assessed"]
    reasons: list[Problem] = Field(default=[])
    risk: float | None = None
    category: Category | None = None
    findings: list[FoundFinding] = Field(default=[])


class AssessedInput(Schema):
    index: int
    format: str | None = None
    accepted: bool
    problems: list[Problem] = Field(default=[])


class Assessment(Schema):
    organs: dict[Organ, AssessedOrgan]
    inputs: list[AssessedInput]
    models: list[ModelUsed]
    priority: Priority
    priority_reasons: list[Problem]


def reason(problem: Problem, language: Language) -> Reason:
    return Reason(code=problem.code, message=problem.message(language))


def input_problem(problem: Problem, language: Language) -> InputProblem:
    return InputProblem(code=problem.code, severity=problem.severity, message=problem.message(language))


def organ_result(organ: AssessedOrgan, language: Language, evidence_href: str) -> OrganResult:
    """Render one organ; ``evidence_href`` is the address under which evidence ``{finding}/{input}.png`` is served."""
    return OrganResult(
        status=organ.status,
        reasons=[reason(p, language) for p in organ.reasons],
        risk=organ.risk,
        category=organ.category,
        findings=[_finding(f, language, evidence_href) for f in organ.findings],
    )


def _finding(found: FoundFinding, language: Language, evidence_href: str) -> Finding:
    term = term_of(found.name)
    return Finding(
        name=found.name,
        code=Code(system=term.system, code=term.code),
        display=display(found.name, language),
        value=found.value,
        unit=found.unit,
        probability=found.probability,
        calibrated=found.calibrated,
        positive=found.positive,
        operating_point=found.operating_point,
        evidence=[
            Evidence(kind=m.kind, input=m.input, href=f"{evidence_href}/{found.name}/{m.input}.png")
            for m in found.evidence
        ],
    )
