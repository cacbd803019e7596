"""What a key may see of the visits, as rows and as the contract's visit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from data_specs.visit.assessment import AssessedInput, EvidenceMap, input_problem, organ_result, reason
from data_specs.visit.contract import Priority, Status, Visit, VisitInput
from data_specs.vocabulary import Language
from service.errors import FieldFault, Forbidden, InvalidRequest, NotFound
from service.keys import Key
from service.parts import Parts
from service.storage.cursor import read_cursor, write_cursor
from service.storage.tables import InputRow, OpinionRow, ReferralRow, VisitRow

PAGE = 50
MAX_PAGE = 200
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class VisitPage:
    """Visits, newest first, and where to go on; ``next`` is ``None`` at the end."""

    rows: Sequence[VisitRow]
    next: str | None


async def list_visits(
    parts: Parts,
    key: Key,
    *,
    priority: Priority | None = None,
    status: Status | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = PAGE,
) -> VisitPage:
    """One page of the visits that ``key`` may see, newest first.

    Raises
    ------
    InvalidRequest
        The cursor is none that this service gave out, or ``since`` lies outside the years that UTC can say.
    """
    query = visible(select(VisitRow), key).order_by(VisitRow.received_at.desc(), VisitRow.id.desc())
    if priority is not None:
        query = query.where(VisitRow.priority == priority)
    if status is not None:
        query = query.where(VisitRow.status == status)
    if since is not None:
        query = query.where(VisitRow.received_at >= _in_utc(since))
    if cursor is not None:
        query = query.where(tuple_(VisitRow.received_at, VisitRow.id) < tuple_(*_read_cursor(cursor)))
    limit = max(1, min(limit, MAX_PAGE))
    rows = await parts.database.read(lambda session: seen_by(session, key, query.limit(limit + 1)))
    last = rows[limit - 1] if len(rows) > limit else None
    return VisitPage(rows[:limit], write_cursor(last.received_at.isoformat(), last.id) if last else None)


async def load_visit(parts: Parts, key: Key, visit_id: str) -> VisitRow:
    """The visit with its inputs.

    Raises
    ------
    NotFound
        There is no such visit.
    Forbidden
        There is, and it is not this key's to see. (Ids are random: that one exists tells nothing.)
    """
    if not _ID.fullmatch(visit_id):
        raise NotFound
    query = visible(select(VisitRow).where(VisitRow.id == visit_id), key)

    def load(session: Session) -> VisitRow | None:
        if found := seen_by(session, key, query):
            return found[0]
        if session.get(VisitRow, visit_id) is not None:
            raise Forbidden
        return None

    row = await parts.database.read(load)
    if row is None:
        raise NotFound
    return row


def visible(query: Select, key: Key) -> Select:  # type: ignore[type-arg]
    """``query`` over the visits, narrowed to those that ``key`` may see.

    A specialist sees the visits that were referred to their hospital or to any, and what else the same site has of the
    same persons.
    """
    if key.role == "admin":
        return query
    if key.role == "specialist":
        referred = aliased(VisitRow)
        same_person = and_(referred.site == VisitRow.site, referred.person_id == VisitRow.person_id)
        asked = select(referred.id).join(ReferralRow, ReferralRow.visit_id == referred.id).where(to_me(key), STANDS)
        return query.where(exists(asked.where(or_(referred.id == VisitRow.id, same_person))))
    query = query.where(VisitRow.site == key.site)
    return query.where(VisitRow.referrer_id == key.doctor_id) if key.role == "doctor" else query


STANDS = or_(ReferralRow.closed_at.is_(None), ReferralRow.answered_by.is_not(None))
"""Whether a referral is open or answered: not withdrawn."""


def to_me(key: Key) -> ColumnElement[bool]:
    """Whether a referral asks this specialist."""
    return or_(ReferralRow.to_site.is_(None), ReferralRow.to_site == key.site)


def seen_by(session: Session, key: Key, query: Select[VisitRow]) -> Sequence[VisitRow]:
    """Rows of ``query`` as ``key`` may see them: without findings where a specialist is to read without them.

    A file that is to be read so is, in whichever visit it stands: one that comes late makes another visit of its study.
    """
    rows = session.scalars(query).all()
    if key.role != "specialist" or not rows:
        return rows
    mine = select(OpinionRow.visit_id).where(OpinionRow.key_id == key.id)
    asked = select(ReferralRow.visit_id).where(
        ReferralRow.closed_at.is_(None),
        ReferralRow.blind,
        to_me(key),
        ReferralRow.visit_id.not_in(mine),
    )
    files = select(InputRow.sha256).where(InputRow.visit_id.in_(asked))
    with_them = select(InputRow.visit_id).where(InputRow.sha256.in_(files), InputRow.visit_id.not_in(mine))
    ids = [row.id for row in rows]
    blind = {
        *session.scalars(asked.where(ReferralRow.visit_id.in_(ids))),
        *session.scalars(with_them.where(InputRow.visit_id.in_(ids))),
    }
    session.expunge_all()  # what is left out here is left out of these objects alone
    for row in rows:
        if row.id in blind:
            row.blind = True
            row.assessment = _without_findings(row)
    return rows


def _without_findings(row: VisitRow) -> str | None:
    found = row.read_assessment()
    if found is None:
        return None
    return found.model_copy(update={"organs": {}, "models": [], "priority_reasons": []}).model_dump_json()


def visit_view(row: VisitRow, language: Language) -> Visit:
    """The visit as the wire contract shows it, its sentences in ``language``."""
    found = row.read_assessment()
    assessed = {each.index: each for each in found.inputs} if found else {}
    return Visit(
        id=row.id,
        status=row.status,  # type: ignore[arg-type]  # the column holds nothing else
        version=row.version,
        received_at=row.received_at,
        completed_at=row.completed_at,
        person=row.read_context().person,
        priority=found.priority if found else "unassessed",
        priority_reasons=[reason(problem, language) for problem in found.priority_reasons] if found else [],
        organs={
            name: organ_result(organ, language, f"/v1/visits/{row.id}/evidence") for name, organ in found.organs.items()
        }
        if found
        else {},
        inputs=[_input_view(each, assessed.get(each.index), language) for each in row.inputs],
        models=found.models if found else [],
    )


def _input_view(row: InputRow, assessed: AssessedInput | None, language: Language) -> VisitInput:
    return VisitInput(
        index=row.index,
        field=row.field,  # type: ignore[arg-type]  # the column holds nothing else
        filename=row.filename,
        sha256=row.sha256,
        format=assessed.format if assessed else None,
        accepted=assessed.accepted if assessed else None,
        problems=[input_problem(problem, language) for problem in assessed.problems] if assessed else [],
    )


def find_evidence(row: VisitRow, finding: str, index: int) -> EvidenceMap:
    """Map of one finding over one input.

    Raises
    ------
    NotFound
        The finding points at no such input.
    """
    found = row.read_assessment()
    for organ in found.organs.values() if found else ():
        for each in organ.findings:
            for evidence in each.evidence if each.name == finding else ():
                if evidence.input == index:
                    return evidence
    raise NotFound


async def input_content(parts: Parts, key: Key, visit_id: str, index: int) -> tuple[InputRow, bytes]:
    """One posted file, as it came."""
    row = await load_visit(parts, key, visit_id)
    posted = input_row(row, index)
    return posted, await parts.read_file(posted.sha256)


def was_accepted(row: VisitRow, index: int) -> bool:
    found = row.read_assessment()
    return found is not None and any(each.index == index and each.accepted for each in found.inputs)


def input_row(row: VisitRow, index: int) -> InputRow:
    for each in row.inputs:
        if each.index == index:
            return each
    raise NotFound


def _in_utc(since: datetime) -> datetime:
    try:
        return since.astimezone(UTC) if since.tzinfo else since.replace(tzinfo=UTC)
    except OverflowError:  # its zone carries it before year 1 or past year 9999
        raise InvalidRequest(FieldFault("query.since", "field_invalid", "YYYY-MM-DDThh:mm:ssZ")) from None


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        return arrival(*read_cursor(cursor, 2))
    except ValueError:
        raise InvalidRequest(FieldFault("cursor", "field_invalid", "next")) from None


def arrival(received_at: str, visit_id: str) -> tuple[datetime, str]:
    """When a visit was received (in UTC) and its id, as they stand in a cursor.

    Raises
    ------
    ValueError
        They are not a time with a zone and an id.
    """
    at = datetime.fromisoformat(received_at)
    if at.tzinfo is None or not _ID.fullmatch(visit_id):
        raise ValueError("not a visit's arrival")
    try:
        return at.astimezone(UTC), visit_id
    except OverflowError:  # before year 1 or after year 9999
        raise ValueError("not a time in UTC") from None
