"""A publisher of weights on loopback, which may misbehave in the ways that publishers and networks do."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Publisher:
    """What is published, and how it is sent.

    Parameters
    ----------
    files
        Path to content.
    cut_after
        Bytes after which an answer ends, one for each answer to come.
    ranges
        Whether parts of a file are sent.
    announced
        Whether an answer says how long it is.
    pause_s
        Between pieces of 16 kB.
    redirects
        Path to where it leads.
    asked
        Path and ``Range`` of every request.
    sent
        Bytes that were written.
    """

    files: dict[str, bytes]
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True
    announced: bool = True
    etags: bool = True
    pause_s: float = 0.0
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    address: str = ""


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is kept clean."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            publisher.asked.append((path, self.headers.get("Range")))
            if path in publisher.redirects:
                self.send_response(302)
                self.send_header("Location", publisher.redirects[path])
                self.end_headers()
                return
            if path not in publisher.files:
                self.send_error(404)
                return
            content = publisher.files[path]
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            begin = 0
            wanted, same = self.headers.get("Range"), self.headers.get("If-Range") in (None, etag)
            if wanted and publisher.ranges and same:
                begin = int(wanted.removeprefix("bytes=").partition("-")[0])
                if begin >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            if publisher.etags:
                self.send_header("ETag", etag)
            if publisher.announced:
                self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            sent = content[begin:]
            if publisher.cut_after:
                sent = sent[: publisher.cut_after.pop(0)]
            for at in range(0, len(sent), 16384):
                self.wfile.write(sent[at : at + 16384])
                publisher.sent += 16384
                time.sleep(publisher.pause_s)
            self.close_connection = True

    return Handler


@contextmanager
def published(files: dict[str, bytes]) -> Iterator[Publisher]:
    """A publisher of these files; ``address`` is where."""
    publisher = Publisher(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(publisher))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  clients that leave are part of the tests
    publisher.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
