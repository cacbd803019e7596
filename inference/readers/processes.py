"""The service's ends of its reader processes, and of the zygote that forks them."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inference.readers.files import OpenFile
from inference.readers.job import SHARED_BYTES, Array, Job
from inference.readers.shared import Area
from inference.readers.wire import Gone, limit_time, receive, send
from inference.readers.worker import Call

START_S = 60.0
"""Loading the libraries takes a second, and much longer on a busy machine."""
ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
"""What readers get of the environment: it has passwords in it."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""There are as many readers as cores, and a process with threads cannot be forked."""


class Reader:
    """A reader process, as the thread that uses it sees it."""

    def __init__(self, pid: int, connection: socket.socket, niceness: int) -> None:
        self.pid, self.niceness = pid, niceness
        self._connection = connection
        self._free: deque[Area] = deque()
        self._n_areas = 0
        if niceness:
            os.setpriority(os.PRIO_PROCESS, pid, niceness)
        self._limited_to = 0.0
        self._limit(START_S)
        self.fenced: bool = json.loads(receive(connection)[0])["fenced"]

    def call(
        self,
        job: Job[..., Any],
        arguments: tuple[Any, ...],
        files: Sequence[OpenFile],
        cpu_s: float,
        wall_s: float,
        grant: Callable[[int], float],
    ) -> tuple[dict[str, Any], tuple[Array, ...]]:
        """The answer to a call, and its arrays.

        Parameters
        ----------
        grant
            Is called with the bytes of memory that the reader asks for; returns how long it had to wait for them, s.

        Raises
        ------
        Gone
            The process has ended.
        ValueError, TypeError, KeyError
            Its answer is none that a reader gives.
        TimeoutError
            It has not answered in time.
        """
        end = time.monotonic() + wall_s
        self._limit(wall_s)
        area, is_new = self._area(job)
        call = Call(job, arguments, tuple((f.sha256, f.n_bytes) for f in files), cpu_s, area.number, is_new)
        try:
            handed = [area.descriptor] if is_new else []
            send(self._connection, pickle.dumps(call), [*handed, *(file.descriptor for file in files)])
        finally:
            if is_new:
                area.close_descriptor()
        answer = self._answer(end, grant)
        if "document" not in answer:
            self._release(area)
            return answer, ()
        return answer, area.views(answer["arrays"], self._release)

    def _area(self, job: Job[..., Any]) -> tuple[Area, bool]:
        if job.shared_bytes == SHARED_BYTES and self._free:
            return self._free.pop(), False
        self._n_areas += 1
        return Area.made(self._n_areas, job.shared_bytes), True

    def _release(self, area: Area) -> None:
        if area.n_bytes == SHARED_BYTES:
            self._free.append(area)

    def _answer(self, end: float, grant: Callable[[int], float]) -> dict[str, Any]:
        while True:
            try:
                answer = json.loads(receive(self._connection)[0])
                wanted = int(answer["wanted"]) if "wanted" in answer else None
            except RecursionError:
                raise ValueError("no answer of a reader") from None
            if wanted is None:
                return dict(answer)
            if time.monotonic() > end:  # it asks again and again
                raise TimeoutError
            end += grant(wanted)
            self._limit(end - time.monotonic())
            send(self._connection, b"")

    def _limit(self, seconds: float) -> None:
        if seconds != self._limited_to:
            limit_time(self._connection, seconds)
            self._limited_to = seconds

    def close(self) -> None:
        self._connection.close()


class Zygote:
    """The process that forks readers; it is started when it is needed, and again after it has ended.

    Parameters
    ----------
    jobs
        Names of the modules in which the jobs are.
    """

    def __init__(self, jobs: Sequence[str]) -> None:
        self._jobs = jobs
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Start it, unless it runs.

        Raises
        ------
        Gone
            It ended while it started.
        OSError
            It cannot be started, or takes too long.
        """
        with self._lock:
            self._started()

    def fork(self, niceness: int) -> Reader:
        """A new reader.

        Raises
        ------
        Gone, OSError
            The zygote or the reader ended meanwhile; the next call starts a new zygote.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid = self._asked(b"", [theirs.fileno()])["pid"]
            return Reader(pid, ours, niceness)
        except (Gone, OSError):
            ours.close()
            raise

    def end(self, reader: Reader) -> int:
        """End a reader, if it runs, and say how it ended: an exit code, or the negative number of a signal.

        Raises
        ------
        Gone, TimeoutError
            The zygote has ended, and all its readers with it.
        """
        reader.close()
        return int(self._asked(json.dumps({"end": reader.pid}).encode(), [], start=False)["status"])

    def close(self) -> None:
        """End it, and all readers with it, for good."""
        with self._lock:
            self._closed = True
            self._stop()

    def _asked(self, message: bytes, files: Sequence[int], *, start: bool = True) -> dict[str, Any]:
        with self._lock:
            if start:
                self._started()
            if self._control is None:
                raise Gone
            try:
                send(self._control, message, files)
                return dict(json.loads(receive(self._control)[0]))
            except (Gone, OSError):
                self._stop()
                raise Gone from None

    def _started(self) -> None:
        if self._closed:
            raise Gone
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        self._control, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-P", "-m", "inference.readers.zygote", str(theirs.fileno()), *self._jobs]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    env={**environment, **ONE_THREAD, "PYTHONPATH": root},
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            limit_time(self._control, START_S)
            receive(self._control)
        except (Gone, OSError):
            self._stop()
            raise

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()  # it ends at the end of its input, and its readers with it
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None
