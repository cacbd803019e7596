"""Group commit: all writes that wait while a transaction is committed go into the next one together.

A commit waits for the disk, and SQLite has one writer at a time: writes that come together share both. As in
``inference.runtime.batcher``, no write waits for others to come. If a group fails, its writes are tried one by one,
except where the database is away.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from service.errors import StorageUnavailable

T = TypeVar("T")
MAX_WRITES = 64
"""Of one transaction, so that no write waits long for those before it."""


@dataclass(eq=False, slots=True)
class _Write:
    work: Callable[[Session], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class GroupCommit:
    """One thread that runs all writes.

    Parameters
    ----------
    transaction
        Opens a transaction, commits it at its end and rolls it back on an error.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Session]]) -> None:
        self._transaction = transaction
        self._queue: deque[_Write] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="database-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Session], T]) -> T:
        """The result of ``work``, once it is committed.

        ``work`` may be called twice: if its group failed, the first call was rolled back.
        """
        loop = asyncio.get_running_loop()
        write = _Write(work, loop, loop.create_future())
        with self._wake:
            if self._closed:
                raise RuntimeError("the database is closed")
            self._queue.append(write)
            self._wake.notify()
        result: T = await write.future
        return result

    def close(self) -> None:
        """Run the writes that wait, and stop."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _serve(self) -> None:
        while group := self._take():
            self._commit(group)

    def _take(self) -> list[_Write]:
        with self._wake:
            while True:
                group: list[_Write] = []
                while self._queue and len(group) < MAX_WRITES:
                    write = self._queue.popleft()
                    if not write.future.cancelled():
                        group.append(write)
                if group or self._closed:
                    return group
                self._wake.wait()

    def _commit(self, group: list[_Write]) -> None:
        results = []
        try:
            with self._transaction() as session:
                for write in group:
                    results.append(write.work(session))
                    session.flush()
        except StorageUnavailable as error:  # tried one by one, each would wait for a database that is away
            for write in group:
                _settle(write, type(error)(error.found))  # each caller raises an error of its own
            return
        except BaseException as error:
            if len(group) == 1:
                _settle(group[0], error)
            else:
                for write in group:
                    self._commit([write])
            return
        for write, result in zip(group, results, strict=True):
            _settle(write, result)


def _settle(write: _Write, result: Any) -> None:
    def settle() -> None:
        if write.future.done():
            return
        if isinstance(result, BaseException):
            write.future.set_exception(result)
        else:
            write.future.set_result(result)

    with suppress(RuntimeError):  # the caller's loop is closed, so no one waits for the result
        write.loop.call_soon_threadsafe(settle)
