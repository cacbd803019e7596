"""Arrivals keep identifiers that are longer than DICOM allows.

SQLite does not hold a text to its length. Columns stay as wide when the migration is undone: earlier code writes less.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        for name in ("sop_uid", "study_uid"):
            op.alter_column("arrivals", name, type_=sa.String(512))


def downgrade() -> None:
    """Nothing: an identifier is never cut."""
