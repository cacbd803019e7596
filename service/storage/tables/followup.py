"""Tables of what doctors do with a visit: opinions, questions, outcomes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.base import Base, UtcDateTime


class OpinionRow(Base):
    """A signed opinion. It never changes."""

    __tablename__ = "opinions"
    __table_args__ = (
        Index(
            "ix_opinions_referral",
            "referral_id",
            sqlite_where=text("referral_id IS NOT NULL"),
            postgresql_where=text("referral_id IS NOT NULL"),
        ),
    )

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    uid: Mapped[str | None] = mapped_column(String(36), unique=True)
    """The same at a node and at its centre, which may number it differently until they have exchanged the visit.
    ``None`` where it was signed before there were nodes (``service.exchange.ours.uid_of``)."""
    key_id: Mapped[str] = mapped_column(String(36))
    role: Mapped[str] = mapped_column(String(10))
    signed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    referral_id: Mapped[str | None] = mapped_column(ForeignKey("referrals.id"))
    opinion: Mapped[str] = mapped_column(Text)
    """``data_specs.visit.opinion.Opinion``"""


class ReferralRow(Base):
    """A referring doctor's question to the specialists of one hospital, or of any hospital.

    ``answered_by`` is the number of the opinion that answers it.
    """

    __tablename__ = "referrals"
    __table_args__ = (
        Index(
            "ix_referrals_open",
            "to_site",
            "asked_at",
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index(
            "ix_referrals_closed",
            "closed_at",
            sqlite_where=text("closed_at IS NOT NULL"),
            postgresql_where=text("closed_at IS NOT NULL"),
        ),
        Index("ix_referrals_to", "to_site"),
        Index("ix_referrals_visit", "visit_id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id"))
    to_site: Mapped[str | None] = mapped_column(String(100))
    key_id: Mapped[str] = mapped_column(String(36))
    asked_by: Mapped[str] = mapped_column(Text)
    """``data_specs.visit.opinion.Author``"""
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    question: Mapped[str] = mapped_column(Text)
    blind: Mapped[bool] = mapped_column(Boolean)
    """The specialist reads without the machine's findings until they sign."""
    answered_by: Mapped[int | None] = mapped_column(Integer)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class OutcomeRow(Base):
    """The later outcome of a finding. Rows are only added; the latest one of a finding counts."""

    __tablename__ = "outcomes"
    __table_args__ = (Index("ix_outcomes_visit", "visit_id", "finding"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id"))
    finding: Mapped[str] = mapped_column(String(60))
    outcome: Mapped[str] = mapped_column(String(10))
    source: Mapped[str] = mapped_column(String(200))
    key_id: Mapped[str] = mapped_column(String(36))
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
