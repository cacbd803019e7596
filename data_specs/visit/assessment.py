"""What the engine found, without words of any language: stored like this, and rendered in the reader's language."""

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
    Strength,
    Use,
)
from data_specs.visit.next_step import NextStep
from data_specs.vocabulary import Language, display, is_reassuring, term_of

PROBABILITY_DIGITS = 3
MIN_SHOWN, MAX_SHOWN = 0.001, 0.999
"""No probability is shown as 0 or 1."""


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
    """As :class:`data_specs.visit.contract.Finding`, without words."""

    name: str
    value: float | str | None = None
    unit: str | None = None
    probability: float | None = None
    calibrated: bool | None = None
    positive: bool | None = None
    strength: Strength | None = None
    likelihood_ratio: float | None = None
    use: Use | None = None
    alternative: bool = False
    operating_point: OperatingPoint | None = None
    evidence: list[EvidenceMap] = Field(default=[])


class AssessedOrgan(Schema):
    """As :class:`data_specs.visit.contract.OrganResult`, without words."""

    status: Literal["assessed", "not_assessed"]
    reasons: list[Problem] = Field(default=[])
    risk: float | None = None
    category: Category | None = None
    category_basis: Problem | None = None
    looked_for: list[str] = Field(default=[])
    not_looked_for: list[str] = Field(default=[])
    findings: list[FoundFinding] = Field(default=[])


class AssessedInput(Schema):
    """Whether the posted file ``index`` was used, and its problems.

    Parameters
    ----------
    traits, seen_by
        Numbers of a film that drift is looked for in, and the names and versions of the bundles that it was shown to.
        They are no part of the document: the service keeps them in a table of their own.
    """

    index: int
    format: str | None = None
    accepted: bool
    problems: list[Problem] = Field(default=[])
    traits: dict[str, float] = Field(default={}, exclude=True)
    seen_by: str = Field(default="", exclude=True)


class Assessment(Schema):
    """What was found in one visit, and what follows from it.

    Parameters
    ----------
    priority, priority_reasons, next_steps
        By the programme's table (:func:`data_specs.next_steps.decision.decide`); the engine leaves them as they are.
        ``next_steps`` is ``None`` in what was stored before the table decided the priority, too.
    """

    organs: dict[Organ, AssessedOrgan]
    inputs: list[AssessedInput]
    models: list[ModelUsed]
    priority: Priority = "unassessed"
    priority_reasons: list[Problem] = Field(default=[])
    next_steps: list[NextStep] | None = None


def is_recalled(found: FoundFinding) -> bool | None:
    """Whether a person is called back for a finding: it is positive at the point where its bundle decides.

    A reassuring finding (``normal_ecg``) recalls where it is not positive. ``None``: it decides nothing, or is
    undecided.
    """
    if found.positive is None:
        return None
    return found.positive is not is_reassuring(found.name)


def rounded(probability: float) -> float:
    """A probability as every rendering shows it."""
    return min(max(round(probability, PROBABILITY_DIGITS), MIN_SHOWN), MAX_SHOWN)


def reason(problem: Problem, language: Language) -> Reason:
    """A problem as the visit shows it."""
    return Reason(code=problem.code, message=problem.message(language))


def input_problem(problem: Problem, language: Language) -> InputProblem:
    """A problem of a file as the visit shows it."""
    return InputProblem(code=problem.code, severity=problem.severity, message=problem.message(language))


def organ_result(organ: AssessedOrgan, language: Language, evidence_href: str) -> OrganResult:
    """One organ as the visit shows it; evidence is served as ``{evidence_href}/{finding}/{input}.png``."""
    return OrganResult(
        status=organ.status,
        reasons=[reason(problem, language) for problem in organ.reasons],
        risk=organ.risk,
        category=organ.category,
        category_basis=reason(organ.category_basis, language) if organ.category_basis else None,
        looked_for=organ.looked_for,
        not_looked_for=organ.not_looked_for,
        findings=[_finding(found, language, evidence_href) for found in organ.findings],
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
        strength=found.strength,
        likelihood_ratio=found.likelihood_ratio,
        use=found.use,
        alternative=found.alternative,
        operating_point=found.operating_point,
        evidence=[
            Evidence(kind=shown.kind, input=shown.input, href=f"{evidence_href}/{found.name}/{shown.input}.png")
            for shown in found.evidence
        ],
    )
