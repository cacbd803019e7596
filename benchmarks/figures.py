"""Percentiles, arrival times, ratios, and core time of processes."""

from __future__ import annotations

import math
import os
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def percentiles(values: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Nearest-rank percentiles, each one of the values; NaN if there are none.

    References
    ----------
    Nearest rank: the smallest value with at least p % of the values at or under it (Hyndman and Fan 1996, type 1).
    """
    ordered = sorted(values)
    if not ordered:
        return [math.nan] * len(wanted)
    return [ordered[min(len(ordered), max(1, math.ceil(p / 100 * len(ordered)))) - 1] for p in wanted]


def poisson_arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Times of arrival in ``[0, seconds)`` of a Poisson process: independent, exponential gaps of mean 1 / rate."""
    if rate_per_s <= 0:
        raise ValueError(f"a rate of {rate_per_s} per second has no arrivals")
    chance = random.Random(seed)  # noqa: S311  a schedule, not a secret
    times, at = [], chance.expovariate(rate_per_s)
    while at < seconds:
        times.append(at)
        at += chance.expovariate(rate_per_s)
    return times


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios of values that were measured in pairs."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


@dataclass(frozen=True, slots=True)
class CoreTime:
    """CPU time that a process and its children had used at one moment, seconds."""

    user_s: float
    system_s: float

    @classmethod
    def of(cls, pid: int) -> CoreTime:
        """From ``/proc``: the process's own time, that of its ended children, and that of its running ones."""
        user, system = parse_stat(Path(f"/proc/{pid}/stat").read_text())
        for child in children_of(pid):
            try:
                time = cls.of(child)
            except (FileNotFoundError, ProcessLookupError):  # it has ended; its time may now be counted by its parent
                continue
            user, system = user + time.user_s, system + time.system_s
        return cls(user, system)

    def ms_per(self, later: CoreTime, n: int) -> float:
        """Core-milliseconds for each of ``n`` units of work done until ``later``; NaN for none."""
        spent = later.user_s + later.system_s - self.user_s - self.system_s
        return 1000 * spent / n if n else math.nan


def parse_stat(line: str, ticks_per_s: int | None = None) -> tuple[float, float]:
    """User and system seconds of a line of ``/proc/PID/stat``, including those of ended children that were waited for.

    References
    ----------
    proc_pid_stat(5): utime, stime, cutime, cstime are fields 14 to 17; field 2, the name, may hold blanks and brackets.
    """
    ticks = ticks_per_s or os.sysconf("SC_CLK_TCK")
    fields = line.rpartition(")")[2].split()
    utime, stime, cutime, cstime = (int(fields[i]) for i in range(11, 15))
    return (utime + cutime) / ticks, (stime + cstime) / ticks


def children_of(pid: int) -> list[int]:
    """Running children of all threads."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
