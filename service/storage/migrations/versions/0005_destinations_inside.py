"""Which destinations may be inside our own network: those that an admin named.

No row says who named it. A site's key could name webhooks of its site alone, over https, to no address that was inside
by its text; all others are an admin's. A webhook that both could have named may not be inside from now on.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from urllib.parse import urlsplit

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("destinations", sa.Column("may_be_inside", sa.Boolean, nullable=False, server_default=sa.false()))
    names = ("id", "kind", "site", "address", "options", "may_be_inside")
    destinations = sa.table("destinations", *(sa.column(name) for name in names))
    bind = op.get_bind()
    for row in bind.execute(sa.select(destinations)).all():
        if row.kind != "webhook" or row.site is None or _is_an_admins(row.address, row.options):
            bind.execute(destinations.update().where(destinations.c.id == row.id).values(may_be_inside=True))


def _is_an_admins(address: str, options: str) -> bool:
    try:
        found = urlsplit(address)
    except ValueError:
        return False
    if found.scheme == "http" or json.loads(options).get("allow_http"):
        return True
    host = (found.hostname or "").rstrip(".")
    try:
        return ip_address(host).is_private
    except ValueError:
        return host.rpartition(".")[2] == "localhost"


def downgrade() -> None:
    op.drop_column("destinations", "may_be_inside")
