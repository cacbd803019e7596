"""The memory of processes and of all that came from them, now and at its highest.

A page that several processes share counts once, divided among them (PSS): the readers of a server are forked from one
process and share most of its pages, so that the sum of what is resident in each (RSS) counts the same memory often.

References
----------
proc_pid_smaps(5): ``smaps_rollup``, ``Pss`` and ``Rss``, kB of 1,024 bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import children_of

MAX_SHARE = 0.1
"""Of its time that :func:`peak_memory` may spend with looking: the kernel counts shared pages one by one."""
KIB_IN_MB = 1024 / 1e6


@dataclass(slots=True)
class Memory:
    """Of some processes together, MB (10^6 bytes).

    Parameters
    ----------
    pss_mb, rss_mb
        Shared pages are counted once; for each process that has them.
    """

    pss_mb: float = 0.0
    rss_mb: float = 0.0
    processes: int = 0

    def at_least(self, other: Memory) -> None:
        """Raise each figure to that of another moment."""
        self.pss_mb, self.rss_mb = max(self.pss_mb, other.pss_mb), max(self.rss_mb, other.rss_mb)
        self.processes = max(self.processes, other.processes)


def tree(pid: int) -> Iterator[int]:
    """A process and all running ones that came from it."""
    yield pid
    for child in children_of(pid):
        yield from tree(child)


def memory_of(pids: Sequence[int]) -> Memory:
    """The memory that these processes have now, without those that came from them; those that have ended have none."""
    found = Memory()
    for pid in pids:
        with suppress(OSError):
            lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
            kib = {words[0]: int(words[1]) for words in lines if words[0] in ("Pss:", "Rss:")}
            found.pss_mb += kib["Pss:"] * KIB_IN_MB
            found.rss_mb += kib["Rss:"] * KIB_IN_MB
            found.processes += 1
    return found


@contextmanager
def peak_memory(pids: Callable[[], Sequence[int]], every_s: float) -> Iterator[Memory]:
    """The largest memory of some processes, and of all that came from them, meanwhile.

    It is looked at every so often, less often where looking is slow.

    Parameters
    ----------
    pids
        The processes at this moment.
    """

    def now() -> Memory:
        return memory_of([each for first in pids() for each in tree(first)])

    peak, ended = now(), threading.Event()

    def watch() -> None:
        cost = 0.0
        while not ended.wait(max(every_s, cost / MAX_SHARE)):
            began = time.perf_counter()
            peak.at_least(now())
            cost = time.perf_counter() - began

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
