"""Cases to learn from, and what trainees said of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    of_visit = sa.ForeignKey("visits.id", ondelete="CASCADE")
    op.create_table(
        "cases",
        sa.Column("visit_id", sa.String(36), of_visit, primary_key=True),
        sa.Column("set_digest", sa.String(64), nullable=False),
        sa.Column("known", sa.Text, nullable=False),
    )
    op.create_table(
        "readings",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id", ondelete="CASCADE"), nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("given_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True)),
        sa.Column("reading", sa.Text),
        sa.UniqueConstraint("key_id", "visit_id", "number", name="uq_readings_number"),
    )
    is_open = sa.text("signed_at IS NULL")
    op.create_index(
        "uq_readings_open", "readings", ["key_id"], unique=True, sqlite_where=is_open, postgresql_where=is_open
    )
    op.create_index("ix_readings_visit", "readings", ["visit_id"])


def downgrade() -> None:
    op.drop_table("readings")
    op.drop_table("cases")
