"""Clients in another process: closed loop and open loop over HTTP, on raw sockets; their own CPU time is measured.

``python -m benchmarks.clients`` reads a load (JSON) from stdin and writes its outcome to stdout. A client of the closed
loop posts when it has the last answer. The open loop posts at the times of a Poisson process, and latencies count from
these times, so that a slow server does not delay the measurement (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from benchmarks.figures import percentiles, poisson_arrivals
from benchmarks.files import ROOT, Body, pieces_of

GIVE_UP_S = 120.0
"""A request without an answer after this time counts as failed."""


@dataclass(frozen=True)
class Load:
    """The requests to send.

    Parameters
    ----------
    body
        File with the body and its marks (:data:`benchmarks.files.MARK`); empty for ``GET``.
    expect, times
        Text that an answer with status 200 or 201 has to contain, and how often at least, to count as done.
    clients
        Connections of the closed loop; the maximum of the open loop.
    rate_per_s
        Rate of the open loop; 0 for the closed loop.
    visits
        Stop after this many requests; if 0, stop after ``seconds``.
    authority
        File of the certificate by which a proxy's is checked; empty: no TLS is spoken.
    sources
        From so many addresses of loopback the connections come, in turn.
    """

    port: int
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    expect: str = ""
    times: int = 1
    clients: int = 1
    rate_per_s: float = 0.0
    seconds: float = 5.0
    visits: int = 0
    first_number: int = 0
    seed: int = 2026
    authority: str = ""
    sources: int = 1


@dataclass
class Outcome:
    """The outcome of a load.

    Parameters
    ----------
    statuses
        Answers by status; ``not_assessed`` for a 200 or 201 without the expected text, ``failed`` for no answer.
    elapsed_s
        From the first request to the last answer.
    seconds
        Latency of each answer that counts as done, in the order of arrival.
    client_cpu_s
        CPU time of the clients.
    """

    statuses: dict[str, int]
    elapsed_s: float
    seconds: list[float]
    client_cpu_s: float

    @property
    def done(self) -> int:
        return len(self.seconds)

    @property
    def sent(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """Requests that are not done, except refusals with 429."""
        return self.sent - self.done - self.statuses.get("429", 0)

    @property
    def rate_per_s(self) -> float:
        return self.done / self.elapsed_s if self.elapsed_s else 0.0

    def latency_ms(self, percent: float) -> float:
        return 1000 * percentiles(self.seconds, [percent])[0]


def send(load: Load, body: Body | None = None) -> Outcome:
    """Run a load in a new process."""
    with tempfile.NamedTemporaryFile() as file:
        if body is not None:
            file.write(body.content)
            file.flush()
            load = Load(**{**asdict(load), "body": file.name})
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.clients"],
            input=json.dumps(asdict(load)),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    if done.returncode:
        raise RuntimeError(f"the clients ended with {done.returncode}: {done.stderr[-2000:]}")
    return Outcome(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self, expect: bytes, times: int) -> None:
        from httptools import HttpResponseParser  # noqa: PLC0415

        self._new_parser: Callable[[Any], Any] = HttpResponseParser
        self._expect, self._times = expect, times
        self._answer: asyncio.Future[str] | None = None
        self._body: list[bytes] = []
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result("failed")

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = str(self._parser.get_status_code())
        if status in ("200", "201") and b"".join(self._body).count(self._expect) < self._times:
            status = "not_assessed"
        if not self._parser.should_keep_alive():
            self.open = False
            self.transport.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    async def ask(self, pieces: list[bytes]) -> str:
        """Send one request; its status, or ``failed``."""
        self._answer = asyncio.get_running_loop().create_future()
        self._body, self._parser = [], self._new_parser(self)
        self.transport.writelines(pieces)
        try:
            return await asyncio.wait_for(self._answer, GIVE_UP_S)
        except TimeoutError:
            self.open = False
            self.transport.abort()
            return "failed"


class _Run:
    """A running load."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._next = load.first_number
        content = Path(load.body).read_bytes() if load.body else b""
        self._pieces = pieces_of(content) if content else None
        length = sum(map(len, self._pieces(0))) if self._pieces else 0
        head = {"Host": f"127.0.0.1:{load.port}", **load.headers}
        head |= {"Content-Length": str(length)} if self._pieces else {}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self._head = f"{'POST' if self._pieces else 'GET'} {load.path} HTTP/1.1\r\n{lines}\r\n".encode()
        self._idle: deque[_Connection] = deque()
        self._tls = ssl.create_default_context(cafile=load.authority) if load.authority else None
        self._connected = 0

    async def connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        expect, times = self.load.expect.encode(), self.load.times
        source = f"127.0.0.{1 + self._connected % self.load.sources}"
        self._connected += 1
        _, connection = await loop.create_connection(
            lambda: _Connection(expect, times),
            "127.0.0.1",
            self.load.port,
            local_addr=(source, 0),
            ssl=self._tls,
            server_hostname="localhost" if self._tls else None,
        )
        return connection

    async def request(self, connection: _Connection, since: float) -> None:
        number, self._next = self._next, self._next + 1
        status = await connection.ask([self._head, *(self._pieces(number) if self._pieces else [])])
        self.statuses[status] += 1
        if status in ("200", "201", "202"):
            self.seconds.append(time.perf_counter() - since)

    async def closed(self) -> None:
        load = self.load
        end = time.perf_counter() + load.seconds
        left = load.visits or sys.maxsize

        async def client() -> None:
            nonlocal left
            connection = await self.connect()
            while left > 0 and (load.visits or time.perf_counter() < end):
                left -= 1
                if not connection.open:
                    connection = await self.connect()
                await self.request(connection, time.perf_counter())

        await asyncio.gather(*(client() for _ in range(load.clients)))

    async def open(self) -> None:
        load = self.load
        started = time.perf_counter()
        places = asyncio.Semaphore(load.clients)
        tasks = []

        async def arrive(due: float) -> None:
            async with places:
                connection = self._idle.popleft() if self._idle else await self.connect()
                if not connection.open:
                    connection = await self.connect()
                await self.request(connection, due)
                self._idle.append(connection)

        for at in poisson_arrivals(load.rate_per_s, load.seconds, load.seed):
            await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
            tasks.append(asyncio.create_task(arrive(started + at)))
        await asyncio.gather(*tasks)


def main() -> None:
    """Run the load that is given on stdin."""
    import uvloop  # noqa: PLC0415

    run = _Run(Load(**json.load(sys.stdin)))
    cpu, started = time.process_time(), time.perf_counter()
    uvloop.run(run.open() if run.load.rate_per_s else run.closed())
    outcome = Outcome(dict(run.statuses), time.perf_counter() - started, run.seconds, time.process_time() - cpu)
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
