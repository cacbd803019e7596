"""Real server processes over one data folder, that can be killed and started again on the same port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.chaos.asking import Client
from benchmarks.files import ROOT
from benchmarks.serving import BUNDLES, environment_of, free_port, wait_until_ready

SETTINGS = {
    "SANGLOC_SESSION": "onnxruntime:fp32",  # nothing is measured and chosen at the start
    "SANGLOC_LEASE_SECONDS": "10",
    "SANGLOC_DRAIN_SECONDS": "5",
    "SANGLOC_DELIVERY_RETRY_SECONDS": "1",
    "SANGLOC_DELIVERY_RETRY_MAX_SECONDS": "4",
}
STOP_S = 60.0
MAX_LINES = 2000


class Server:
    """One server process, on a port that it keeps.

    Parameters
    ----------
    folder
        Its data are in ``data``, its log in ``log-PORT``.
    prepare
        Called in the process before the server starts, for example to set a limit.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        data: Path | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.port = free_port()
        self.data = data or folder / "data"
        self.log = folder / f"log-{self.port}"
        self._environment = environment_of(self.port, self.data, BUNDLES, {**SETTINGS, **settings})
        self._prepare = prepare
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process; 0 where none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    def start(self) -> None:
        """Start it, without waiting."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "server.py")],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                preexec_fn=self._prepare,  # noqa: PLW1509
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until it is ready.

        Raises
        ------
        RuntimeError
            It ended, or was not ready in time.
        """
        assert self._process is not None  # noqa: S101
        wait_until_ready(self._process, self.port, self.log)

    def kill(self) -> None:
        """``kill -9``, and wait until it has ended."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def stop(self) -> int:
        """Ask it to stop; its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def client(self, key: str | None = None, *, source: str = "127.0.0.1", timeout_s: float = 120.0) -> Client:
        given = {} if key is None else {"key": key}
        return Client(self.port, source=source, timeout_s=timeout_s, **given)

    def key(self, role: str, site: str, **more: str) -> str:
        """A new key."""
        import json  # noqa: PLC0415

        with self.client() as client:
            body = json.dumps({"role": role, "site": site, **more}).encode()
            return str(client.ask("POST", "/v1/keys", body, {"Content-Type": "application/json"}).json["key"])


@contextmanager
def running(
    folder: Path,
    n: int = 1,
    *,
    settings: Mapping[str, str] | None = None,
    data: Path | None = None,
    prepare: Callable[[], None] | None = None,
    errors: Path | None = None,
) -> Iterator[list[Server]]:
    """``n`` servers that are ready; all are stopped at the end.

    Parameters
    ----------
    errors
        A file to which the errors of their logs are added at the end.
    """
    servers = [Server(folder, settings or {}, data=data, prepare=prepare) for _ in range(n)]
    with kept_running(servers, errors=errors):
        yield servers


@contextmanager
def kept_running(servers: list[Server], *, errors: Path | None = None) -> Iterator[list[Server]]:
    """The servers, ready; all are stopped at the end. As :func:`running`."""
    try:
        for others in (servers[:1], servers[1:]):  # the first one makes the tables
            for server in others:
                server.start()
            for server in others:
                server.wait()
        yield servers
    finally:
        if errors is not None and (said := _errors_of(servers)):
            errors.parent.mkdir(parents=True, exist_ok=True)
            with errors.open("a") as file:
                file.write(said)
        stopping = [threading.Thread(target=server.stop) for server in servers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()


def _errors_of(servers: list[Server]) -> str:
    """What the servers have logged as errors; the service's log names nobody."""
    lines = [
        line
        for server in servers
        if server.log.exists()
        for line in server.log.read_text(errors="replace").splitlines()
        if '"level": "info"' not in line
    ]
    return "".join(f"{line}\n" for line in lines[-MAX_LINES:])


def kill_quietly(pids: list[int]) -> int:
    """``kill -9`` of processes that may have ended already; how many there were."""
    n = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            n += 1
    return n
