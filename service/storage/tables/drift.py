"""Tables of drift: what films were like, by device; what they are compared with; alarms, and who is told of them."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Boolean, Date, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.base import Base, UtcDateTime


class FilmRow(Base):
    """What a film of a visit was like (``service.drift.samples.SeenFilm``); written with the visit's outcome."""

    __tablename__ = "films"
    __table_args__ = (Index("ix_films_received", "site", "received_at", "device"),)

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True)
    site: Mapped[str] = mapped_column(String(100))
    device: Mapped[str] = mapped_column(String(200))
    """Manufacturer and model; a film that states neither is of the device that its format names."""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_by: Mapped[str] = mapped_column(String(100))
    """Names and versions of the bundles that saw it; empty where none did."""
    refused: Mapped[bool] = mapped_column(Boolean)
    codes: Mapped[str] = mapped_column(Text)
    traits: Mapped[str] = mapped_column(Text)


class ReferenceRow(Base):
    """The films of a device that later ones are compared with.

    ``since`` is when it began, ``until`` when the last of its films was received, ``sample`` a
    ``service.drift.samples.Sample``. ``begun_by`` is the key of who said that it begins, and ``reason`` why; ``None``
    where an acceptance, another version or the first film began it.
    """

    __tablename__ = "drift_references"

    site: Mapped[str] = mapped_column(String(100), primary_key=True)
    device: Mapped[str] = mapped_column(String(200), primary_key=True)
    seen_by: Mapped[str] = mapped_column(String(100))
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    films: Mapped[int] = mapped_column(Integer)
    sample: Mapped[str] = mapped_column(Text)
    begun_by: Mapped[str | None] = mapped_column(String(36))
    reason: Mapped[str | None] = mapped_column(Text)


class WeekRow(Base):
    """The films of a device in one week from Monday to Sunday, UTC: a ``service.drift.weeks.Week``."""

    __tablename__ = "drift_weeks"

    site: Mapped[str] = mapped_column(String(100), primary_key=True)
    device: Mapped[str] = mapped_column(String(200), primary_key=True)
    week: Mapped[date] = mapped_column(Date, primary_key=True)
    films: Mapped[int] = mapped_column(Integer)
    found: Mapped[str] = mapped_column(Text)


class AlarmRow(Base):
    """One number or share of a device that is no longer as in the reference; open until ``ended_at``."""

    __tablename__ = "drift_alarms"
    __table_args__ = (
        Index(
            "uq_drift_alarms_open",
            "site",
            "device",
            "name",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_drift_alarms_raised", "raised_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    site: Mapped[str] = mapped_column(String(100))
    device: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(100))
    raised_at: Mapped[datetime] = mapped_column(UtcDateTime)
    before: Mapped[float] = mapped_column(Float)
    now: Mapped[float] = mapped_column(Float)
    n_before: Mapped[int] = mapped_column(Integer)
    n_now: Mapped[int] = mapped_column(Integer)
    p: Mapped[float] = mapped_column(Float)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    silenced_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    silenced_by: Mapped[str | None] = mapped_column(String(36))
    reason: Mapped[str | None] = mapped_column(Text)


class CheckRow(Base):
    """When the films of a site are looked at next; leased like a visit."""

    __tablename__ = "drift_checks"

    site: Mapped[str] = mapped_column(String(100), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    checked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class NoticeRow(Base):
    """A message about alarms for one destination, written with them; leased like a delivery."""

    __tablename__ = "drift_notices"
    __table_args__ = (
        Index(
            "ix_drift_notices_due",
            "due_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    destination_id: Mapped[str] = mapped_column(ForeignKey("destinations.id"))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(10))
    """``waiting``, ``delivered`` or ``dead``"""
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer)
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_problem: Mapped[str | None] = mapped_column(String(200))
    """Code of the last failure, without any name in it."""
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
