"""What was done with a visit after the machine: opinions, questions, outcomes and deliveries."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.followup import History, RecordedOutcome, Referral
from data_specs.visit.opinion import Author
from service.delivery.health_book.clock import with_clock
from service.delivery.health_book.table import Book
from service.delivery.queue import deliveries_of
from service.keys import Key
from service.report.issue import opinions_of
from service.storage.tables import OutcomeRow, ReferralRow, VisitRow
from service.visits.stored import is_addressed_to


def history_of(session: Session, key: Key, row: VisitRow, book: Book | None = None) -> History:
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
