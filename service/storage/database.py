"""The database: short transactions, on threads of their own. No other module opens a connection.

SQLite (WAL, ``synchronous=FULL``) by default, PostgreSQL by URL. SQLAlchemy is used synchronously: a transaction has a
few statements, and changing the thread once costs less than an asynchronous driver adds to each statement.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Engine,
    Result,
    Table,
    create_engine,
    delete,
    event,
    false,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.orm import Session

from service.errors import DatabaseUnavailable, OutcomeUnknown
from service.storage.audit import ACTOR, append_noted
from service.storage.group_commit import GroupCommit
from service.storage.outages import commit_outages, database_outages, noted
from service.storage.tables import Base, SessionRow

T = TypeVar("T")
THREADS = 8
BUSY_TIMEOUT_MS = 10_000
"""How long a writer waits for another; transactions last milliseconds, so only a fault can reach this."""
ANSWER_S = 30.0
"""How long a transaction may take, the wait for a thread included. Nobody waits longer for an answer."""
POSTGRES: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""How soon a server that has become silent is given up: seconds, but ``tcp_user_timeout`` is in milliseconds. What the
address says itself is kept (PostgreSQL, libpq, section 'Parameter Key Words')."""


class Database:
    """The engine, and the threads on which transactions run.

    Parameters
    ----------
    url
        ``sqlite:///…`` or ``postgresql+psycopg://…``.
    """

    def __init__(self, url: str) -> None:
        address = make_url(url)
        self.is_sqlite = address.get_backend_name() == "sqlite"
        # a statement's values may name a person, and an error that quotes them would bring the name into the log
        self.engine: Engine = create_engine(
            address,
            hide_parameters=True,
            pool_size=THREADS,
            pool_pre_ping=not self.is_sqlite,
            connect_args={} if self.is_sqlite else _limits(address),
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        # PostgreSQL has many writers, and groups their commits itself
        self._writer = GroupCommit(lambda: self.transaction(write=True)) if self.is_sqlite else None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _open_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", _open_postgres)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Session]:
        """A session whose work is committed at the end, or rolled back after an error.

        On SQLite a writing transaction takes the write lock at its start (``BEGIN IMMEDIATE``), so that what it has
        read does not change before it writes. What was noted for the audit log is appended before the commit.

        Raises
        ------
        DatabaseUnavailable, StorageFull
            The database cannot be used; nothing was committed.
        OutcomeUnknown
            It went away while ``write`` was committed.
        """
        with Session(self.engine, expire_on_commit=False) as session:
            with database_outages():
                session.connection(execution_options={"sangloc_write": write})
                yield session
                session.flush()
                append_noted(session)
            with commit_outages() if write else database_outages():
                session.commit()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that reads only, and on which every statement sees what the first one saw.

        Others go on writing meanwhile. SQLite keeps what they write in its log until the snapshot ends.

        Raises
        ------
        DatabaseUnavailable
        """
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with (
            database_outages(),
            self.engine.connect() as connection,
            connection.execution_options(sangloc_write=False, **level).begin(),
        ):
            yield connection

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a transaction that only reads.

        Raises
        ------
        DatabaseUnavailable
            Also where no answer came within :data:`ANSWER_S`.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._run(work, False)
        except TimeoutError:
            raise noted(DatabaseUnavailable("timeout")) from None

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a transaction; when this returns, its changes survive a loss of power.

        What ``work`` notes for the audit log is noted of whoever calls this. On SQLite several works share one
        transaction. If that fails, it is rolled back and ``work`` is called again: it must give the same result when it
        is called twice.

        Raises
        ------
        DatabaseUnavailable, StorageFull, OutcomeUnknown
            As :meth:`transaction`; also :class:`OutcomeUnknown` where no answer came within :data:`ANSWER_S`.
        """
        actor = ACTOR.get()

        def acting(session: Session) -> T:
            session.info["actor"] = actor
            return work(session)

        try:
            async with asyncio.timeout(ANSWER_S):
                return await (self._writer.run(acting) if self._writer else self._run(acting, True))
        except TimeoutError:
            raise noted(OutcomeUnknown("timeout")) from None

    async def probe(self) -> None:
        """Check that the database can be reached and written; raises as :meth:`write`. It changes nothing."""
        nothing = delete(SessionRow).where(false())
        await self.write(lambda session: session.execute(nothing))

    async def _run(self, work: Callable[[Session], T], write: bool) -> T:
        def transaction() -> T:
            with self.transaction(write=write) as session:
                return work(session)

        return await asyncio.get_running_loop().run_in_executor(self._threads, transaction)

    @property
    def sqlite_file(self) -> Path | None:
        """The file of SQLite; ``None`` where the database is a server, or is in memory."""
        name = self.engine.url.database
        return Path(name) if self.is_sqlite and name and name != ":memory:" else None

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        self._threads.shutdown(wait=True)
        self.engine.dispose()


def _limits(address: URL) -> dict[str, int]:
    return {name: value for name, value in POSTGRES.items() if name not in address.query}


def database_now(session: Session) -> datetime:
    """The time on the clock that all processes share: the database's own, or the machine's for SQLite."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = session.execute(select(text("clock_timestamp()"))).scalar_one()
    return now.astimezone(UTC)


def age_s(at: datetime | None, now: datetime) -> float:
    """Seconds from ``at`` to ``now``; 0 where there is nothing that has an age."""
    return 0.0 if at is None else max(0.0, (now - at).total_seconds())


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
        "secure_delete = FAST",  # what is deleted within a page is overwritten, as long as that costs no more writes
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _open_postgres(connection: Any, _record: Any) -> None:
    """Compile no statement: that takes PostgreSQL a second, and begins where many rows are expected and few come."""
    connection.execute("SET jit = off")
    connection.commit()


def _begin_sqlite(connection: Any) -> None:
    write = connection.get_execution_options().get("sangloc_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
