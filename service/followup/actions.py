"""What doctors do after the machine: sign, ask a specialist, answer, take a question back, record an outcome.

The machine's output is never changed. A signed opinion is a row that is never changed, and makes the next version of
the report. Doctors state which version they read, so that nobody signs without having seen the latest opinion.
"""

from __future__ import annotations

import contextlib
import uuid

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from data_specs.visit.followup import History, NewOutcome, NewReferral, RecordedOutcome, Referral
from data_specs.visit.opinion import Author, AuthorRole, NewOpinion, Opinion
from service.delivery.health_book.clock import with_clock
from service.delivery.health_book.table import Book
from service.delivery.queue import deliveries_of, enqueue
from service.errors import AlreadyAsked, Forbidden, NotFinished, NotFound, StorageUnavailable, VersionChanged
from service.exchange.queue import note_change
from service.keys import Key
from service.parts import Parts
from service.report.issue import issue, opinions_of
from service.sites import expect_known, with_specialists
from service.storage.audit import digest_of_opinion, note
from service.storage.database import database_now, insert_rows, rowcount
from service.storage.tables import VISITS, OpinionRow, OutcomeRow, ReferralRow, VisitRow
from service.visits.stored import NOT_WITHDRAWN, is_addressed_to, load_visit


def author_of(key: Key, name: str | None = None) -> Author:
    """The doctor to whom the key belongs: by the key's name, else by ``name``, else by their identifier.

    Raises
    ------
    Forbidden
        The key is not a doctor's.
    """
    if not key.may_sign or key.doctor_id is None:
        raise Forbidden
    role: AuthorRole = "specialist" if key.role == "specialist" else "referrer"
    return Author(id=key.doctor_id, name=key.label or name or key.doctor_id, facility=key.site, role=role)


async def signable(parts: Parts, key: Key, visit_id: str, *, version: int) -> VisitRow:
    """The visit, whose report's ``version`` the key may sign at this moment.

    Raises
    ------
    NotFound, Forbidden
        There is no such visit, or this key may not sign it.
    NotFinished
        The visit is still being assessed.
    VersionChanged
        The report has another version now.
    """
    author_of(key)
    row = await load_visit(parts, key, visit_id)
    if row.status == "accepted":
        raise NotFinished
    if row.version != version:
        raise VersionChanged(row.version, version)
    if not await parts.database.read(lambda session: _was_asked(session, key, visit_id)):
        raise Forbidden
    return row


async def sign(
    parts: Parts, key: Key, visit_id: str, new: NewOpinion, *, version: int, name: str | None = None
) -> Opinion:
    """Sign an opinion on the report's ``version``. A specialist's opinion also answers an open question.

    Parameters
    ----------
    name
        As :func:`author_of`.

    Raises
    ------
    NotFound, Forbidden, NotFinished, VersionChanged
        As :func:`signable`.
    """
    author = author_of(key, name)
    row = await signable(parts, key, visit_id, version=version)
    await issue(parts, visit_id, version)  # the version that was read is stored before the next one is made

    def write(session: Session) -> Opinion:
        now = database_now(session)
        same_version = update(VISITS).where(VISITS.c.id == visit_id, VISITS.c.version == version)
        if rowcount(session.execute(same_version.values(version=version + 1))) != 1:
            current = session.execute(select(VISITS.c.version).where(VISITS.c.id == visit_id)).scalar_one_or_none()
            raise VersionChanged(current, version) if current is not None else NotFound
        referral = _open_question(session, key, visit_id, new.referral)
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
                uid=str(uuid.uuid4()),
                key_id=key.id,
                role=author.role,
                signed_at=now,
                referral_id=opinion.referral,
                opinion=opinion.model_dump_json(),
            ),
        )
        if referral is not None:
            referral.answered_by, referral.closed_at = version, now
        note(session, "opinion_signed", visit_id, version=version, opinion=digest_of_opinion(opinion.model_dump_json()))
        enqueue(session, visit_id, row.site, version + 1, now)
        note_change(session, visit_id)
        return opinion

    opinion = await parts.database.write(write)
    with contextlib.suppress(StorageUnavailable):  # it is signed, and the report is made when it is asked for
        await issue(parts, visit_id, version + 1)
    return opinion


def _was_asked(session: Session, key: Key, visit_id: str) -> bool:
    """Whether a question about the visit was asked to this specialist; a referring doctor needs none."""
    asked = select(ReferralRow.id).where(ReferralRow.visit_id == visit_id, is_addressed_to(key), NOT_WITHDRAWN)
    return key.role != "specialist" or session.scalars(asked.limit(1)).first() is not None


def _open_question(session: Session, key: Key, visit_id: str, named: str | None) -> ReferralRow | None:
    """The open question that a specialist answers: the named one, else the oldest. ``None`` for a referring doctor.

    Raises
    ------
    Forbidden
        The specialist may see the visit as an earlier one of a person, but was not asked about it.
    NotFound
        The named question is not open, or not to this specialist.
    """
    if key.role != "specialist":
        return None
    if not _was_asked(session, key, visit_id):
        raise Forbidden
    query = _open_questions(visit_id).where(is_addressed_to(key))
    if named is not None:
        query = query.where(ReferralRow.id == named)
    found = session.scalars(query.with_for_update()).first()
    if found is None and named is not None:
        raise NotFound
    return found


async def ask(parts: Parts, key: Key, visit_id: str, question: NewReferral) -> Referral:
    """Ask a specialist about a visit.

    Raises
    ------
    NotFound, Forbidden, NotFinished
        As :func:`sign`. Only the referring doctor may ask.
    InvalidRequest
        No specialist at ``to_site`` has a key: nobody would see the question.
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
        if question.to_site is not None:
            expect_known("to_site", question.to_site, with_specialists(session))
        # The visit's row is locked, so that of two simultaneous questions the second one sees the first.
        _expect_kept(session, visit_id)
        if any(other.to_site == question.to_site for other in session.scalars(_open_questions(visit_id))):
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
        note(session, "question_asked", visit_id, question=asked.id, blind=asked.blind)
        note_change(session, visit_id)
        return referral_of(asked)

    return await parts.database.write(write)


async def withdraw(parts: Parts, key: Key, visit_id: str, referral_id: str) -> None:
    """Take back an open question. Only the key that asked it and an admin may.

    Raises
    ------
    NotFound
        There is no such open question, or this key did not ask it.
    """
    await load_visit(parts, key, visit_id)

    def write(session: Session) -> int:
        question = update(ReferralRow).where(
            ReferralRow.id == referral_id, ReferralRow.visit_id == visit_id, ReferralRow.closed_at.is_(None)
        )
        if key.role != "admin":
            question = question.where(ReferralRow.key_id == key.id)
        taken_back = rowcount(session.execute(question.values(closed_at=database_now(session))))
        if taken_back:
            note(session, "question_withdrawn", visit_id, question=referral_id)
        note_change(session, visit_id)
        return taken_back

    if not await parts.database.write(write):
        raise NotFound


async def record_outcome(parts: Parts, key: Key, visit_id: str, new: NewOutcome) -> RecordedOutcome:
    """Record the outcome of a finding. Earlier records stay, and the latest one counts.

    Raises
    ------
    NotFound, Forbidden, NotFinished
        As :func:`sign`, but the key of a site may record too.
    """
    row = await load_visit(parts, key, visit_id)
    if row.blind:
        raise Forbidden
    if row.status == "accepted":
        raise NotFinished

    def write(session: Session) -> RecordedOutcome:
        _expect_kept(session, visit_id)
        now = database_now(session)
        row = OutcomeRow(id=str(uuid.uuid4()), visit_id=visit_id, key_id=key.id, recorded_at=now, **new.model_dump())
        insert_rows(session, row)
        note(session, "outcome_recorded", visit_id, outcome=row.id, finding=new.finding)
        note_change(session, visit_id)
        return RecordedOutcome(**new.model_dump(), recorded_at=now)

    return await parts.database.write(write)


def _expect_kept(session: Session, visit_id: str) -> None:
    """Lock the visit, which may have been deleted since it was read.

    Raises
    ------
    NotFound
    """
    if session.scalars(select(VISITS.c.id).where(VISITS.c.id == visit_id).with_for_update()).first() is None:
        raise NotFound


def history(session: Session, key: Key, row: VisitRow, book: Book | None = None) -> History:
    """Opinions, questions, outcomes and deliveries of a visit. A blind reader gets only the questions to them.

    Parameters
    ----------
    book
        The table of the health book, whose clock the deliveries there then have.
    """
    questions = select(ReferralRow).where(ReferralRow.visit_id == row.id).order_by(ReferralRow.asked_at)
    if row.blind:
        questions = questions.where(is_addressed_to(key))
    referrals = tuple(referral_of(question) for question in session.scalars(questions))
    if row.blind:
        return History(referrals=referrals)
    recorded = select(OutcomeRow).where(OutcomeRow.visit_id == row.id).order_by(OutcomeRow.recorded_at)
    deliveries = deliveries_of(session, row.id)
    return History(
        opinions=tuple(opinions_of(session, row.id)),
        referrals=referrals,
        outcomes=tuple(_outcome(outcome) for outcome in session.scalars(recorded)),
        deliveries=tuple(with_clock(session, book, row.id, deliveries) if book else deliveries),
    )


def _open_questions(visit_id: str) -> Select[ReferralRow]:
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
        outcome=row.outcome,  # type: ignore[arg-type]  # the column holds no other value
        source=row.source,
        recorded_at=row.recorded_at,
    )
