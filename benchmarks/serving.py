"""Start a server for a measurement: a new process on loopback with its own data folder."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.clients import Load, Outcome, send
from benchmarks.figures import CoreTime
from benchmarks.files import ROOT, Body
from benchmarks.memory import Memory, peak_memory

KEY = "benchmark-key-that-lives-for-this-run-only"
BUNDLES = ROOT / "models" / "bundles"
START_S = 180.0
"""Limit for the start, and for the sessions to be measured beside it."""
MEMORY_EVERY_S = 1.0
"""Looking takes some 20 ms of a core, which is then missing for what is measured."""


@dataclass
class Server:
    """A running server.

    Parameters
    ----------
    ready_s
        Seconds from its start until ``/readyz`` answered 200.
    chooses
        Whether its sessions are its own choice.
    peak
        Its largest memory while requests were posted.
    """

    process: subprocess.Popen[bytes]
    port: int
    ready_s: float
    chooses: bool = True
    numbers: int = 0
    peak: Memory = field(default_factory=Memory)

    @property
    def pid(self) -> int:
        return self.process.pid

    def core_time(self) -> CoreTime:
        return CoreTime.of(self.pid)

    def wait_until_measured(self) -> None:
        """Wait until the server has measured its sessions, which it does beside its work.

        Raises
        ------
        RuntimeError
            It does not come to an end.
        """
        end = time.monotonic() + START_S
        address = f"http://127.0.0.1:{self.port}/v1/models"
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {KEY}"})
        while self.chooses:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  loopback
                models = json.load(answer)["items"]
            if all(model["session"]["remembered"] for model in models if model["organ"] != "kidney"):
                return
            if time.monotonic() > end:
                raise RuntimeError("the server does not end measuring its sessions")
            time.sleep(0.5)

    def post(self, body: Body, *, prefer: str = "wait=110", **load: Any) -> tuple[Outcome, float]:
        """Post requests from another process; their outcome, and the server's core-milliseconds per visit."""
        self.numbers += 1_000_000  # so that no two visits of this server have the same bytes
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": body.content_type, "Prefer": prefer}
        expect = f'"{body.organ}":{{"status":"assessed"'
        what = Load(self.port, body.path, headers, expect=expect, times=body.visits, first_number=self.numbers, **load)
        before = self.core_time()
        with peak_memory(lambda: [self.pid], MEMORY_EVERY_S) as peak:
            outcome = send(what, body)
        self.peak.at_least(peak)
        return outcome, before.ms_per(self.core_time(), outcome.done * body.visits)

    def trivial(self, **load: Any) -> tuple[Outcome, float]:
        """Request a route that does nothing; the outcome, and the server's core-milliseconds per request."""
        before = self.core_time()
        outcome = send(Load(self.port, "/healthz", **load))
        return outcome, before.ms_per(self.core_time(), outcome.done)


@contextmanager
def serving(
    bundles: Path = BUNDLES,
    *,
    settings: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
    data: Path | None = None,
) -> Iterator[Server]:
    """A running server that is ready.

    Parameters
    ----------
    data
        Its data folder, which may have been used before; by default a new one.
    settings
        Further settings, by their name in the environment.
    before
        A command that starts the server, such as a profiler; the server is then its child.

    Raises
    ------
    RuntimeError
        The server ended, or was not ready in time; the message has the end of its log.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_of(port, data or Path(folder, "data"), bundles, settings or {})
        log = Path(folder, "log")
        started = time.perf_counter()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*before, sys.executable, str(ROOT / "server.py")],
                env=environment, stdout=stream, stderr=stream, cwd=ROOT,
            )  # fmt: skip
        try:
            wait_until_ready(process, port, log)
            chooses = (settings or {}).get("SANGLOC_SESSION", "auto") == "auto"
            yield Server(process, port, time.perf_counter() - started, chooses)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port of loopback that nothing uses now, and that the system gives to no client meanwhile."""
    while True:
        port = random.randrange(*PORTS)  # noqa: S311
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


PORTS = (12_000, 32_000)
"""Below the ports that Linux gives to clients (``net.ipv4.ip_local_port_range``)."""


def environment_of(port: int, data: Path, bundles: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server: this process's own without its settings, and the given ones."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SANGLOC_")}
    return environment | {
        "SANGLOC_PORT": str(port),
        "SANGLOC_DATA_DIR": str(data),
        "SANGLOC_BUNDLES": str(bundles),
        "SANGLOC_BOOTSTRAP_KEY": KEY,
        "SANGLOC_CONNECTIONS_PER_ADDRESS": "1000",  # all clients of a measurement have one address
        **settings,
    }


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server answers that it is ready.

    Raises
    ------
    RuntimeError
        It ended, or was not ready in time; the message has the end of its log.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"the server is not ready: {log.read_text(errors='replace')[-2000:]}")
