"""Compare a visit with earlier visits of the same person at the same site."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from data_specs.visit.assessment import Assessment
from data_specs.visit.comparison import AssessedVisit, Comparison, compare
from service.keys import Key
from service.parts import Parts
from service.storage.tables import VisitRow
from service.visits.stored import load_visit, seen_by, visible

MAX_EARLIER = 12
"""Most earlier visits that are compared: twelve years at one visit a year."""


async def comparison(parts: Parts, key: Key, visit_id: str) -> Comparison:
    """Compare a visit with the person's earlier visits that ``key`` may see; with none if it names no person.

    Raises
    ------
    NotFound, Forbidden
        As ``load_visit``.
    """
    row = await load_visit(parts, key, visit_id)
    compared, _ = await compare_with_earlier(parts, key, row)
    return compared


async def compare_with_earlier(parts: Parts, key: Key, row: VisitRow) -> tuple[Comparison, list[VisitRow]]:
    """The comparison of a loaded visit, and the earlier visits, latest first."""
    if row.person_id is None or row.blind or row.status != "complete":
        return Comparison(earlier=(), courses=()), []
    query = visible(earlier_of(row), key)

    def read(session: Session) -> tuple[Comparison, list[VisitRow]]:
        earlier = [visit for visit in seen_by(session, key, query) if not visit.blind]
        compared = compare(assessed(row), [assessed(visit) for visit in earlier])
        return compared, sorted(earlier, key=day_of, reverse=True)

    return await parts.database.read(read)


def earlier_of(row: VisitRow) -> Select[VisitRow]:
    """The latest earlier visits of the person of a visit, at its site, whoever may see them."""
    return (
        select(VisitRow)
        .where(
            VisitRow.site == row.site,
            VisitRow.person_id == row.person_id,
            VisitRow.received_at < row.received_at,
            VisitRow.status == "complete",
        )
        .order_by(VisitRow.received_at.desc())
        .limit(MAX_EARLIER)
    )


def assessed(row: VisitRow, found: Assessment | None = None) -> AssessedVisit:
    """A visit as it is compared with others; ``found`` is what is not stored yet."""
    found = found or row.read_assessment()
    assert found is not None  # noqa: S101  complete visits only
    return AssessedVisit(row.id, day_of(row), row.version, found)


def day_of(row: VisitRow) -> date:
    """The day of a visit as posted, or the day on which it was received."""
    return row.read_context().visited_on or row.received_at.date()
