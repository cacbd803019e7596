"""The queue of deliveries: one row for each version of a report and each destination, written with the version.

A delivery is leased, tried, and ends as ``delivered`` or ``dead``. Its outcome is written only under the lease and the
attempt in which it was tried. A version is not sent to a destination before the earlier versions of its visit.
``service.delivery.worker`` sends what is taken here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Update,
    bindparam,
    case,
    exists,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from data_specs.visit.followup import DeliveryAnswer, DeliveryState
from data_specs.visit.teaching import teaches
from service.background import NOT_LEASED, LeasedRows, lease_ended
from service.delivery.message import ALARM, HEALTH_BOOK, Delivery, NotDelivered, Options, read_kept, stage_of
from service.storage.audit import SERVICE, note
from service.storage.database import database_now, rowcount
from service.storage.tables import DeliveryRow, DestinationRow

DELIVERIES = cast("Table", DeliveryRow.__table__)
DESTINATIONS = cast("Table", DestinationRow.__table__)
_KEY = (DELIVERIES.c.visit_id, DELIVERIES.c.version, DELIVERIES.c.destination_id)
ENDED = "destination_ended"
MOST_TOGETHER = 500
"""Deliveries that are put off in one transaction. More would keep the writes of visits waiting."""

Identity = tuple[str, int, str]
"""Visit, version and destination of a delivery."""


def enqueue(session: Session, visit_id: str, site: str, version: int, now: datetime) -> None:
    """Add the deliveries of a version to all destinations of its site, in the transaction that makes the version.

    Of a case to learn from nothing is delivered. A health book gets no version that no doctor has signed.
    """
    if teaches(site):
        return
    session.execute(_ENQUEUE, {"of_visit": visit_id, "of_site": site, "of_version": version, "at": now})


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery that this process sends; ``may_have_arrived``: at one of the attempts before this one."""

    delivery: Delivery
    attempt: int
    may_have_arrived: bool

    @property
    def identity(self) -> Identity:
        return self.delivery.visit_id, self.delivery.version, self.delivery.destination_id


class Deliveries(LeasedRows[Identity]):
    """The deliveries that this process has leased."""

    table = DELIVERIES
    key = tuple_(*_KEY)
    unfinished = DELIVERIES.c.state == "waiting"

    async def due(self) -> list[str]:
        """Destinations for which something is due. To look is cheap, and locks no row."""

        def look(session: Session) -> list[str]:
            now = database_now(session)
            some = _ready(now, DESTINATIONS.c.id).correlate(DESTINATIONS)
            return list(session.scalars(select(DESTINATIONS.c.id).where(exists(some))))

        return await self._database.read(look)

    async def take(self, slots: Mapping[str, int], running: Collection[Identity]) -> list[LeasedDelivery]:
        """Lease what is due, for each destination as many deliveries as it has slots.

        Those with the fewest attempts come first, then those that are due longest: a delivery that fails each time does
        not hold up the others.
        """
        return await self._database.write(lambda session: self._take(session, slots, running))

    def _take(self, session: Session, slots: Mapping[str, int], running: Collection[Identity]) -> list[LeasedDelivery]:
        now = database_now(session)
        taken = []
        for destination_id, at_most in slots.items():
            destination = session.get(DestinationRow, destination_id)
            if destination is None:
                continue
            if (
                destination.ended_at is not None
            ):  # it ended while this was written, or was sent by a process that stopped
                session.execute(end(destination_id, now))
                continue
            query = _ready(now, literal(destination_id)).order_by(DELIVERIES.c.attempts, DELIVERIES.c.due_at)
            query = query.limit(at_most + len(running)).with_for_update(skip_locked=True, of=DELIVERIES)
            free = [row for row in session.execute(query).all() if tuple(row[:3]) not in running]
            taken += [self._lease(session, row, destination, now) for row in free[:at_most]]
        return taken

    def _lease(self, session: Session, row: Any, destination: DestinationRow, now: datetime) -> LeasedDelivery:
        delivery = Delivery(
            visit_id=row.visit_id,
            version=row.version,
            destination_id=destination.id,
            kind=destination.kind,
            address=destination.address,
            language=destination.language,  # type: ignore[arg-type]  # languages only
            secret=destination.secret,
            options=Options.model_validate_json(destination.options),
            may_be_inside=destination.may_be_inside,
            repeated=row.attempts > 0 or row.last_problem is not None,
        )
        lease = {"owner": self._owner.id, "lease_until": now + self._length, "attempts": row.attempts + 1}
        lease["may_have_arrived"] = True  # until its outcome is written: this process may stop after it was sent
        session.execute(update(DELIVERIES).where(self.key == tuple_(*row[:3])).values(lease))
        return LeasedDelivery(delivery, row.attempts + 1, row.may_have_arrived)

    async def delivered(self, taken: LeasedDelivery, answer: DeliveryAnswer | None = None) -> bool:
        """Write that it arrived, and what was answered; ``False`` where another process has taken it meanwhile."""

        sent = taken.delivery

        def arrive(session: Session) -> bool:
            end = {"state": "delivered", "delivered_at": database_now(session), "last_problem": None}
            if rowcount(session.execute(self._mine(taken).values({**NOT_LEASED, **end, **_kept(answer)}))) != 1:
                return False
            about = {"destination": sent.destination_id, "version": sent.version}
            note(session, "report_delivered", sent.visit_id, actor=SERVICE, **about)
            return True

        return await self._database.write(arrive)

    async def put_back(self, taken: LeasedDelivery, reason: NotDelivered, delay_s: float) -> bool:
        """Have it tried again after ``delay_s``; ``False`` as in :meth:`delivered`."""

        def put_back(session: Session) -> bool:
            later = {"due_at": database_now(session) + timedelta(seconds=delay_s), **_failed(taken, reason)}
            return rowcount(session.execute(self._mine(taken).values({**NOT_LEASED, **later}))) == 1

        return await self._database.write(put_back)

    async def give_up(self, taken: LeasedDelivery, reason: NotDelivered) -> bool:
        """Do not try it again until somebody asks for it; ``False`` as in :meth:`delivered`."""
        given_up = self._mine(taken).values({**NOT_LEASED, "state": "dead", **_failed(taken, reason)})
        return await self._database.write(lambda session: rowcount(session.execute(given_up)) == 1)

    async def back_off(self, destination_id: str, problem: str, delay_s: float, most_attempts: int) -> None:
        """Put off all that is due for a destination that cannot be reached. It counts as an attempt of each."""
        while await self._database.write(
            lambda session: _back_off(session, destination_id, problem, delay_s, most_attempts)
        ):
            pass

    def _mine(self, taken: LeasedDelivery) -> Update:
        """Changes the delivery only while this lease of it is the current one (compare and set)."""
        leased = self._leased_by(self._owner.id)
        return leased.where(self.key == tuple_(*taken.identity), DELIVERIES.c.attempts == taken.attempt)


def _kept(answer: DeliveryAnswer | None) -> dict[str, str | None]:
    return {"answer": None if answer is None else answer.model_dump_json()}


def _failed(taken: LeasedDelivery, reason: NotDelivered) -> dict[str, str | bool | None]:
    """What a failed attempt changes. What may have arrived once stays so, whatever a later attempt says."""
    may_have_arrived = taken.may_have_arrived or reason.may_have_arrived
    return {"last_problem": reason.code[:200], "may_have_arrived": may_have_arrived, **_kept(reason.answer)}


def end(destination_id: str, now: datetime) -> Update:
    """End the deliveries to this destination, except those that are being sent."""
    waiting = update(DELIVERIES).where(DELIVERIES.c.destination_id == destination_id, *_free(now))
    return waiting.values(state="dead", last_problem=ENDED, **NOT_LEASED)


def deliveries_of(session: Session, visit_id: str) -> list[DeliveryState]:
    """The state of each version of a visit's report for each destination."""
    query = (
        select(DeliveryRow, DestinationRow.kind)
        .join(DestinationRow, DestinationRow.id == DeliveryRow.destination_id)
        .where(DeliveryRow.visit_id == visit_id)
        .order_by(DeliveryRow.version, DestinationRow.created_at, DestinationRow.id)
    )
    return [
        DeliveryState(
            **(book_members(row) if kind == HEALTH_BOOK else {}),
            version=row.version,
            destination=row.destination_id,
            kind=kind,
            state=row.state,  # type: ignore[arg-type]  # states only
            attempts=row.attempts,
            problem=row.last_problem,
            due_at=row.due_at,
            delivered_at=row.delivered_at,
        )
        for row, kind in session.execute(query)
    ]


def book_members(row: DeliveryRow) -> dict[str, Any]:
    """What a delivery to a health book shows beside others: how far it has come, codes and reasons."""
    kept = read_kept(row.answer)
    stage = stage_of(row.state, row.last_problem, kept)
    return {"stage": stage, "codes": kept.codes if kept else (), "reasons": kept.reasons if kept else ()}


def retry(session: Session, destination: str, visit: str | None = None, version: int | None = None) -> int:
    """Send deliveries to a destination again that were given up, or the one of a visit's version; returns how many.

    Their last problem stays: they may have arrived.
    """
    not_ended = select(DESTINATIONS.c.id).where(DESTINATIONS.c.ended_at.is_(None), DESTINATIONS.c.id == destination)
    given_up = update(DELIVERIES).where(DELIVERIES.c.state == "dead", DELIVERIES.c.destination_id.in_(not_ended))
    if visit is not None:
        given_up = given_up.where(DELIVERIES.c.visit_id == visit, DELIVERIES.c.version == version)
    again = {"state": "waiting", "due_at": database_now(session), "attempts": 0, **NOT_LEASED}
    retried = rowcount(session.execute(given_up.values(again)))
    note(session, "deliveries_retried", visit, destination=destination, retried=retried)
    return retried


def _ready(now: datetime, destination: ColumnElement[str]) -> Select[Any]:
    """What may be sent to a destination now: due, not leased, and no earlier version of its visit waits."""
    earlier = DELIVERIES.alias("earlier")
    earlier_waits = exists().where(
        earlier.c.visit_id == DELIVERIES.c.visit_id,
        earlier.c.destination_id == DELIVERIES.c.destination_id,
        earlier.c.version < DELIVERIES.c.version,
        earlier.c.state == "waiting",
    )
    columns = (*_KEY, DELIVERIES.c.attempts, DELIVERIES.c.last_problem, DELIVERIES.c.may_have_arrived)
    return select(*columns).where(
        DELIVERIES.c.destination_id == destination, DELIVERIES.c.due_at <= now, *_free(now), ~earlier_waits
    )


def _free(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return Deliveries.unfinished, lease_ended(DELIVERIES, now)


def _back_off(session: Session, destination_id: str, problem: str, delay_s: float, most_attempts: int) -> bool:
    """Put off at most :data:`MOST_TOGETHER`, and return whether there may be more."""
    now = database_now(session)
    waiting = select(*_KEY[:2]).where(
        DELIVERIES.c.destination_id == destination_id, DELIVERIES.c.due_at <= now, *_free(now)
    )
    some = session.execute(waiting.limit(MOST_TOGETHER).with_for_update(skip_locked=True)).all()
    if some:
        attempts = DELIVERIES.c.attempts + 1
        put_off = update(DELIVERIES).where(
            DELIVERIES.c.destination_id == destination_id, tuple_(*_KEY[:2]).in_([tuple(each) for each in some])
        )
        session.execute(
            put_off.values(
                attempts=attempts,
                state=case((attempts >= most_attempts, "dead"), else_="waiting"),
                due_at=now + timedelta(seconds=delay_s),
                last_problem=problem[:200],
            )
        )
    return len(some) == MOST_TOGETHER


_ENQUEUE = insert(DELIVERIES).from_select(
    ["visit_id", "version", "destination_id", "state", "due_at", "attempts"],
    select(
        bindparam("of_visit", type_=DELIVERIES.c.visit_id.type),
        bindparam("of_version", type_=DELIVERIES.c.version.type),
        DESTINATIONS.c.id,
        literal("waiting"),
        bindparam("at", type_=DELIVERIES.c.due_at.type),
        literal(0),
    ).where(
        DESTINATIONS.c.ended_at.is_(None),
        DESTINATIONS.c.kind != ALARM,
        or_(DESTINATIONS.c.site.is_(None), DESTINATIONS.c.site == bindparam("of_site")),
        or_(DESTINATIONS.c.kind != HEALTH_BOOK, bindparam("of_version", type_=DELIVERIES.c.version.type) > 1),
    ),
)
"""Built once, and one statement, because the end of every visit waits for it."""
