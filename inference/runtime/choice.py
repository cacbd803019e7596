"""The fastest session on this machine among those that agree with fp32: measured once, then remembered.

Every candidate has to meet the golden cases, fp32 within the manifest's tolerance, a lower precision within
:data:`MAX_PROBABILITY_DIFFERENCE`. A lower precision is a candidate only where the manifest records that it changes
the AUC of no finding by more than :data:`MAX_AUC_DIFFERENCE`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import BundleManifest
from inference.findings import calibrate
from inference.runtime.remembered import Measured, Remembered, key_of, recall, remember
from inference.runtime.session import REFERENCE, Array, DeviceError, Machine, Precision, Runtime, Session, Setup

MAX_PROBABILITY_DIFFERENCE = 0.01
MAX_AUC_DIFFERENCE = 0.002
BUDGET_S = 1.0
"""For one bundle; half of it for opening candidates, of which the first two are always opened."""
MIN_SPEEDUP = 1.1
"""How much faster than the reference another setup has to be."""
SAME_RATE_FACTOR = 1.05
"""Rates within this factor count as the same. The setup with the smallest batch is then used, because a single request
costs least there; where batches are the same, the finer precision, which stands first."""
MAX_STREAMS = 8
LOWER: tuple[Precision, ...] = ("fp16", "bf16")
"""First the better one: where a CPU has both, they are equally fast, and fp16 has three bits more."""

log = logging.getLogger(__name__)


class Disagrees(RuntimeError):
    """The reference itself misses the golden cases."""


@dataclass(frozen=True)
class ChosenSession:
    """An open session, and the candidates that were measured for it."""

    session: Session
    measured: tuple[Measured, ...] = ()
    remembered: bool = False

    def describe(self) -> dict[str, Any]:
        """Which session computes, for ``/v1/models``."""
        return {
            **asdict(self.session.setup),
            "device": self.session.device,
            "remembered": self.remembered,
            "measured": [asdict(candidate) for candidate in self.measured],
        }


def choose(model: Path, manifest: BundleManifest, golden: Mapping[str, Array], machine: Machine) -> ChosenSession:
    """Open the session that ``machine`` asks for, checked against the golden cases.

    Parameters
    ----------
    golden
        ``input`` and the outputs that belong to it.

    Raises
    ------
    DeviceError
        The device or the runtime that was asked for is not there.
    Disagrees
        What was asked for misses the golden cases.
    """
    device, threads = resolve_device(machine.device), machine.threads
    candidates = setups(manifest, device, threads)
    if machine.session != "auto":
        candidates = _asked_for(machine.session, candidates, manifest)
    if len(candidates) == 1:
        return ChosenSession(_opened(model, manifest, golden, candidates[0], device, threads))
    key = key_of(manifest, device, threads)
    known = recall(machine.cache).get(key)
    if known is not None and known.setup in {str(setup) for setup in candidates}:
        try:
            session = _opened(model, manifest, golden, Setup.parse(known.setup), device, threads)
            return ChosenSession(session, known.measured, remembered=True)
        except Exception as error:  # the runtime may have changed since, and runtimes raise many types
            log.warning("session_measured_again: %s %s: %s", manifest.name, known.setup, type(error).__name__)
    chosen = _measure(model, manifest, golden, candidates, device, threads)
    remember(machine.cache, key, Remembered(setup=str(chosen.session.setup), measured=chosen.measured))
    return chosen


def open_session(model: Path, outputs: tuple[str, ...], setup: Setup, *, device: str, threads: int) -> Session:
    """A session with this setup, on ``cpu`` or ``cuda``.

    Raises
    ------
    DeviceError
        The runtime, the device or the precision is not there.
    """
    if setup.runtime == "openvino":
        from inference.runtime.openvino_session import OpenvinoSession  # noqa: PLC0415  a third of a second, 25 MB

        return OpenvinoSession(model, outputs, setup, threads=threads)
    from inference.runtime.onnxruntime_session import OnnxRuntimeSession  # noqa: PLC0415

    return OnnxRuntimeSession(model, outputs, setup, device=device, threads=threads)


def setups(manifest: BundleManifest, device: str, threads: int) -> list[Setup]:
    """Candidates: the reference first, then the others, those that are probably fastest first.

    On a CPU, one row in each stream is as fast as a batch: 0.9 to 1.05 times the rate of eight rows for the networks
    that take milliseconds. Then nothing is padded, no request waits for others, and no other row can change a result.
    """
    if manifest.input.modality == "labs":  # some hundred multiplications: another setup gains nothing
        return [REFERENCE]
    if device == "cuda":
        from inference.runtime.onnxruntime_session import has_tensorrt  # noqa: PLC0415

        fp16 = _allowed(manifest, "onnxruntime", "fp16") and has_tensorrt()
        lower = [Setup("onnxruntime", "fp16", batch) for batch in (64, 16)] if fp16 else []
        fixed = [Setup("onnxruntime", "fp32", batch) for batch in (64, 16, 256)]
        return [REFERENCE, *lower, *fixed, Setup("onnxruntime", "fp32", None, 2)]
    from inference.runtime.openvino_session import is_installed, precisions  # noqa: PLC0415

    many = min(threads, MAX_STREAMS)
    found: list[Setup] = []
    if is_installed():
        lowered = [name for name in LOWER if _allowed(manifest, "openvino", name) and name in precisions()]
        found = [*(Setup("openvino", name, 1, many) for name in lowered), Setup("openvino", "fp32", 1, many)]
    return list(dict.fromkeys([REFERENCE, *found, Setup("onnxruntime", "fp32", 1, many)]))


def agrees(session: Session, manifest: BundleManifest, golden: Mapping[str, Array]) -> str | None:
    """``None`` where the session meets the golden cases, else a sentence that says by how much it misses them."""
    found = session.run(golden["input"])
    expected = tuple(golden[name] for name in manifest.outputs)
    if session.setup.precision == "fp32":
        difference, allowed = largest_difference(found[0], expected[0]), manifest.golden.tolerance
    else:
        difference = largest_difference(decision_values(manifest, found), decision_values(manifest, expected))
        allowed = MAX_PROBABILITY_DIFFERENCE
    return None if difference <= allowed else f"golden cases differ by {difference:.2e}, allowed {allowed:.0e}"


def decision_values(manifest: BundleManifest, outputs: Sequence[Array]) -> NDArray[np.float64]:
    """``(n, k)``: the probabilities of the findings, or the numbers by which a gate decides, of ``n`` cases.

    A gate's numbers are its probabilities, the distance as a share of its limit, and the share of lung area.
    """
    first = np.asarray(outputs[0], dtype=np.float64)
    if manifest.organ is not None:
        specs = [spec for spec in manifest.findings if spec.kind != "measured"]
        return np.array([[calibrate(spec, float(row[spec.column])) for spec in specs] for row in first])
    distance, lungs = (np.asarray(output, dtype=np.float64) for output in outputs[1:3])
    area = (lungs > 0).reshape(len(first), -1).mean(axis=1, keepdims=True)
    return np.hstack([1 / (1 + np.exp(-first)), distance / manifest.thresholds["distance"], area])


def largest_difference(found: Array, expected: Array) -> float:
    """Largest absolute difference; infinite where shapes differ or only one of the two is NaN."""
    if found.shape != expected.shape or not np.array_equal(np.isnan(found), np.isnan(expected)):
        return float("inf")
    return float(np.nanmax(np.abs(np.asarray(expected, np.float64) - np.asarray(found, np.float64)), initial=0.0))


def rate(session: Session, rows: Array) -> float:
    """Rows per second while every stream computes all of ``rows``."""
    setup = session.setup
    batch = setup.batch or len(rows)
    one_run, runs = np.resize(rows, (batch, *rows.shape[1:])), max(1, len(rows) // batch)

    def stream() -> None:
        for _ in range(runs):
            session.run(one_run)

    with ThreadPoolExecutor(setup.streams) as threads:
        started = perf_counter()
        for future in [threads.submit(stream) for _ in range(setup.streams)]:
            future.result()  # raises where a run failed: that is not a fast one
        return batch * runs * setup.streams / (perf_counter() - started)


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda``: ``auto`` is ``cuda`` where there is a GPU."""
    if device != "auto":
        return device
    from inference.runtime.onnxruntime_session import cuda_loads  # noqa: PLC0415

    return "cuda" if cuda_loads() else "cpu"


def _allowed(manifest: BundleManifest, runtime: Runtime, precision: Precision) -> bool:
    return any(
        (measured.runtime, measured.precision) == (runtime, precision) and measured.auc_difference <= MAX_AUC_DIFFERENCE
        for measured in manifest.agreement
    )


def _asked_for(setting: str, candidates: Sequence[Setup], manifest: BundleManifest) -> list[Setup]:
    """The one candidate that a fixed setting means: the one with most streams, which are faster on a CPU."""
    runtime, precision = setting.split(":")
    if manifest.input.modality == "labs":
        return [REFERENCE]
    in_runtime = [setup for setup in candidates if setup.runtime == runtime]
    if not in_runtime:
        raise DeviceError(f"SANGLOC_SESSION={setting}, but {runtime} is not there")
    precision = precision if any(setup.precision == precision for setup in in_runtime) else "fp32"
    return [max((setup for setup in in_runtime if setup.precision == precision), key=lambda setup: setup.streams)]


def _opened(
    model: Path, manifest: BundleManifest, golden: Mapping[str, Array], setup: Setup, device: str, threads: int
) -> Session:
    session = open_session(model, manifest.outputs, setup, device=device, threads=threads)
    if missed := agrees(session, manifest, golden):
        raise Disagrees(missed)
    return session


def _measure(
    model: Path,
    manifest: BundleManifest,
    golden: Mapping[str, Array],
    candidates: Sequence[Setup],
    device: str,
    threads: int,
) -> ChosenSession:
    """Open as many candidates as there is time for and measure them in turns: other load slows all of them alike."""
    started = perf_counter()
    rows = np.resize(golden["input"], (8, *golden["input"].shape[1:]))
    sessions: list[Session] = []
    out: dict[Setup, str] = {}
    for n, setup in enumerate(candidates):
        if n >= 2 and perf_counter() - started > BUDGET_S / 2:
            out[setup] = "no time left to measure it"
            continue
        try:
            session = _opened(model, manifest, golden, setup, device, threads)
            rate(session, rows)  # the first run of each stream allocates
            sessions.append(session)
        except Exception as error:  # runtimes raise many types
            if setup == REFERENCE:
                raise
            out[setup] = str(error) if isinstance(error, Disagrees | DeviceError) else type(error).__name__
    turns: list[list[float]] = []
    while len(turns) < 2 or perf_counter() - started < BUDGET_S:
        turns.append([rate(session, rows) for session in sessions])
    rates = {session.setup: median(turn[n] for turn in turns) for n, session in enumerate(sessions)}
    best = _best(rates)
    table = tuple(
        Measured(str(setup), round(rates[setup], 1) if setup in rates else None, out.get(setup)) for setup in candidates
    )
    return ChosenSession(next(session for session in sessions if session.setup == best), table)


def _best(rates: Mapping[Setup, float]) -> Setup:
    fastest = max(rates.values())
    if fastest < MIN_SPEEDUP * rates[REFERENCE]:
        return REFERENCE
    as_fast = [setup for setup, rate_ in rates.items() if rate_ * SAME_RATE_FACTOR >= fastest]
    return min(as_fast, key=lambda setup: (setup.batch or 1, setup.streams))
