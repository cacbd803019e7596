"""What a centre knows of its nodes: which release each of them has, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.exchange.record import NodeState
from service.storage.tables import KeyRow, NodeRow

YEARS = range(2000, 2200)
"""A node whose clock is of another year does not know since when it has a release."""


@dataclass(frozen=True, slots=True)
class KnownNode:
    """A node; without ``said`` it has never asked for a release."""

    site: str
    label: str
    said: NodeRow | None


def note_node(session: Session, key_id: str, state: NodeState, now: datetime) -> None:
    """Keep what a node says of itself."""
    since = state.since if state.since is not None and state.since.year in YEARS else None
    session.merge(NodeRow(key_id=key_id, asked_at=now, release=state.number, since=since, refused=state.refused))


def known_nodes(session: Session) -> Sequence[KnownNode]:
    """The nodes with a valid key, by their sites."""
    query = select(KeyRow.site, KeyRow.label, NodeRow).outerjoin(NodeRow, NodeRow.key_id == KeyRow.id)
    query = query.where(KeyRow.role == "node", KeyRow.revoked_at.is_(None)).order_by(KeyRow.site, KeyRow.created_at)
    return [KnownNode(*row) for row in session.execute(query)]
