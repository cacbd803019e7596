"""What every loop in the background shares: how often it looks, how it writes its results, how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from service.logs import where_it_failed

POLL_S = 0.5
"""How often a loop looks for new work in the database."""
RETRY_S = 1.0
"""How long a result waits that the database did not take."""
T = TypeVar("T")

log = structlog.get_logger()


async def persist(write: Callable[[], Awaitable[T]]) -> T:
    """Write a result that must not be lost, and try again for as long as the database is not reachable."""
    while True:
        try:
            return await write()
        except Exception as error:
            log.error("result_not_written", **where_it_failed(error))
            await asyncio.sleep(RETRY_S)


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
