"""What a destination answered, and whether a failed delivery may have arrived, are kept; a kind may have a longer name.

SQLite does not hold a text to its length. The column stays as wide when the migration is undone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("answer", sa.Text))
    op.add_column("deliveries", sa.Column("may_have_arrived", sa.Boolean, server_default=sa.false(), nullable=False))
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("destinations", "kind", type_=sa.String(20))


def downgrade() -> None:
    """The code of the release before knows no such kind: its destinations end, as webhooks, which it can list."""
    op.execute(
        "UPDATE destinations SET kind = 'webhook', ended_at = coalesce(ended_at, CURRENT_TIMESTAMP) "
        "WHERE kind = 'health_book'"
    )
    op.drop_column("deliveries", "may_have_arrived")
    op.drop_column("deliveries", "answer")
