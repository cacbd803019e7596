"""Open connections of HTTP: how many there may be, of one address and of all, and which is closed for a new one.

A client without a key can open connections, so they are counted by :func:`service.protocols.peers.network_of`. Those
that wait for a request, at the beginning or between two, are idle. Where a new connection finds no place, the address's
oldest idle one is closed; if it has none, the oldest idle one of the address that has most. A request that is worked on
is never cut off. If all are worked on, some spare places are left, in which only the state of the service is told
(:data:`service.api.edge.ALWAYS_ANSWERED`); the others are told to come again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from service.metrics import Metrics
from service.places import Shares

SPARE_PLACES = 64


class Connection(Protocol):
    """What is counted: an open connection, and where it comes from."""

    network: str
    transport: asyncio.Transport


class Connections:
    """The open connections of one server.

    Parameters
    ----------
    total, per_address
        How many there may be, besides the spare ones.
    metrics
        How many are open is shown there, and what did not go as usual is counted by ``outcome``: ``replaced`` (an idle
        one was closed for a new one), ``spare``, ``refused`` (closed at once).
    """

    def __init__(self, total: int, per_address: int, metrics: Metrics) -> None:
        self._usual, self._spare = _Room(total, per_address), _Room(SPARE_PLACES, SPARE_PLACES)
        self._rooms: dict[Connection, _Room] = {}
        self._counter, self._open = metrics.connections, metrics.connections_open

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, which is idle; ``False`` if it has to be closed."""
        for room in (self._usual, self._spare):
            if not room.fits(connection.network):
                idle = room.idle_to_close(connection.network)
                if idle is None:
                    continue
                self.leave(idle)
                idle.transport.abort()
                self._counter.labels("replaced").inc()
            room.enter(connection)
            self._rooms[connection] = room
            self._open.inc()
            if room is self._spare:
                self._counter.labels("spare").inc()
            return True
        self._counter.labels("refused").inc()
        return False

    def is_spare(self, connection: Connection) -> bool:
        return self._rooms.get(connection) is self._spare

    def set_busy(self, connection: Connection) -> None:
        """A request has begun, and is worked on."""
        if (room := self._rooms.get(connection)) is not None:
            room.no_longer_idle(connection)

    def set_idle(self, connection: Connection) -> None:
        """The last request was answered."""
        if (room := self._rooms.get(connection)) is not None:
            room.now_idle(connection)

    def leave(self, connection: Connection) -> None:
        """The connection is closed; nothing if it has left before."""
        if (room := self._rooms.pop(connection, None)) is not None:
            room.leave(connection)
            self._open.dec()


class _Room:
    """Connections that share one total."""

    def __init__(self, total: int, per_address: int) -> None:
        self._shares = Shares(total, per_address)
        self._most = per_address
        self._idle: dict[str, dict[Connection, None]] = {}
        """By network; the one that is idle longest is first."""

    def fits(self, network: str) -> bool:
        return self._shares.fits(network)

    def idle_to_close(self, network: str) -> Connection | None:
        """The idle connection that is closed first for a new one of ``network``."""
        own = self._oldest(network)
        held = self._shares.held(network)
        if own is not None or held >= self._most or not self._idle:
            return own
        largest = max(self._idle, key=self._shares.held)
        return self._oldest(largest) if self._shares.held(largest) > held + 1 else None

    def _oldest(self, network: str) -> Connection | None:
        # an answer that a slow client still reads is not cut off
        idle = self._idle.get(network, {})
        return next((each for each in idle if not each.transport.get_write_buffer_size()), None)

    def enter(self, connection: Connection) -> None:
        self._shares.take(connection.network)
        self.now_idle(connection)

    def leave(self, connection: Connection) -> None:
        self._shares.give(connection.network)
        self.no_longer_idle(connection)

    def now_idle(self, connection: Connection) -> None:
        self._idle.setdefault(connection.network, {})[connection] = None

    def no_longer_idle(self, connection: Connection) -> None:
        idle = self._idle.get(connection.network, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(connection.network, None)
