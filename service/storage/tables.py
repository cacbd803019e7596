"""The tables of the database."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from data_specs.dicom.uids import MAX_KEPT
from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from service.storage.folding import MAX_FOLDED


class UtcDateTime(TypeDecorator[datetime]):
    """A datetime with zone UTC; SQLite, which has no zones, stores it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    pass


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
    ``None`` where it was signed before there were nodes (``service.exchange.merge.uid_of``)."""
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


class ReportRow(Base):
    """One version of a visit's report, as it was first issued (``data_specs.visit.report.Report``)."""

    __tablename__ = "reports"

    visit_id: Mapped[str] = mapped_column(ForeignKey("visits.id"), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    issued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    report: Mapped[str] = mapped_column(Text)


class DestinationRow(Base):
    """A destination of reports. ``options`` is JSON; ``secret`` signs webhooks or is a server's token.

    ``may_be_inside``: an admin named it, so it may be inside our own network.
    """

    __tablename__ = "destinations"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
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


NAMING_FILES = ("inputs", "arrivals", "previews")
"""Tables whose column ``sha256`` names a file of the store."""


class UploadPieceRow(Base):
    """A piece of an upload that an object store holds under ``name``; one begins where the last one ends."""

    __tablename__ = "upload_pieces"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(60))


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


VISITS = cast("Table", VisitRow.__table__)
"""The table itself, for statements that run for every visit and need no unit of work."""
EXCHANGES = cast("Table", ExchangeRow.__table__)
