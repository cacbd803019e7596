"""The report: the facts of one version of one visit, without words of any language. Every rendering is made from it.

Version 1 is what the machine found and is ``preliminary``. Each signed opinion makes the next version: the first one is
``final``, every later one ``amended``. A version is stored when somebody first asks for it, or when the next one is
made, and never changes.

Probabilities are rounded (:func:`data_specs.visit.assessment.rounded`) before they are in it, so that every rendering
shows the same numbers.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field

from data_specs.dicom.reference import DicomReference
from data_specs.problems import Problem
from data_specs.schema import Schema
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.context import Lab, Order, Person, Referrer, Vitals
from data_specs.visit.contract import Category, Code, ModelUsed, OperatingPoint, Organ, Priority, Strength, Use
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Opinion

SCHEMA_VERSION = 1
Status = Literal["preliminary", "final", "amended"]
"""As FHIR R4 DiagnosticReport.status; DICOM's PreliminaryFlag (0040,A496) and HL7 v2's table 0123 follow from it."""


class ReportFinding(Schema):
    """A probability with its operating point, or a measured value with its unit (UCUM); never both.

    Parameters
    ----------
    probability
        Rounded (:func:`data_specs.visit.assessment.rounded`), as are threshold, sensitivity and specificity.
    calibrated
        ``False``: the network's output without calibration, which ranks people and is no probability.
    positive, strength, use
        As in :class:`data_specs.visit.contract.Finding`; ``None`` where nothing is decided.
    """

    name: str
    organ: Organ
    code: Code
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
    evidence: tuple[EvidenceMap, ...] = ()


class ReportOrgan(Schema):
    """One organ: its findings, or why it was not assessed."""

    status: Literal["assessed", "not_assessed"]
    code: Code
    reasons: tuple[Problem, ...] = ()
    risk: Annotated[float, Field(ge=0, le=1)] | None = None
    category: Category | None = None
    category_basis: Problem | None = None
    looked_for: tuple[str, ...] = ()
    not_looked_for: tuple[str, ...] = ()
    findings: tuple[ReportFinding, ...] = ()


class ReportInput(Schema):
    """A posted file, and whether it was used. The ``problems`` of an accepted file are warnings."""

    index: int
    field: Literal["image", "ecg"]
    filename: str
    sha256: str
    format: str | None = None
    accepted: bool
    problems: tuple[Problem, ...] = ()
    dicom: DicomReference | None = None


class Report(Schema):
    """One version of one visit's report.

    Parameters
    ----------
    issued_at
        When this version was made: when the visit was finished, or when the opinion that made it was signed.
    study_instance_uid
        The DICOM study that the report belongs to, as the hospital names it, also where that is no valid UID: that of
        the first posted DICOM object that names its study; without one, :func:`own_study`.
    opinions
        All that were signed up to this version; version 1 has none.
    """

    schema_version: Literal[1] = 1
    visit: str
    version: Annotated[int, Field(ge=1)]
    status: Status
    issued_at: datetime
    received_at: datetime
    completed_at: datetime
    visited_on: date | None = None
    site: str
    person: Person
    referrer: Referrer | None = None
    order: Order | None = None
    study_instance_uid: str
    priority: Priority
    priority_reasons: tuple[Problem, ...] = ()
    organs: dict[Organ, ReportOrgan]
    inputs: tuple[ReportInput, ...] = ()
    labs: tuple[Lab, ...] = ()
    vitals: Vitals = Vitals()
    conditions: tuple[str, ...] | None = None
    models: tuple[ModelUsed, ...] = ()
    next_steps: tuple[NextStep, ...] = ()
    opinions: tuple[Opinion, ...] = ()

    @property
    def findings(self) -> tuple[ReportFinding, ...]:
        """Findings of all organs."""
        return tuple(finding for organ in self.organs.values() for finding in organ.findings)

    @property
    def conclusions(self) -> tuple[str, ...]:
        """Names of the findings that are there: those positive by the machine, as changed by each opinion in turn."""
        machine = {finding.name: bool(finding.positive) for finding in self.findings if not finding.alternative}
        standing = dict(machine)
        for opinion in self.opinions:
            for judgement in opinion.judgements:
                standing[judgement.finding] = judgement.says(machine.get(judgement.finding, False))
        return tuple(name for name, stands in standing.items() if stands)


_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:sangloc:report")


def identifier(visit: str, version: int, *what: object) -> uuid.UUID:
    """An identifier of a part (``what``) of a report, the same each time this version is rendered.

    The receiver of a delivery that is repeated after a crash so recognises it.

    References
    ----------
    RFC 9562, section 5.5 (UUID version 5).
    """
    return uuid.uuid5(_NAMESPACE, "/".join(map(str, (visit, version, *what))))


def uid(visit: str, version: int, *what: object) -> str:
    """The same identifier as a DICOM UID.

    References
    ----------
    DICOM PS3.5, section B.2 (UUID derived UIDs: ``2.25.`` and the UUID as a decimal integer).
    """
    return f"2.25.{identifier(visit, version, *what).int}"


def own_study(visit: str) -> str:
    """The study of what is made for a visit whose files name no study, or one that no DICOM object may name."""
    return uid(visit, 0, "study")
