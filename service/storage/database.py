"""The database: short transactions, on threads of their own. No other module opens a connection.

SQLite (WAL, ``synchronous=FULL``) by default, PostgreSQL by URL. SQLAlchemy is used synchronously: a transaction has a
few statements, and changing the thread once costs less than an asynchronous driver adds to each statement.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from sqlalchemy import (
    CursorResult,
    Engine,
    Result,
    Table,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.orm import Session

from service.storage.group_commit import GroupCommit
from service.storage.tables import Base

T = TypeVar("T")
THREADS = 8
BUSY_TIMEOUT_MS = 30_000
"""How long a writer waits for another; transactions last milliseconds, so only a fault can reach this."""


class Database:
    """The engine, and the threads on which transactions run.

    Parameters
    ----------
    url
        ``sqlite:///…`` or ``postgresql+psycopg://…``.
    """

    def __init__(self, url: str) -> None:
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        # a statement's values may name a person, and an error that quotes them would bring the name into the log
        self.engine: Engine = create_engine(
            url, hide_parameters=True, pool_size=THREADS, pool_pre_ping=not self.is_sqlite
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        # PostgreSQL has many writers, and groups their commits itself
        self._writer = GroupCommit(lambda: self.transaction(write=True)) if self.is_sqlite else None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _open_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Session]:
        """A session whose work is committed at the end, or rolled back after an error.

        On SQLite a writing transaction takes the write lock at its start (``BEGIN IMMEDIATE``), so that what it has
        read does not change before it writes.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options={"sangloc_write": write})
            yield session

    async def read(self, work: Callable[[Session], T]) -> T:
        return await self._run(work, False)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a transaction; when this returns, its changes survive a loss of power.

        On SQLite several works share one transaction. If that fails, it is rolled back and ``work`` is called again:
        it must give the same result when it is called twice.
        """
        return await (self._writer.run(work) if self._writer else self._run(work, True))

    async def probe(self) -> None:
        """Ask for nothing, to see whether the database answers."""
        await self.read(lambda session: session.execute(select(1)))

    async def _run(self, work: Callable[[Session], T], write: bool) -> T:
        def transaction() -> T:
            with self.transaction(write=write) as session:
                return work(session)

        return await asyncio.get_running_loop().run_in_executor(self._threads, transaction)

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        self._threads.shutdown(wait=True)
        self.engine.dispose()


def database_now(session: Session) -> datetime:
    """The time on the clock that all processes share: the database's own, or the machine's for SQLite."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = session.execute(select(text("clock_timestamp()"))).scalar_one()
    return now.astimezone(UTC)


def insert_rows(session: Session, *rows: Base) -> None:
    """Insert new rows, one statement each; SQLAlchemy's unit of work takes three times as long."""
    for row in rows:
        table = cast("Table", row.__table__)
        session.execute(insert(table), {column.name: getattr(row, column.name) for column in table.columns})


def rowcount(result: Result[Any]) -> int:
    """How many rows an UPDATE or DELETE changed: whether its condition still held."""
    return cast("CursorResult[Any]", result).rowcount


def _open_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # _begin_sqlite starts the transactions, not the driver
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    write = connection.get_execution_options().get("sangloc_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
