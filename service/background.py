"""Work in the background: rows of the database, each leased by one process until its outcome is written.

A row is leased by writing an owner and an end into it. The owner extends its leases while it works; another process may
take a row whose lease has ended or whose owner has stopped. Visits are assessed in this way (``service.visits.work``),
and reports are delivered (``service.delivery.worker``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar

import structlog
from sqlalchemy import ColumnElement, Table, Update, or_, update
from sqlalchemy.orm import Session

from service.errors import StorageUnavailable
from service.logs import where_it_failed
from service.settings import Settings
from service.storage.database import Database, database_now
from service.storage.owner import Owner

POLL_S = 0.5
"""How often a loop looks for new work in the database."""
RETRY_S = 1.0
"""How long to wait before a result that the database did not take is written again."""
NOT_LEASED: Mapping[str, Any] = {"owner": None, "lease_until": None}
T = TypeVar("T")
Key = TypeVar("Key")

log = structlog.get_logger()


async def persist(write: Callable[[], Awaitable[T]]) -> T:
    """Write a result that must not be lost, and try again for as long as the database is not reachable."""
    is_logged = False
    while True:
        try:
            return await write()
        except Exception as error:
            if not is_logged:  # an outage may last for hours, and meets all that is in work
                log.error("result_not_written", **where_it_failed(error))
            is_logged = True
            await asyncio.sleep(RETRY_S)


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def lease_ended(table: Table, now: datetime) -> ColumnElement[bool]:
    """The rows that no process has leased, or that a process has not extended in time."""
    return or_(table.c.lease_until.is_(None), table.c.lease_until < now)


class LeasedRows(Generic[Key]):
    """The rows of one table that this process has leased.

    Parameters
    ----------
    owner
        The name under which this process leases.
    length_s
        How long a lease lasts that is not extended.

    Attributes
    ----------
    table
        It has the columns ``owner`` and ``lease_until``.
    key
        The column, or the tuple of columns, that names a row.
    unfinished
        The rows that still need work. Only these are leased.
    given_back
        What is written into a row that is given back unfinished, besides the end of its lease.
    """

    table: ClassVar[Table]
    key: ClassVar[ColumnElement[Any]]
    unfinished: ClassVar[ColumnElement[bool]]
    given_back: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, database: Database, owner: Owner, length_s: float) -> None:
        self._database = database
        self._owner = owner
        self._length = timedelta(seconds=length_s)

    async def extend(self, keys: Collection[Key]) -> None:
        """Extend the leases of these rows. The lease of any other row may end."""
        rows = self._leased_by(self._owner.id).where(self.key.in_(list(keys)))

        def extend(session: Session) -> None:
            session.execute(rows.values(lease_until=database_now(session) + self._length))

        await self._database.write(extend)

    async def end_leases_of_stopped_owners(self) -> None:
        """Free the rows of stopped processes. The attempts stay counted: each may have been done, or been the cause."""
        for name in await asyncio.to_thread(self._owner.stopped_owners):
            await self._write(self._leased_by(name).values(NOT_LEASED))
            self._owner.forget_owner(name)

    async def give_all_back(self) -> None:
        """Free the rows of this process, and release the lock of its name: nothing can be leased after this.

        Where the database is away they stay leased: another process frees them when it finds the lock released.
        """
        try:
            await self._write(self._leased_by(self._owner.id).values({**NOT_LEASED, **self.given_back}))
        except StorageUnavailable as error:
            log.error("leases_not_given_back", table=self.table.name, **where_it_failed(error))
        finally:
            self._owner.close()

    async def _write(self, statement: Update) -> None:
        await self._database.write(lambda session: session.execute(statement))

    def _leased_by(self, owner: str) -> Update:
        return update(self.table).where(self.table.c.owner == owner, self.unfinished)


class Worker(ABC, Generic[Key]):
    """Takes rows, works on each in a task of its own, keeps their leases, and drains at the end.

    A subclass decides in :meth:`_take_some` which rows are taken, and calls :meth:`_start_task` for each of them.
    """

    def __init__(self, leased: LeasedRows[Key], settings: Settings) -> None:
        self._leased = leased
        self._settings = settings
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._draining = False
        self._loops: list[asyncio.Task[None]] = []

    @abstractmethod
    async def _take_some(self) -> bool:
        """Lease some rows and start a task for each; ``False`` where nothing was taken."""

    def _start_loops(self, *others: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loops = [asyncio.create_task(loop()) for loop in (self._take_rows, self._keep_leases, *others)]

    def _start_task(self, key: Key, work: Coroutine[Any, Any, None]) -> None:
        self._running[key] = task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._end_task(key))

    def _end_task(self, key: Key) -> None:
        del self._running[key]
        self._wake_if_free()

    def _wake_if_free(self) -> None:
        """Wake the loop that takes rows, because a task has ended."""
        self._wake.set()

    async def _take_rows(self) -> None:
        looked_for_stopped = 0.0
        while not self._draining:
            self._wake.clear()
            taken = False
            try:
                if time.monotonic() - looked_for_stopped >= POLL_S:
                    await self._leased.end_leases_of_stopped_owners()
                    looked_for_stopped = time.monotonic()
                taken = await self._take_some()
            except Exception as error:  # the database may be away for a moment; what is leased stays leased
                log.error("work_not_taken", table=self._leased.table.name, **where_it_failed(error))
            if not taken:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_S)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            if not self._running:
                continue
            try:
                await self._leased.extend(self._running)
            except Exception as error:
                log.error("leases_not_extended", table=self._leased.table.name, **where_it_failed(error))

    def stop_taking(self) -> None:
        """Take nothing more."""
        self._draining = True

    async def drain(self) -> None:
        """Finish what can be finished within ``drain_seconds``, and give the rest back."""
        self.stop_taking()
        for taking in self._loops[:1]:  # the others go on: leases are kept until the end
            await cancelled(taking)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._settings.drain_seconds)
        for task in [*self._running.values(), *self._loops]:
            await cancelled(task)
        await self._leased.give_all_back()
