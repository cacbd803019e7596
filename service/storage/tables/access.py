"""Tables of keys and sessions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.base import Base, UtcDateTime

BY_PROVIDER = "provider:"


class KeyRow(Base):
    """An access key; only its SHA-256 is stored.

    A person who signs in by the OpenID provider has a row too, made at the first sign-in. Its ``hash`` is that of the
    provider and the person's subject there, after ``BY_PROVIDER``: no secret has such a hash, so none opens it.
    """

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(10))
    site: Mapped[str] = mapped_column(String(100))
    doctor_id: Mapped[str | None] = mapped_column(String(200))
    label: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def by_provider(self) -> bool:
        """Whether its owner signs in by the OpenID provider, and has no secret."""
        return self.hash.startswith(BY_PROVIDER)


class SessionRow(Base):
    """A browser's session: the SHA-256 of its cookie, the hash of the key that it was opened with, and what its owner
    recognises it by: ``id`` names it to them, and is made of nothing secret."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_key", "key_hash", "used_at"),)

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(36), unique=True)
    key_hash: Mapped[str] = mapped_column(String(64))
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """To the minute."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    network: Mapped[str] = mapped_column(String(50))
    """As :func:`service.protocols.peers.prefix_of` writes it: no address of one device."""
    browser: Mapped[str] = mapped_column(String(20))
