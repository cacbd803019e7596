"""HTTP/1.1 by uvicorn, with two limits that uvicorn has no setting for: the size and the time of the headers.

Without them a client without a key could use up memory with endless headers, and connections by sending none.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 32_768
HEADER_SECONDS = 15.0


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose headers are too large or too late."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._n_header_bytes = 0
        self._in_body = False
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._n_header_bytes += len(data)
        super().data_received(data)
        # bytes that came together with the end of the headers are body, and are not counted any more
        if not self._in_body and self._n_header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response("Headers too large.")

    def on_message_begin(self) -> None:
        self._in_body = False
        if self._waiting is None:
            self._wait_for_headers()
        super().on_message_begin()

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
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

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
