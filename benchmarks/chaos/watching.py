"""Watches a campaign: the memory of whole process trees, and how long a server takes to say that it is alive.

``python -m benchmarks.chaos.watching PORT ADDRESS`` asks ``/healthz`` until its input ends, then prints how often the
answer took so many milliseconds. It is a process of its own, so that its times are not those of a busy campaign.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from benchmarks.chaos.record import Figures
from benchmarks.figures import children_of
from benchmarks.files import ROOT
from benchmarks.memory import peak_memory

ASK_EVERY_S = 0.02
GIVE_UP_S = 10.0
"""An answer that takes longer is counted as lost."""
MEMORY_EVERY_S = 0.1


# ---------------------------------------------------------------- processes
def zygotes(pid: int) -> list[int]:
    """The processes from which the readers of a server are forked."""
    found = []
    for child in children_of(pid):
        with suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"inference.readers.zygote" in command:
                found.append(child)
    return found


def readers(pid: int) -> list[int]:
    """The reader processes of a server."""
    return [reader for zygote in zygotes(pid) for reader in children_of(zygote)]


# ---------------------------------------------------------------- memory
@contextmanager
def memory_watched(figures: Figures, pids: Callable[[], Sequence[int]]) -> Iterator[None]:
    """Remember the largest memory of some processes and of all that came from them, meanwhile.

    Parameters
    ----------
    pids
        The processes at this moment.
    """
    with peak_memory(pids, MEMORY_EVERY_S) as peak:
        try:
            yield
        finally:
            for name, most in asdict(peak).items():
                figures.at_most(name, most)


# ---------------------------------------------------------------- health
@contextmanager
def health_watched(
    figures: Figures, port: int, address: str = "127.0.0.1", every_s: float = ASK_EVERY_S
) -> Iterator[None]:
    """Measure ``/healthz`` meanwhile, asked from ``address``: the times ``health``, the counts ``health …``."""
    command = [sys.executable, "-m", "benchmarks.chaos.watching", str(port), address, str(every_s)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield
        finally:
            said, _ = process.communicate(b"")
            found = json.loads(said)
            times = figures.times.setdefault("health", Counter())
            times.update({int(ms): n for ms, n in found["ms"].items()})
            figures.counts.update({f"health {name}": n for name, n in found["counts"].items()})


def main(port: int, address: str, every_s: float) -> None:
    """Ask until the input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    ms: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, GIVE_UP_S, source_address=(address, 0))
    due = time.perf_counter()
    while not ended.wait(max(0.0, due - time.perf_counter())):
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            counts["ok" if answer.status == 200 else f"status {answer.status}"] += 1
        except (OSError, http.client.HTTPException) as error:
            counts["lost " + type(error).__name__] += 1
            connection.close()
        now = time.perf_counter()
        ms[int(-(-(now - due) * 1000 // 1))] += 1  # from when it was due, so that a slow answer hides none that follow
        due = max(due + every_s, now)
    print(json.dumps({"ms": ms, "counts": counts}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
