"""The specialist's worklist: questions by the priority of their visits, then the longest waiting first."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.followup import Referral
from service.followup.history import referral_of
from service.keys import Key
from service.parts import Parts
from service.storage.tables import ReferralRow, VisitRow
from service.visits.stored import NOT_WITHDRAWN, is_addressed_to, seen_by, visible
from service.visits.worklist import urgency


async def list_questions(
    parts: Parts, key: Key, *, state: Literal["open", "closed"] = "open", limit: int = 50
) -> list[tuple[Referral, VisitRow]]:
    """Questions with their visits, as ``key`` may see them. A specialist gets the questions to them, without those that
    were taken back.

    Open questions are in the order of the worklist, closed ones latest first.
    """
    query = select(ReferralRow).join(VisitRow, VisitRow.id == ReferralRow.visit_id)
    to_them = query.where(is_addressed_to(key), NOT_WITHDRAWN)  # a specialist sees the visits of these
    query = to_them if key.role == "specialist" else visible(query, key)
    is_open = ReferralRow.closed_at.is_(None)
    query = query.where(is_open if state == "open" else ~is_open)
    order = (urgency, ReferralRow.asked_at) if state == "open" else (ReferralRow.closed_at.desc(),)
    query = query.order_by(*order, ReferralRow.id).limit(limit)

    def read(session: Session) -> list[tuple[Referral, VisitRow]]:
        questions = [(row.visit_id, referral_of(row)) for row in session.scalars(query)]
        their_visits = select(VisitRow).where(VisitRow.id.in_([visit_id for visit_id, _ in questions]))
        visits = {row.id: row for row in seen_by(session, key, their_visits)}
        return [(referral, visits[visit_id]) for visit_id, referral in questions]

    return await parts.database.read(read)
