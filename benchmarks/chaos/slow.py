"""One address holds thousands of connections and sends bodies byte by byte: a client from elsewhere notices nothing."""

from __future__ import annotations

import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from benchmarks.chaos.audit import audit, sqlite_of
from benchmarks.chaos.beside import beside
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import running
from benchmarks.chaos.visits import Load, expected_outcomes, kinds
from benchmarks.chaos.watching import health_watched, memory_watched
from benchmarks.report import Line

DRIPPING, HALF_OPEN = 40, 2100
DRIP_EVERY_S = 2.0
SLOW_FROM, HEALTHY_FROM = "127.0.0.1", "127.0.0.2"
HEALTHY_CLIENTS = 2
GIVE_UP_S, DONE_S = 40.0, 120.0
FILES = 8192
"""Descriptors that the server and this process may have open."""
ANSWER_MS, HEALTH_MS = 2000, 1000
POSTED = ("labs", "PNG", "JPEG")


def run(plan: Plan, figures: Figures) -> None:
    """Post from one address while another is slow, until the time is over."""
    figures.counts["runs"] += 1
    allow_files()
    bodies = {name: body for name, body in kinds().items() if name in POSTED}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), prepare=allow_files, errors=plan.errors) as (server,),
    ):
        key, slow_key = server.key("site", "clinic"), server.key("site", "slow")
        with server.client(key) as client:
            expected = expected_outcomes(client, bodies)
        load = Load(
            figures,
            [server.port],
            key,
            bodies,
            plan.seed + figures.counts["runs"],
            sources=(HEALTHY_FROM,),
            give_up_s=GIVE_UP_S,
        )
        plan.begin()
        with (
            memory_watched(figures, lambda: [server.pid]),
            _slow_clients(figures, server.port, slow_key),
            health_watched(figures, server.port, HEALTHY_FROM),
            load.posting(HEALTHY_CLIENTS),
            tqdm(total=int(plan.seconds), desc="slow", unit="s", mininterval=1) as bar,
        ):
            while plan.left_s > 0:
                time.sleep(min(1.0, max(0.0, plan.left_s)))
                bar.update()
                plan.keep()
        audit(figures, server, sqlite_of(server), load, expected, limit_s=DONE_S)


def allow_files() -> None:
    """Let this process have as many files open as the campaign needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))


@contextmanager
def _slow_clients(figures: Figures, port: int, key: str) -> Iterator[None]:
    """Hold connections meanwhile; one that the server has closed is opened again."""
    head = f"POST /v1/visits HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n".encode()
    dripping = head + b"Content-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
    begins = [*[dripping] * DRIPPING, *[head] * HALF_OPEN]
    held: list[socket.socket | None] = [None] * len(begins)
    ended = threading.Event()

    def hold() -> None:
        while not ended.is_set():
            began = time.monotonic()
            for k, begin in enumerate(begins):
                if ended.is_set():
                    return
                held[k] = _held(held[k], port, begin, drip=k < DRIPPING)
            figures.at_most("held at once", sum(each is not None for each in held))
            ended.wait(max(0.0, DRIP_EVERY_S - (time.monotonic() - began)))

    try:
        with beside(ended, hold):
            yield
    finally:
        for connection in held:
            if connection is not None:
                connection.close()


def _held(connection: socket.socket | None, port: int, begin: bytes, *, drip: bool) -> socket.socket | None:
    """The connection with one more byte sent, or a new one where it was closed; ``None`` where none is had."""
    try:
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port), 1.0, source_address=(SLOW_FROM, 0))
            connection.sendall(begin)
            connection.setblocking(False)
        elif drip:
            connection.send(b"x")
        with suppress(BlockingIOError):
            if connection.recv(4096) == b"":
                raise ConnectionError
    except OSError:
        if connection is not None:
            connection.close()
        return None
    return connection


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts = figures.counts
    refused = figures.total("answer ", but="answer 20")
    lost = counts["answers lost"] + counts["never accepted"]
    wrong = counts["lost"] + counts["unfinished"] + counts["failed"] + counts["wrong results"]
    return [
        Line(
            "slow connections held at once", figures.most.get("held at once"), note=f"asked for {DRIPPING + HALF_OPEN}"
        ),
        Line("healthy client: visits accepted", float(counts["accepted"]), at_least=1, note=figures.listed("answer ")),
        Line("healthy client: refused", float(refused), at_most=0),
        Line("healthy client: no answer", float(lost), at_most=0),
        figures.times_line("answer", "healthy client: answer, ms", ANSWER_MS),
        figures.times_line("health", "/healthz from elsewhere, ms", HEALTH_MS),
        Line("/healthz without 200", float(figures.total("health ", but="health ok")), at_most=0),
        Line("accepted visits lost, unfinished, failed or wrong", float(wrong), at_most=0),
        figures.memory_line("peak memory of the server, PSS, MB"),
    ]
