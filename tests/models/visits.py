"""A database with visits that two versions of ``lung`` answered, as the service stores them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from data_specs.visit.assessment import AssessedOrgan, Assessment, FoundFinding
from data_specs.visit.context import Context, Person
from data_specs.visit.contract import ModelUsed, OperatingPoint
from service.storage.tables import Base, OutcomeRow, ShadowRow, VisitRow

SERVED_AT, SHADOW_AT = 0.5, 0.2


@dataclass(frozen=True)
class Made:
    """One visit: probabilities by the version in service and by the one in the shadow."""

    served: float
    shadow: float
    outcome: str | None = None
    sex: str | None = "female"
    age: float | None = 50
    site: str = "xã Một"
    person: str | None = None
    days_ago: float = 1
    finding: str = "abnormal"
    is_open: bool = False


def database(folder: Path, visits: Iterable[Made], *, served: str = "1.0.0", shadow: str = "1.1.0") -> str:
    """Address of a new database with these visits."""
    address = f"sqlite:///{folder / 'sangloc.db'}"
    engine = create_engine(address)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for number, made in enumerate(visits):
            _add(session, f"visit-{number}", made, served, shadow)
        session.commit()
    engine.dispose()
    return address


def _add(session: Session, visit: str, made: Made, served: str, shadow: str) -> None:
    at = datetime.now(UTC) - timedelta(days=made.days_ago)
    context = Context(person=Person(sex=made.sex, age_years=made.age))  # type: ignore[arg-type]
    session.add(
        VisitRow(
            id=visit, site=made.site, key_id="key", person_id=made.person, context=context.model_dump_json(),
            status="complete", received_at=at, body_hash="0" * 64,
            assessment=_assessment(made, made.served, SERVED_AT, served),
        )
    )  # fmt: skip
    session.add(
        ShadowRow(
            visit_id=visit, name="lung", version=shadow, sha256="0" * 64, in_service=served, answered_at=at,
            assessment=_assessment(made, made.shadow, SHADOW_AT, shadow),
        )
    )  # fmt: skip
    if made.outcome is not None:
        for number, outcome in enumerate(("lost", made.outcome)):  # the latest counts
            session.add(
                OutcomeRow(
                    id=f"{visit}-{number}", visit_id=visit, finding=made.finding, outcome=outcome, source="",
                    key_id="key", recorded_at=at + timedelta(hours=number),
                )
            )  # fmt: skip


@cache
def _assessment(made: Made, probability: float, threshold: float, version: str) -> str:
    point = OperatingPoint(name="screening", threshold=threshold, cohort="made")
    found = FoundFinding(
        name=made.finding,
        probability=probability,
        positive=None if made.is_open else probability >= threshold,
        use="triage",
        operating_point=point,
    )
    organ = AssessedOrgan(status="assessed", findings=[found])
    model = ModelUsed(name="lung", version=version, sha256="0" * 64)
    return Assessment(organs={"lung": organ}, inputs=[], models=[model]).model_dump_json()
