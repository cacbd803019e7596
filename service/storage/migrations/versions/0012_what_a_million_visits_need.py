"""Indexes for what would read a table of a million visits from end to end.

Visits of a person are found without their site; rows to be deleted by their age; and, where rows are deleted, the rows
that refer to them and the files that no row names any more.

Where one is there already, made beforehand without stopping writes, it is left as it is.

The tables that are queues keep room in their pages, so that a lease is extended beside its row and no index grows, and
PostgreSQL cleans them when a fiftieth of their rows have changed, not a fifth.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


_HASH: dict[str, Any] = {"postgresql_using": "hash"}
"""Digests are looked up and never sorted; PostgreSQL's hash index keeps four bytes of each."""
_OF_PERSON = _where("person_id IS NOT NULL")
INDEXES: tuple[tuple[str, str, list[Any], dict[str, Any]], ...] = (
    ("ix_visits_of_person", "visits", ["person_id", "site", "received_at"], _OF_PERSON),
    ("ix_opinions_referral", "opinions", ["referral_id"], _where("referral_id IS NOT NULL")),
    ("ix_referrals_closed", "referrals", ["closed_at"], _where("closed_at IS NOT NULL")),
    ("ix_referrals_to", "referrals", ["to_site"], {}),
    ("ix_arrivals_visit", "arrivals", ["visit_id"], {}),
    ("ix_inputs_sha256", "inputs", ["sha256"], _HASH),
    ("ix_previews_sha256", "previews", ["sha256"], _HASH),
    ("ix_arrivals_sha256", "arrivals", ["sha256"], _HASH),
    ("ix_orders_received", "orders", ["received_at"], {}),
    ("ix_shadow_answers_answered", "shadow_answers", ["answered_at"], {}),
    ("ix_deletions_at", "deletions", ["at"], {}),
    ("ix_deletions_unfinished", "deletions", ["at"], _where("finished_at IS NULL")),
)
_ENDED = sa.text("coalesce(delivered_at, due_at)")
FILL_FACTORS = {"visits": 80, "deliveries": 90, "exchanges": 90}
"""Of the queues, in per cent: a page of visits has eight rows, and keeps room for one more."""
CLEANED_AT = (
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_analyze_scale_factor",
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        given = _where("state != 'waiting'")  # SQLAlchemy does not read such an index from SQLite
        op.create_index("ix_deliveries_ended", "deliveries", [_ENDED], if_not_exists=True, **given)
        for table, percent in FILL_FACTORS.items():
            parameters = {"fillfactor": percent, **dict.fromkeys(CLEANED_AT, 0.02)}
            op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{name} = {to}' for name, to in parameters.items())})")
    for name, table, columns, options in INDEXES:
        op.create_index(name, table, columns, if_not_exists=True, **options)
    op.drop_index("ix_visits_person", "visits")


def downgrade() -> None:
    op.create_index("ix_visits_person", "visits", ["site", "person_id", "received_at"], **_OF_PERSON)
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(name, table)
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_deliveries_ended", "deliveries")
        for table in FILL_FACTORS:
            op.execute(f"ALTER TABLE {table} RESET ({', '.join(('fillfactor', *CLEANED_AT))})")
