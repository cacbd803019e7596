"""The audit log, which the database refuses to change, and incidents.

The triggers keep a mistake and a careless hand from changing the log. Whoever owns the tables can drop them: what shows
a change is the chain (``python -m service.audit verify``).

References
----------
SQLite, CREATE TRIGGER (RAISE). PostgreSQL, CREATE TRIGGER (statement triggers, TRUNCATE) and PL/pgSQL.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
REFUSED = "the audit log is append-only"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.String(60), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("action", sa.String(30), nullable=False),
        sa.Column("visit", sa.String(36)),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    of_visit = sa.text("visit IS NOT NULL")
    op.create_index("ix_audit_visit", "audit", ["visit", "number"], sqlite_where=of_visit, postgresql_where=of_visit)
    op.create_index("ix_audit_actor", "audit", ["actor", "number"])
    op.create_index("ix_audit_at", "audit", ["at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{REFUSED}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
        )
    else:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
            )
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("visit", sa.String(36), nullable=False),
        sa.Column("site", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("severity", sa.String(60), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("raised_at", TIME, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("closed_at", TIME),
        sa.Column("closed_by", sa.String(36)),
        sa.Column("found", sa.Text),
    )
    op.create_index("ix_incidents_visit", "incidents", ["visit"])
    is_open = sa.text("closed_at IS NULL")
    op.create_index("ix_incidents_open", "incidents", ["due_at"], sqlite_where=is_open, postgresql_where=is_open)


def downgrade() -> None:
    op.drop_table("incidents")
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_is_append_only()")
