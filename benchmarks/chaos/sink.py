"""A destination of reports: a real HTTP server that remembers which reports it was sent, and in which order."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from benchmarks.chaos.asking import Client


@dataclass(frozen=True)
class Delivered:
    """One report that arrived; ``key`` is the same for each attempt to deliver it."""

    key: str
    visit: str
    version: int


class Sink:
    """Takes everything."""

    def __init__(self) -> None:
        self.received: list[Delivered] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                n_bytes = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(n_bytes)
                if len(body) < n_bytes:  # the sender was killed: this was no request
                    self.close_connection = True
                    return
                event = json.loads(body)
                received.append(Delivered(self.headers["Idempotency-Key"], event["visit"], event["version"]))
                with suppress(OSError):  # the sender may be dead by now
                    self.send_response(204)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                """A connection of a process that was killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}/reports"

    def register(self, admin: Client) -> None:
        """Have the reports of every site sent here.

        Raises
        ------
        RuntimeError
            The service refused it.
        """
        asked = {"kind": "webhook", "address": self.address, "options": {"allow_http": True, "content": "link"}}
        answer = admin.ask("POST", "/v1/destinations", json.dumps(asked).encode(), {"Content-Type": "application/json"})
        if answer.status != 201:
            raise RuntimeError(f"the destination: {answer.status} {answer.body[:300]!r}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
