"""Visits that a certificate calls normal, certificates that ended, and the key of the random sample.

Only new tables: older code runs on beside them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sample_key",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(64), nullable=False),
    )
    op.create_table(
        "certificates",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("site", sa.String(100), nullable=False),
        sa.Column("abnormal_at_most", sa.Float, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True)),
        sa.Column("n_read", sa.Integer),
        sa.Column("n_abnormal", sa.Integer),
    )
    op.create_table(
        "normals",
        sa.Column("visit_id", sa.String(36), sa.ForeignKey("visits.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("certificate", sa.String(64), sa.ForeignKey("certificates.digest"), nullable=False),
        sa.Column("held_back", sa.Boolean, nullable=False),
        sa.Column("batch", sa.String(36)),
        sa.Column("abnormal", sa.Boolean),
    )
    op.create_index("ix_normals_certificate", "normals", ["certificate", "held_back", "abnormal"])


def downgrade() -> None:
    for name in ("normals", "certificates", "sample_key"):
        op.drop_table(name)
