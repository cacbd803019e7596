"""Who has looked: recorded before it is shown, many looks in one transaction.

A look waits for its record, as a write waits for its commit. While nothing can be written, a doctor still has to see a
visit: after :data:`WAIT_S` it is shown, and its record stays in memory until it can be written. What a process that is
killed then had in memory is lost; how many those can be is bounded, and the log of the process has said that they wait.
A record of which it is not known whether it was committed is written again, with the same id of its request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from sqlalchemy.orm import Session

from service.errors import DatabaseUnavailable
from service.logs import where_it_failed
from service.metrics import Metrics
from service.storage.audit import ACTOR, SERVICE, Event, note, note_event
from service.storage.database import Database

WAIT_S = 2.0
"""How long an answer waits for its record where nothing can be written."""
MOST_WAITING = 10_000
"""Records in memory. With so many nothing more is shown."""
AT_ONCE = 200
RETRY_S = 1.0
COUNT_EVERY_S = 60.0
"""How often refused sign-ins are recorded: a number, so that an attack does not fill the log."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Look:
    event: Event
    written: asyncio.Future[None]


class Looks:
    """The looks of this process that are not yet in the log.

    Parameters
    ----------
    refused
        How many sign-ins and keys were refused since it was last called.
    """

    def __init__(self, database: Database, metrics: Metrics, refused: Callable[[], int]) -> None:
        self._database, self._metrics, self._refused = database, metrics, refused
        self._waiting: deque[_Look] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._n_refused = 0
        self._is_told = False
        self._is_ending = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._count())]

    async def drain(self) -> None:
        """Write what waits, once; what cannot be written is lost, and the log says how many."""
        self._is_ending = True
        self._wake.set()
        serving, counting = self._tasks
        counting.cancel()
        # what is being written is waited for: cancelled, it would be written and then written again
        await asyncio.gather(serving, counting, return_exceptions=True)
        try:
            await self._count_refused()
            while self._waiting:
                await self._write_some()
        except Exception as error:
            log.error("looks_lost", looks=len(self._waiting), **where_it_failed(error))

    async def record(self, action: str, visit: str | None, **detail: Any) -> None:
        """Record a look of whoever asks. When this returns it is in the log, or it has waited for :data:`WAIT_S`.

        Raises
        ------
        DatabaseUnavailable
            Too many looks wait: this one must not be shown.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise DatabaseUnavailable("audit")
        at = datetime.now(UTC).isoformat(timespec="milliseconds") if self._is_told else None
        given = {name: value for name, value in {**detail, "at": at}.items() if value is not None}
        look = _Look(Event(ACTOR.get(), action, visit, given), asyncio.get_running_loop().create_future())
        self._waiting.append(look)
        self._metrics.looks_waiting.set(len(self._waiting))
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await asyncio.shield(look.written)

    async def _serve(self) -> None:
        while not self._is_ending:
            await self._wake.wait()
            try:
                if self._waiting:
                    await self._write_some()
                self._is_told = False
            except Exception as error:
                if not self._is_told:  # an outage may last for hours
                    log.error("looks_not_written", looks=len(self._waiting), **where_it_failed(error))
                self._is_told = True
                await asyncio.sleep(RETRY_S)
            if not self._waiting:
                self._wake.clear()

    async def _write_some(self) -> None:
        """Write the looks that have waited longest, in one transaction."""
        some = [self._waiting[index] for index in range(min(AT_ONCE, len(self._waiting)))]
        await self._database.write(partial(_note_all, [look.event for look in some]))
        for look in some:
            self._waiting.popleft()
            if not look.written.done():
                look.written.set_result(None)
        self._metrics.looks_waiting.set(len(self._waiting))

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(COUNT_EVERY_S)
            try:
                await self._count_refused()
            except Exception as error:
                log.error("refused_sign_ins_not_counted", **where_it_failed(error))

    async def _count_refused(self) -> None:
        self._n_refused += self._refused()
        if n := self._n_refused:
            await self._database.write(lambda session: note(session, "sign_ins_refused", actor=SERVICE, count=n))
            self._n_refused -= n


def _note_all(events: list[Event], session: Session) -> None:
    for event in events:
        note_event(session, event)
