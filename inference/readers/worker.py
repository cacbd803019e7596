"""A reader process: reads strangers' files, one call at a time, until it is worn out.

It is forked by :mod:`inference.readers.zygote`. It may die with the file that it reads: by a fault of a decoder, by too
much memory, by too much time. The process that serves never notices more than a closed connection.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any

from data_specs.problems import Refused
from data_specs.reading import memory_limit, require_memory
from inference.readers.fence import MemoryLimit, close_fence, limit_resources
from inference.readers.job import SHARED_BYTES, Job
from inference.readers.shared import Area
from inference.readers.wire import Gone, receive, send

FREE_BYTES = 32 << 20
"""Memory that every call may take without asking."""
MEMORY_BYTES = 192 << 20
"""Most that one call may take, and what all calls of a service together may take beyond what is free."""
MARGIN, SPARE_BYTES = 1.15, 16 << 20
"""A reader counts the bytes of its files and arrays, and not what Python and the libraries need besides: some more for
each byte, and this in any case."""
MAX_CALLS = 500
MAX_GROWN_BYTES = 48 << 20
"""A reader that has read so many files, or has grown so much, is worn out: it ends, and a fresh one takes its place."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a reader is asked to do.

    Parameters
    ----------
    parts
        Of each file the SHA-256 and the number of bytes, as in :class:`~inference.readers.files.OpenFile`.
    cpu_s
        CPU time after which the process is ended.
    area
        Number of the shared memory for its arrays.
    area_is_new
        Its file comes with the call, before the files that are to be read. A large one is used once.
    """

    job: Job[..., Any]
    arguments: tuple[Any, ...]
    parts: tuple[tuple[str | None, int | None], ...]
    cpu_s: float
    area: int
    area_is_new: bool


class FileChanged(Exception):
    """A file no longer has the content that it is stored under."""


def serve(connection: socket.socket) -> None:
    """Answer calls until the other side closes, or this process is worn out."""
    limit_resources()
    memory = _Granted(connection)
    _silence()
    fenced = close_fence()
    send(connection, json.dumps({"fenced": fenced}).encode())
    areas: dict[int, Area] = {}
    for n in range(1, MAX_CALLS + 1):
        try:
            message, files = receive(connection, with_files=True)
        except Gone:
            return
        answer = _answer(message, files, memory, areas)
        worn = n == MAX_CALLS or memory.grown_bytes > MAX_GROWN_BYTES
        send(connection, json.dumps({**answer, "last": worn}).encode())
        if worn:
            return


class _Granted:
    """Memory that this process may take for the present call."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._memory = MemoryLimit()
        self._granted = self._of_files = 0

    def begin(self) -> None:
        self._granted, self._of_files = FREE_BYTES, 0
        self._memory.begin()
        self._memory.allow(FREE_BYTES + SPARE_BYTES)

    def file(self, n_bytes: int) -> None:
        """A file of ``n_bytes`` is about to be read into memory."""
        self._of_files += n_bytes
        require_memory(0)

    def grant(self, n_bytes: int) -> int:
        """What a reader may take besides its files, which needs ``n_bytes``: it may have to wait for it.

        A :data:`data_specs.reading.Grant`.
        """
        most = int(MEMORY_BYTES / MARGIN) - self._of_files
        wanted = int(MARGIN * (n_bytes + self._of_files))
        if self._granted < wanted <= MEMORY_BYTES:
            send(self._connection, json.dumps({"wanted": wanted}).encode())
            receive(self._connection)
            self._granted = wanted
            self._memory.allow(wanted + SPARE_BYTES)
        return max(0, most)

    @property
    def grown_bytes(self) -> int:
        return self._memory.grown_bytes


def _answer(message: bytes, files: list[int], memory: _Granted, areas: dict[int, Area]) -> dict[str, Any]:
    call: Call = pickle.loads(message)  # noqa: S301  from the process that forked this one
    if call.area_is_new:
        areas[call.area] = Area(call.area, files[0], call.job.shared_bytes, writable=True)
        os.close(files.pop(0))
    area = areas[call.area] if call.job.shared_bytes == SHARED_BYTES else areas.pop(call.area)
    memory.begin()
    signal.setitimer(signal.ITIMER_PROF, call.cpu_s)  # SIGPROF ends the process
    try:
        with memory_limit(memory.grant):
            contents = [_content(file, *part, memory) for file, part in zip(files, call.parts, strict=True)]
            read = call.job(contents, *call.arguments)
        return {"document": call.job.dump(read.document), "arrays": area.put(read.arrays)}
    except Refused as refusal:
        problem = refusal.problem
        return {"refused": [problem.code, problem.found, problem.expected]}
    except FileChanged:
        return {"changed": True}
    except MemoryError:
        return {"memory": True}
    except Exception as error:
        return {"fault": type(error).__name__, "at": _where(error)}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        for file in files:
            os.close(file)


def _content(file: int, sha256: str | None, at_most: int | None, memory: _Granted) -> bytes:
    n_bytes = os.lseek(file, 0, os.SEEK_END)
    n_bytes = n_bytes if at_most is None else min(n_bytes, at_most)
    memory.file(n_bytes)
    content = os.pread(file, n_bytes, 0)
    while len(content) < n_bytes and (more := os.pread(file, n_bytes - len(content), len(content))):
        content += more
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise FileChanged
    return content


def _where(error: BaseException) -> str:
    """Module and line in which an error was raised; its text may quote the file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace is not None else "?"


def _silence() -> None:
    """Native libraries write about damaged files to the terminal, and may quote them."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for descriptor in (0, 1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)
