"""The worklist: the visits that a key may see, highest priority first, then longest waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, case, func, select, tuple_

from data_specs.visit.contract import PRIORITIES, Priority, Status
from service.keys import Key
from service.parts import Parts
from service.storage.cursor import read_cursor, write_cursor
from service.storage.tables import VisitRow
from service.visits.stored import arrival, seen_by, visible

PAGE = 40

urgency = case({name: n for n, name in enumerate(PRIORITIES)}, value=VisitRow.priority, else_=len(PRIORITIES))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which visits to show; ``None`` is no limit.

    Parameters
    ----------
    since
        Received at this moment or later.
    """

    priority: Priority | None = None
    status: Status | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorklistPage:
    """Rows of one page, the number of visits of each priority on all pages, and the cursor of the next page."""

    rows: Sequence[VisitRow]
    counts: dict[Priority, int]
    next: str | None


async def worklist(parts: Parts, key: Key, wanted: Filter, cursor: str | None = None) -> WorklistPage:
    """One page of the visits that ``key`` may see; the first page if the cursor is not valid."""
    position = (urgency, VisitRow.received_at, VisitRow.id)
    query = _filtered(visible(select(VisitRow), key), wanted)
    if wanted.priority is not None:
        query = query.where(VisitRow.priority == wanted.priority)
    after = _read_cursor(cursor) if cursor else None
    if after is not None:
        query = query.where(tuple_(*position) > tuple_(*after))
    query = query.order_by(*position).limit(PAGE + 1)
    rows = await parts.database.read(lambda session: seen_by(session, key, query))

    counts = _filtered(visible(select(VisitRow.priority, func.count()), key), wanted).group_by(VisitRow.priority)
    counted = await parts.database.read(lambda session: {row[0]: row[1] for row in session.execute(counts)})
    return WorklistPage(
        rows=rows[:PAGE],
        counts={name: counted.get(name, 0) for name in PRIORITIES},
        next=_cursor_after(rows[PAGE - 1]) if len(rows) > PAGE else None,
    )


def _filtered(query: Select, wanted: Filter) -> Select:  # type: ignore[type-arg]  # any columns
    if wanted.status is not None:
        query = query.where(VisitRow.status == wanted.status)
    if wanted.since is not None:
        query = query.where(VisitRow.received_at >= wanted.since)
    return query


def _cursor_after(row: VisitRow) -> str:
    return write_cursor(PRIORITIES.index(row.priority), row.received_at.isoformat(), row.id)


def _read_cursor(cursor: str) -> tuple[int, datetime, str] | None:
    try:
        position, *rest = read_cursor(cursor, 3)
        received_at, visit_id = arrival(*rest)
        return range(len(PRIORITIES))[int(position)], received_at, visit_id
    except (ValueError, IndexError):
        return None
