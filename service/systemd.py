"""Tells systemd that the service is ready, that it still works, and that it stops.

References
----------
sd_notify(3): a datagram of assignments to the socket that ``NOTIFY_SOCKET`` names, ``@`` standing for the first byte of
an abstract address; sd_watchdog_enabled(3): ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass

import structlog

from service.logs import where_it_failed

READY, WORKING, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"
LOOK_S = 0.1
"""How often a starting service is asked whether it is ready."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Systemd:
    """The systemd that started this process.

    Parameters
    ----------
    address
        Address of its socket.
    watchdog_s
        It ends the process after so long without a sign of life, s; ``None``: it does not watch.
    """

    address: str
    watchdog_s: float | None = None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Systemd | None:
        """What the environment says; ``None`` if the process was not started by systemd, or not with ``Type=notify``.

        The names are removed: processes that this one starts have nothing to tell.
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        length, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return None
        is_watched = length.isascii() and length.isdigit() and int(length) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(length) / 1e6 if is_watched else None)

    def say(self, state: str) -> None:
        """Send a state. That it could not be sent is logged, and changes nothing else."""
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(state.encode(), address)
            except OSError as error:
                log.warning("systemd_not_told", state=state, **where_it_failed(error))

    async def keep_told(self, is_ready: Callable[[], bool], probe: Callable[[], Awaitable[object]]) -> None:
        """Say once that the service is ready, then again and again that it works, until this is cancelled.

        A sign of life shows that the event loop runs and that the database answers. An error of the database is an
        answer, because starting again repairs no database; that it keeps silent may be a fault of this process.

        Parameters
        ----------
        probe
            Asks the database for something small.
        """
        while not is_ready():  # noqa: ASYNC110  several parts become ready, and one that fails sets no event
            await asyncio.sleep(LOOK_S)
        self.say(READY)
        if self.watchdog_s is None:
            return
        quarter_s = (
            self.watchdog_s / 4
        )  # for the probe, and again until the next: a sign comes twice as often as needed
        while True:
            if await _answers(probe, quarter_s):
                self.say(WORKING)
            else:
                log.error("database_silent", seconds=quarter_s)
            await asyncio.sleep(quarter_s)


async def _answers(probe: Callable[[], Awaitable[object]], within_s: float) -> bool:
    try:
        await asyncio.wait_for(probe(), within_s)
    except TimeoutError:
        return False
    except Exception as error:
        log.error("database_fault", **where_it_failed(error))
    return True
