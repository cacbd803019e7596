"""Migration of the tables, by one process at a time; which migrations may run while older code is still running.

A server runs at its start what the code that ran before can live with. What only the new code can live with waits until
somebody says that no older code runs any more (``python -m service.upgrade run``).
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog
from sqlalchemy import Connection, inspect, text

from service.settings import Settings
from service.storage.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

ADVISORY_LOCK = 5_264_637
"""PostgreSQL's advisory lock during a migration; any number that no other application uses."""

When = Literal["before", "after", "stopped"]
DEPLOY: Mapping[str, When] = {
    "0001": "before",
    "0002": "before",
    "0003": "before",
    "0004": "stopped",
    "0005": "before",
    "0006": "before",
    "0007": "before",
    "0008": "before",
    "0009": "before",
    "0010": "stopped",
    "0011": "before",
    "0012": "before",
    "0013": "before",
    "0014": "before",
    "0015": "before",
    "0016": "before",
    "0017": "before",
    "0018": "before",
    "0019": "before",
}
"""When each migration may run.

``before``: it only adds; the code of the release before reads and writes on, beside the new one. ``after``: it takes
away what only that older code uses. ``stopped``: neither code can live with the other's tables. A release's ``after``
comes behind all its ``before``, so one that stands before another's ``before`` is of an earlier release, and due.
"""

REVISIONS = tuple(DEPLOY)
"""All revisions, the first one first."""

log = structlog.get_logger()


def migrate(settings: Settings, database: Database) -> None:
    """Run the migrations that are due at a start; processes that start at the same time wait for each other.

    Tables that a later release has migrated already stay as they are: a server of the release before it may have to be
    started again while that one is rolled out.
    """
    with migrating(settings, database) as connection:
        present, known = revision_of(connection), REVISIONS
        if present is not None and present not in known:
            log.warning("database_is_of_a_later_release", revision=present, known=known[-1])
            return
        due = due_at_start(known, DEPLOY)
        if present is None or known.index(present) < known.index(due):
            upgrade(connection, due)


def due_at_start(known: Sequence[str], deploy: Mapping[str, When]) -> str:
    """The revision that a server brings the tables to: the last one that is not ``after``."""
    return next(revision for revision in reversed(known) if deploy[revision] != "after")


@contextmanager
def migrating(settings: Settings, database: Database) -> Iterator[Connection]:
    """A transaction in which this process alone changes the tables."""
    with (settings.data_dir / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with database.engine.connect() as connection, connection.begin():
            if not database.is_sqlite:  # other machines may start too; released with the transaction
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            yield connection


def revision_of(connection: Connection) -> str | None:
    """The last migration of the tables; ``None`` where there are none.

    Alembic itself is not asked: a server whose tables are in order starts without loading it.
    """
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection, revision: str) -> None:
    """Make the tables those of ``revision`` or of ``head``, in the transaction of ``connection``.

    Raises
    ------
    alembic.util.CommandError
        No migration has this revision.
    """
    from alembic import command  # noqa: PLC0415  only where something changes

    command.upgrade(_config(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Undo the migrations after ``revision``, in the transaction of ``connection``; what they added is lost."""
    from alembic import command  # noqa: PLC0415  as above

    command.downgrade(_config(connection), revision)


def run_alone(connection: Connection, revision: str, way: Literal["upgrade", "downgrade"]) -> None:
    """Run or undo one migration, whatever came after it, in the transaction of ``connection``.

    To measure what it is worth: the tables still say that they are those of the last one.
    """
    from alembic.migration import MigrationContext  # noqa: PLC0415  as above
    from alembic.operations import Operations  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    module = ScriptDirectory.from_config(_config()).get_revision(revision).module
    with Operations.context(MigrationContext.configure(connection)):
        getattr(module, way)()


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415  as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
