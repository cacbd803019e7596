"""HTTP/1.1 by uvicorn, with limits that uvicorn has no setting for.

They are: the size and the time of the headers, the number of connections of one address, and how long a client may take
to read the next bytes of an answer. Without them a client without a key could use up memory with endless headers, and
connections by sending no request or reading no answer.

References
----------
RFC 5482, and tcp(7), ``TCP_USER_TIMEOUT``: how long sent bytes may stay without acknowledgement, also while the other
side announces that it has no room for more (RFC 9293, section 3.8.6.1).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.connections import Connections
from service.protocols.peers import network_of

MAX_HEADER_BYTES = 32_768
HEADER_SECONDS = 15.0
SPARE = "spare"
"""In the state of a request's scope: it came when all connections but the spare ones were in use."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection that is one too many, that brings its headers too late, or that does not read its answer.

    A server has a subclass of its own, with what it counts and allows.

    Parameters
    ----------
    open_connections, read_seconds
        The server's connections, and how long a client may read nothing of what was sent.
    """

    open_connections: ClassVar[Connections]
    read_seconds: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.network = ""
        self._n_header_bytes = 0
        self._in_body = False
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.network = network_of(self.client[0] if self.client else "")
        if not self.open_connections.admit(self):
            transport.abort()
            return
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(self.read_seconds * 1000))
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_connections.leave(self)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._n_header_bytes += len(data)
        super().data_received(data)
        # bytes that came together with the end of the headers are body, and are not counted any more
        if not self._in_body and self._n_header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("Headers too large.")
        # uvicorn has stopped its own clock, although an empty line between two requests begins none
        if self._waiting is None and not self._is_busy() and not self.transport.is_closing():
            self._wait_for_headers()

    def on_message_begin(self) -> None:
        self._in_body = False
        if self._waiting is None:
            self._wait_for_headers()
        super().on_message_begin()
        if self.open_connections.is_spare(self):
            self.scope["state"][SPARE] = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:  # a trailer: headers after the body
            self._n_header_bytes += len(name) + len(value)
            if self._n_header_bytes > MAX_HEADER_BYTES:
                raise ValueError("trailers too large")  # the parser answers 400
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._n_header_bytes = 0
        self._stop_waiting()
        self.open_connections.set_busy(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_busy() and not self.transport.is_closing():
            self.open_connections.set_idle(self)

    def _is_busy(self) -> bool:
        """Whether the last request that came is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_headers(self) -> None:
        self._waiting = self.loop.call_later(HEADER_SECONDS, self._headers_too_late)

    def _headers_too_late(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
