"""The specialist's worklist: questions by the visit's urgency, then by how long they have waited."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.followup import Referral
from service.followup.actions import referral_of
from service.keys import Key
from service.parts import Parts
from service.storage.tables import ReferralRow, VisitRow
from service.visits.stored import seen_by, to_me, visible
from service.visits.worklist import urgency


async def list_questions(
    parts: Parts, key: Key, *, state: Literal["open", "closed"] = "open", limit: int = 50
) -> list[tuple[Referral, VisitRow]]:
    """Questions with their visits, as ``key`` may see them. For a specialist: those that ask them."""
    query = visible(select(ReferralRow).join(VisitRow, VisitRow.id == ReferralRow.visit_id), key)
    is_open = ReferralRow.closed_at.is_(None)
    query = query.where(is_open if state == "open" else ~is_open)
    if key.role == "specialist":
        query = query.where(to_me(key))
    order = (urgency, ReferralRow.asked_at) if state == "open" else (ReferralRow.closed_at.desc(),)
    query = query.order_by(*order, ReferralRow.id).limit(limit)

    def read(session: Session) -> list[tuple[Referral, VisitRow]]:
        asked = [(each.visit_id, referral_of(each)) for each in session.scalars(query)]
        about = select(VisitRow).where(VisitRow.id.in_([visit_id for visit_id, _ in asked]))
        visits = {row.id: row for row in seen_by(session, key, about)}
        return [(referral, visits[visit_id]) for visit_id, referral in asked]

    return await parts.database.read(read)
