"""The worklist: the persons whose visits a key may see, one page at a time, each with the latest visit on top.

Persons are told apart by site and identifier; a visit without an identifier stands alone. A person stands where the
first of their visits does, in whatever order. Sorting reads one index and no row of the table; only the visits that a
page shows are loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal
from urllib.parse import quote, unquote

from sqlalchemy import Date, case, func, literal, or_, select, tuple_
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
    """What the worklist shows of a visit without loading it."""

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
    backward, position = _read_position(cursor, order) if cursor else (False, None)
    found = _first_persons(session, key, bounded, order, position, backward=backward)
    more, found = len(found) > PAGE, found[:PAGE]
    if backward and not more:
        return _page(session, key, wanted, order, None)  # the first page, whole
    if backward:
        found.reverse()
    loaded = seen_by(session, key, select(VisitRow).where(VisitRow.id.in_([visits[0].id for _, visits in found])))
    rows = {row.id: row for row in loaded}
    has_previous = more if backward else position is not None
    return WorklistPage(
        persons=[
            Person(rows[visits[0].id], [_earlier(each) for each in visits[1:]], visits[0].visits) for _, visits in found
        ],
        counts=_counts(session, key, bounded),
        previous=_write_position("p", order, found[0][0]) if found and has_previous else None,
        next=_write_position("n", order, found[-1][0]) if found and (more or backward) else None,
        since=limit,
    )


def _first_persons(
    session: Session, key: Key, wanted: Filter, order: Order, position: Sequence[Any] | None, *, backward: bool
) -> list[tuple[Sequence[Any], list[Any]]]:
    """The first persons behind a position, one more than a page has: each one's place, and latest visits, latest first.

    Visits are read in their order, and those are left out that are not the first of their person.
    """
    keys, descending = _sort_keys(order)
    downward = descending != backward
    found: list[tuple[Sequence[Any], list[Any]]] = []
    at_once = 2 * PAGE
    while len(found) <= PAGE:
        query = chosen(select(VisitRow.id, *_labelled(_PERSON, "person"), *_labelled(keys, "key")), key, wanted)
        if position is not None:
            here = tuple_(*keys)
            there = tuple_(*(literal(each, column.type) for each, column in zip(position, keys, strict=True)))
            query = query.where(here < there if downward else here > there)
        query = query.order_by(*(each.desc() if downward else each.asc() for each in keys)).limit(at_once)
        batch = session.execute(query).all()
        theirs = _visits_of(session, key, wanted, order, {(row.person0, row.person1) for row in batch})
        for row in batch:
            visits = theirs[row.person0, row.person1]
            if any(each.place == 1 and each.id == row.id for each in visits):
                found.append((row[3:], [each for each in visits if each.number <= 1 + FOLDED_VISITS]))
        if len(batch) < at_once:
            break
        position, at_once = batch[-1][3:], 4 * at_once
    return found[: PAGE + 1]


def _sort_keys(order: Order) -> tuple[tuple[Any, ...], bool]:
    """What visits are sorted by, and whether descending. The last key is another one for every visit."""
    arrived = VisitRow.received_at, VisitRow.id
    if order == "arrival":
        return arrived, True
    if order == "visited":
        return (func.coalesce(VisitRow.visited_on, literal(date.min, Date)), *arrived), True
    if order == "person":
        name = func.coalesce(VisitRow.folded, "")
        return (case((name == "", 1), else_=0), name, VisitRow.id), False  # the nameless are last
    return (urgency, *arrived), False


def _labelled(columns: Sequence[Any], name: str) -> list[Any]:
    return [column.label(f"{name}{n}") for n, column in enumerate(columns)]


def _visits_of(
    session: Session, key: Key, wanted: Filter, order: Order, persons: Collection[tuple[str, str]]
) -> dict[tuple[str, str], list[Any]]:
    """The visits of these persons, latest first: of each the latest, and the one that comes first in the order.

    ``number`` counts a person's visits from the latest, ``place`` counts them in the order.
    """
    keys, descending = _sort_keys(order)
    in_order = [each.desc() if descending else each.asc() for each in keys]
    latest_first = VisitRow.received_at.desc(), VisitRow.id.desc()
    columns = (
        *(VisitRow.id, VisitRow.received_at, VisitRow.visited_on, VisitRow.priority, VisitRow.status, VisitRow.version),
        *_labelled(_PERSON, "person"),
        func.row_number().over(partition_by=_PERSON, order_by=latest_first).label("number"),
        func.row_number().over(partition_by=_PERSON, order_by=in_order).label("place"),
        func.count().over(partition_by=_PERSON).label("visits"),
    )
    theirs = chosen(select(*columns), key, wanted).where(tuple_(*_PERSON).in_(list(persons))).subquery()
    query = select(theirs).where(or_(theirs.c.number <= 1 + FOLDED_VISITS, theirs.c.place == 1))
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in session.execute(query.order_by(theirs.c.number)) if persons else ():
        found[row.person0, row.person1].append(row)
    return found


def _earlier(row: Any) -> EarlierVisit:
    return EarlierVisit(row.id, row.received_at, row.visited_on, row.priority, row.status, row.version)


def _counts(session: Session, key: Key, wanted: Filter) -> dict[Priority, int]:
    counts = chosen(select(VisitRow.priority, func.count()), key, replace(wanted, priority=None))
    counted = {row[0]: row[1] for row in session.execute(counts.group_by(VisitRow.priority))}
    return {name: counted.get(name, 0) for name in PRIORITIES}


# ---------------------------------------------------------------------- cursors
def _write_position(direction: str, order: Order, values: Sequence[Any]) -> str:
    texts = (each.isoformat() if isinstance(each, date) else str(each) for each in values)
    return write_cursor(direction, order, *(quote(each, safe=":+-") for each in texts))


def _read_position(cursor: str, order: Order) -> tuple[bool, list[Any] | None]:
    """Whether the page before the position is asked for, and the position; ``None`` for a cursor of another list."""
    try:
        direction, of_order, *texts = read_cursor(cursor, 2 + len(_sort_keys(order)[0]))
        if of_order != order or direction not in ("n", "p"):
            return False, None
        return direction == "p", _values(order, [unquote(each) for each in texts])
    except (ValueError, IndexError):
        return False, None


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
        values.insert(0, datetime.fromisoformat(first[0]).date())
    elif order == "priority":
        values.insert(0, range(len(PRIORITIES) + 1)[int(first[0])])
    return values


_SOME_TIME = "2000-01-01T00:00:00+00:00"
