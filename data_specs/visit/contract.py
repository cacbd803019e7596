"""The visit as the wire contract shows it: what clients and pages are given."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from data_specs.problems import Severity
from data_specs.schema import Schema
from data_specs.visit.context import Person
from data_specs.vocabulary import judged_findings

Priority = Literal["urgent", "soon", "routine", "unassessed"]
PRIORITIES: tuple[Priority, ...] = ("urgent", "soon", "routine", "unassessed")
Organ = Literal["lung", "cardiac", "kidney"]
ORGANS: tuple[Organ, ...] = ("lung", "cardiac", "kidney")
FIELD_OF_ORGAN: dict[Organ, Literal["image", "ecg"]] = {"lung": "image", "cardiac": "ecg"}
"""Field in which the files of an organ are posted; the kidneys have none, they are assessed from laboratory values."""
Category = Literal["high", "intermediate", "low"]
Status = Literal["accepted", "complete", "failed"]
Use = Literal["triage", "information"]
"""``information``: the finding has a probability, is called neither positive nor negative, and decides nothing."""
NO_COMMON_GAIN = frozenset({"gains_inconsistent", "unit_unknown"})
"""Problems of a recording in which voltages cannot be read."""
Strength = Literal["strong", "flagged", "near", "below", "undecided"]
"""``strong``: at or past the ``rule_in`` point. ``flagged``: at or past the point that decides. ``near``: below that,
and not below ``screening``. ``below``: below both. ``undecided``: both answers are plausible."""


def visible_findings(organ: Organ) -> tuple[str, ...]:
    """Judged findings that a doctor can see on a film or a trace, in order; whether a bundle offers them or not."""
    return judged_findings(organ) if organ in FIELD_OF_ORGAN else ()


VISIBLE = tuple(name for organ in ORGANS for name in visible_findings(organ))
"""Findings that can be seen on a film or a trace, in order."""


class Reason(Schema):
    code: str
    message: str


class InputProblem(Schema):
    code: str
    severity: Severity
    message: str


class Code(Schema):
    system: str
    code: str


class OperatingPoint(Schema):
    name: str
    threshold: float
    sensitivity: float | None = None
    specificity: float | None = None
    cohort: str


class Evidence(Schema):
    kind: Literal["heatmap", "trace"]
    input: int
    href: str


class Finding(Schema):
    """A probability with its operating point, or a measured value with its unit (wire contract); never both.

    ``calibrated`` is false where a probability is a network's bare output, from a bundle that was imported and never
    calibrated: it ranks people and does not say how many of a hundred have the finding. ``strength`` says how far a
    probability lies from the points that decide; it and ``positive`` are null where nothing is decided by it (``use``).
    ``likelihood_ratio``: how many times as often persons with the finding have such a result as persons without it, by
    the figures of the point that was reached. ``alternative``: a risk by another calibration of the same equation than
    the programme's, which readers see only when they ask for it.
    """

    name: str
    code: Code
    display: str
    value: float | str | None = None
    unit: str | None = None
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    calibrated: bool | None = None
    positive: bool | None = None
    strength: Strength | None = None
    likelihood_ratio: Annotated[float, Field(ge=0)] | None = None
    use: Use | None = None
    alternative: bool = False
    operating_point: OperatingPoint | None = None
    evidence: list[Evidence] = Field(default=[])


class OrganResult(Schema):
    """An organ. ``category_basis`` says what the category rests on; ``risk`` is another number and does not explain it.

    ``looked_for`` and ``not_looked_for``: names of findings that the bundle in service gave an answer about, and of the
    others that a doctor may expect.
    """

    status: Literal["assessed", "not_assessed"]
    reasons: list[Reason] = Field(default=[])
    risk: Annotated[float, Field(ge=0, le=1)] | None = None
    category: Category | None = None
    category_basis: Reason | None = None
    looked_for: list[str] = Field(default=[])
    not_looked_for: list[str] = Field(default=[])
    findings: list[Finding] = Field(default=[])


class VisitInput(Schema):
    """A posted file. ``awaited``: a node has not sent it to this centre yet; of a film a preview may be shown."""

    index: int
    field: Literal["image", "ecg", "context"]
    filename: str
    sha256: str
    format: str | None = None
    accepted: bool | None = None
    problems: list[InputProblem] = Field(default=[])
    awaited: bool = False


class ModelUsed(Schema):
    name: str
    version: str
    sha256: str


class Visit(Schema):
    """A visit. ``version`` is its report's: 1 as the machine left it, one more with each signed opinion."""

    id: str
    status: Status
    version: int = 1
    received_at: datetime
    completed_at: datetime | None = None
    person: Person = Person()
    priority: Priority = "unassessed"
    priority_reasons: list[Reason] = Field(default=[])
    organs: dict[Organ, OrganResult] = Field(default={})
    inputs: list[VisitInput] = Field(default=[])
    models: list[ModelUsed] = Field(default=[])
