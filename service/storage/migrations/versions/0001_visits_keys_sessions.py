"""Visits with their inputs, keys, sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("site", sa.String(100), nullable=False),
        sa.Column("doctor_id", sa.String(200)),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("key_hash", sa.String(64), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
    )
    op.create_table(
        "visits",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("site", sa.String(100), nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("referrer_id", sa.String(200)),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("priority", sa.String(10), nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("completed_at", MOMENT),
        sa.Column("assessment", sa.Text),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", MOMENT),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("faults", sa.Integer, nullable=False),
        sa.Column("decoding", sa.Integer),
        sa.UniqueConstraint("site", "idempotency_key", name="uq_visits_idempotency"),
    )
    unfinished = sa.text("status = 'accepted'")
    op.create_index("ix_visits_received", "visits", ["received_at", "id"])
    op.create_index("ix_visits_site_received", "visits", ["site", "received_at", "id"])
    op.create_index(
        "ix_visits_unfinished", "visits", ["received_at"], sqlite_where=unfinished, postgresql_where=unfinished
    )
    op.create_table(
        "inputs",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id"), primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True),
        sa.Column("field", sa.String(10), nullable=False),
        sa.Column("filename", sa.String(200), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    for table in ("inputs", "visits", "sessions", "keys"):
        op.drop_table(table)
