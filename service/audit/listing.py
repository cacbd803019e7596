"""The log as admins read it: the latest entry first, by visit, person, key, action and day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit.proof import Stored, stored_of
from service.storage.audit import AUDIT
from service.storage.tables import VISITS, KeyRow

PAGE, MAX_PAGE = 100, 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are wanted; all of them where nothing is said.

    Parameters
    ----------
    person
        Identifier of a person: entries about the visits that are kept of them.
    key
        Id of a key.
    day
        In UTC, as the entries are.
    before
        Only entries with a lower number.
    """

    visit: str | None = None
    person: str | None = None
    key: str | None = None
    action: str | None = None
    day: date | None = None
    before: int | None = None


def list_entries(session: Session, wanted: Wanted, limit: int = PAGE) -> Sequence[Stored]:
    """The wanted entries, the latest first; at most ``limit``."""
    query = select(AUDIT)
    if wanted.visit is not None:
        query = query.where(AUDIT.c.visit == wanted.visit)
    if wanted.person is not None:
        query = query.where(AUDIT.c.visit.in_(select(VISITS.c.id).where(VISITS.c.person_id == wanted.person)))
    if wanted.key is not None:
        query = query.where(AUDIT.c.actor == wanted.key)
    if wanted.action is not None:
        query = query.where(AUDIT.c.action == wanted.action)
    if wanted.day is not None:
        first, last = (datetime.combine(wanted.day, at, UTC) for at in (time.min, time.max))
        query = query.where(AUDIT.c.at >= first, AUDIT.c.at <= last)
    if wanted.before is not None:
        query = query.where(AUDIT.c.number < wanted.before)
    return [stored_of(row) for row in session.execute(query.order_by(AUDIT.c.number.desc()).limit(limit))]


def names_of_keys(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """What a key is called, by its id: its label, else its person, else its site. The log itself has ids only."""
    rows = session.scalars(select(KeyRow).where(KeyRow.id.in_(set(ids))))
    return {row.id: row.label or row.doctor_id or row.site for row in rows}
