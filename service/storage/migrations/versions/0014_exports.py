"""What was exported, imported and answered without names is recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exports",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(500), nullable=False),
        sa.Column("partner", sa.String(500), nullable=False),
        sa.Column("manifest", sa.String(64), nullable=False),
        sa.Column("about", sa.String(64)),
        sa.Column("counts", sa.Text, nullable=False),
    )
    op.create_index("ix_exports_manifest", "exports", ["manifest"])


def downgrade() -> None:
    op.drop_table("exports")
