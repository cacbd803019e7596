"""The link passes what is said, and fails in the ways that it is told to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.chaos.processes import NOT_NOW
from benchmarks.chaos.thin_link import ThinLink

SILENCE_S = 0.5


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def link() -> Iterator[ThinLink]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    made = ThinLink(server.server_port)
    yield made
    made.close()
    server.shutdown()
    server.server_close()
    thread.join()


def ask(link: ThinLink, timeout_s: float = 10.0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", link.port, timeout=timeout_s)
    try:
        connection.request("POST", "/", b"said" * 5000)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def passes(link: ThinLink) -> bool:
    return ask(link) == (200, b"said" * 5000)


def test_what_is_said_passes(link: ThinLink) -> None:
    assert passes(link)
    assert link.passed > 2 * 20_000


def test_a_link_that_is_cut_ends_connections(link: ThinLink) -> None:
    link.cut()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(link)
    link.mend()
    assert passes(link)


def test_a_link_that_refuses_lets_nobody_connect(link: ThinLink) -> None:
    assert passes(link)
    link.refuse()
    with pytest.raises(ConnectionRefusedError):
        ask(link)
    link.mend()
    assert passes(link)


def test_a_link_that_is_held_says_nothing_and_goes_on_later(link: ThinLink) -> None:
    link.hold()
    with pytest.raises(TimeoutError):
        ask(link, SILENCE_S)
    told: list[bool] = []
    waiting = threading.Thread(target=lambda: told.append(passes(link)))
    waiting.start()
    waiting.join(SILENCE_S)
    assert not told
    link.mend()
    waiting.join(10)
    assert told == [True]


def test_a_link_answers_in_place_of_the_server(link: ThinLink) -> None:
    link.answer(NOT_NOW)
    status, body = ask(link)
    assert (status, b"SlowDown" in body) == (503, True)
    link.mend()
    assert passes(link)
