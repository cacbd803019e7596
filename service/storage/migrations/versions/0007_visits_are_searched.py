"""Visits are found by name, identifier and accession number, and sorted by their day.

The two indexes that lists use now hold every column that a list filters, sorts and groups by: to read these from the
rows would read the assessments that lie before them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from data_specs.visit.context import Context
from service.storage.folding import listed

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

AT_ONCE = 500
LISTED = ["referrer_id", "person_id", "priority", "status", "version", "visited_on", "folded"]
INDEXES = {
    "ix_visits_received": ["received_at", "id"],
    "ix_visits_site_received": ["site", "received_at", "id"],
}
URGENT = sa.text("priority = 'urgent'")


def upgrade() -> None:
    op.add_column("visits", sa.Column("folded", sa.String(400)))
    op.add_column("visits", sa.Column("visited_on", sa.Date))
    _fill_in()
    for name, columns in INDEXES.items():
        op.drop_index(name, "visits")
        op.create_index(name, "visits", [*columns, *([] if "site" in columns else ["site"]), *LISTED])
    op.create_index("ix_visits_urgent", "visits", ["completed_at"], sqlite_where=URGENT, postgresql_where=URGENT)


def _fill_in() -> None:
    """What earlier visits are found by. A context that is no longer read as one leaves its visit without."""
    names = ("id", "context", "accession_number", "folded")
    visits = sa.table("visits", *(sa.column(name) for name in names), sa.column("visited_on", sa.Date))
    bind = op.get_bind()
    last = ""
    while True:
        some = sa.select(visits.c.id, visits.c.context, visits.c.accession_number).where(visits.c.id > last)
        rows = bind.execute(some.order_by(visits.c.id).limit(AT_ONCE)).all()
        if not rows:
            return
        last = rows[-1].id
        for row in rows:
            try:
                context = Context.model_validate_json(row.context)
            except ValueError:
                continue
            found = listed(context, row.accession_number)
            bind.execute(visits.update().where(visits.c.id == row.id).values(**found))


def downgrade() -> None:
    op.drop_index("ix_visits_urgent", "visits")
    for name, columns in INDEXES.items():
        op.drop_index(name, "visits")
        op.create_index(name, "visits", columns)
    for name in ("visited_on", "folded"):
        op.drop_column("visits", name)
