"""How far each lower precision that this machine computes in is from fp32, over a bundle's evaluation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_specs.bundle import Agreement, Calibration, FindingSpec
from inference.choice import open_session
from inference.findings import calibrate
from inference.onnxruntime_session import cuda_loads, has_tensorrt
from inference.openvino_session import is_installed, precisions
from inference.session import REFERENCE, Array, Setup

BATCH = 8


def measure(
    model: Path,
    outputs: tuple[str, ...],
    x: Array,
    outcomes: Mapping[int, NDArray[np.floating]],
    findings: Sequence[FindingSpec],
    *,
    part: str,
    threads: int = 1,
) -> tuple[Agreement, ...]:
    """Compare every lower precision with fp32.

    Parameters
    ----------
    outputs
        Of the graph, in the manifest's order; the first one is compared.
    x
        ``(n, ...)``, as the bundle takes them.
    outcomes
        Column of the first output to ``(n,)``: 1, 0, or NaN where it is not known. Every offered column has to be in
        it; a gate, which offers none, gives its logits'.
    findings
        What is offered; a column without one is compared as a plain sigmoid.
    part
        Which cases these are, such as ``test``.

    Returns
    -------
    One for each precision; none where this machine computes in fp32 alone.

    Raises
    ------
    ValueError
        A column has no cases of both outcomes, an offered one has no outcomes at all, or a number is not finite.
    """
    if missing := {spec.column for spec in findings if spec.kind == "probability"} - outcomes.keys():
        raise ValueError(f"offered columns without outcomes: {sorted(missing)}")
    lower = _lower(threads)
    if not lower:
        return ()
    reference = _numbers(model, outputs, x, REFERENCE, "cpu", threads)
    found = []
    for setup, device in lower:
        numbers = _numbers(model, outputs, x, setup, device, threads)
        pairs = {column: (reference[:, column], numbers[:, column]) for column in outcomes}
        found.append(
            Agreement(
                runtime=setup.runtime,
                precision="fp16" if setup.precision == "fp16" else "bf16",
                auc_difference=max(abs(_auc(y, a) - _auc(y, b)) for y, a, b in _known(outcomes, pairs)),
                probability_difference=max(_apart(findings, column, *pair) for column, pair in pairs.items()),
                n=len(x),
                part=part,
            )
        )
    return tuple(found)


def _lower(threads: int) -> list[tuple[Setup, str]]:
    found = []
    if is_installed() and "bf16" in precisions():
        found.append((Setup("openvino", "bf16", BATCH, min(threads, 2)), "cpu"))
    if cuda_loads() and has_tensorrt():
        found.append((Setup("onnxruntime", "fp16", BATCH), "cuda"))
    return found


def _numbers(
    model: Path, outputs: tuple[str, ...], x: Array, setup: Setup, device: str, threads: int
) -> NDArray[np.float64]:
    session = open_session(model, outputs, setup, device=device, threads=threads)
    first = np.concatenate([session.run(x[at : at + BATCH])[0] for at in range(0, len(x), BATCH)]).astype(np.float64)
    if not np.isfinite(first).all():
        raise ValueError(f"{setup}: a number that is not finite")
    return first


def _known(
    outcomes: Mapping[int, NDArray[np.floating]],
    pairs: Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> list[tuple[NDArray[np.floating], NDArray[np.float64], NDArray[np.float64]]]:
    rows = []
    for column, y in outcomes.items():
        known = ~np.isnan(y)
        if len(np.unique(y[known])) != 2:
            raise ValueError(f"column {column}: an AUC needs cases of both outcomes")
        rows.append((y[known], pairs[column][0][known], pairs[column][1][known]))
    return rows


def _auc(y: NDArray[np.floating], numbers: NDArray[np.float64]) -> float:
    return float(roc_auc_score(y, numbers))


def _apart(
    findings: Sequence[FindingSpec], column: int, reference: NDArray[np.float64], numbers: NDArray[np.float64]
) -> float:
    """Largest difference of a probability that is read from this column."""
    plain = FindingSpec(name="", column=column, calibration=Calibration(slope=1.0, intercept=0.0))
    specs = [spec for spec in findings if spec.column == column and spec.kind != "measured"] or [plain]
    return max(
        abs(calibrate(spec, float(a)) - calibrate(spec, float(b)))
        for spec in specs
        for a, b in zip(reference, numbers, strict=True)
    )
