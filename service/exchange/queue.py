"""What a node has to send to its centre: leased like visits, the most urgent of the most needed first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    ScalarSelect,
    Select,
    Update,
    and_,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from data_specs.visit.contract import PRIORITIES
from service.background import NOT_LEASED, LeasedRows, lease_ended
from service.exchange.merge import adopt
from service.exchange.record import Answer, News
from service.storage.database import database_now, rowcount
from service.storage.tables import EXCHANGES, IS_CASE, THE_CENTRE, VISITS, CentreRow

T = TypeVar("T")
SMALL, FILMS = 1, 2
"""Values of ``ExchangeRow.left``: recordings and previews are left to send; films."""

_HAS_CHANGED = EXCHANGES.c.changes > EXCHANGES.c.sent
_WAITS = or_(_HAS_CHANGED, EXCHANGES.c.left > 0)
_step = case((_HAS_CHANGED, 0), else_=EXCHANGES.c.left)


def _of_visit(column: Column[T]) -> ScalarSelect[T]:
    """A column of the visit: a join would be begun at the visits, of which there are many more than wait."""
    return select(column).where(VISITS.c.id == EXCHANGES.c.visit_id).scalar_subquery()


_urgency = case(
    {name: i for i, name in enumerate(PRIORITIES)}, value=_of_visit(VISITS.c.priority), else_=len(PRIORITIES)
)


def note_change(session: Session, visit_id: str) -> None:
    """Have a visit exchanged again, in the transaction that changes what was done since; nothing where it never is."""
    session.execute(_CHANGED.where(EXCHANGES.c.visit_id == visit_id))


_CHANGED = update(EXCHANGES).values(changes=EXCHANGES.c.changes + 1)


@dataclass(frozen=True, slots=True)
class Turn:
    """What is sent of one visit now.

    Parameters
    ----------
    step
        0: all that was done; then :data:`SMALL` and :data:`FILMS`.
    changes
        How many changes there were when the turn began.
    rank
        Its place: a turn with a smaller one is more urgent.
    upload
        As :attr:`service.storage.tables.ExchangeRow.upload`.
    """

    visit_id: str
    step: int
    changes: int
    attempt: int
    rank: tuple[int, int]
    upload: str | None


class Exchanges(LeasedRows[str]):
    """The visits that this process sends."""

    table = EXCHANGES
    key = EXCHANGES.c.visit_id
    unfinished = _WAITS

    async def note_new(self) -> None:
        """Have every finished visit sent that was not noted when it was finished, because this was no node yet.

        All visits are looked through.
        """
        new = select(VISITS.c.id, literal(1), literal(0), literal(0), VISITS.c.completed_at, literal(0)).where(
            VISITS.c.status != "accepted", ~IS_CASE, ~exists().where(EXCHANGES.c.visit_id == VISITS.c.id)
        )
        columns = ["visit_id", "changes", "sent", "left", "due_at", "attempts"]
        if await self._database.read(lambda session: session.execute(new.limit(1)).first() is not None):
            await self._database.write(lambda session: session.execute(insert(EXCHANGES).from_select(columns, new)))

    async def take(self) -> Turn | None:
        """Lease the visit whose turn it is; ``None`` where nothing is due."""

        def take(session: Session) -> Turn | None:
            now = database_now(session)
            query = _due(now).limit(1).with_for_update(skip_locked=True, of=EXCHANGES)
            row = session.execute(query).first()
            if row is None:
                return None
            attempt = row.attempts + 1
            lease = {"owner": self._owner.id, "lease_until": now + self._length, "attempts": attempt}
            session.execute(update(EXCHANGES).where(EXCHANGES.c.visit_id == row.visit_id).values(lease))
            return Turn(row.visit_id, row.step, row.changes, attempt, (row.step, row.urgency), row.upload)

        if await self._database.read(lambda session: session.execute(_due(database_now(session)).limit(1)).first()):
            return await self._database.write(take)
        return None

    async def is_preceded(self, turn: Turn) -> bool:
        """Whether something more urgent is due than what is being sent."""

        def look(session: Session) -> bool:
            step, urgency = turn.rank
            before = or_(_step < step, and_(_step == step, _urgency < urgency))
            return session.execute(_due(database_now(session)).where(before).limit(1)).first() is not None

        return await self._database.read(look)

    async def is_idle(self) -> bool:
        """Whether nothing is due."""
        return await self._database.read(
            lambda session: session.execute(_due(database_now(session)).limit(1)).first() is None
        )

    async def adopted(self, turn: Turn, answer: Answer, left: int) -> bool:
        """Take the centre's answer, and note what it asks for; ``False`` where another process has taken the visit
        meanwhile. The lease stays. Whoever takes the visit when this process has been killed sends what is left.
        """

        def write(session: Session) -> bool:
            if rowcount(session.execute(self._mine(turn).values(sent=turn.changes, left=left))) != 1:
                return False
            adopt(session, turn.visit_id, answer.followup, database_now(session))
            return True

        return await self._database.write(write)

    async def done(self, turn: Turn, left: int) -> bool:
        """End the turn, and say which files are left to send; ``False`` as in :meth:`adopted`."""

        def write(session: Session) -> bool:
            done = {"left": left, "attempts": 0, "due_at": database_now(session), "problem": None}
            return rowcount(session.execute(self._mine(turn).values({**NOT_LEASED, **done}))) == 1

        return await self._database.write(write)

    async def put_back(self, turn: Turn, problem: str | None, delay_s: float) -> bool:
        """Have it sent again after ``delay_s``; ``False`` as in :meth:`adopted`."""

        def write(session: Session) -> bool:
            at = database_now(session) + timedelta(seconds=delay_s)
            later = {"due_at": at, "problem": problem, "attempts": turn.attempt if problem else 0}
            return rowcount(session.execute(self._mine(turn).values({**NOT_LEASED, **later}))) == 1

        return await self._database.write(write)

    async def keep_upload(self, turn: Turn, upload: str | None) -> None:
        """Remember the upload that was begun for a file, so that it goes on after a restart."""
        await self._write(self._mine(turn).values(upload=upload))

    def _mine(self, turn: Turn) -> Update:
        leased = update(EXCHANGES).where(EXCHANGES.c.owner == self._owner.id)
        return leased.where(EXCHANGES.c.visit_id == turn.visit_id, EXCHANGES.c.attempts == turn.attempt)

    # ------------------------------------------------------------------ the centre
    async def heard(self, news: News, here: datetime) -> None:
        """Note the centre's answer, and have the visits exchanged that have changed there."""

        def write(session: Session) -> None:
            centre = centre_to_write(session)
            centre.heard_at, centre.problem, centre.failing_since = here, None, None
            centre.ahead_s = (news.now - here).total_seconds()
            centre.specialists = json.dumps(news.specialists)
            waiting = _CHANGED.where(EXCHANGES.c.visit_id.in_(news.visits), ~_HAS_CHANGED)
            session.execute(waiting)

        await self._database.write(write)

    async def not_heard(self, problem: str, here: datetime) -> None:
        """Note that the centre does not answer."""

        def write(session: Session) -> None:
            centre = centre_to_write(session)
            centre.problem, centre.failing_since = problem, centre.failing_since or here

        await self._database.write(write)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits to be sent, by step: how many visits, and when the oldest of them was received."""

    step: int
    visits: int
    oldest: datetime


def waiting(session: Session) -> list[Waiting]:
    """What waits at this node; visits that are not finished yet do not."""
    is_new = EXCHANGES.c.visit_id.is_(None)
    step = case((is_new, 0), else_=_step)
    joined = VISITS.outerjoin(EXCHANGES, EXCHANGES.c.visit_id == VISITS.c.id)
    query = select(step.label("step"), func.count(), func.min(VISITS.c.received_at)).select_from(joined)
    found = session.execute(query.where(VISITS.c.status != "accepted", ~IS_CASE, or_(is_new, _WAITS)).group_by(step))
    return sorted((Waiting(*row) for row in found), key=lambda each: each.step)


def refused_visits(session: Session, at_most: int) -> list[tuple[str, str]]:
    """Visits that the centre does not take as they are, each with the code of its reason, oldest first."""
    query = select(EXCHANGES.c.visit_id, EXCHANGES.c.problem).join(VISITS, VISITS.c.id == EXCHANGES.c.visit_id)
    query = query.where(_WAITS, EXCHANGES.c.problem.is_not(None)).order_by(VISITS.c.received_at)
    return [(visit_id, problem) for visit_id, problem in session.execute(query.limit(at_most))]


def changed_at_centre(session: Session, site: str, at_most: int) -> list[str]:
    """At a centre: visits of a node's site that have changed here since they were exchanged."""
    query = select(EXCHANGES.c.visit_id).where(_HAS_CHANGED, _of_visit(VISITS.c.site) == site)
    return list(session.scalars(query.limit(at_most)))


def centre_of(session: Session) -> CentreRow:
    """What this node knows of its centre."""
    return session.get(CentreRow, THE_CENTRE) or CentreRow(id=THE_CENTRE, specialists="{}")


def centre_to_write(session: Session) -> CentreRow:
    """The row of this node's centre, made where there is none, to be changed."""
    row = session.get(CentreRow, THE_CENTRE)
    if row is None:
        row = CentreRow(id=THE_CENTRE, specialists="{}")
        session.add(row)
    return row


def _due(now: datetime) -> Select[tuple[str, int, int, str | None, int, int]]:
    columns = (EXCHANGES.c.visit_id, EXCHANGES.c.changes, EXCHANGES.c.attempts, EXCHANGES.c.upload)
    query = select(*columns, _step.label("step"), _urgency.label("urgency")).where(*_free(now))
    return query.order_by(_step, _urgency, _of_visit(VISITS.c.received_at))


def _free(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return _WAITS, EXCHANGES.c.due_at <= now, lease_ended(EXCHANGES, now)
