"""Merges what a node and its centre have of a visit, so that both have the same afterwards.

The order of opinions is the centre's: it adds those that it lacks behind its own, and the node takes that order. Who
signed without a link read what was there; the number that the opinion got there may change, the opinion does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from data_specs.visit.opinion import Opinion
from service.delivery.queue import enqueue
from service.errors import Forbidden, VisitDiffers
from service.exchange.ours import followup_of, uid_of
from service.exchange.record import Answer, Followup, OpinionRecord, VisitRecord
from service.storage.audit import digest_of_text, note
from service.storage.database import insert_rows, rowcount
from service.storage.folding import listed, usable_id
from service.storage.tables import (
    EXCHANGES,
    ExchangeRow,
    InputRow,
    OpinionRow,
    OutcomeRow,
    PreviewRow,
    ReferralRow,
    VisitRow,
)
from service.visits.normals import count_reading

ELSEWHERE = "exchange"
"""Instead of the id of a key: signed, asked or recorded with a key of the other side."""


# ---------------------------------------------------------------- at the centre
def take(session: Session, site: str, key_id: str, visit_id: str, record: VisitRecord, now: datetime) -> Answer:
    """Take what a node has of a visit; the visit is made where it is not here yet.

    Parameters
    ----------
    site, key_id
        Of the node's key. The visit belongs to that site.

    Raises
    ------
    Forbidden
        The visit is here, and did not come from this node.
    VisitDiffers
        It came from this node, with other content.
    """
    # the mark is taken away before the state is read: a change that comes meanwhile sets it again
    marks = update(EXCHANGES).where(EXCHANGES.c.visit_id == visit_id)
    is_known = rowcount(session.execute(marks.values(sent=EXCHANGES.c.changes))) == 1
    row = session.get(VisitRow, visit_id, with_for_update=True)
    if row is None:
        row = _new_visit(site, key_id, visit_id, record)
        exchange = ExchangeRow(visit_id=visit_id, changes=0, sent=0, left=0, due_at=now, attempts=0)
        insert_rows(session, row, *row.inputs, exchange)
        enqueue(session, visit_id, site, 1, now)
        note(
            session,
            "visit_received",
            visit_id,
            site=site,
            body=row.body_hash,
            assessment=digest_of_text(record.assessment),
            inputs=[file.sha256 for file in record.files],
        )
        session.expire_all()
        row = session.get_one(VisitRow, visit_id)
    elif not is_known or row.site != site:
        raise Forbidden
    elif (row.body_hash, row.assessment) != (record.body_hash, record.assessment):
        raise VisitDiffers
    add_followup(session, row, record.followup, now)
    shown = set(session.scalars(select(PreviewRow.index).where(PreviewRow.visit_id == visit_id)))
    return Answer(
        followup=followup_of(session, visit_id),
        missing=tuple(each.index for each in row.inputs if each.awaited),
        without_preview=tuple(
            each.index for each in row.inputs if each.field == "image" and each.awaited and each.index not in shown
        ),
    )


def _new_visit(site: str, key_id: str, visit_id: str, record: VisitRecord) -> VisitRow:
    context, assessment = Context.model_validate_json(record.context), Assessment.model_validate_json(record.assessment)
    return VisitRow(
        id=visit_id,
        site=site,
        key_id=key_id,
        referrer_id=context.referrer.id if context.referrer else None,
        person_id=usable_id(context.person.id),
        study_uid=record.study_uid,
        accession_number=record.accession_number,
        **listed(context, record.accession_number),
        context=record.context,
        status=record.status,
        priority=assessment.priority,
        received_at=record.received_at,
        started_at=record.started_at,
        completed_at=record.completed_at,
        assessment=record.assessment,
        version=1,
        body_hash=record.body_hash,
        attempts=0,
        faults=0,
        inputs=[
            InputRow(
                visit_id=visit_id,
                index=file.index,
                field=file.field,
                filename=file.filename,
                sha256=file.sha256,
                n_bytes=file.n_bytes,
                dicom=file.dicom.model_dump_json(exclude_defaults=True) if file.dicom else None,
                awaited=True,
            )
            for file in record.files
        ],
    )


# ---------------------------------------------------------------- at the node
def adopt(session: Session, visit_id: str, theirs: Followup, now: datetime) -> None:
    """Take what the centre has of a visit that was sent there, and its order of opinions."""
    row = session.get_one(VisitRow, visit_id, with_for_update=True)
    add_followup(session, row, theirs, now)
    _put_in_order(session, visit_id, [each.uid for each in theirs.opinions])


def _put_in_order(session: Session, visit_id: str, first: Sequence[str]) -> None:
    """Number the opinions in the order of ``first``; those that it does not name, signed here meanwhile, follow."""
    rows = session.scalars(select(OpinionRow).where(OpinionRow.visit_id == visit_id).order_by(OpinionRow.number)).all()
    place = {uid: i for i, uid in enumerate(first)}
    ordered = sorted(rows, key=lambda each: (place.get(uid_of(each), len(place)), each.number))
    new = {each.number: number for number, each in enumerate(ordered, start=1)}
    moved = [each for each in rows if new[each.number] != each.number]
    uids = {each.number: uid_of(each) for each in moved}
    answers = session.scalars(select(ReferralRow).where(ReferralRow.visit_id == visit_id)).all()
    for referral in answers:
        if referral.answered_by is not None:
            referral.answered_by = new[referral.answered_by]
    session.flush()
    texts = {
        each.number: Opinion.model_validate_json(each.opinion).model_copy(update={"number": new[each.number]})
        for each in moved
    }
    session.expunge_all()
    one = update(OpinionRow).where(OpinionRow.visit_id == visit_id)
    for number in texts:  # out of the way first: two of them may change places
        session.execute(one.where(OpinionRow.number == number).values(number=-number))
    for number, opinion in texts.items():
        there = one.where(OpinionRow.number == -number)
        session.execute(there.values(number=opinion.number, uid=uids[number], opinion=opinion.model_dump_json()))


# ---------------------------------------------------------------- on both sides
def add_followup(session: Session, row: VisitRow, theirs: Followup, now: datetime) -> None:
    """Add the questions, opinions and outcomes that are not here, and close the questions that are closed there."""
    here = {each.id: each for each in session.scalars(select(ReferralRow).where(ReferralRow.visit_id == row.id))}
    n_questions = 0
    for asked in theirs.referrals:
        if asked.id not in here:
            n_questions += 1
            here[asked.id] = ReferralRow(
                id=asked.id,
                visit_id=row.id,
                to_site=asked.to_site,
                key_id=ELSEWHERE,
                asked_by=asked.asked_by.model_dump_json(),
                asked_at=asked.asked_at,
                question=asked.question,
                blind=asked.blind,
            )
            session.add(here[asked.id])
    session.flush()
    before = row.version
    numbers = _add_opinions(session, row, theirs.opinions, now)
    for asked in theirs.referrals:
        mine = here[asked.id]
        if asked.answered_by is not None and mine.answered_by is None:  # an answer counts more than a withdrawal
            mine.answered_by, mine.closed_at = numbers[asked.answered_by], asked.closed_at
        elif mine.closed_at is None:
            mine.closed_at = asked.closed_at
    known = set(session.scalars(select(OutcomeRow.id).where(OutcomeRow.visit_id == row.id)))
    n_outcomes = 0
    for recorded in theirs.outcomes:
        if recorded.id not in known:
            said = recorded.outcome.model_dump()
            insert_rows(session, OutcomeRow(id=recorded.id, visit_id=row.id, key_id=ELSEWHERE, **said))
            n_outcomes += 1
    came: dict[str, Any] = {"questions": n_questions, "opinions": row.version - before, "outcomes": n_outcomes}
    session.flush()
    if any(came.values()):
        note(session, "followup_received", row.id, **came)
        count_reading(session, row.id)
        session.flush()


def _add_opinions(session: Session, row: VisitRow, theirs: Sequence[OpinionRecord], now: datetime) -> dict[str, int]:
    """Number by ``uid`` of every opinion on the visit, after those that are not here were added behind the others."""
    here = session.scalars(select(OpinionRow).where(OpinionRow.visit_id == row.id))
    numbers = {uid_of(each): each.number for each in here}
    for each in theirs:
        if each.uid in numbers:
            continue
        number = numbers[each.uid] = row.version
        signed = each.opinion.model_copy(update={"number": number})
        insert_rows(
            session,
            OpinionRow(
                visit_id=row.id,
                number=number,
                uid=each.uid,
                key_id=ELSEWHERE,
                role=signed.author.role,
                signed_at=signed.signed_at,
                referral_id=signed.referral,
                opinion=signed.model_dump_json(),
            ),
        )
        row.version += 1
        session.flush()
        enqueue(session, row.id, row.site, row.version, now)
    return numbers
