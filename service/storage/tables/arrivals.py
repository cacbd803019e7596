"""Tables of what comes in before it is a visit: DICOM objects, orders, uploads."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from data_specs.dicom.uids import MAX_KEPT
from service.storage.tables.base import Base, UtcDateTime


class ArrivalRow(Base):
    """A DICOM object that was received by C-STORE or STOW-RS, and waits until its study becomes a visit.

    ``visit_id`` then says which visit; the row stays, so that an object that is sent again is recognised.
    """

    __tablename__ = "arrivals"
    __table_args__ = (
        Index(
            "ix_arrivals_waiting",
            "received_at",
            sqlite_where=text("visit_id IS NULL"),
            postgresql_where=text("visit_id IS NULL"),
        ),
        Index("ix_arrivals_study", "site", "study_uid"),
        Index("ix_arrivals_visit", "visit_id"),
        Index("ix_arrivals_sha256", "sha256", postgresql_using="hash"),
    )

    site: Mapped[str] = mapped_column(String(100), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(String(MAX_KEPT), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(MAX_KEPT))
    """As it came; where the object names no study, one of its own, so that nothing is put together with it."""
    field: Mapped[str] = mapped_column(String(10))
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    dicom: Mapped[str] = mapped_column(Text)
    """``data_specs.dicom.reference.DicomReference``"""
    source: Mapped[str] = mapped_column(String(100))
    """The sender: a calling AE title, or the id of the key of a STOW-RS request."""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    visit_id: Mapped[str | None] = mapped_column(ForeignKey("visits.id"))


class OrderRow(Base):
    """An order that a hospital's system sent before the visit (HL7 v2), looked up by its accession number."""

    __tablename__ = "orders"
    __table_args__ = (Index("ix_orders_received", "received_at"),)

    site: Mapped[str] = mapped_column(String(100), primary_key=True)
    accession_number: Mapped[str] = mapped_column(String(64), primary_key=True)
    context: Mapped[str] = mapped_column(Text)
    """``data_specs.visit.context.Context``"""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OrderMessageRow(Base):
    """An order message (HL7 v2) that was carried out. Sent again, it is acknowledged and changes nothing.

    ``sender`` is MSH-3 and MSH-4: control ids are unique to a sending application.
    """

    __tablename__ = "order_messages"
    __table_args__ = (Index("ix_order_messages_received", "received_at"),)

    site: Mapped[str] = mapped_column(String(100), primary_key=True)
    sender: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256"""
    control_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    """SHA-256 of all that follows its header."""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UploadRow(Base):
    """A resumable upload (tus). Its bytes are where ``service.storage.pieces`` keeps them."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(36))
    filename: Mapped[str] = mapped_column(String(200))
    field: Mapped[str] = mapped_column(String(10))
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UploadPieceRow(Base):
    """A piece of an upload that an object store holds under ``name``; one begins where the last one ends."""

    __tablename__ = "upload_pieces"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(60))
