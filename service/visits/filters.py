"""Which visits a list shows: the same choice for the worklist, the API and the line list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from data_specs.visit.contract import Priority, Status
from service.keys import Key
from service.parts import Parts
from service.storage.folding import fold
from service.storage.tables import KeyRow, ReferralRow, VisitRow
from service.visits.stored import NOT_WITHDRAWN, is_addressed_to, visible

Asked = Literal["any", "open", "answered"]
MAX_SEARCH = 100
"""Characters of what is searched for."""
MAX_WORDS = 8
SEARCHED = 50_000
"""A list is made of so many visits at most: the latest of the chosen period. For earlier ones, choose one that ends
earlier."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which visits to show; ``None`` is no limit.

    Parameters
    ----------
    search
        Words, or parts of words, that all have to be in the person's name or identifier, or the accession number. Case
        and diacritics do not matter.
    person
        The person's identifier, exactly as it was posted.
    since, before
        Received at this moment or later; received before this moment.
    signed
        Whether a doctor has signed.
    asked
        A specialist was asked: ``any`` time, and has not answered yet (``open``), or has (``answered``). Questions that
        were taken back do not count. For a specialist's key, only the questions to them do.
    """

    search: str = ""
    priority: Priority | None = None
    status: Status | None = None
    since: datetime | None = None
    before: datetime | None = None
    site: str | None = None
    person: str | None = None
    signed: bool | None = None
    asked: Asked | None = None


def chosen(query: Select, key: Key, wanted: Filter) -> Select:  # type: ignore[type-arg]  # any columns of visits
    """``query``, limited to the visits of ``wanted`` that ``key`` may see."""
    query = _in_period(visible(query, key), wanted)
    for word in fold(wanted.search[:MAX_SEARCH]).split()[:MAX_WORDS]:
        query = query.where(VisitRow.folded.contains(word, autoescape=True))
    if wanted.priority is not None:
        query = query.where(VisitRow.priority == wanted.priority)
    if wanted.person is not None:
        query = query.where(VisitRow.person_id == wanted.person)
    if wanted.status is not None:
        query = query.where(VisitRow.status == wanted.status)
    if wanted.signed is not None:
        query = query.where(VisitRow.version > 1 if wanted.signed else VisitRow.version == 1)
    if wanted.asked is not None:
        asked = select(ReferralRow.id).where(ReferralRow.visit_id == VisitRow.id, _is_asked(wanted.asked))
        if key.role == "specialist":
            asked = asked.where(is_addressed_to(key))
        query = query.where(exists(asked))
    return query


def earliest(session: Session, key: Key, wanted: Filter) -> datetime | None:
    """When the first of the latest :data:`SEARCHED` visits of the period was received; ``None`` if there are fewer."""
    times = _in_period(visible(select(VisitRow.received_at), key), wanted)
    return session.scalars(times.order_by(VisitRow.received_at.desc()).offset(SEARCHED - 1).limit(1)).first()


async def sites(parts: Parts, key: Key) -> list[str]:
    """The sites between whose visits ``key`` can choose; none where it sees only one."""
    if key.role == "admin":
        query = select(KeyRow.site).where(KeyRow.role == "site")
    elif key.role == "specialist":
        asked = select(VisitRow.site).join(ReferralRow, ReferralRow.visit_id == VisitRow.id)
        query = asked.where(is_addressed_to(key), NOT_WITHDRAWN)
    else:
        return []
    return sorted(await parts.database.read(lambda session: session.scalars(query.distinct()).all()))


def _in_period(query: Select, wanted: Filter) -> Select:  # type: ignore[type-arg]
    if wanted.site is not None:
        query = query.where(VisitRow.site == wanted.site)
    if wanted.since is not None:
        query = query.where(VisitRow.received_at >= wanted.since)
    if wanted.before is not None:
        query = query.where(VisitRow.received_at < wanted.before)
    return query


def _is_asked(asked: Asked) -> ColumnElement[bool]:
    if asked == "open":
        return ReferralRow.closed_at.is_(None)
    return ReferralRow.answered_by.is_not(None) if asked == "answered" else NOT_WITHDRAWN
