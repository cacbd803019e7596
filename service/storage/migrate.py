"""Migration of the tables at the start, by one process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path

from sqlalchemy import text

from service.settings import Settings
from service.storage.database import Database

ADVISORY_LOCK = 5_264_637
"""PostgreSQL's advisory lock during a migration; any number that no other application uses."""


def migrate(settings: Settings, database: Database) -> None:
    """Run the migrations that are missing; processes that start at the same time wait for each other."""
    from alembic import command  # noqa: PLC0415  needed once, at the start
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with (settings.data_dir / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with database.engine.connect() as connection, connection.begin():
            if not database.is_sqlite:  # other machines may start too; released with the transaction
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
