"""Tables of the exchange between nodes and their centre, and of exports."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.base import Base, UtcDateTime


class ExchangeRow(Base):
    """A visit that a node and its centre have both, or will have.

    ``changes`` counts what was done here since; ``sent`` is how much of it the other side has. At a node a visit waits
    until it has sent all of its changes, then ``left``: 1 for recordings and previews, 2 for films.
    """

    __tablename__ = "exchanges"
    __table_args__ = (
        Index(
            "ix_exchanges_waiting",
            "due_at",
            sqlite_where=text('changes > sent OR "left" > 0'),
            postgresql_where=text('changes > sent OR "left" > 0'),
        ),
    )

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True)
    changes: Mapped[int] = mapped_column(Integer)
    sent: Mapped[int] = mapped_column(Integer)
    left: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer)
    """Since something of the visit was last sent."""
    problem: Mapped[str | None] = mapped_column(String(60))
    """Code of the last failure."""
    upload: Mapped[str | None] = mapped_column(String(60))
    """The upload that was begun for its next file: the file's index, a colon, the upload's id."""
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


THE_CENTRE = 1


class CentreRow(Base):
    """What a node knows of its centre: one row, :data:`THE_CENTRE`."""

    __tablename__ = "centre"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    heard_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """By this node's clock."""
    ahead_s: Mapped[float | None] = mapped_column(Float)
    """How far the centre's clock is ahead of this node's."""
    problem: Mapped[str | None] = mapped_column(String(60))
    """Why the centre does not answer; ``None`` where it does."""
    failing_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    specialists: Mapped[str] = mapped_column(Text, default="{}")
    """Hospitals that can be asked, each with the names of its specialists, as JSON."""
    offered: Mapped[int | None] = mapped_column(Integer)
    """Number of the release that the centre offers, where this node does not have it."""
    offered_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """How much of it still has to come, before it is compressed; ``None`` until that is known."""
    refused: Mapped[str | None] = mapped_column(String(60))
    """Why it was refused, as one word; ``None`` where it was not."""
    refused_detail: Mapped[str | None] = mapped_column(String(300))


class NodeRow(Base):
    """What a node has last said of itself at its centre: a row for each key of the role ``node``."""

    __tablename__ = "nodes"

    key_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    release: Mapped[int | None] = mapped_column(Integer)
    """Number of the release that it has; ``None`` where it has none."""
    since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """By the node's clock."""
    refused: Mapped[str | None] = mapped_column(String(60))
    """Why it has refused the release that is offered, as one word."""


class ExportRow(Base):
    """A package of visits without names, or of answers to it: ``service.export.record`` says of which kind.

    It names no person and no visit.
    """

    __tablename__ = "exports"
    __table_args__ = (Index("ix_exports_manifest", "manifest"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    who: Mapped[str] = mapped_column(String(500))
    partner: Mapped[str] = mapped_column(String(500))
    """The recipient; at the other end the site that the visits are at."""
    manifest: Mapped[str] = mapped_column(String(64))
    """SHA-256"""
    about: Mapped[str | None] = mapped_column(String(64))
    """The manifest that answers are about."""
    counts: Mapped[str] = mapped_column(Text)
    """JSON: how many visits, persons, files."""
