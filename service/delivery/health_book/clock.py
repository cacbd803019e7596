"""The clock of the health book: which check-ups have to arrive by when, how far each one is, and which are late.

It is a query over visits, deliveries and destinations. A check-up counts from when it was received; a correction, from
when it was signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, and_, case, or_, select
from sqlalchemy.orm import Session

from data_specs.problems import Problem
from data_specs.schema import Schema
from data_specs.visit.followup import DeliveryStage, DeliveryState
from service.delivery.health_book.table import Book
from service.delivery.message import HEALTH_BOOK, Delivery, read_kept, stage_of
from service.delivery.queue import DELIVERIES, DESTINATIONS
from service.storage.database import database_now
from service.storage.tables import IS_CASE, VISITS, DeliveryRow, OpinionRow

Why = Literal["unsigned", "waiting", "given_up"]
WHY: tuple[Why, ...] = ("unsigned", "waiting", "given_up")
MAX_COUNTED = 10_000
"""Late check-ups that are counted at most: more is no other alarm."""


class Due(Schema):
    """A check-up that has not arrived: which version of which visit, by when it has to, and what keeps it."""

    visit: str
    site: str
    destination: str
    version: int
    deadline: datetime
    late: bool
    given_up: bool
    stage: DeliveryStage
    problem: str | None
    codes: tuple[str, ...] = ()
    reasons: tuple[Problem, ...] = ()


def list_due(session: Session, book: Book, at_most: int, *which: ColumnElement[bool]) -> list[Due]:
    """Check-ups that have not arrived and are still watched by the table, those first that are due first."""
    now = database_now(session)
    started = _started()
    query = (
        select(VISITS.c.id, VISITS.c.site, VISITS.c.version, DESTINATIONS.c.id, started.label("started"), DeliveryRow)
        .select_from(VISITS)
        .join(DESTINATIONS, or_(DESTINATIONS.c.site.is_(None), DESTINATIONS.c.site == VISITS.c.site))
        .outerjoin(
            DeliveryRow,
            and_(
                DeliveryRow.visit_id == VISITS.c.id,
                DeliveryRow.version == VISITS.c.version,
                DeliveryRow.destination_id == DESTINATIONS.c.id,
            ),
        )
        .where(
            DESTINATIONS.c.kind == HEALTH_BOOK,
            DESTINATIONS.c.ended_at.is_(None),
            VISITS.c.status == "complete",
            ~IS_CASE,
            VISITS.c.received_at >= DESTINATIONS.c.created_at,
            VISITS.c.received_at >= now - timedelta(days=book.clock.watched_days),
            or_(DeliveryRow.state.is_(None), DeliveryRow.state != "delivered"),
            *which,
        )
        .order_by(started, VISITS.c.id, DESTINATIONS.c.id)
        .limit(at_most)
    )
    return [_due(*row, now=now, book=book) for row in session.execute(query)]


def count_late(session: Session, book: Book) -> Counter[Why]:
    """How many check-ups are late, by what has to be done: a doctor signs, the link works, or somebody corrects."""
    late_since = database_now(session) - timedelta(hours=book.clock.hours)
    late = list_due(session, book, MAX_COUNTED, _started() < late_since)
    return Counter(map(_why, late))


def with_clock(session: Session, book: Book, visit_id: str, states: Sequence[DeliveryState]) -> list[DeliveryState]:
    """The deliveries of a visit with the clock of its health book; one that waits for a doctor's signature is added."""
    due = {(each.version, each.destination): each for each in list_due(session, book, 100, VISITS.c.id == visit_id)}
    shown = []
    for state in states:
        own = due.pop((state.version, state.destination), None)
        shown.append(state.model_copy(update={"deadline": own.deadline, "late": own.late}) if own else state)
    return [*shown, *map(_without_row, due.values())]


def standing(session: Session, delivery: Delivery) -> Literal["first", "replaces", "superseded"]:
    """Whether a version is the first of its visit in the book, replaces one, or has itself been replaced already.

    A destination that was ended and made anew with the same address is the same book.
    """
    others = (
        select(DELIVERIES.c.version, DELIVERIES.c.state, DELIVERIES.c.may_have_arrived)
        .join(DESTINATIONS, DESTINATIONS.c.id == DELIVERIES.c.destination_id)
        .where(
            DELIVERIES.c.visit_id == delivery.visit_id,
            DELIVERIES.c.version != delivery.version,
            DESTINATIONS.c.kind == HEALTH_BOOK,
            DESTINATIONS.c.address == delivery.address,
        )
    )
    found = session.execute(others).all()
    if any(version > delivery.version and state == "delivered" for version, state, _ in found):
        return "superseded"
    may_be_there = any(
        version < delivery.version and (state == "delivered" or may_have_arrived)
        for version, state, may_have_arrived in found
    )
    return "replaces" if may_be_there else "first"


def _started() -> ColumnElement[datetime]:
    signed_at = (
        select(OpinionRow.signed_at)
        .where(OpinionRow.visit_id == VISITS.c.id, OpinionRow.number == VISITS.c.version - 1)
        .scalar_subquery()
    )
    return case((VISITS.c.version <= 2, VISITS.c.received_at), else_=signed_at)


def _due(
    visit: str,
    site: str,
    version: int,
    destination: str,
    started: datetime,
    row: DeliveryRow | None,
    *,
    now: datetime,
    book: Book,
) -> Due:
    started = started if started.tzinfo else started.replace(tzinfo=UTC)
    deadline = started + timedelta(hours=book.clock.hours)
    kept = read_kept(row.answer) if row is not None else None
    stage = stage_of(row.state, row.last_problem, kept) if row is not None else "queued"
    return Due(
        visit=visit,
        site=site,
        destination=destination,
        version=version,
        deadline=deadline,
        late=deadline < now,
        given_up=row is not None and row.state == "dead",
        stage="unsigned" if version == 1 else stage,
        problem=row.last_problem if row is not None else None,
        codes=kept.codes if kept else (),
        reasons=kept.reasons if kept else (),
    )


def _why(due: Due) -> Why:
    if due.version == 1:
        return "unsigned"
    return "given_up" if due.given_up else "waiting"


def _without_row(due: Due) -> DeliveryState:
    """A check-up that has no delivery yet, as deliveries are shown."""
    return DeliveryState(
        version=due.version,
        destination=due.destination,
        kind=HEALTH_BOOK,
        state="waiting",
        attempts=0,
        problem=None,
        due_at=due.deadline,
        delivered_at=None,
        stage=due.stage,
        deadline=due.deadline,
        late=due.late,
    )
