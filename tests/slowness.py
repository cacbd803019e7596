"""How slow this machine is now: limits of time in tests are those of a quiet machine, times this."""

from __future__ import annotations

import time

COUNTING_S = 0.12
"""Seconds of processor time for ``_count`` on the quiet machine on which the limits were set."""


def slowness() -> float:
    """At least 1; measured anew at each call, since other work may have come."""
    return max(1.0, min(_count() for _ in range(3)) / COUNTING_S)


def _count() -> float:
    start = time.process_time()
    sum(each * each for each in range(3_000_000))
    return time.process_time() - start
