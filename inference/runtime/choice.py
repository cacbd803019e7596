"""Which session a bundle is served in: the one that is expected to be the cheapest here, until another was measured.

A session is served at once: the one that was measured to be cheapest, else the one that is to be expected by the
processor's instructions and the manifest's record. What each candidate costs is measured beside the service
(:mod:`inference.bundles.measuring`), and another one is taken only where it is cheaper by more than
:data:`SAME_COST_FACTOR` allows.

Whatever is opened has to meet the golden cases, fp32 within the manifest's tolerance, a lower precision within
:data:`MAX_PROBABILITY_DIFFERENCE`. A lower precision is a candidate only where the manifest records that it changes
the AUC of no finding by more than :data:`MAX_AUC_DIFFERENCE`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import BundleManifest
from inference.findings import calibrate
from inference.runtime.remembered import Measured, key_of, recall
from inference.runtime.session import REFERENCE, Array, DeviceError, Machine, Precision, Runtime, Session, Setup

MAX_PROBABILITY_DIFFERENCE = 0.01
MAX_AUC_DIFFERENCE = 0.002
SAME_COST_FACTOR = 1.05
"""Costs within this factor count as the same: the expected session then stays, whatever chance did to a measurement."""
MAX_STREAMS = 8
LOWER: tuple[Precision, ...] = ("fp16", "bf16")
"""First the better one: where a CPU has both, they are equally fast, and fp16 has three bits more."""

log = logging.getLogger(__name__)


class Disagrees(RuntimeError):
    """A session misses the golden cases."""


@dataclass(frozen=True)
class ChosenSession:
    """An open session, and what its candidates were measured to cost on this machine; empty until they were."""

    session: Session
    measured: tuple[Measured, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Which session computes, for ``/v1/models``."""
        return {
            **asdict(self.session.setup),
            "device": self.session.device,
            "remembered": bool(self.measured),
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
        What was asked for misses the golden cases; for ``auto``, the reference does.
    """
    device, threads = resolve_device(machine.device), machine.threads
    candidates = setups(manifest, device, threads)
    if machine.session != "auto":
        asked = _asked_for(machine.session, candidates, manifest)
        return ChosenSession(opened(model, manifest, golden, asked, device, threads))
    known = recall(machine.cache).get(key_of(manifest, device, threads))
    measured = known.measured if known is not None else ()
    first = cheapest(candidates, measured)
    for setup in dict.fromkeys([first, *candidates] if first else candidates):
        try:
            return ChosenSession(opened(model, manifest, golden, setup, device, threads), measured)
        except Exception as error:  # runtimes raise many types, and the next candidate may do
            reason = error if isinstance(error, Disagrees | DeviceError) else type(error).__name__
            log.warning("session_not_opened: %s %s: %s", manifest.name, setup, reason)
    return ChosenSession(opened(model, manifest, golden, REFERENCE, device, threads), measured)


def cheapest(candidates: Sequence[Setup], measured: Sequence[Measured]) -> Setup | None:
    """The candidate to be served in: the one that costs least, or the expected first one where it costs the same."""
    costs = {each.setup: each.core_ms for each in measured if each.core_ms is not None}
    known = [setup for setup in candidates if str(setup) in costs]
    if not known:
        return candidates[0] if candidates else None
    least = min(costs[str(setup)] for setup in known)
    return next(setup for setup in known if costs[str(setup)] <= SAME_COST_FACTOR * least)


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
    """Candidates, those that are expected to be cheapest first; beside them there is always the reference.

    On a CPU, one row in each stream is as fast as a batch: 0.9 to 1.05 times the rate of eight rows for the networks
    that take milliseconds. Then nothing is padded, no request waits for others, and no other row can change a result.
    """
    if manifest.input.modality == "labs":  # some hundred multiplications: another setup gains nothing
        return []
    if device == "cuda":
        from inference.runtime.onnxruntime_session import has_tensorrt  # noqa: PLC0415

        fp16 = _allowed(manifest, "onnxruntime", "fp16") and has_tensorrt()
        lower = [Setup("onnxruntime", "fp16", batch) for batch in (64, 16)] if fp16 else []
        return [*lower, *(Setup("onnxruntime", "fp32", batch) for batch in (64, 16, 256))]
    from inference.runtime.openvino_session import is_installed, precisions  # noqa: PLC0415

    many = min(threads, MAX_STREAMS)
    found: list[Setup] = []
    if is_installed():
        lowered = [name for name in LOWER if _allowed(manifest, "openvino", name) and name in precisions()]
        found = [*(Setup("openvino", name, 1, many) for name in lowered), Setup("openvino", "fp32", 1, many)]
    return [*found, Setup("onnxruntime", "fp32", 1, many)]


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


def _asked_for(setting: str, candidates: Sequence[Setup], manifest: BundleManifest) -> Setup:
    """The candidate that a fixed setting means."""
    runtime, precision = setting.split(":")
    if manifest.input.modality == "labs":
        return REFERENCE
    in_runtime = [setup for setup in candidates if setup.runtime == runtime]
    if not in_runtime:
        raise DeviceError(f"SANGLOC_SESSION={setting}, but {runtime} is not there")
    precision = precision if any(setup.precision == precision for setup in in_runtime) else "fp32"
    return next(setup for setup in in_runtime if setup.precision == precision)


def opened(
    model: Path, manifest: BundleManifest, golden: Mapping[str, Array], setup: Setup, device: str, threads: int
) -> Session:
    """A session that meets the golden cases.

    Raises
    ------
    DeviceError
        As :func:`open_session`.
    Disagrees
        It misses the golden cases.
    """
    session = open_session(model, manifest.outputs, setup, device=device, threads=threads)
    if missed := agrees(session, manifest, golden):
        raise Disagrees(missed)
    return session
