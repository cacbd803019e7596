"""Leases: which process works on which visit, so that every accepted visit is finished, once, by somebody.

A visit is leased by writing an owner and an end into its row. The owner moves the end on while it lives; whoever finds
a lease that has ended takes the visit over. ``attempts`` grows with each lease, and a result is written only where
owner and attempt are still the ones it was computed under: a process that comes back late changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from sqlalchemy import Update, bindparam, or_, select, update
from sqlalchemy.orm import Session

from data_specs.visit.assessment import Assessment
from service.delivery.queue import enqueue
from service.storage.database import Database, database_now, rowcount
from service.storage.owner import Owner
from service.storage.tables import VISITS, VisitRow


@dataclass(frozen=True, slots=True)
class Lease:
    """A visit in this process's hands: as it was when the lease began, then with the outcome that was written."""

    row: VisitRow
    attempt: int

    @property
    def deaths(self) -> int:
        """How often a process died, or fell silent, over this visit."""
        return self.attempt - 1 - self.row.faults


class Leases:
    """The leases of one process.

    Parameters
    ----------
    owner
        The name under which this process leases.
    length_s
        How long a lease lasts that is not extended.
    """

    def __init__(self, database: Database, owner: Owner, length_s: float) -> None:
        self._database = database
        self._owner = owner
        self._length = timedelta(seconds=length_s)

    def write_first(self, row: VisitRow, now: datetime) -> None:
        """Lease a visit in the transaction that inserts it."""
        row.owner = self._owner.id
        row.lease_until = now + self._length
        row.started_at = now
        row.attempts = 1

    async def waiting(self, running: Collection[str], at_most: int) -> int:
        """How many visits wait for somebody: looking is cheap, taking locks, and an idle process only looks."""

        def count(session: Session) -> int:
            some = _takeable(session, running).with_only_columns(VisitRow.id).limit(at_most)
            return len(session.scalars(some).all())

        return await self._database.read(count)

    async def take(self, running: Collection[str], at_most: int = 1) -> list[Lease]:
        """Lease the visits that wait longest for somebody, none of those that this process still works on.

        One over which a process has died comes by itself: it is to be tried alone.
        """
        return await self._database.write(lambda session: self._take(session, running, at_most))

    def _take(self, session: Session, running: Collection[str], at_most: int) -> list[Lease]:
        query = _takeable(session, running).limit(at_most).with_for_update(skip_locked=True)
        rows: Sequence[VisitRow] = session.scalars(query).all()
        alive = list(takewhile(lambda row: row.attempts == row.faults, rows)) or rows[:1]
        now = database_now(session)
        return [self._lease(row, now) for row in alive]

    def _lease(self, row: VisitRow, now: datetime) -> Lease:
        row.owner = self._owner.id
        row.lease_until = now + self._length
        row.started_at = row.started_at or now
        row.attempts += 1
        if row.decoding is not None:  # left behind by a process that died with this file in a decoder's hands
            for each in row.inputs:
                each.refused = each.refused or each.index == row.decoding
            row.decoding = None
        return Lease(row, row.attempts)

    async def extend(self, running: Collection[str]) -> None:
        """Move the end of the leases on that this process does work on; one that it lost sight of may end."""
        worked_on = self._all_mine().where(VisitRow.id.in_(list(running)))

        def extend(session: Session) -> None:
            session.execute(worked_on.values(lease_until=database_now(session) + self._length))

        await self._database.write(extend)

    async def end_those_of_the_dead(self) -> None:
        """Let go of what dead processes held. Their attempts stay counted: they may have died of them."""
        for name in await asyncio.to_thread(self._owner.dead):
            held = update(VisitRow).where(VisitRow.owner == name, VisitRow.status == "accepted")
            free = held.values(owner=None, lease_until=None)
            await self._database.write(lambda session, free=free: session.execute(free))  # type: ignore[misc]
            self._owner.bury(name)

    async def note_decoding(self, lease: Lease, index: int) -> None:
        """Commit which file is about to be decoded, before it is."""
        note = _MINE.values(decoding=index)
        await self._database.write(lambda session: session.execute(note, self._mine(lease)))

    async def finish(self, lease: Lease, status: str, assessment: Assessment) -> datetime | None:
        """Write the outcome; when, or ``None`` where the visit has been taken over meanwhile."""
        outcome = {"status": status, "priority": assessment.priority, "assessment": assessment.model_dump_json()}

        def finish(session: Session) -> datetime | None:
            now = database_now(session)
            written = session.execute(_FINISH, {**self._mine(lease), **outcome, "completed_at": now})
            if rowcount(written) != 1:
                return None
            enqueue(session, lease.row.id, lease.row.site, lease.row.version, now)
            return now

        now = await self._database.write(finish)
        if now is not None:
            for name, value in (*outcome.items(), ("completed_at", now)):
                setattr(lease.row, name, value)
        return now

    async def put_back(self, lease: Lease, delay_s: float) -> None:
        """Give a visit back after a fault of the engine, to be taken again after a while."""

        def put_back(session: Session) -> None:
            later = database_now(session) + timedelta(seconds=delay_s)
            back = _MINE.values(owner=None, lease_until=later, faults=lease.row.faults + 1, decoding=None)
            session.execute(back, self._mine(lease))

        await self._database.write(put_back)

    async def give_all_back(self) -> None:
        """Give back what could not be finished before the end, as if it had never been begun, and die in order."""
        back = self._all_mine().values(owner=None, lease_until=None, decoding=None, attempts=VisitRow.attempts - 1)
        await self._database.write(lambda session: session.execute(back))
        self._owner.close()

    def _mine(self, lease: Lease) -> dict[str, object]:
        """Whose lease it has to be still, for :data:`_MINE`."""
        return {"of_visit": lease.row.id, "of_owner": self._owner.id, "of_attempt": lease.attempt}

    def _all_mine(self) -> Update:
        return update(VISITS).where(VISITS.c.owner == self._owner.id, VISITS.c.status == "accepted")


def _takeable(session: Session, running: Collection[str]) -> Any:
    free = or_(VisitRow.lease_until.is_(None), VisitRow.lease_until < database_now(session))
    query = select(VisitRow).where(VisitRow.status == "accepted", free, VisitRow.id.not_in(list(running)))
    return query.order_by(VisitRow.received_at)


_MINE = update(VISITS).where(
    VISITS.c.id == bindparam("of_visit"),
    VISITS.c.owner == bindparam("of_owner"),
    VISITS.c.attempts == bindparam("of_attempt"),
    VISITS.c.status == "accepted",
)
"""The compare-and-set: changes the visit only under the lease that it is worked on."""
_FINISH = _MINE.values(
    {name: bindparam(name) for name in ("status", "priority", "assessment", "completed_at")}
    | {"owner": None, "lease_until": None, "decoding": None}
)
"""Made once: putting it together takes as long as running it."""
