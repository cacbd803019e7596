"""Tables of visits, their files, answers and reports."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import BigInteger, Boolean, Date, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from service.storage.folding import MAX_FOLDED
from service.storage.tables.base import Base, UtcDateTime

_LISTED = ("referrer_id", "person_id", "priority", "status", "version", "visited_on", "folded")


class VisitRow(Base):
    """One visit: what was posted, which process works on it, and its assessment.

    ``owner``, ``lease_until``, ``attempts`` and ``faults`` belong to ``service.visits.leases``; ``attempts`` grows
    with every lease, so that a process whose lease has passed to another can notice it.
    """

    __tablename__ = "visits"
    __table_args__ = (
        UniqueConstraint("site", "idempotency_key", name="uq_visits_idempotency"),
        # they hold all that a list filters, sorts and groups by: in a row this lies behind the assessment
        Index("ix_visits_received", "received_at", "id", "site", *_LISTED),
        Index("ix_visits_site_received", "site", "received_at", "id", *_LISTED),
        Index(
            "ix_visits_urgent",
            "completed_at",
            sqlite_where=text("priority = 'urgent'"),
            postgresql_where=text("priority = 'urgent'"),
        ),
        Index(
            "ix_visits_of_person",
            "person_id",
            "site",
            "received_at",
            sqlite_where=text("person_id IS NOT NULL"),
            postgresql_where=text("person_id IS NOT NULL"),
        ),
        Index("ix_visits_study", "study_uid"),
        Index(
            "ix_visits_accession",
            "accession_number",
            sqlite_where=text("accession_number IS NOT NULL"),
            postgresql_where=text("accession_number IS NOT NULL"),
        ),
        Index(
            "ix_visits_unfinished",
            "received_at",
            sqlite_where=text("status = 'accepted'"),
            postgresql_where=text("status = 'accepted'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    site: Mapped[str] = mapped_column(String(100))
    key_id: Mapped[str] = mapped_column(String(36))
    referrer_id: Mapped[str | None] = mapped_column(String(200))
    person_id: Mapped[str | None] = mapped_column(String(200))
    study_uid: Mapped[str | None] = mapped_column(String(64))
    """The study of the report's own objects: that of the visit's files, else (or where no DICOM object may name it) one
    that was made for the visit."""
    accession_number: Mapped[str | None] = mapped_column(String(64))
    context: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(10))
    priority: Mapped[str] = mapped_column(String(10), default="unassessed")
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    assessment: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer, default=1)
    """Version of its report: one more than the number of signed opinions."""
    folded: Mapped[str | None] = mapped_column(String(MAX_FOLDED))
    """Name, person's identifier and accession number, as :func:`service.storage.folding.fold` writes them."""
    visited_on: Mapped[date | None] = mapped_column(Date)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_hash: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    faults: Mapped[int] = mapped_column(Integer, default=0)
    blind = False
    """Not stored: set for a specialist who has to read without the findings (``service.visits.stored``)."""
    inputs: Mapped[list[InputRow]] = relationship(order_by="InputRow.index", lazy="selectin")

    def read_assessment(self) -> Assessment | None:
        """The engine's assessment; ``None`` while the visit is unfinished."""
        return None if self.assessment is None else Assessment.model_validate_json(self.assessment)

    def read_context(self) -> Context:
        """The context that was posted with the files."""
        return Context.model_validate_json(self.context)


class InputRow(Base):
    """One posted file of a visit; its content is in the store under ``sha256``."""

    __tablename__ = "inputs"
    __table_args__ = (Index("ix_inputs_sha256", "sha256", postgresql_using="hash"),)

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True)
    field: Mapped[str] = mapped_column(String(10))
    filename: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    dicom: Mapped[str | None] = mapped_column(Text)
    """What its DICOM header says of study, series and person: a ``data_specs.dicom.reference.DicomReference``."""
    awaited: Mapped[bool | None] = mapped_column(Boolean)
    """At a centre: the file follows its visit, and has not come yet."""


class PreviewRow(Base):
    """At a centre: a smaller picture of a film that is awaited, or was."""

    __tablename__ = "previews"
    __table_args__ = (Index("ix_previews_sha256", "sha256", postgresql_using="hash"),)

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    n_bytes: Mapped[int] = mapped_column(BigInteger)


class ShadowRow(Base):
    """A shadow bundle's assessment of a visit. No route reads this table: ``python -m models compare`` does."""

    __tablename__ = "shadow_answers"
    __table_args__ = (Index("ix_shadow_answers_answered", "answered_at"),)

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[str] = mapped_column(String(20), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    in_service: Mapped[str] = mapped_column(String(20))
    """Version in service at that time; the visit's own ``models`` say which version assessed it."""
    answered_at: Mapped[datetime] = mapped_column(UtcDateTime)
    assessment: Mapped[str] = mapped_column(Text)


class ReportRow(Base):
    """One version of a visit's report, as it was first issued (``data_specs.visit.report.Report``)."""

    __tablename__ = "reports"

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    report: Mapped[str] = mapped_column(Text)
