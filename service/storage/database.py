"""The one way to the tables: short transactions on a few threads of their own.

SQLite (WAL, ``synchronous=FULL``) by default, PostgreSQL by URL. SQLAlchemy is used synchronously: a transaction here
is a handful of statements, and a thread hop costs less than what an asynchronous driver adds to each of them.
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
"""How long a writer waits for another one; transactions last milliseconds, so that this is never reached in order."""


class Database:
    """The engine and the threads its transactions run on.

    Parameters
    ----------
    url
        ``sqlite:///…`` or ``postgresql+psycopg://…``.
    """

    def __init__(self, url: str) -> None:
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        # A statement's values may name a person; an error that quotes them would carry the name into the log.
        self.engine: Engine = create_engine(
            url, hide_parameters=True, pool_size=THREADS, pool_pre_ping=not self.is_sqlite
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        # PostgreSQL has many writers, and shares their fsync itself
        self._writer = GroupCommit(lambda: self.transaction(write=True)) if self.is_sqlite else None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _open_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Session]:
        """A session whose work is committed at the end, or rolled back.

        On SQLite a writing transaction takes the write lock at its start (``BEGIN IMMEDIATE``), so that what it read
        still holds when it writes.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.connection(execution_options={"sangloc_write": write})
            yield session

    async def read(self, work: Callable[[Session], T]) -> T:
        return await self._run(work, False)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a committed transaction; once this returns, the change survives the machine's power cord.

        On SQLite what is asked for meanwhile goes into one transaction, one after the other; ``work`` may then be
        called a second time, after the first was rolled back, and must not depend on having been called once.
        """
        return await (self._writer.run(work) if self._writer else self._run(work, True))

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
    """Time by the clock that all who share the database share: its own, or for SQLite the machine's."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = session.execute(select(text("clock_timestamp()"))).scalar_one()
    return now.astimezone(UTC)


def insert_rows(session: Session, *rows: Base) -> None:
    """Insert new rows as they are, one statement each: a third of what the unit of work takes for the same."""
    for row in rows:
        table = cast("Table", row.__table__)
        session.execute(insert(table), {column.name: getattr(row, column.name) for column in table.columns})


def rowcount(result: Result[Any]) -> int:
    """How many rows an UPDATE or DELETE touched: the answer of a compare-and-set."""
    return cast("CursorResult[Any]", result).rowcount


def _open_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transactions of its own; _begin_sqlite does
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
