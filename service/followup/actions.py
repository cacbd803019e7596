"""What doctors do with a visit: sign, amend, ask a specialist, answer, and say later what became of it.

The machine's output is never touched. A signed opinion is a row that is never changed, and makes the next version of
the report; whoever signs says which version they read, so that two who sign at a time do not overlook each other.
"""

from __future__ import annotations

import uuid

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from data_specs.visit.followup import History, NewOutcome, NewReferral, RecordedOutcome, Referral
from data_specs.visit.opinion import Author, AuthorRole, NewOpinion, Opinion
from service.delivery.queue import deliveries_of, enqueue
from service.errors import AlreadyAsked, Forbidden, NotFinished, NotFound, VersionChanged
from service.keys import Key
from service.parts import Parts
from service.report.issue import issue, opinions_of
from service.storage.database import database_now, insert_rows, rowcount
from service.storage.tables import VISITS, OpinionRow, OutcomeRow, ReferralRow, VisitRow
from service.visits.stored import STANDS, load_visit, to_me


def author_of(key: Key) -> Author:
    """Who signs with this key.

    Raises
    ------
    Forbidden
        It is no doctor's.
    """
    if not key.may_sign or key.doctor_id is None:
        raise Forbidden
    role: AuthorRole = "specialist" if key.role == "specialist" else "referrer"
    return Author(id=key.doctor_id, name=key.label or key.doctor_id, facility=key.site, role=role)


async def sign(parts: Parts, key: Key, visit_id: str, new: NewOpinion, *, version: int) -> Opinion:
    """Sign an opinion on the report's ``version``. A specialist's answers the question that is open to them.

    Raises
    ------
    NotFound, Forbidden
        No such visit, or not one that this key may sign.
    NotFinished
        It is still being assessed.
    VersionChanged
        The report has another version by now.
    """
    author = author_of(key)
    row = await load_visit(parts, key, visit_id)
    if row.status == "accepted":
        raise NotFinished
    if row.version != version:
        raise VersionChanged(row.version, version)
    await issue(parts, visit_id, version)  # what was read, fixed before it is followed

    def write(session: Session) -> Opinion:
        now = database_now(session)
        counted = update(VISITS).where(VISITS.c.id == visit_id, VISITS.c.version == version)
        if rowcount(session.execute(counted.values(version=version + 1))) != 1:
            now_at = session.execute(select(VISITS.c.version).where(VISITS.c.id == visit_id)).scalar_one()
            raise VersionChanged(now_at, version)
        referral = _question_to(session, key, visit_id, new.referral)
        opinion = Opinion(
            **new.model_dump(exclude={"referral"}),
            referral=referral.id if referral else None,
            number=version,
            author=author,
            signed_at=now,
            blind=row.blind,
        )
        insert_rows(
            session,
            OpinionRow(
                visit_id=visit_id,
                number=version,
                key_id=key.id,
                role=author.role,
                signed_at=now,
                referral_id=opinion.referral,
                opinion=opinion.model_dump_json(),
            ),
        )
        if referral is not None:
            referral.answered_by, referral.closed_at = version, now
        enqueue(session, visit_id, row.site, version + 1, now)
        return opinion

    opinion = await parts.database.write(write)
    await issue(parts, visit_id, version + 1)
    return opinion


def _question_to(session: Session, key: Key, visit_id: str, named: str | None) -> ReferralRow | None:
    """The open question that a specialist answers: the named one, else the oldest; a referring doctor answers none.

    Raises
    ------
    Forbidden
        The specialist sees the visit beside another of the same person, and was not asked about it.
    """
    if key.role != "specialist":
        return None
    asked = select(ReferralRow.id).where(ReferralRow.visit_id == visit_id, to_me(key), STANDS)
    if session.scalars(asked.limit(1)).first() is None:
        raise Forbidden
    query = _open_referrals(visit_id).where(to_me(key))
    if named is not None:
        query = query.where(ReferralRow.id == named)
    found = session.scalars(query.with_for_update()).first()
    if found is None and named is not None:
        raise NotFound
    return found


async def ask(parts: Parts, key: Key, visit_id: str, question: NewReferral) -> Referral:
    """Ask a specialist.

    Raises
    ------
    NotFound, Forbidden, NotFinished
        As :func:`sign`; only the referring doctor asks.
    AlreadyAsked
        A question to the same hospital is open.
    """
    author = author_of(key)
    row = await load_visit(parts, key, visit_id)
    if key.role != "doctor":
        raise Forbidden
    if row.status == "accepted":
        raise NotFinished

    def write(session: Session) -> Referral:
        # the visit's row is locked, so that of two who ask at a time the second sees the first
        session.execute(select(VISITS.c.id).where(VISITS.c.id == visit_id).with_for_update())
        if any(each.to_site == question.to_site for each in session.scalars(_open_referrals(visit_id))):
            raise AlreadyAsked
        asked = ReferralRow(
            id=str(uuid.uuid4()),
            visit_id=visit_id,
            to_site=question.to_site,
            key_id=key.id,
            asked_by=author.model_dump_json(),
            asked_at=database_now(session),
            question=question.question,
            blind=parts.settings.blind_reads if question.blind is None else question.blind,
        )
        session.add(asked)
        session.flush()
        return referral_of(asked)

    return await parts.database.write(write)


async def withdraw(parts: Parts, key: Key, visit_id: str, referral_id: str) -> None:
    """Take a question back that nobody has answered; who asked it, or an admin.

    Raises
    ------
    NotFound
        There is no such open question of this key's.
    """
    await load_visit(parts, key, visit_id)

    def write(session: Session) -> int:
        mine = update(ReferralRow).where(
            ReferralRow.id == referral_id, ReferralRow.visit_id == visit_id, ReferralRow.closed_at.is_(None)
        )
        if key.role != "admin":
            mine = mine.where(ReferralRow.key_id == key.id)
        return rowcount(session.execute(mine.values(closed_at=database_now(session))))

    if not await parts.database.write(write):
        raise NotFound


async def record_outcome(parts: Parts, key: Key, visit_id: str, new: NewOutcome) -> RecordedOutcome:
    """Record what became of a finding; an earlier record stays, and the latest counts.

    Raises
    ------
    NotFound, Forbidden, NotFinished
        As :func:`sign`; a site may record as well.
    """
    row = await load_visit(parts, key, visit_id)
    if row.blind:
        raise Forbidden
    if row.status == "accepted":
        raise NotFinished

    def write(session: Session) -> RecordedOutcome:
        now = database_now(session)
        insert_rows(
            session,
            OutcomeRow(id=str(uuid.uuid4()), visit_id=visit_id, key_id=key.id, recorded_at=now, **new.model_dump()),
        )
        return RecordedOutcome(**new.model_dump(), recorded_at=now)

    return await parts.database.write(write)


def history(session: Session, key: Key, row: VisitRow) -> History:
    """What came after the machine; of a visit that is to be read blind, the reader's own questions alone."""
    asked = select(ReferralRow).where(ReferralRow.visit_id == row.id).order_by(ReferralRow.asked_at)
    if row.blind:
        asked = asked.where(to_me(key))
    referrals = tuple(referral_of(each) for each in session.scalars(asked))
    if row.blind:
        return History(referrals=referrals)
    recorded = select(OutcomeRow).where(OutcomeRow.visit_id == row.id).order_by(OutcomeRow.recorded_at)
    return History(
        opinions=tuple(opinions_of(session, row.id)),
        referrals=referrals,
        outcomes=tuple(_outcome(each) for each in session.scalars(recorded)),
        deliveries=tuple(deliveries_of(session, row.id)),
    )


def _open_referrals(visit_id: str) -> Select[ReferralRow]:
    query = select(ReferralRow).where(ReferralRow.visit_id == visit_id, ReferralRow.closed_at.is_(None))
    return query.order_by(ReferralRow.asked_at)


def referral_of(row: ReferralRow) -> Referral:
    return Referral(
        id=row.id,
        question=row.question,
        to_site=row.to_site,
        blind=row.blind,
        asked_by=Author.model_validate_json(row.asked_by),
        asked_at=row.asked_at,
        answered_by=row.answered_by,
        closed_at=row.closed_at,
    )


def _outcome(row: OutcomeRow) -> RecordedOutcome:
    return RecordedOutcome(
        finding=row.finding,
        outcome=row.outcome,  # type: ignore[arg-type]  # the column holds nothing else
        source=row.source,
        recorded_at=row.recorded_at,
    )
