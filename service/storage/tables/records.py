"""Tables of what stays when a visit goes: deletions, the audit log, incidents."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.base import Base, UtcDateTime


class DeletionRow(Base):
    """What one transaction has deleted, and by which rule. It names no person and no visit.

    It is written with the deletion; the files follow, and ``finished_at`` says when the last of them was gone.
    """

    __tablename__ = "deletions"
    __table_args__ = (
        Index("ix_deletions_at", "at"),
        Index(
            "ix_deletions_unfinished",
            "at",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    rule: Mapped[str] = mapped_column(String(60))
    counts: Mapped[str] = mapped_column(Text)
    """JSON: how many rows of each table."""
    digests: Mapped[str] = mapped_column(Text)
    """JSON: SHA-256 of the files that these rows named. A file that other rows name stays."""
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AuditRow(Base):
    """One entry of the audit log (:mod:`service.storage.audit`). The database refuses to change or delete it.

    ``visit`` refers to no row: a visit is erased, and what was done with it stays.
    """

    __tablename__ = "audit"
    __table_args__ = (
        Index(
            "ix_audit_visit",
            "visit",
            "number",
            sqlite_where=text("visit IS NOT NULL"),
            postgresql_where=text("visit IS NOT NULL"),
        ),
        Index("ix_audit_actor", "actor", "number"),
        Index("ix_audit_at", "at"),
    )

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(60))
    """The id of a key, or ``service``, or ``command:`` and the command's name."""
    role: Mapped[str] = mapped_column(String(10))
    action: Mapped[str] = mapped_column(String(30))
    visit: Mapped[str | None] = mapped_column(String(36))
    detail: Mapped[str] = mapped_column(Text)
    """A JSON object."""
    digest: Mapped[str] = mapped_column(String(64))


class IncidentRow(Base):
    """An incident that was raised from a visit. It stays when the visit is erased."""

    __tablename__ = "incidents"
    __table_args__ = (
        Index("ix_incidents_visit", "visit"),
        Index(
            "ix_incidents_open",
            "due_at",
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    visit: Mapped[str] = mapped_column(String(36))
    site: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(30))
    severity: Mapped[str] = mapped_column(String(60))
    """A name of the table of deadlines."""
    text: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(String(36))
    raised_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    record: Mapped[str] = mapped_column(Text)
    """JSON: what the audit log had of the visit when it was raised, and the bundles that had answered."""
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    closed_by: Mapped[str | None] = mapped_column(String(36))
    found: Mapped[str | None] = mapped_column(Text)
