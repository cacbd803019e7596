"""The line list: one line for each visit that was chosen, for a screening programme's own tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.contract import ORGANS
from data_specs.visit.opinion import Opinion
from data_specs.vocabulary import is_reassuring
from service.followup.cells import BOM, csv_lines
from service.keys import Key
from service.parts import Parts
from service.storage.tables import OpinionRow, VisitRow
from service.visits.filters import Filter
from service.visits.listing import newest

AT_ONCE = 200
COLUMNS = (
    *("visit", "received_at", "visited_on", "site", "person_id", "name", "age_years", "sex", "priority", "status"),
    *ORGANS,
    *("flagged", "signed_at", "signed_by", "advice"),
)


async def line_list(parts: Parts, key: Key, wanted: Filter) -> AsyncIterator[str]:
    """The visits as CSV, newest first, some at a time. A visit that has to be read blind has no name and no findings.

    Categories, findings, sex and advice are the words of the API, the same in every language.
    """
    yield BOM + csv_lines(COLUMNS, [])
    after: tuple[datetime, str] | None = None
    while True:

        def read(session: Session, after: tuple[datetime, str] | None = after) -> tuple[str, Sequence[VisitRow]]:
            rows = newest(session, key, wanted, after, AT_ONCE)
            latest = _latest_opinions(session, [row.id for row in rows])
            return csv_lines(COLUMNS, [_line(row, latest.get(row.id, [])) for row in rows], header=False), rows

        lines, rows = await parts.database.read(read)
        if lines:
            yield lines
        if len(rows) < AT_ONCE:
            return
        after = rows[-1].received_at, rows[-1].id


def _latest_opinions(session: Session, ids: Sequence[str]) -> dict[str, list[Opinion]]:
    opinions: dict[str, list[Opinion]] = {}
    query = select(OpinionRow.visit_id, OpinionRow.opinion).where(OpinionRow.visit_id.in_(ids))
    for visit_id, opinion in session.execute(query.order_by(OpinionRow.number)):
        opinions.setdefault(visit_id, []).append(Opinion.model_validate_json(opinion))
    return opinions


def _line(row: VisitRow, opinions: Sequence[Opinion]) -> dict[str, object]:
    person = row.read_context().person
    line: dict[str, object] = {
        "visit": row.id,
        "received_at": row.received_at.isoformat(timespec="seconds"),
        "visited_on": row.visited_on,
        "site": row.site,
        "person_id": person.id,
        "age_years": person.age_years,
        "sex": person.sex,
        "priority": row.priority,
        "status": row.status,
    }
    if row.blind:
        return line
    found = row.read_assessment()
    organs = found.organs if found else {}
    flagged = [
        finding.name
        for organ in organs.values()
        for finding in organ.findings
        if finding.positive and not is_reassuring(finding.name)
    ]
    advised = [each.advice for each in opinions if each.advice is not None]
    return {
        **line,
        "name": person.name,
        **{name: organ.category or organ.status for name, organ in organs.items()},
        "flagged": "; ".join(flagged),
        "signed_at": opinions[-1].signed_at.isoformat(timespec="seconds") if opinions else None,
        "signed_by": opinions[-1].author.name if opinions else None,
        "advice": advised[-1] if advised else None,
    }
