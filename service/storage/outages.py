"""Outages: what the drivers and the kernel raise where the database or a disk is away, as errors of the service.

This is the one place that decides it. Whatever is not an outage, such as a statement that is wrong, is raised as it is.

References
----------
SQLite, Result and Error Codes (https://www.sqlite.org/rescode.html). PostgreSQL, Appendix A (error codes): class 08
(connection), 25006 (read-only), 53 (resources), 53100 (disk full), 54 (a statement beyond the limits of the program).
POSIX, ``errno.h``.
"""

from __future__ import annotations

import errno
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from service.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull, StorageUnavailable
from service.logs import where_it_failed

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk, the quota, or what one file may have, is used up."""
SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
LOG_S = 1.0
"""An outage is logged at most so often."""
POSTGRES_READ_ONLY, POSTGRES_DISK_FULL, POSTGRES_LIMIT = "25006", "53100", "54"

log = structlog.get_logger()


@contextmanager
def database_outages() -> Iterator[None]:
    """Raise an outage of the database as :class:`DatabaseUnavailable` or :class:`StorageFull`."""
    try:
        yield
    except (DBAPIError, NoFreeConnection) as error:
        outage = _database_outage(error)
        if outage is None:
            raise
        raise noted(outage, error) from error


@contextmanager
def commit_outages() -> Iterator[None]:
    """As :func:`database_outages`, around a commit: where the answer did not come, it may have been made.

    SQLite's commit has failed for certain where the disk is full or another process has the lock. After another error
    of the disk, what was written may be found when the file is opened the next time.
    """
    try:
        yield
    except DBAPIError as error:
        outage = _database_outage(error)
        if outage is None:
            raise
        is_unknown = error.connection_invalidated or _sqlite_code(error.orig) == sqlite3.SQLITE_IOERR
        raise noted(OutcomeUnknown(outage.found) if is_unknown else outage, error) from error


@contextmanager
def disk_outages() -> Iterator[None]:
    """Raise every error of files as :class:`StorageUnavailable` or :class:`StorageFull`."""
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in NO_ROOM else StorageUnavailable
        raise noted(kind(errno.errorcode.get(error.errno or 0, "")), error) from error


def _database_outage(error: DBAPIError | NoFreeConnection) -> StorageUnavailable | None:
    """``None`` where the database works, and the statement is at fault."""
    if isinstance(error, NoFreeConnection):
        return DatabaseUnavailable("no_free_connection")
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _sqlite_outage(cause)
    state = str(getattr(cause, "sqlstate", None) or "")
    if state == POSTGRES_DISK_FULL:
        return StorageFull(state)
    is_away = isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
    if (is_away and not state.startswith(POSTGRES_LIMIT)) or state == POSTGRES_READ_ONLY:
        return DatabaseUnavailable(state or type(cause).__name__)
    return None


def _sqlite_outage(cause: sqlite3.Error) -> StorageUnavailable | None:
    code = _sqlite_code(cause)
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(cause.sqlite_errorname)
    return DatabaseUnavailable(cause.sqlite_errorname) if code in SQLITE_AWAY else None


def _sqlite_code(cause: BaseException | None) -> int:
    """SQLite's primary result code: the lowest eight bits of the extended code; 0 where it gave none."""
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF


def noted(outage: StorageUnavailable, error: Exception | None = None) -> StorageUnavailable:
    """Log the outage with its cause, which the answer does not tell, and return it.

    Not each time: it meets every request and every loop, and the log may be on the disk that is full.
    """
    now = time.monotonic()
    if now - _LOGGED_AT.get(outage.code, -math.inf) >= LOG_S:
        _LOGGED_AT[outage.code] = now
        log.error(outage.code, cause=outage.found, **(where_it_failed(error) if error else {}))
    return outage


_LOGGED_AT: dict[str, float] = {}
"""When each code was last logged, by the process's own clock."""
