"""Tables of cases to learn from, and of what trainees said of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from data_specs.visit.teaching import TEACHING
from service.storage.tables.base import Base, UtcDateTime
from service.storage.tables.visits import VisitRow

IS_CASE = func.substr(VisitRow.site, 1, len(TEACHING)) == TEACHING
"""Whether a visit is a case to learn from: :func:`data_specs.visit.teaching.teaches`, in a query."""


class CaseRow(Base):
    """What is known of the visit of a teaching site. It never changes."""

    __tablename__ = "cases"

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True)
    set_digest: Mapped[str] = mapped_column(String(64))
    """Digest of the manifest of the package that it came with."""
    known: Mapped[str] = mapped_column(Text)
    """``data_specs.visit.teaching.Case``"""


class ReadingRow(Base):
    """A case that was given to a trainee, and what they said of it. No opinion: nothing clinical reads this table."""

    __tablename__ = "readings"
    __table_args__ = (
        UniqueConstraint("key_id", "visit_id", "number", name="uq_readings_number"),
        Index(
            "uq_readings_open",
            "key_id",
            unique=True,
            sqlite_where=text("signed_at IS NULL"),
            postgresql_where=text("signed_at IS NULL"),
        ),
        Index("ix_readings_visit", "visit_id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id", ondelete="CASCADE"))
    key_id: Mapped[str] = mapped_column(String(36))
    number: Mapped[int] = mapped_column(Integer)
    """1 for the first time that this trainee reads the case."""
    given_at: Mapped[datetime] = mapped_column(UtcDateTime)
    signed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """``None`` while the trainee reads it; each has one such case at most."""
    reading: Mapped[str | None] = mapped_column(Text)
    """``data_specs.visit.teaching.NewReading``"""
