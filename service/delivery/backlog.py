"""What waits to be delivered, and what was given up: how much, and since when, for the operator's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session

from service.delivery.queue import DELIVERIES, DESTINATIONS, Deliveries
from service.delivery.senders.dispatch import KINDS
from service.storage.database import age_s, database_now
from service.storage.tables import VISITS, OpinionRow


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for the destinations of one kind.

    Parameters
    ----------
    n
        Deliveries that have not arrived and were not given up.
    oldest_s
        Age in seconds of the oldest report among them; 0 where there is none.
    given_up
        Deliveries that are not tried again until somebody asks for it. What was meant for a destination that has ended
        does not count: nobody can ask for it.
    """

    n: int = 0
    oldest_s: float = 0.0
    given_up: int = 0


def measure_backlog(session: Session) -> Mapping[str, Backlog]:
    """The backlog of each kind of destination."""
    # when a delivery is due says nothing: it moves with each attempt. The first version of a report is made when the
    # visit is completed, each further one when an opinion is signed
    signed = and_(OpinionRow.visit_id == DELIVERIES.c.visit_id, OpinionRow.number == DELIVERIES.c.version - 1)
    signed_at = select(OpinionRow.signed_at).where(signed).scalar_subquery()
    made_at = case((DELIVERIES.c.version == 1, VISITS.c.completed_at), else_=signed_at)
    query = (
        select(DESTINATIONS.c.kind, func.count(), func.min(made_at))
        .select_from(DELIVERIES)
        .join(DESTINATIONS, DESTINATIONS.c.id == DELIVERIES.c.destination_id)
        .join(VISITS, VISITS.c.id == DELIVERIES.c.visit_id)
        .where(Deliveries.unfinished)
        .group_by(DESTINATIONS.c.kind)
    )
    now = database_now(session)
    waiting = {kind: (n, age_s(oldest, now)) for kind, n, oldest in session.execute(query)}
    given_up = _given_up(session)
    return {kind: Backlog(*waiting.get(kind, (0, 0.0)), given_up.get(kind, 0)) for kind in KINDS}


def _given_up(session: Session) -> dict[str, int]:
    query = (
        select(DESTINATIONS.c.kind, func.count())
        .select_from(DESTINATIONS)
        .join(DELIVERIES, DELIVERIES.c.destination_id == DESTINATIONS.c.id)
        .where(DESTINATIONS.c.ended_at.is_(None), DELIVERIES.c.state == "dead")
        .group_by(DESTINATIONS.c.kind)
    )
    return {kind: n for kind, n in session.execute(query)}
