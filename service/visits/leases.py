"""Leases of visits: every accepted visit is finished, and its outcome is written once.

``attempts`` grows with each lease. An outcome is written only where the owner and the attempt are still those under
which it was computed, so a process that comes back late changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Select, bindparam, insert, select, update
from sqlalchemy.orm import Session

from data_specs.visit.assessment import Assessment
from data_specs.visit.teaching import teaches
from service.background import NOT_LEASED, LeasedRows, lease_ended
from service.delivery.queue import enqueue
from service.storage.audit import SERVICE, digest_of_text, note
from service.storage.database import Database, database_now, rowcount
from service.storage.owner import Owner
from service.storage.tables import EXCHANGES, FILMS, VISITS, VisitRow
from service.visits.films import film_rows
from service.visits.normals import call_normal


@dataclass(frozen=True, slots=True)
class Lease:
    """A visit that this process works on: as it was when the lease began, then with the outcome that was written."""

    row: VisitRow
    attempt: int


class Leases(LeasedRows[str]):
    """The visits that this process has leased, by id.

    Parameters
    ----------
    bundles
        Where the certificates are by which a visit may be called normal; ``None``: none is.
    at_node
        Whether a visit is to be exchanged with a centre when it is finished.
    """

    table = VISITS
    key = VISITS.c.id
    unfinished = VISITS.c.status == "accepted"
    given_back = {"attempts": VISITS.c.attempts - 1}  # noqa: RUF012  as if it had not been leased

    def __init__(
        self, database: Database, owner: Owner, length_s: float, *, bundles: Path | None = None, at_node: bool = False
    ) -> None:
        super().__init__(database, owner, length_s)
        self._bundles = bundles
        self._at_node = at_node

    def lease_new(self, row: VisitRow, now: datetime) -> None:
        """Lease a visit in the transaction that inserts it."""
        row.owner = self._owner.id
        row.lease_until = now + self._length
        row.started_at = now
        row.attempts = 1

    async def waiting(self, running: Collection[str], at_most: int) -> int:
        """How many visits can be taken. An idle process only counts: that is cheap, and locks no row."""

        def count(session: Session) -> int:
            found = _takeable(session, running).with_only_columns(VisitRow.id).limit(at_most)
            return len(session.scalars(found).all())

        return await self._database.read(count)

    async def take(self, running: Collection[str], at_most: int = 1) -> list[Lease]:
        """Lease the visits that have waited longest, except those that this process still works on."""
        return await self._database.write(lambda session: self._take(session, running, at_most))

    def _take(self, session: Session, running: Collection[str], at_most: int) -> list[Lease]:
        query = _takeable(session, running).limit(at_most).with_for_update(skip_locked=True)
        rows: Sequence[VisitRow] = session.scalars(query).all()
        now = database_now(session)
        return [self._lease(row, now) for row in rows]

    def _lease(self, row: VisitRow, now: datetime) -> Lease:
        row.owner = self._owner.id
        row.lease_until = now + self._length
        row.started_at = row.started_at or now
        row.attempts += 1
        return Lease(row, row.attempts)

    async def finish(self, lease: Lease, status: str, assessment: Assessment) -> datetime | None:
        """Write the outcome, and return when it was written; ``None`` where another process has taken the visit."""
        outcome = {"status": status, "priority": assessment.priority, "assessment": assessment.model_dump_json()}
        answered = {
            "outcome": status,
            "assessment": digest_of_text(outcome["assessment"]),
            "models": [f"{model.name} {model.version}" for model in assessment.models],
            "inputs": [file.sha256 for file in lease.row.inputs],
        }

        films = film_rows(lease.row, assessment)

        def finish(session: Session) -> datetime | None:
            now = database_now(session)
            written = session.execute(_FINISH, {**self._mine(lease), **outcome, "completed_at": now})
            if rowcount(written) != 1:
                return None
            note(session, "visit_assessed", lease.row.id, actor=SERVICE, **answered)
            if not teaches(lease.row.site):
                self._pass_on(session, lease.row, assessment, films, now)
            return now

        now = await self._database.write(finish)
        if now is not None:
            for name, value in (*outcome.items(), ("completed_at", now)):
                setattr(lease.row, name, value)
        return now

    def _pass_on(
        self, session: Session, row: VisitRow, assessment: Assessment, films: list[dict[str, Any]], now: datetime
    ) -> None:
        """Write what deliveries, drift, the release of normals and the centre need to know of a clinical visit."""
        if films:
            session.execute(_FILMS, films)
        enqueue(session, row.id, row.site, row.version, now)
        if self._bundles is not None:
            call_normal(session, self._bundles, row, assessment)
        if self._at_node:
            session.execute(_EXCHANGED, {"visit_id": row.id, "due_at": now})

    async def put_back(self, lease: Lease, delay_s: float) -> None:
        """Give a visit back after a fault of the engine. It can be taken again after ``delay_s``."""

        def put_back(session: Session) -> None:
            later = database_now(session) + timedelta(seconds=delay_s)
            back = _MINE.values(owner=None, lease_until=later, faults=lease.row.faults + 1)
            session.execute(back, self._mine(lease))

        await self._database.write(put_back)

    def _mine(self, lease: Lease) -> dict[str, object]:
        """The values of :data:`_MINE` for this lease."""
        return {"of_visit": lease.row.id, "of_owner": self._owner.id, "of_attempt": lease.attempt}


def _takeable(session: Session, running: Collection[str]) -> Select[VisitRow]:
    is_free = lease_ended(VISITS, database_now(session))
    query = select(VisitRow).where(Leases.unfinished, is_free, VisitRow.id.not_in(list(running)))
    return query.order_by(VisitRow.received_at)


_MINE = update(VISITS).where(
    VISITS.c.id == bindparam("of_visit"),
    VISITS.c.owner == bindparam("of_owner"),
    VISITS.c.attempts == bindparam("of_attempt"),
    VISITS.c.status == "accepted",
)
"""Changes a visit only while this lease of it is the current one (compare and set)."""
_FINISH = _MINE.values(
    {name: bindparam(name) for name in ("status", "priority", "assessment", "completed_at")} | dict(NOT_LEASED)
)
"""Built once: to build it takes as long as to run it."""
_FILMS = insert(FILMS)
_EXCHANGED = insert(EXCHANGES).values(changes=1, sent=0, left=0, attempts=0)
