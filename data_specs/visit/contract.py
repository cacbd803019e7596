"""The visit as the wire contract shows it: what a client, a page and every report rendering is made from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_specs.problems import Severity
from data_specs.visit.context import Person

Priority = Literal["urgent", "soon", "routine", "unassessed"]
PRIORITIES: tuple[Priority, ...] = ("urgent", "soon", "routine", "unassessed")
Organ = Literal["lung", "cardiac", "kidney"]
ORGANS: tuple[Organ, ...] = ("lung", "cardiac", "kidney")
JUDGED: dict[Organ, tuple[str, ...]] = {
    "lung": (
        *("abnormal", "pneumonia", "effusion", "cardiomegaly", "pneumothorax", "consolidation", "atelectasis", "edema"),
        *("infiltration", "mass", "nodule", "emphysema", "fibrosis", "pleural_thickening", "hernia", "tuberculosis"),
    ),
    "cardiac": (
        *("normal_ecg", "st_t_change", "conduction_disturbance", "myocardial_infarction", "hypertrophy"),
        "atrial_fibrillation",
    ),
    "kidney": (),
}
"""Findings of the wire contract that somebody can see on a film or a trace, whatever the bundles in service offer."""
Category = Literal["high", "intermediate", "low"]
Status = Literal["accepted", "complete", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Reason(_Part):
    code: str
    message: str


class InputProblem(_Part):
    code: str
    severity: Severity
    message: str


class Code(_Part):
    system: str
    code: str


class OperatingPoint(_Part):
    name: str
    threshold: float
    sensitivity: float | None = None
    specificity: float | None = None
    cohort: str


class Evidence(_Part):
    kind: Literal["heatmap", "trace"]
    input: int
    href: str


class Finding(_Part):
    """A probability with its operating point, or a measured value with its unit (wire contract); never both.

    ``calibrated`` is false where a probability is a network's bare output, from a bundle that was imported and never
    calibrated: it ranks people and does not say how many of a hundred have the finding.
    """

    name: str
    code: Code
    display: str
    value: float | str | None = None
    unit: str | None = None
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    calibrated: bool | None = None
    positive: bool | None = None
    operating_point: OperatingPoint | None = None
    evidence: list[Evidence] = []


class OrganResult(_Part):
    status: Literal["assessed", "not_assessed"]
    reasons: list[Reason] = []
    risk: Annotated[float, Field(ge=0, le=1)] | None = None
    category: Category | None = None
    findings: list[Finding] = []


class VisitInput(_Part):
    index: int
    field: Literal["image", "ecg", "context"]
    filename: str
    sha256: str
    format: str | None = None
    accepted: bool | None = None
    problems: list[InputProblem] = []


class ModelUsed(_Part):
    name: str
    version: str
    sha256: str


class Visit(_Part):
    """A visit. ``version`` is its report's: 1 as the machine left it, one more with each signed opinion."""

    id: str
    status: Status
    version: int = 1
    received_at: datetime
    completed_at: datetime | None = None
    person: Person = Person()
    priority: Priority = "unassessed"
    priority_reasons: list[Reason] = []
    organs: dict[Organ, OrganResult] = {}
    inputs: list[VisitInput] = []
    models: list[ModelUsed] = []
