"""The visits of a period as the statistics need them: read some at a time, and without what makes a row large."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.next_steps.decision import is_flagged
from data_specs.next_steps.table import Table
from data_specs.visit.assessment import Assessment
from data_specs.visit.opinion import Opinion
from service.keys import Key
from service.parts import Parts
from service.report.issue import make_report
from service.storage.tables import InputRow, OpinionRow, OutcomeRow, ReferralRow, VisitRow
from service.visits.films import device_of
from service.visits.filters import Filter, chosen
from service.visits.stored import seen_by

MAX_VISITS = 20_000
"""Latest visits of the period that are counted. A district has some thousands a year."""
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A posted film or recording: the device that made it, and why it was refused; no code where it was used."""

    field: str
    device: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadVisit:
    """A finished visit.

    Parameters
    ----------
    flagged
        Whether any organ :func:`is_flagged`.
    machine
        For each finding that the machine judged: is it present?
    recalled
        Whether a specialist has to be asked or the person referred: by the latest signed advice, else the next steps.
    questions
        When specialists were asked, and when they answered; without those that were taken back.
    outcomes
        The latest outcome by finding.
    """

    id: str
    site: str
    received_at: datetime
    completed_at: datetime | None
    blind: bool
    assessed: bool
    flagged: bool
    machine: dict[str, bool]
    recalled: bool
    files: tuple[ReadFile, ...]
    opinions: Sequence[Opinion]
    questions: Sequence[tuple[datetime, datetime | None]]
    outcomes: dict[str, str]


async def read_visits(parts: Parts, key: Key, wanted: Filter) -> list[ReadVisit]:
    """The latest :data:`MAX_VISITS` finished visits that ``key`` may see, newest first."""
    query = chosen(select(VisitRow.id), key, wanted).where(VisitRow.status != "accepted")
    query = query.order_by(VisitRow.received_at.desc(), VisitRow.id.desc()).limit(MAX_VISITS)
    ids = await parts.database.read(lambda session: session.scalars(query).all())
    found: list[ReadVisit] = []
    for start in range(0, len(ids), AT_ONCE):
        some = ids[start : start + AT_ONCE]
        found += await parts.database.read(lambda session, some=some: _read(session, key, some, parts.next_steps))  # type: ignore[misc]
    return found


def _read(session: Session, key: Key, ids: Sequence[str], table: Table) -> list[ReadVisit]:
    query = select(VisitRow).where(VisitRow.id.in_(ids))
    rows = seen_by(session, key, query.order_by(VisitRow.received_at.desc(), VisitRow.id.desc()))
    opinions: dict[str, list[Opinion]] = defaultdict(list)
    signed = select(OpinionRow.visit_id, OpinionRow.opinion).where(OpinionRow.visit_id.in_(ids))
    for visit_id, opinion in session.execute(signed.order_by(OpinionRow.number)):
        opinions[visit_id].append(Opinion.model_validate_json(opinion))
    questions: dict[str, list[tuple[datetime, datetime | None]]] = defaultdict(list)
    for asked in session.scalars(select(ReferralRow).where(ReferralRow.visit_id.in_(ids))):
        if asked.closed_at is None or asked.answered_by is not None:
            questions[asked.visit_id].append((asked.asked_at, asked.closed_at))
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    recorded = select(OutcomeRow).where(OutcomeRow.visit_id.in_(ids))
    for outcome in session.scalars(recorded.order_by(OutcomeRow.recorded_at, OutcomeRow.id)):
        outcomes[outcome.visit_id][outcome.finding] = outcome.outcome
    return [_visit(row, opinions[row.id], questions[row.id], outcomes[row.id], table) for row in rows]


def _visit(
    row: VisitRow,
    opinions: Sequence[Opinion],
    questions: Sequence[tuple[datetime, datetime | None]],
    outcomes: dict[str, str],
    table: Table,
) -> ReadVisit:
    found = row.read_assessment()
    organs = found.organs.values() if found else ()
    judged = [each for organ in organs for each in organ.findings if each.positive is not None and not each.alternative]
    return ReadVisit(
        id=row.id,
        site=row.site,
        received_at=row.received_at,
        completed_at=row.completed_at,
        blind=row.blind,
        assessed=any(organ.status == "assessed" for organ in organs),
        flagged=any(map(is_flagged, organs)),
        machine={each.name: bool(each.positive) for each in judged},
        recalled=_recalled(row, opinions, table),
        files=tuple(_files(row.inputs, found)),
        opinions=opinions,
        questions=questions,
        outcomes=outcomes,
    )


def _recalled(row: VisitRow, opinions: Sequence[Opinion], table: Table) -> bool:
    advised = [each.advice for each in opinions if each.advice is not None]
    if advised:
        return advised[-1] != "manage"
    if row.blind or row.status != "complete":
        return False
    return any(each.step != "manage" for each in make_report(row, (), table).next_steps)


def _files(rows: Sequence[InputRow], found: Assessment | None) -> Iterable[ReadFile]:
    assessed = {each.index: each for each in (found.inputs if found else ())}
    for row in rows:
        if row.field != "context" and (each := assessed.get(row.index)) is not None:
            codes = [problem.code for problem in each.problems if problem.severity == "reject"]
            refused = () if each.accepted else tuple(dict.fromkeys(codes)) or ("other",)
            yield ReadFile(row.field, device_of(row, each.format), refused)
