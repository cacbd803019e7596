"""Visits are exchanged between a node and its centre: opinions have an identity, files may come later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

WAITING = sa.text('changes > sent OR "left" > 0')


def upgrade() -> None:
    with op.batch_alter_table("opinions") as opinions:
        opinions.add_column(sa.Column("uid", sa.String(36)))
        opinions.create_unique_constraint("uq_opinions_uid", ["uid"])
    op.add_column("inputs", sa.Column("awaited", sa.Boolean))
    time = sa.DateTime(timezone=True)
    op.create_table(
        "exchanges",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("changes", sa.Integer, nullable=False),
        sa.Column("sent", sa.Integer, nullable=False),
        sa.Column("left", sa.Integer, nullable=False),
        sa.Column("due_at", time, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("problem", sa.String(60)),
        sa.Column("upload", sa.String(60)),
        sa.Column("owner", sa.String(64)),
        sa.Column("lease_until", time),
    )
    op.create_index("ix_exchanges_waiting", "exchanges", ["due_at"], sqlite_where=WAITING, postgresql_where=WAITING)
    op.create_table(
        "previews",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "centre",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("heard_at", time),
        sa.Column("ahead_s", sa.Float),
        sa.Column("problem", sa.String(60)),
        sa.Column("failing_since", time),
        sa.Column("specialists", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("centre")
    op.drop_table("previews")
    op.drop_index("ix_exchanges_waiting", "exchanges")
    op.drop_table("exchanges")
    op.drop_column("inputs", "awaited")
    with op.batch_alter_table("opinions") as opinions:
        opinions.drop_constraint("uq_opinions_uid", type_="unique")
        opinions.drop_column("uid")
