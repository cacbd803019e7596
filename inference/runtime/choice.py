"""Which session is the fastest on this machine among those that say the same as fp32: measured once, then remembered.

Every candidate has to meet the golden cases, fp32 within the manifest's tolerance, a lower precision within
:data:`MAX_PROBABILITY_DIFFERENCE`, and a lower precision is a candidate only where the manifest records that it
leaves the AUC of every finding where it was.
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
from inference.runtime.session import REFERENCE, Array, DeviceError, Precision, Runtime, Session, Setup

MAX_PROBABILITY_DIFFERENCE = 0.01
MAX_AUC_DIFFERENCE = 0.002
BUDGET_S = 1.0
"""For one bundle; half of it for opening candidates, of which two are opened whatever it takes."""
WORTH = 1.1
"""How much faster than the reference another setup has to be."""
ALIKE = 1.05
"""Rates within this factor are the same rate; the smaller batch, which costs a lone request less, is then taken, and of
equal ones the first: the finer precision."""
MOST_STREAMS = 8
LOWER: tuple[Precision, ...] = ("fp16", "bf16")
"""On cores that have both they are as fast as each other, and fp16 keeps three bits more."""
FIXED = "onnxruntime:fp32"
"""What is opened, unmeasured, where nobody asks for a choice."""

log = logging.getLogger(__name__)


class Disagrees(RuntimeError):
    """The reference itself misses the golden cases."""


@dataclass(frozen=True)
class Choice:
    """A session, and what it was chosen from."""

    session: Session
    measured: tuple[Measured, ...] = ()
    remembered: bool = False

    def describe(self) -> dict[str, Any]:
        """For people who ask what is running, as JSON."""
        return {
            **asdict(self.session.setup),
            "device": self.session.device,
            "remembered": self.remembered,
            "measured": [asdict(each) for each in self.measured],
        }


def choose(
    model: Path,
    manifest: BundleManifest,
    golden: Mapping[str, Array],
    *,
    device: str,
    threads: int,
    setting: str = FIXED,
    cache: Path | None = None,
) -> Choice:
    """Open the session that ``setting`` asks for, checked against the golden cases.

    Parameters
    ----------
    golden
        ``input`` and the outputs that belong to it.
    device
        ``cpu``, ``cuda`` or ``auto``.
    setting
        ``auto``: the fastest. ``RUNTIME:PRECISION``: that one, in fp32 where the manifest does not allow the precision.
    cache
        Folder in which an earlier choice may be found and this one is kept.

    Raises
    ------
    DeviceError
        The device or the runtime that was asked for is not there.
    Disagrees
        What was asked for misses the golden cases.
    """
    place = _place(device)
    candidates = setups(manifest, place, threads)
    if setting != "auto":
        candidates = _asked_for(setting, candidates, manifest)
    if len(candidates) == 1:
        return Choice(_opened(model, manifest, golden, candidates[0], place, threads))
    key = key_of(manifest, place, threads)
    known = recall(cache).get(key)
    if known is not None and known.setup in {str(each) for each in candidates}:
        try:
            session = _opened(model, manifest, golden, Setup.parse(known.setup), place, threads)
            return Choice(session, known.measured, remembered=True)
        except Exception as error:  # whatever a runtime raises where it cannot do any more what it could
            log.warning("session_measured_again: %s %s: %s", manifest.name, known.setup, type(error).__name__)
    chosen = _measure(model, manifest, golden, candidates, place, threads)
    remember(cache, key, Remembered(setup=str(chosen.session.setup), measured=chosen.measured))
    return chosen


def open_session(model: Path, outputs: tuple[str, ...], setup: Setup, *, device: str, threads: int) -> Session:
    """A session as ``setup`` says, on ``cpu`` or ``cuda``.

    Raises
    ------
    DeviceError
        What it needs is not there.
    """
    if setup.runtime == "openvino":
        from inference.runtime.openvino_session import OpenvinoSession  # noqa: PLC0415  a third of a second, 25 MB

        return OpenvinoSession(model, outputs, setup, threads=threads)
    from inference.runtime.onnxruntime_session import OnnxRuntimeSession  # noqa: PLC0415

    return OnnxRuntimeSession(model, outputs, setup, device=device, threads=threads)


def setups(manifest: BundleManifest, device: str, threads: int) -> list[Setup]:
    """Candidates, the reference first, then the most promising ones first.

    On cores a row by itself in each stream is as fast as a batch: 0.9 to 1.05 of eight rows for the networks that
    cost milliseconds. Nothing is padded then, nobody waits for company, and no neighbour can move a result.
    """
    if manifest.input.modality == "labs":  # some hundred multiplications: nothing to gain
        return [REFERENCE]
    if device == "cuda":
        from inference.runtime.onnxruntime_session import has_tensorrt  # noqa: PLC0415

        fp16 = _allowed(manifest, "onnxruntime", "fp16") and has_tensorrt()
        lower = [Setup("onnxruntime", "fp16", batch) for batch in (64, 16)] if fp16 else []
        fixed = [Setup("onnxruntime", "fp32", batch) for batch in (64, 16, 256)]
        return [REFERENCE, *lower, *fixed, Setup("onnxruntime", "fp32", None, 2)]
    from inference.runtime.openvino_session import is_installed, precisions  # noqa: PLC0415

    many = min(threads, MOST_STREAMS)
    found: list[Setup] = []
    if is_installed():
        tried = [each for each in LOWER if _allowed(manifest, "openvino", each) and each in precisions()]
        found = [*(Setup("openvino", each, 1, many) for each in tried), Setup("openvino", "fp32", 1, many)]
    return list(dict.fromkeys([REFERENCE, *found, Setup("onnxruntime", "fp32", 1, many)]))


def agrees(session: Session, manifest: BundleManifest, golden: Mapping[str, Array]) -> str | None:
    """Nothing where the session meets the golden cases, else by how much it misses them."""
    found = session.run(golden["input"])
    expected = tuple(golden[name] for name in manifest.outputs)
    if session.setup.precision == "fp32":
        difference, allowed = largest_difference(found[0], expected[0]), manifest.golden.tolerance
    else:
        difference = largest_difference(answers(manifest, found), answers(manifest, expected))
        allowed = MAX_PROBABILITY_DIFFERENCE
    return None if difference <= allowed else f"golden cases differ by {difference:.2e}, allowed {allowed:.0e}"


def answers(manifest: BundleManifest, outputs: Sequence[Array]) -> NDArray[np.float64]:
    """``(n, k)``: probabilities of the findings; of a gate, each number that it decides on, as a share of its limit."""
    first = np.asarray(outputs[0], dtype=np.float64)
    if manifest.organ is not None:
        specs = [spec for spec in manifest.findings if spec.kind != "measured"]
        return np.array([[calibrate(spec, float(row[spec.column])) for spec in specs] for row in first])
    distance, lungs = (np.asarray(each, dtype=np.float64) for each in outputs[1:3])
    area = (lungs > 0).reshape(len(first), -1).mean(axis=1, keepdims=True)
    return np.hstack([1 / (1 + np.exp(-first)), distance / manifest.thresholds["distance"], area])


def largest_difference(found: Array, expected: Array) -> float:
    """Infinite where NaN does not meet NaN, or a shape another."""
    if found.shape != expected.shape or not np.array_equal(np.isnan(found), np.isnan(expected)):
        return float("inf")
    return float(np.nanmax(np.abs(np.asarray(expected, np.float64) - np.asarray(found, np.float64)), initial=0.0))


def rate(session: Session, rows: Array) -> float:
    """Rows per second with every stream busy, each with as many runs as take ``rows`` through."""
    setup = session.setup
    batch = setup.batch or len(rows)
    mine, runs = np.resize(rows, (batch, *rows.shape[1:])), max(1, len(rows) // batch)

    def stream() -> None:
        for _ in range(runs):
            session.run(mine)

    with ThreadPoolExecutor(setup.streams) as threads:
        started = perf_counter()
        for each in [threads.submit(stream) for _ in range(setup.streams)]:
            each.result()  # a run that fails is no fast one
        return batch * runs * setup.streams / (perf_counter() - started)


def _place(device: str) -> str:
    if device != "auto":
        return device
    from inference.runtime.onnxruntime_session import cuda_loads  # noqa: PLC0415

    return "cuda" if cuda_loads() else "cpu"


def _allowed(manifest: BundleManifest, runtime: Runtime, precision: Precision) -> bool:
    return any(
        (each.runtime, each.precision) == (runtime, precision) and each.auc_difference <= MAX_AUC_DIFFERENCE
        for each in manifest.agreement
    )


def _asked_for(setting: str, candidates: Sequence[Setup], manifest: BundleManifest) -> list[Setup]:
    """The one candidate that a fixed setting means; of several streams and one, several: on cores they are faster."""
    runtime, precision = setting.split(":")
    if manifest.input.modality == "labs":
        return [REFERENCE]
    mine = [each for each in candidates if each.runtime == runtime]
    if not mine:
        raise DeviceError(f"SANGLOC_SESSION={setting}, but {runtime} is not there")
    precision = precision if any(each.precision == precision for each in mine) else "fp32"
    return [max((each for each in mine if each.precision == precision), key=lambda each: each.streams)]


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
) -> Choice:
    """Open what there is time for, and take turns, so that what else the machine does falls on all alike."""
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
        except Exception as error:  # each runtime has exceptions of its own
            if setup == REFERENCE:
                raise
            out[setup] = str(error) if isinstance(error, Disagrees | DeviceError) else type(error).__name__
    turns: list[list[float]] = []
    while len(turns) < 2 or perf_counter() - started < BUDGET_S:
        turns.append([rate(session, rows) for session in sessions])
    rates = {session.setup: median(turn[n] for turn in turns) for n, session in enumerate(sessions)}
    best = _best(rates)
    table = tuple(
        Measured(str(each), round(rates[each], 1) if each in rates else None, out.get(each)) for each in candidates
    )
    return Choice(next(session for session in sessions if session.setup == best), table)


def _best(rates: Mapping[Setup, float]) -> Setup:
    fastest = max(rates.values())
    if fastest < WORTH * rates[REFERENCE]:
        return REFERENCE
    alike = [setup for setup, rate_ in rates.items() if rate_ * ALIKE >= fastest]
    return min(alike, key=lambda setup: (setup.batch or 1, setup.streams))
