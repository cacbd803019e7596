"""The worklist: the persons whose visits a key may see, one page at a time, each with the latest visit on top.

Persons are told apart by site and identifier; a visit without an identifier stands alone. Sorting and grouping read one
index and no row of the table; only the visits that a page shows are loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal
from urllib.parse import quote, unquote

from sqlalchemy import ColumnElement, Date, case, func, literal, select, tuple_
from sqlalchemy.orm import Session

from data_specs.visit.contract import PRIORITIES, Priority
from service.keys import Key
from service.parts import Parts
from service.storage.cursor import read_cursor, write_cursor
from service.storage.tables import VisitRow
from service.visits.filters import Filter, chosen, earliest
from service.visits.stored import arrival, seen_by

PAGE = 40
FOLDED_VISITS = 9
"""Of one person, besides the latest; the page says how many more there are."""
Order = Literal["priority", "arrival", "visited", "person"]

urgency = case({name: n for n, name in enumerate(PRIORITIES)}, value=VisitRow.priority, else_=len(PRIORITIES))
_PERSON = VisitRow.site, func.coalesce(VisitRow.person_id, VisitRow.id)


@dataclass(frozen=True, slots=True)
class EarlierVisit:
    """What the worklist shows of a visit that is folded below a person's latest one."""

    id: str
    received_at: datetime
    visited_on: date | None
    priority: str
    status: str
    version: int


@dataclass(frozen=True, slots=True)
class Person:
    """One person's chosen visits: the latest, the others (latest first), and how many there are in all."""

    latest: VisitRow
    others: Sequence[EarlierVisit]
    visits: int

    @property
    def most_pressing(self) -> str:
        """The priority of the most pressing visit that is shown."""
        return min([self.latest.priority, *(each.priority for each in self.others)], key=PRIORITIES.index)


@dataclass(frozen=True, slots=True)
class WorklistPage:
    """One page.

    Parameters
    ----------
    counts
        Number of visits of each priority on all pages, whatever priority is chosen.
    previous, next
        Cursors of the pages before and after this one.
    since
        Where there are more visits than a list is made of: it begins with this moment.
    """

    persons: Sequence[Person]
    counts: dict[Priority, int]
    previous: str | None
    next: str | None
    since: datetime | None


async def worklist(
    parts: Parts, key: Key, wanted: Filter, *, order: Order = "priority", cursor: str | None = None
) -> WorklistPage:
    """One page of the visits that ``key`` may see; the first page if the cursor is not valid."""
    return await parts.database.read(lambda session: _page(session, key, wanted, order, cursor))


def _page(session: Session, key: Key, wanted: Filter, order: Order, cursor: str | None) -> WorklistPage:
    limit = earliest(session, key, wanted)
    bounded = wanted if limit is None else replace(wanted, since=limit)
    keys, descending = _sort_keys(order)
    grouped = chosen(select(*_labelled(_PERSON, "person"), *_labelled(keys, "key")), key, bounded)
    groups = grouped.group_by(*_PERSON).subquery()
    columns = [groups.c[f"key{n}"] for n in range(len(keys))]

    backward, position = _read_position(cursor, order, columns) if cursor else (False, None)
    query = select(groups)
    downward = descending != backward
    if position is not None:
        here, there = tuple_(*columns), tuple_(*position)
        query = query.where(here < there if downward else here > there)
    query = query.order_by(*(each.desc() if downward else each.asc() for each in columns)).limit(PAGE + 1)
    rows = list(session.execute(query))
    more, rows = len(rows) > PAGE, rows[:PAGE]
    if backward and not more:
        return _page(session, key, wanted, order, None)  # the first page, whole
    if backward:
        rows.reverse()

    def at(row: Any, direction: str) -> str:
        return _write_position(direction, order, [getattr(row, column.name) for column in columns])

    has_previous = more if backward else position is not None
    return WorklistPage(
        persons=_persons(session, key, bounded, [(row.person0, row.person1) for row in rows]),
        counts=_counts(session, key, bounded),
        previous=at(rows[0], "p") if rows and has_previous else None,
        next=at(rows[-1], "n") if rows and (more or backward) else None,
        since=limit,
    )


def _sort_keys(order: Order) -> tuple[tuple[ColumnElement[Any], ...], bool]:
    """What persons are sorted by, and whether descending. The last key is another one for every person."""
    alone = func.min(VisitRow.id)
    latest = func.max(VisitRow.received_at)
    if order == "arrival":
        return (latest, alone), True
    if order == "visited":
        return (func.max(func.coalesce(VisitRow.visited_on, literal(date.min, Date))), latest, alone), True
    if order == "person":
        name = func.coalesce(VisitRow.folded, "")
        return (func.min(case((name == "", 1), else_=0)), func.min(name), alone), False  # the nameless are last
    return (func.min(urgency), func.min(VisitRow.received_at), alone), False


def _labelled(columns: Sequence[Any], name: str) -> list[Any]:
    return [column.label(f"{name}{n}") for n, column in enumerate(columns)]


def _persons(session: Session, key: Key, wanted: Filter, wanted_persons: list[tuple[str, str]]) -> list[Person]:
    """The visits of these persons, in this order."""
    if not wanted_persons:
        return []
    latest_first = VisitRow.received_at.desc(), VisitRow.id.desc()
    columns = (
        *(VisitRow.id, VisitRow.received_at, VisitRow.visited_on, VisitRow.priority, VisitRow.status, VisitRow.version),
        *_labelled(_PERSON, "person"),
        func.row_number().over(partition_by=_PERSON, order_by=latest_first).label("number"),
        func.count().over(partition_by=_PERSON).label("visits"),
    )
    theirs = chosen(select(*columns), key, wanted).where(tuple_(*_PERSON).in_(wanted_persons)).subquery()
    query = select(theirs).where(theirs.c.number <= 1 + FOLDED_VISITS).order_by(theirs.c.number)
    by_person = defaultdict(list)
    for row in session.execute(query):
        by_person[row.person0, row.person1].append(row)
    heads = [by_person[each][0].id for each in wanted_persons]
    loaded = {row.id: row for row in seen_by(session, key, select(VisitRow).where(VisitRow.id.in_(heads)))}
    return [
        Person(
            latest=loaded[rows[0].id],
            others=[
                EarlierVisit(row.id, row.received_at, row.visited_on, row.priority, row.status, row.version)
                for row in rows[1:]
            ],
            visits=rows[0].visits,
        )
        for rows in map(by_person.__getitem__, wanted_persons)
    ]


def _counts(session: Session, key: Key, wanted: Filter) -> dict[Priority, int]:
    counts = chosen(select(VisitRow.priority, func.count()), key, replace(wanted, priority=None))
    counted = {row[0]: row[1] for row in session.execute(counts.group_by(VisitRow.priority))}
    return {name: counted.get(name, 0) for name in PRIORITIES}


# ---------------------------------------------------------------------- cursors
def _write_position(direction: str, order: Order, values: Sequence[Any]) -> str:
    texts = (each.isoformat() if isinstance(each, date) else str(each) for each in values)
    return write_cursor(direction, order, *(quote(each, safe=":+-") for each in texts))


def _read_position(
    cursor: str, order: Order, columns: Sequence[ColumnElement[Any]]
) -> tuple[bool, list[ColumnElement[Any]] | None]:
    """Whether the page before the position is asked for, and the position; ``None`` for a cursor of another list."""
    try:
        direction, of_order, *texts = read_cursor(cursor, 2 + len(columns))
        if of_order != order or direction not in ("n", "p"):
            return False, None
        values = _values(order, [unquote(each) for each in texts])
    except (ValueError, IndexError):
        return False, None
    return direction == "p", [literal(each, column.type) for each, column in zip(values, columns, strict=True)]


def _values(order: Order, texts: list[str]) -> list[Any]:
    """The values of a position, each checked: a client may have changed the cursor."""
    if order == "person":
        nameless, name, visit_id = texts
        if "\0" in name:
            raise ValueError("PostgreSQL has no U+0000")
        arrival(_SOME_TIME, visit_id)
        return [int(nameless == "1"), name, visit_id]
    *first, received_at, visit_id = texts
    values: list[Any] = [*arrival(received_at, visit_id)]
    if order == "visited":
        values.insert(0, date.fromisoformat(first[0]))
    elif order == "priority":
        values.insert(0, range(len(PRIORITIES) + 1)[int(first[0])])
    return values


_SOME_TIME = "2000-01-01T00:00:00+00:00"
