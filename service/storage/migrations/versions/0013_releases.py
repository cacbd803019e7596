"""A node knows which release its centre offers, and a centre which release each node has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
OF_THE_CENTRE = ("offered", "offered_bytes", "refused", "refused_detail")


def upgrade() -> None:
    op.add_column("centre", sa.Column("offered", sa.Integer))
    op.add_column("centre", sa.Column("offered_bytes", sa.BigInteger))
    op.add_column("centre", sa.Column("refused", sa.String(60)))
    op.add_column("centre", sa.Column("refused_detail", sa.String(300)))
    op.create_table(
        "nodes",
        sa.Column("key_id", sa.String(36), primary_key=True),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("release", sa.Integer),
        sa.Column("since", TIME),
        sa.Column("refused", sa.String(60)),
    )


def downgrade() -> None:
    op.drop_table("nodes")
    for name in OF_THE_CENTRE:
        op.drop_column("centre", name)
