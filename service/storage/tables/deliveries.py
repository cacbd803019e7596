"""Tables of the destinations of reports, and of deliveries."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.base import Base, UtcDateTime


class DestinationRow(Base):
    """A destination of reports. ``options`` is JSON; ``secret`` signs webhooks or is a server's token.

    ``may_be_inside``: an admin named it, so it may be inside our own network.
    """

    __tablename__ = "destinations"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    address: Mapped[str] = mapped_column(String(500))
    site: Mapped[str | None] = mapped_column(String(100))
    language: Mapped[str] = mapped_column(String(2))
    secret: Mapped[str | None] = mapped_column(String(500))
    options: Mapped[str] = mapped_column(Text)
    may_be_inside: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DeliveryRow(Base):
    """One version of one report for one destination: written in the version's own transaction, leased like a visit."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index(
            "ix_deliveries_due",
            "due_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("ix_deliveries_destination", "destination_id", "state", "due_at"),
        Index(
            "ix_deliveries_ended",
            text("coalesce(delivered_at, due_at)"),
            postgresql_where=text("state != 'waiting'"),
        ).ddl_if(dialect="postgresql"),
    )

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    destination_id: Mapped[str] = mapped_column(ForeignKey("destinations.id"), primary_key=True)
    state: Mapped[str] = mapped_column(String(10))
    """``waiting``, ``delivered`` or ``dead``"""
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer)
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_problem: Mapped[str | None] = mapped_column(String(200))
    """Code of the last failure, without any name in it."""
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answer: Mapped[str | None] = mapped_column(Text)
    """What a destination answered that says more than yes and no, as JSON (:class:`DeliveryAnswer`)."""
    may_have_arrived: Mapped[bool] = mapped_column(Boolean, server_default=false())
    """Whether it was sent without an answer that says what became of it: true from its lease until that is known."""
