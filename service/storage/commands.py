"""What the commands beside the server share: they open what exists, one at a time, and say in one line what failed."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from service.errors import DatabaseUnavailable, StorageFull, StorageUnavailable
from service.settings import PREFIX, BadSettings, Settings
from service.storage.audit import acting_as
from service.storage.database import Database
from service.storage.store import Store, open_store

DONE, REFUSED, CANNOT = 0, 1, 2
"""Exit codes: done; refused, or done in part; something cannot be read or written."""
ADVISORY_LOCK = 5_264_638
"""PostgreSQL's advisory lock of :func:`one_at_a_time`."""


class NotDone(Exception):
    """A command did not do what it was asked. The message is one line that says why, and names no person."""


OUTAGES = (BadSettings, StorageUnavailable, SQLAlchemyError, OSError)
"""What :func:`plain_reason` explains."""


def plain_reason(error: Exception) -> str:
    """One line about one of :data:`OUTAGES`. The text of most errors is left out, because it may hold a password."""
    if isinstance(error, BadSettings):
        return str(error)
    if isinstance(error, StorageFull):
        return f"there is no room left ({error.found})"
    if isinstance(error, StorageUnavailable):
        what = "database" if isinstance(error, DatabaseUnavailable) else "store"
        return f"the {what} does not answer ({error.found})"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return f"the database does not answer ({type(error).__name__})"


def carried_out(name: str, command: Callable[[], int]) -> int:
    """The exit code of a command, after it was carried out or one line has said why it was not.

    What it does is in the audit log under its name.
    """
    try:
        with acting_as(name):
            return command()
    except NotDone as refusal:
        print(f"{name}: {refusal}", file=sys.stderr)
        return REFUSED
    except OUTAGES as error:
        print(f"{name}: {plain_reason(error)}", file=sys.stderr)
        return CANNOT


def open_existing(settings: Settings) -> tuple[Database, Store]:
    """The database and the store. Neither is created.

    Raises
    ------
    BadSettings
        One of them does not exist or cannot be opened.
    """
    places: dict[str, str] = {}
    try:
        if settings.database.startswith("sqlite:"):
            places["DATABASE_URL"] = make_url(settings.database).database or ""
        store = urlsplit(settings.store)
        if store.scheme in ("file", "local"):
            places["STORE_URL"] = unquote(store.path)
        for name, place in places.items():
            if not Path(place).exists():
                raise BadSettings(f"{PREFIX}DATA_DIR, {PREFIX}{name}: {place} does not exist")
        return Database(settings.database), open_store(settings.store, settings.data_dir)
    except (ImportError, ValueError, SQLAlchemyError) as error:  # its text is not shown, because it may hold a password
        names = f"{PREFIX}DATABASE_URL, {PREFIX}STORE_URL"
        raise BadSettings(f"one of {names} cannot be used: {type(error).__name__}") from error


@contextmanager
def one_at_a_time(settings: Settings, database: Database) -> Iterator[None]:
    """Nothing is deleted while it is saved: of the commands that save, restore or delete, only one runs.

    Raises
    ------
    NotDone
        Another one runs.
    """
    with (settings.data_dir / "upkeep.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotDone(_ANOTHER) from None
        if database.is_sqlite:
            yield
            return
        with database.engine.connect() as connection:  # other machines may run one too
            connection.execution_options(isolation_level="AUTOCOMMIT")
            if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}).scalar_one():
                raise NotDone(_ANOTHER)
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})


_ANOTHER = "another command that saves, restores or deletes is running"
