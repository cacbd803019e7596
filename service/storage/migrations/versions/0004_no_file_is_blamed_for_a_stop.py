"""Files are read in processes of their own: no row says any more which file was read when the service stopped."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("visits", "decoding")
    op.drop_column("inputs", "refused")


def downgrade() -> None:
    op.add_column("visits", sa.Column("decoding", sa.Integer))
    op.add_column("inputs", sa.Column("refused", sa.Boolean, nullable=False, server_default=sa.false()))
