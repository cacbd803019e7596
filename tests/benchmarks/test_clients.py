"""The clients against a server of a few lines whose behaviour is known: latencies, refusals, lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

from benchmarks.clients import Load, send
from benchmarks.files import MARK, Body


class Known:
    """Answers after ``seconds``, with ``statuses`` in turn; status 0 closes the connection without an answer."""

    def __init__(self, seconds=0.0, statuses=(201,)):
        self.seconds, self.statuses = seconds, statuses
        self.bodies, self.arrived = [], []

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"Content-Le")), 0)
                self.arrived.append(time.perf_counter())
                self.bodies.append(await reader.readexactly(length))
                status = self.statuses[(len(self.bodies) - 1) % len(self.statuses)]
                await asyncio.sleep(self.seconds)
                if not status:
                    break
                text = b'{"lung":{"status":"assessed"}}' if status == 201 else b"{}"
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text)
        writer.close()

    @contextlib.contextmanager
    def running(self):
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            for task in asyncio.all_tasks(loop):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
            loop.close()


BODY = Body(b"before " + MARK + b" after", "text/plain", "lung", 29)
EXPECT = '"lung":{"status":"assessed"'


def test_a_closed_loop_waits_for_each_answer_and_sends_no_body_twice():
    server = Known(seconds=0.05)
    with server.running() as port:
        outcome = send(Load(port, "/", expect=EXPECT, clients=4, visits=20), BODY)
    assert outcome.statuses == {"201": 20}
    assert (outcome.done, outcome.failed) == (20, 0)
    assert outcome.elapsed_s >= 5 * 0.05  # twenty visits on four connections
    assert min(outcome.seconds) >= 0.05
    assert len(set(server.bodies)) == 20
    assert all(body.startswith(b"before 1") and body.endswith(b" after") for body in server.bodies)


def test_what_is_refused_or_lost_or_not_assessed_is_told_apart():
    with Known(statuses=(201, 429, 500, 0, 200)).running() as port:
        outcome = send(Load(port, "/", expect=EXPECT, clients=1, visits=10), BODY)
    assert outcome.statuses == {"201": 2, "429": 2, "500": 2, "failed": 2, "not_assessed": 2}
    assert (outcome.done, outcome.failed) == (2, 6)
    with Known(statuses=(200,)).running() as port:
        assert send(Load(port, "/", clients=1, visits=3), BODY).done == 3
        assert send(Load(port, "/", expect="{}", times=2, clients=1, visits=3), BODY).statuses == {"not_assessed": 3}
    with Known().running() as port:
        outcome = send(Load(port, "/", expect="something else", clients=1, visits=3), BODY)
    assert (outcome.statuses, outcome.done, outcome.failed) == ({"not_assessed": 3}, 0, 3)


def test_an_open_loop_does_not_wait_and_charges_the_server_for_the_queue():
    server = Known(seconds=0.4)
    with server.running() as port:
        free = send(Load(port, "/", expect=EXPECT, clients=64, rate_per_s=20, seconds=1.5, seed=5), BODY)
        narrow = send(Load(port, "/", expect=EXPECT, clients=1, rate_per_s=10, seconds=1.0, seed=5), BODY)
    assert free.done == pytest.approx(30, abs=20)
    assert free.elapsed_s < 0.4 * free.done / 2  # answers overlapped
    assert narrow.done >= 3
    # one connection, 0.4 s each: the last one waited for all before it, and its latency says so
    assert max(narrow.seconds) > 0.4 * narrow.done - 1.0
