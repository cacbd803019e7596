"""Where reports are delivered to in the tests: a real HTTP server that remembers what it was sent."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Received:
    method: str
    path: str
    headers: dict
    body: bytes
    at: float

    @property
    def key(self):
        return self.headers["idempotency-key"]


class Sink:
    """Answers with what ``answer(received)`` gives: a status, or a status and headers."""

    def __init__(self, answer=lambda _: 204, scheme="http"):
        self.answer = answer
        self.received = []
        self.answered = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(n_bytes := int(self.headers.get("content-length", 0)))
                if len(body) < n_bytes:  # who sent it is dead: this was no request
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.command, self.path, headers, body, time.monotonic())
                sink.received.append(received)
                said = sink.answer(received)
                status, headers = said if isinstance(said, tuple) else (said, {})
                with contextlib.suppress(OSError):  # who asked may be dead by now
                    self.send_response(status)
                    for name, value in {"Content-Length": "0", **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.flush()
                sink.answered.append((received, status))

            do_GET = do_POST = do_PUT = serve

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass  # a connection of a process that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"{scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    @property
    def taken(self):
        """How often each key was answered with success."""
        return Counter(received.key for received, status in list(self.answered) if 200 <= status < 300)
