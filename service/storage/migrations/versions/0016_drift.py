"""What films were like, what they are compared with, and alarms about devices whose films change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
TABLES = ("films", "drift_references", "drift_weeks", "drift_alarms", "drift_checks", "drift_notices")


def upgrade() -> None:
    op.create_table(
        "films",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("site", sa.String(100), nullable=False),
        sa.Column("device", sa.String(200), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("seen_by", sa.String(100), nullable=False),
        sa.Column("refused", sa.Boolean, nullable=False),
        sa.Column("codes", sa.Text, nullable=False),
        sa.Column("traits", sa.Text, nullable=False),
    )
    op.create_index("ix_films_received", "films", ["site", "received_at", "device"])
    op.create_table(
        "drift_references",
        sa.Column("site", sa.String(100), primary_key=True),
        sa.Column("device", sa.String(200), primary_key=True),
        sa.Column("seen_by", sa.String(100), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("until", TIME),
        sa.Column("films", sa.Integer, nullable=False),
        sa.Column("sample", sa.Text, nullable=False),
        sa.Column("begun_by", sa.String(36)),
        sa.Column("reason", sa.Text),
    )
    op.create_table(
        "drift_weeks",
        sa.Column("site", sa.String(100), primary_key=True),
        sa.Column("device", sa.String(200), primary_key=True),
        sa.Column("week", sa.Date, primary_key=True),
        sa.Column("films", sa.Integer, nullable=False),
        sa.Column("found", sa.Text, nullable=False),
    )
    op.create_table(
        "drift_alarms",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("site", sa.String(100), nullable=False),
        sa.Column("device", sa.String(200), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("raised_at", TIME, nullable=False),
        sa.Column("before", sa.Float, nullable=False),
        sa.Column("now", sa.Float, nullable=False),
        sa.Column("n_before", sa.Integer, nullable=False),
        sa.Column("n_now", sa.Integer, nullable=False),
        sa.Column("p", sa.Float, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("silenced_until", TIME),
        sa.Column("silenced_by", sa.String(36)),
        sa.Column("reason", sa.Text),
    )
    is_open = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_drift_alarms_open",
        "drift_alarms",
        ["site", "device", "name"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index("ix_drift_alarms_raised", "drift_alarms", ["raised_at"])
    op.create_table(
        "drift_checks",
        sa.Column("site", sa.String(100), primary_key=True),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("checked_at", TIME),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", TIME),
    )
    op.create_table(
        "drift_notices",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("destination_id", sa.String(36), sa.ForeignKey("destinations.id"), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", TIME),
        sa.Column("last_problem", sa.String(200)),
        sa.Column("delivered_at", TIME),
    )
    waits = sa.text("state = 'waiting'")
    op.create_index("ix_drift_notices_due", "drift_notices", ["due_at"], sqlite_where=waits, postgresql_where=waits)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
