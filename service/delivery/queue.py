"""The queue of deliveries: each version of a report to each destination, written with the version itself.

A delivery is leased like a visit, tried, and ends as ``delivered`` or ``dead``; its outcome is written only under the
lease and the attempt that it was tried in. A version waits for the ones before it on their way to the destination.
``service.delivery.worker`` carries what is taken here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Update,
    and_,
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

from data_specs.visit.followup import DeliveryState
from service.delivery.message import Delivery, Options
from service.storage.database import Database, database_now, rowcount
from service.storage.owner import Owner
from service.storage.tables import DeliveryRow, DestinationRow

DELIVERIES = cast("Table", DeliveryRow.__table__)
DESTINATIONS = cast("Table", DestinationRow.__table__)
ENDED = "destination_ended"
MOST_TOGETHER = 500
"""Deliveries that back off in one transaction, so that no visit waits long for the database behind them."""

Identity = tuple[str, int, str]
"""Visit, version and destination of a delivery."""


def enqueue(session: Session, visit_id: str, site: str, version: int, now: datetime) -> None:
    """Have a version delivered to all that its site's reports go to, in the transaction that makes the version."""
    session.execute(_ENQUEUE, {"of_visit": visit_id, "of_site": site, "of_version": version, "at": now})


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery in this process's hands."""

    delivery: Delivery
    attempt: int

    @property
    def identity(self) -> Identity:
        return self.delivery.visit_id, self.delivery.version, self.delivery.destination_id


class Deliveries:
    """The deliveries of one process.

    Parameters
    ----------
    owner
        The name under which this process leases them.
    length_s
        How long a lease lasts that is not extended.
    """

    def __init__(self, database: Database, owner: Owner, length_s: float) -> None:
        self._database = database
        self._owner = owner
        self._length = timedelta(seconds=length_s)

    async def due(self) -> list[str]:
        """Destinations that something is due for: looking is cheap, taking locks."""

        def look(session: Session) -> list[str]:
            now = database_now(session)
            some = _ready(now, DESTINATIONS.c.id).correlate(DESTINATIONS)
            return list(session.scalars(select(DESTINATIONS.c.id).where(exists(some))))

        return await self._database.read(look)

    async def take(self, hands: Mapping[str, int], running: Collection[Identity]) -> list[LeasedDelivery]:
        """Lease what is due, for each destination up to as many as there are hands for it.

        What failed least comes first, then what waits longest, so that a delivery that always fails is none's obstacle.
        """
        return await self._database.write(lambda session: self._take(session, hands, running))

    def _take(self, session: Session, hands: Mapping[str, int], running: Collection[Identity]) -> list[LeasedDelivery]:
        now = database_now(session)
        taken = []
        for destination_id, at_most in hands.items():
            destination = session.get(DestinationRow, destination_id)
            if destination is None:
                continue
            if destination.ended_at is not None:  # ended while this was being written, or sent by one that died
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
            repeated=row.attempts > 0 or row.last_problem is not None,
        )
        lease = {"owner": self._owner.id, "lease_until": now + self._length, "attempts": row.attempts + 1}
        session.execute(update(DELIVERIES).where(_is(row)).values(lease))
        return LeasedDelivery(delivery, row.attempts + 1)

    async def extend(self, running: Collection[Identity]) -> None:
        """Move the end of the leases on that this process does carry."""
        mine = self._all_mine().where(tuple_(*_KEY).in_(list(running)))
        await self._database.write(
            lambda session: session.execute(mine.values(lease_until=database_now(session) + self._length))
        )

    async def end_those_of_the_dead(self) -> None:
        """Let go of what dead processes held. Their attempts stay counted: they may have sent it."""
        for name in await asyncio.to_thread(self._owner.dead):
            free = update(DELIVERIES).where(DELIVERIES.c.owner == name, DELIVERIES.c.state == "waiting").values(_FREE)
            await self._database.write(lambda session, free=free: session.execute(free))  # type: ignore[misc]
            self._owner.bury(name)

    async def delivered(self, taken: LeasedDelivery) -> bool:
        """Write that it arrived; ``False`` where another process has it by now."""

        def note(session: Session) -> bool:
            end = {"state": "delivered", "delivered_at": database_now(session), "last_problem": None}
            return rowcount(session.execute(self._mine(taken).values(_FREE | end))) == 1

        return await self._database.write(note)

    async def put_back(self, taken: LeasedDelivery, problem: str, delay_s: float) -> bool:
        """Have it tried again after a while."""

        def put_back(session: Session) -> bool:
            later = {"due_at": database_now(session) + timedelta(seconds=delay_s), "last_problem": problem[:200]}
            return rowcount(session.execute(self._mine(taken).values(_FREE | later))) == 1

        return await self._database.write(put_back)

    async def bury(self, taken: LeasedDelivery, problem: str) -> bool:
        """Give it up until somebody asks for it again."""
        dead = self._mine(taken).values(_FREE | {"state": "dead", "last_problem": problem[:200]})
        return await self._database.write(lambda session: rowcount(session.execute(dead)) == 1)

    async def back_off(self, destination_id: str, problem: str, delay_s: float, most_attempts: int) -> None:
        """Put off all that is due for a destination that is away: the attempt that found it so counts for each."""
        while await self._database.write(
            lambda session: _back_off(session, destination_id, problem, delay_s, most_attempts)
        ):
            pass

    async def give_all_back(self) -> None:
        """Give back what could not be finished before the end; it may have been sent. Then die in order."""
        back = self._all_mine().values(_FREE)
        await self._database.write(lambda session: session.execute(back))
        self._owner.close()

    def _mine(self, taken: LeasedDelivery) -> Update:
        """The compare-and-set: changes the delivery only under the lease that it was sent in."""
        return update(DELIVERIES).where(
            _is(taken.identity),
            DELIVERIES.c.owner == self._owner.id,
            DELIVERIES.c.attempts == taken.attempt,
            DELIVERIES.c.state == "waiting",
        )

    def _all_mine(self) -> Update:
        return update(DELIVERIES).where(DELIVERIES.c.owner == self._owner.id, DELIVERIES.c.state == "waiting")


def end(destination_id: str, now: datetime) -> Update:
    """No more deliveries to this destination but those that are being sent."""
    waiting = update(DELIVERIES).where(DELIVERIES.c.destination_id == destination_id, *_free(now))
    return waiting.values(state="dead", last_problem=ENDED, **_FREE)


def deliveries_of(session: Session, visit_id: str) -> list[DeliveryState]:
    """How far each version of a visit's report has come on its way to each destination."""
    query = (
        select(DeliveryRow, DestinationRow.kind)
        .join(DestinationRow, DestinationRow.id == DeliveryRow.destination_id)
        .where(DeliveryRow.visit_id == visit_id)
        .order_by(DeliveryRow.version, DestinationRow.created_at, DestinationRow.id)
    )
    return [
        DeliveryState(
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


def retry(session: Session, now: datetime, *which: ColumnElement[bool]) -> int:
    """Set dead deliveries on their way again; how many. What was said of them stays: they may have arrived."""
    alive = select(DESTINATIONS.c.id).where(DESTINATIONS.c.ended_at.is_(None))
    dead = update(DELIVERIES).where(DELIVERIES.c.state == "dead", DELIVERIES.c.destination_id.in_(alive), *which)
    return rowcount(session.execute(dead.values(state="waiting", due_at=now, attempts=0, **_FREE)))


def _ready(now: datetime, destination: ColumnElement[str]) -> Select[Any]:
    """What may be sent to a destination now: due, in nobody's hands, and behind no earlier version of its visit."""
    earlier = DELIVERIES.alias("earlier")
    behind = exists().where(
        earlier.c.visit_id == DELIVERIES.c.visit_id,
        earlier.c.destination_id == DELIVERIES.c.destination_id,
        earlier.c.version < DELIVERIES.c.version,
        earlier.c.state == "waiting",
    )
    columns = (*_KEY, DELIVERIES.c.attempts, DELIVERIES.c.last_problem)
    return select(*columns).where(
        DELIVERIES.c.destination_id == destination, DELIVERIES.c.due_at <= now, *_free(now), ~behind
    )


def _free(now: datetime) -> tuple[ColumnElement[bool], ...]:
    until = DELIVERIES.c.lease_until
    return DELIVERIES.c.state == "waiting", or_(until.is_(None), until < now)


def _back_off(session: Session, destination_id: str, problem: str, delay_s: float, most_attempts: int) -> bool:
    """Some of them; whether there may be more."""
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


def _is(identity: Any) -> ColumnElement[bool]:
    visit_id, version, destination_id = identity[:3]
    return and_(
        DELIVERIES.c.visit_id == visit_id,
        DELIVERIES.c.version == version,
        DELIVERIES.c.destination_id == destination_id,
    )


_KEY = (DELIVERIES.c.visit_id, DELIVERIES.c.version, DELIVERIES.c.destination_id)
_FREE: dict[str, Any] = {"owner": None, "lease_until": None}
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
        or_(DESTINATIONS.c.site.is_(None), DESTINATIONS.c.site == bindparam("of_site")),
    ),
)
"""Made once, and one statement: a visit ends with it, whether or not anybody is to be told."""
