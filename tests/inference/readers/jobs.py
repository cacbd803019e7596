"""Jobs that do what a hostile file might make a reader do."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from data_specs.problems import Refused
from inference.readers.job import Read, job


@job
def echo(files: Sequence[bytes], word: str) -> Read[str]:
    return Read(word, tuple(np.frombuffer(content, np.uint8) for content in files))


@job
def refuse(files: Sequence[bytes]) -> Read[str]:
    raise Refused("truncated", "1 B", "2 B")


@job
def fail(files: Sequence[bytes]) -> Read[str]:
    raise ZeroDivisionError("a text that names a person")


@job
def end(files: Sequence[bytes], how: str) -> Read[int]:
    """End this process by a fault, unless a file says that the fault has gone."""
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), getattr(signal, how))  # not allowed in a reader
    return Read(0)


@job
def compute(files: Sequence[bytes], cpu_s: float) -> Read[int]:
    began = time.process_time()
    while time.process_time() - began < cpu_s:
        pass
    return Read(os.getpid())


@job
def sleep(files: Sequence[bytes], seconds: float) -> Read[int]:
    time.sleep(seconds)
    return Read(os.getpid())


@job
def allocate(files: Sequence[bytes], n_bytes: int) -> Read[int]:
    return Read(int(np.ones(n_bytes, np.uint8)[-1]))


@job
def break_out(files: Sequence[bytes], parent: int) -> Read[dict[str, str]]:
    """What a reader gets that tries to reach anything but its files."""
    attempts = {
        "open": lambda: open("/etc/passwd"),  # noqa: SIM115
        "write": lambda: open("/tmp/from-a-reader", "w"),  # noqa: SIM115
        "list": lambda: os.listdir("/"),
        "socket": socket.socket,
        "pair": socket.socketpair,
        "fork": os.fork,
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "run": lambda: subprocess.run(["/bin/true"], check=False),
        "kill": lambda: os.kill(parent, signal.SIGKILL),
        "trace": lambda: _raise_for(ctypes.CDLL(None, use_errno=True).ptrace(16, parent, 0, 0)),
        "memory": lambda: os.memfd_create("more"),
        "environment": lambda: os.environ["SANGLOC_BOOTSTRAP_KEY"],
    }
    results = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            results[name] = "possible"
        except Exception as error:
            results[name] = type(error).__name__
    return Read(results)


def _raise_for(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno())


@job
def lie(files: Sequence[bytes], answer: bytes, times: int) -> Read[int]:
    """Send an answer that no reader gives."""
    for descriptor in range(3, 32):
        try:
            for _ in range(times):
                os.write(descriptor, struct.pack("<L", len(answer)) + answer)
        except OSError:
            continue
    return Read(0)


@job
def speak(files: Sequence[bytes]) -> Read[str]:
    print("a name from the file")
    print("a name from the file", file=sys.stderr, flush=True)
    os.write(2, b"a name from the file")
    return Read("")


@job
def descriptors(files: Sequence[bytes]) -> Read[int]:
    """How many files are open in a reader."""
    n = 0
    for descriptor in range(256):
        try:
            os.lseek(descriptor, 0, os.SEEK_CUR)
            n += 1
        except OSError as error:
            n += error.errno != 9
    return Read(n)
