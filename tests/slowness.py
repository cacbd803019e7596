"""How slow this machine is now: limits of time in tests are those of a quiet machine, times this."""

from __future__ import annotations

import time

COUNTING_S = 0.12
"""Seconds of processor time for ``_count`` on the quiet machine on which the limits were set."""


QUIET, OF_MEMORY = 1.2, 1.5
"""Up to where a machine is a quiet one; how much more other work beside slows what reads memory than what counts."""


def slowness() -> float:
    """At least 1; measured anew at each call, since other work may have come."""
    found = min(_count() for _ in range(3)) / COUNTING_S
    return OF_MEMORY * found if found > QUIET else 1.0


def _count() -> float:
    start = time.process_time()
    sum(each * each for each in range(3_000_000))
    return time.process_time() - start
