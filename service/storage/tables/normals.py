"""Tables of certificates of normals, the visits that they call normal, and the key of the random sample."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables.base import Base, UtcDateTime

THE_KEY = 1


class SampleKeyRow(Base):
    """The secret by which visits are drawn into the random sample: one row, :data:`THE_KEY`."""

    __tablename__ = "sample_key"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    key: Mapped[str] = mapped_column(String(64))


class CertificateRow(Base):
    """A certificate that has called a visit normal, by the digest of its line in the registry's log.

    ``stopped_at`` is when what was read in full showed that its bound is broken, by ``n_abnormal`` of ``n_read``.
    Nothing is released by it any more.
    """

    __tablename__ = "certificates"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    site: Mapped[str] = mapped_column(String(100))
    abnormal_at_most: Mapped[float] = mapped_column(Float)
    confidence: Mapped[float] = mapped_column(Float)
    stopped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    n_read: Mapped[int | None] = mapped_column(Integer)
    n_abnormal: Mapped[int | None] = mapped_column(Integer)


class NormalRow(Base):
    """A visit that a certificate calls normal: written with its outcome, in the same transaction.

    One that is ``held_back`` belongs to the random tenth, and is read in full; the others may be signed in a batch.
    """

    __tablename__ = "normals"
    __table_args__ = (Index("ix_normals_certificate", "certificate", "held_back", "abnormal"),)

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True)
    certificate: Mapped[str] = mapped_column(ForeignKey("certificates.digest"))
    held_back: Mapped[bool] = mapped_column(Boolean)
    batch: Mapped[str | None] = mapped_column(String(36))
    """The batch in which it was signed."""
    abnormal: Mapped[bool | None] = mapped_column(Boolean)
    """Whether a doctor or an outcome says that there is a finding; ``None`` until one has said something."""
