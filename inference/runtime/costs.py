"""What a row costs in each candidate: processor time, in turns, once runs repeat.

Time that passes tells how busy a machine is, not what a session costs: beside other work it chose slow sessions. The
processor time of one stream on one thread hardly depends on who else is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from data_specs.bundle import BundleManifest
from inference.runtime.choice import Disagrees, opened
from inference.runtime.remembered import Measured
from inference.runtime.session import Array, DeviceError, Session, Setup

TURNS = 7
"""Measurements of each candidate, one after the other; the median counts."""
TURN_S = 0.15
"""What a turn takes at least, so that the clock's steps do not count."""
REPEATS_WITHIN = 0.05
MAX_WARM_UP_S = 3.0
"""Runs of a candidate before it is measured: until two turns differ by no more, or for this long."""


def measure(
    model: Path, manifest: BundleManifest, golden: Mapping[str, Array], candidates: Sequence[Setup], device: str
) -> tuple[Measured, ...]:
    """Cost of every candidate that opens and meets the golden cases.

    Notes
    -----
    On a CPU each is opened with one stream and one thread, as each of its streams has while all are busy.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    sessions: dict[Setup, Session] = {}
    out: dict[Setup, str] = {}
    for setup in candidates:
        alone = replace(setup, streams=1) if device == "cpu" else setup
        try:
            sessions[setup] = opened(model, manifest, golden, alone, device, 1)
        except Exception as error:  # runtimes raise many types
            out[setup] = str(error) if isinstance(error, Disagrees | DeviceError) else type(error).__name__
    cases = golden["input"]
    turns = {setup: _turn_of(session, cases, clock) for setup, session in sessions.items()}
    for turn in turns.values():
        _warm_up(turn)
    costs: dict[Setup, list[float]] = {setup: [] for setup in turns}
    for _ in range(TURNS):
        for setup, turn in turns.items():
            costs[setup].append(turn())
    return tuple(
        Measured(str(setup), round(1000 * median(costs[setup]), 4) if setup in costs else None, out.get(setup))
        for setup in candidates
    )


def _turn_of(session: Session, cases: Array, clock: Callable[[], float]) -> Callable[[], float]:
    """A function that runs the session for about :data:`TURN_S`; gives the seconds of a row."""
    batch = session.setup.batch or len(cases)
    rows = np.resize(cases, (batch, *cases.shape[1:]))

    def turn() -> float:
        n, started, ends = 0, clock(), time.perf_counter() + TURN_S
        while n == 0 or time.perf_counter() < ends:
            session.run(rows)
            n += 1
        return (clock() - started) / (n * batch)

    return turn


def _warm_up(turn: Callable[[], float]) -> None:
    ends, before = time.perf_counter() + MAX_WARM_UP_S, turn()
    while time.perf_counter() < ends:
        now = turn()
        if abs(now - before) <= REPEATS_WITHIN * before:
            return
        before = now
