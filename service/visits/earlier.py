"""Earlier visits of the same person at the same site, for the comparison beside a visit."""

from __future__ import annotations

from datetime import date

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.comparison import AssessedVisit, Comparison, compare
from service.keys import Key
from service.state import Service
from service.storage.tables import VisitRow
from service.visits.stored import assessment_of, context_of, load_visit, seen_by, visible

MOST = 12
"""Earlier visits that are compared; one a year makes them a long time."""


async def comparison(service: Service, key: Key, visit_id: str) -> Comparison:
    """The visit beside the person's earlier ones that ``key`` may see; none where the visit names no person.

    Raises
    ------
    NotFound, Forbidden
        As ``load_visit``.
    """
    row = await load_visit(service, key, visit_id)
    compared, _ = await beside_earlier(service, key, row)
    return compared


async def beside_earlier(service: Service, key: Key, row: VisitRow) -> tuple[Comparison, list[VisitRow]]:
    """The comparison of a loaded visit, and the earlier ones themselves, latest first."""
    if row.person_id is None or row.blind or row.status != "complete":
        return Comparison(earlier=(), courses=()), []
    same_person = select(VisitRow).where(
        VisitRow.site == row.site,
        VisitRow.person_id == row.person_id,
        VisitRow.received_at < row.received_at,
        VisitRow.status == "complete",
    )
    query = visible(same_person, key).order_by(VisitRow.received_at.desc()).limit(MOST)

    def read(session: Session) -> tuple[Comparison, list[VisitRow]]:
        earlier = [each for each in seen_by(session, key, query) if not each.blind]
        return compare(_assessed(row), [_assessed(each) for each in earlier]), sorted(earlier, key=day_of, reverse=True)

    return await service.database.read(read)


def _assessed(row: VisitRow) -> AssessedVisit:
    found = assessment_of(row)
    assert found is not None  # noqa: S101  complete visits only
    return AssessedVisit(row.id, day_of(row), row.version, found)


def day_of(row: VisitRow) -> date:
    """The day of a visit: as it says, else when it was received."""
    return context_of(row).visited_on or row.received_at.date()
