"""Reports, opinions, referrals, outcomes, destinations, deliveries; DICOM arrivals, orders, uploads."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
TABLES = (
    "uploads",
    "order_messages",
    "orders",
    "arrivals",
    "deliveries",
    "destinations",
    "reports",
    "outcomes",
    "opinions",
    "referrals",
)
VISIT_COLUMNS = {"person_id": 200, "study_uid": 64, "accession_number": 64}


def upgrade() -> None:
    for name, length in VISIT_COLUMNS.items():
        op.add_column("visits", sa.Column(name, sa.String(length)))
    op.add_column("visits", sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.add_column("inputs", sa.Column("dicom", sa.Text))
    _fill_in_the_persons()
    for name, columns, known in (
        ("ix_visits_person", ["site", "person_id", "received_at"], sa.text("person_id IS NOT NULL")),
        ("ix_visits_accession", ["accession_number"], sa.text("accession_number IS NOT NULL")),
    ):
        op.create_index(name, "visits", columns, sqlite_where=known, postgresql_where=known)
    op.create_index("ix_visits_study", "visits", ["study_uid"])
    op.create_table(
        "referrals",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id"), nullable=False),
        sa.Column("to_site", sa.String(100)),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("blind", sa.Boolean, nullable=False),
        sa.Column("answered_by", sa.Integer),
        sa.Column("closed_at", MOMENT),
    )
    op.create_index(
        "ix_referrals_open",
        "referrals",
        ["to_site", "asked_at"],
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("ix_referrals_visit", "referrals", ["visit_id"])
    op.create_table(
        "opinions",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("signed_at", MOMENT, nullable=False),
        sa.Column("referral_id", sa.String(36), sa.ForeignKey("referrals.id")),
        sa.Column("opinion", sa.Text, nullable=False),
    )
    op.create_table(
        "outcomes",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id"), nullable=False),
        sa.Column("finding", sa.String(60), nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
    )
    op.create_index("ix_outcomes_visit", "outcomes", ["visit_id", "finding"])
    op.create_table(
        "reports",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
    )
    op.create_table(
        "destinations",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("address", sa.String(500), nullable=False),
        sa.Column("site", sa.String(100)),
        sa.Column("language", sa.String(2), nullable=False),
        sa.Column("secret", sa.String(500)),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
    )
    op.create_table(
        "deliveries",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("destination_id", sa.String(36), sa.ForeignKey("destinations.id"), primary_key=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", MOMENT),
        sa.Column("last_problem", sa.String(200)),
        sa.Column("delivered_at", MOMENT),
    )
    op.create_index("ix_deliveries_destination", "deliveries", ["destination_id", "state", "due_at"])
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["due_at"],
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "arrivals",
        sa.Column("site", sa.String(100), primary_key=True),
        sa.Column("sop_uid", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("field", sa.String(10), nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("dicom", sa.Text, nullable=False),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id")),
    )
    op.create_index("ix_arrivals_study", "arrivals", ["site", "study_uid"])
    op.create_index(
        "ix_arrivals_waiting",
        "arrivals",
        ["received_at"],
        sqlite_where=sa.text("visit_id IS NULL"),
        postgresql_where=sa.text("visit_id IS NULL"),
    )
    op.create_table(
        "orders",
        sa.Column("site", sa.String(100), primary_key=True),
        sa.Column("accession_number", sa.String(64), primary_key=True),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
    )
    op.create_table(
        "order_messages",
        sa.Column("site", sa.String(100), primary_key=True),
        sa.Column("sender", sa.String(64), primary_key=True),
        sa.Column("control_id", sa.String(200), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
    )
    op.create_index("ix_order_messages_received", "order_messages", ["received_at"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("filename", sa.String(200), nullable=False),
        sa.Column("field", sa.String(10), nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
    )


def _fill_in_the_persons() -> None:
    """Who the visits were of that came before this column did, so that they are found as earlier ones."""
    visits = sa.table("visits", sa.column("id"), sa.column("context"), sa.column("person_id"))
    bind = op.get_bind()
    for visit_id, context in bind.execute(sa.select(visits.c.id, visits.c.context)).all():
        person_id = (json.loads(context).get("person") or {}).get("id")
        if person_id:
            bind.execute(visits.update().where(visits.c.id == visit_id).values(person_id=person_id))


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    for name in ("ix_visits_accession", "ix_visits_study", "ix_visits_person"):
        op.drop_index(name, "visits")
    op.drop_column("inputs", "dicom")
    for name in (*VISIT_COLUMNS, "version"):
        op.drop_column("visits", name)
