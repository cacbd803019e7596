"""Read visits as a key may see them: as rows, and as the visit of the wire contract."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, exists, or_, select, union
from sqlalchemy.orm import Session, aliased

from data_specs.visit.assessment import AssessedInput, EvidenceMap, input_problem, organ_result, reason
from data_specs.visit.contract import NO_COMMON_GAIN, Visit, VisitInput
from data_specs.vocabulary import Language
from service.errors import Forbidden, NotFound
from service.keys import Key
from service.parts import Parts
from service.storage.tables import IS_CASE, InputRow, NormalRow, OpinionRow, ReadingRow, ReferralRow, VisitRow

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def load_visit(parts: Parts, key: Key, visit_id: str) -> VisitRow:
    """Return the visit with its inputs, as ``key`` may see it.

    Raises
    ------
    NotFound
        There is no such visit.
    Forbidden
        This key may not see it. (Visit ids are random, so it does no harm to say that one exists.)
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


async def load_shown(parts: Parts, key: Key, visit_id: str) -> VisitRow:
    """The visit, or the case to learn from, whose files and pictures ``key`` may see.

    Raises
    ------
    NotFound, Forbidden
        As :func:`load_visit`.
    """
    if _ID.fullmatch(visit_id):
        row = await parts.database.read(lambda session: case_of(session, key, visit_id))
        if row is not None:
            return row
    return await load_visit(parts, key, visit_id)


def case_of(session: Session, key: Key, visit_id: str) -> VisitRow | None:
    """A case as an admin may see it, or a trainee to whom it was given: without findings until they have signed.

    ``None``: it is no case, or was not given to this key.
    """
    row = session.scalars(select(VisitRow).where(VisitRow.id == visit_id, IS_CASE)).one_or_none()
    if row is None or key.role == "admin":
        return row
    given = select(ReadingRow.signed_at).where(ReadingRow.visit_id == visit_id, ReadingRow.key_id == key.id)
    signed = session.scalars(given).all()
    if not signed:
        return None
    if None in signed:
        session.expunge_all()  # so that the changes below are not written to the database
        row.blind, row.priority = True, "unassessed"
        row.assessment = _without_findings(row, priority="unassessed")
    return row


def visible(query: Select, key: Key) -> Select:  # type: ignore[type-arg]
    """``query`` over visits, limited to those that ``key`` may see.

    A specialist sees the visits that were referred to their hospital or to any, and the other visits of the same
    persons at the same site. Cases to learn from are no visits of anybody (:func:`load_shown`).
    """
    query = query.where(~IS_CASE)
    if key.role == "admin":
        return query
    if key.role == "specialist":
        return query.where(VisitRow.id.in_(_of_specialist(key)))
    query = query.where(VisitRow.site == key.site)
    return query.where(VisitRow.referrer_id == key.doctor_id) if key.role == "doctor" else query


def _of_specialist(key: Key) -> CompoundSelect[tuple[str]]:
    """The visits that were referred, and those of the same persons: found from the referrals, of which few are."""
    referred, same_person = aliased(VisitRow), aliased(VisitRow)
    of_person = and_(same_person.site == referred.site, same_person.person_id == referred.person_id)
    others = select(same_person.id).join(referred, of_person).join(ReferralRow, ReferralRow.visit_id == referred.id)
    asked = is_addressed_to(key), NOT_WITHDRAWN
    return union(select(ReferralRow.visit_id).where(*asked), others.where(*asked))


NOT_WITHDRAWN = or_(ReferralRow.closed_at.is_(None), ReferralRow.answered_by.is_not(None))
"""Whether a referral is open or answered."""


def is_addressed_to(key: Key) -> ColumnElement[bool]:
    """Whether a referral is to this specialist's hospital, or to any."""
    return or_(ReferralRow.to_site.is_(None), ReferralRow.to_site == key.site)


def seen_by(session: Session, key: Key, query: Select[VisitRow]) -> Sequence[VisitRow]:
    """Rows of ``query``, without findings if the doctor of ``key`` has to read the visit blind."""
    rows = session.scalars(query).all()
    reads_blind = {"specialist": _asked_blind, "doctor": _held_back}.get(key.role)
    if reads_blind is None or not rows:
        return rows
    blind = reads_blind(session, key, [row.id for row in rows])
    session.expunge_all()  # so that the changes below are not written to the database
    for row in rows:
        if row.id in blind:
            row.blind = True
            row.assessment = _without_findings(row)
    return rows


def _asked_blind(session: Session, key: Key, ids: Sequence[str]) -> set[str]:
    """Those of the visits that a specialist was asked to read blind, and has not signed.

    Any visit that holds a file of a visit that is read blind is read blind too: files of a study that come late make a
    second visit of the same study.
    """
    asked = select(ReferralRow.visit_id).where(
        ReferralRow.closed_at.is_(None), ReferralRow.blind, is_addressed_to(key), ~_has_signed(key, ReferralRow)
    )
    files = select(InputRow.sha256).where(InputRow.visit_id.in_(asked))
    same_files = select(InputRow.visit_id).where(InputRow.sha256.in_(files), ~_has_signed(key, InputRow))
    return {
        *session.scalars(asked.where(ReferralRow.visit_id.in_(ids))),
        *session.scalars(same_files.where(InputRow.visit_id.in_(ids))),
    }


def _held_back(session: Session, key: Key, ids: Sequence[str]) -> set[str]:
    """Those of the visits that a certificate calls normal and that are read in full, until somebody has signed.

    Nothing in them is flagged, so that a doctor misses nothing that the machine has found.
    """
    unsigned = select(VisitRow.id).where(VisitRow.id.in_(ids), VisitRow.version == 1)
    held_back = select(NormalRow.visit_id).where(NormalRow.visit_id.in_(unsigned), NormalRow.held_back)
    return set(session.scalars(held_back))


def _has_signed(key: Key, of: type[ReferralRow | InputRow]) -> ColumnElement[bool]:
    return exists().where(OpinionRow.visit_id == of.visit_id, OpinionRow.key_id == key.id)


def _without_findings(row: VisitRow, **also: str) -> str | None:
    found = row.read_assessment()
    if found is None:
        return None
    return found.model_copy(
        update={"organs": {}, "models": [], "priority_reasons": [], "next_steps": [], **also}
    ).model_dump_json()


def visit_view(row: VisitRow, language: Language) -> Visit:
    """The visit of the wire contract, with its sentences in ``language``."""
    found = row.read_assessment()
    assessed = {each.index: each for each in found.inputs} if found else {}
    return Visit(
        id=row.id,
        status=row.status,  # type: ignore[arg-type]  # the column holds no other value
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
        inputs=[_input_view(posted, assessed.get(posted.index), language) for posted in row.inputs],
        models=found.models if found else [],
    )


def _input_view(row: InputRow, assessed: AssessedInput | None, language: Language) -> VisitInput:
    return VisitInput(
        index=row.index,
        field=row.field,  # type: ignore[arg-type]  # the column holds no other value
        filename=row.filename,
        sha256=row.sha256,
        format=assessed.format if assessed else None,
        accepted=assessed.accepted if assessed else None,
        problems=[input_problem(problem, language) for problem in assessed.problems] if assessed else [],
        awaited=bool(row.awaited),
    )


def find_evidence(row: VisitRow, finding: str, index: int) -> EvidenceMap:
    """The evidence map of one finding in one input.

    Raises
    ------
    NotFound
        The finding has no evidence in this input.
    """
    found = row.read_assessment()
    for organ in found.organs.values() if found else ():
        for candidate in organ.findings:
            for evidence in candidate.evidence if candidate.name == finding else ():
                if evidence.input == index:
                    return evidence
    raise NotFound


async def input_content(parts: Parts, key: Key, visit_id: str, index: int) -> tuple[InputRow, bytes]:
    """One posted file without change.

    Raises
    ------
    NotFound, Forbidden
        As :func:`load_shown`; or the visit has no such input, or a node has not sent it yet.
    """
    row = await load_shown(parts, key, visit_id)
    posted = input_row(row, index)
    if posted.awaited:
        raise NotFound
    return posted, await parts.read_file(posted.sha256)


def was_accepted(row: VisitRow, index: int) -> bool:
    found = row.read_assessment()
    return found is not None and any(each.index == index and each.accepted for each in found.inputs)


def has_common_gain(row: VisitRow, index: int) -> bool:
    """Whether voltages can be read in the recording to which input ``index`` belongs: one gain, in a known unit."""
    found = row.read_assessment()
    problems = [p.code for each in (found.inputs if found else []) if each.index == index for p in each.problems]
    return NO_COMMON_GAIN.isdisjoint(problems)


def input_row(row: VisitRow, index: int) -> InputRow:
    """The input with this index.

    Raises
    ------
    NotFound
        The visit has no such input.
    """
    for posted in row.inputs:
        if posted.index == index:
            return posted
    raise NotFound


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
