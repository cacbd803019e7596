"""Visits, newest first, as the API lists them and the line list reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from service.errors import FieldFault, InvalidRequest
from service.keys import Key
from service.parts import Parts
from service.storage.cursor import read_cursor, write_cursor
from service.storage.tables import VisitRow
from service.visits.filters import Filter, chosen
from service.visits.stored import arrival, seen_by

PAGE = 50
MAX_PAGE = 200


@dataclass(frozen=True, slots=True)
class VisitPage:
    """Visits, newest first, and the cursor of the next page; ``None`` on the last page."""

    rows: Sequence[VisitRow]
    next: str | None


async def list_visits(
    parts: Parts, key: Key, wanted: Filter, *, cursor: str | None = None, limit: int = PAGE
) -> VisitPage:
    """One page of the visits that ``key`` may see, newest first.

    Raises
    ------
    InvalidRequest
        The cursor is not one of this service.
    """
    after = None if cursor is None else _read_cursor(cursor)
    limit = max(1, min(limit, MAX_PAGE))
    rows = await parts.database.read(lambda session: newest(session, key, wanted, after, limit + 1))
    last = rows[limit - 1] if len(rows) > limit else None
    return VisitPage(rows[:limit], write_cursor(last.received_at.isoformat(), last.id) if last else None)


def newest(
    session: Session, key: Key, wanted: Filter, after: tuple[datetime, str] | None, limit: int
) -> Sequence[VisitRow]:
    """At most ``limit`` visits, as ``key`` may see them: those that follow, newest first, on the visit ``after``."""
    query = chosen(select(VisitRow), key, wanted).order_by(VisitRow.received_at.desc(), VisitRow.id.desc())
    if after is not None:
        query = query.where(tuple_(VisitRow.received_at, VisitRow.id) < tuple_(*after))
    return seen_by(session, key, query.limit(limit))


def in_utc(moment: datetime, field: str) -> datetime:
    """A moment of a request in UTC, which is its zone too where it names none.

    Raises
    ------
    InvalidRequest
        It is outside the years 1 to 9999 in UTC.
    """
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise InvalidRequest(FieldFault(f"query.{field}", "field_invalid", "YYYY-MM-DDThh:mm:ssZ")) from None


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        return arrival(*read_cursor(cursor, 2))
    except ValueError:
        raise InvalidRequest(FieldFault("cursor", "field_invalid", "next")) from None
