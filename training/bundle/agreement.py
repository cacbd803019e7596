"""Difference between each lower precision of this machine and fp32, over the evaluation cases of a bundle.

It is measured when a bundle is exported. ``python -m training agree`` measures it for a bundle without such figures, or
on a machine with other precisions, and writes a new version with the same weights and numbers.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_specs.bundle import Agreement, BundleManifest, Calibration, FindingSpec
from inference.bundles.loading import BundleError, load_bundle
from inference.findings import calibrate
from inference.runtime.choice import open_session
from inference.runtime.onnxruntime_session import cuda_loads, has_tensorrt
from inference.runtime.openvino_session import is_installed, precisions
from inference.runtime.session import REFERENCE, Array, Setup
from training.bundle.derive import ancestor, write_derived
from training.cohorts.cohort import Cohort

BATCH = 8
"""Rows of one run of a session."""


@dataclass(frozen=True)
class Evaluated:
    """Cases ``(n, ...)`` of the evaluation, the outcomes ``(n,)`` of each offered column, and the name of the part."""

    x: NDArray[np.generic]
    outcomes: Mapping[int, NDArray[np.float64]]
    part: str


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
        Outputs of the graph, in the manifest's order; the first one is compared.
    x
        ``(n, ...)``, the bundle's input.
    outcomes
        Column of the first output to ``(n,)``: 1, 0, or NaN (unknown). Every offered column has to be in it; for a
        gate, which offers no finding, those of its logits.
    findings
        Offered findings; a column without a finding is compared by its sigmoid.
    part
        Name of the part that the cases are from, such as ``test``.

    Returns
    -------
    One for each lower precision; empty if this machine computes in fp32 only.

    Raises
    ------
    ValueError
        A column has no cases of both outcomes, an offered one has no outcomes at all, or a number is not finite.
    """
    if missing := {spec.column for spec in findings if spec.kind == "probability"} - outcomes.keys():
        raise ValueError(f"offered columns without outcomes: {sorted(missing)}")
    lower = _lower_precisions(threads)
    if not lower:
        return ()
    reference = _first_output(model, outputs, x, REFERENCE, "cpu", threads)
    found = []
    for setup, device in lower:
        numbers = _first_output(model, outputs, x, setup, device, threads)
        pairs = {column: (reference[:, column], numbers[:, column]) for column in outcomes}
        found.append(
            Agreement(
                runtime=setup.runtime,
                precision="fp16" if setup.precision == "fp16" else "bf16",
                auc_difference=max(abs(_auc(y, a) - _auc(y, b)) for y, a, b in _known(outcomes, pairs)),
                probability_difference=max(
                    _largest_probability_difference(findings, column, *pair) for column, pair in pairs.items()
                ),
                n=len(x),
                part=part,
            )
        )
    return tuple(found)


def _lower_precisions(threads: int) -> list[tuple[Setup, str]]:
    found: list[tuple[Setup, str]] = []
    if is_installed():
        for precision in ("fp16", "bf16"):
            if precision in precisions():
                found.append((Setup("openvino", precision, 1, min(threads, 2)), "cpu"))  # type: ignore[arg-type]
    if cuda_loads() and has_tensorrt():
        found.append((Setup("onnxruntime", "fp16", BATCH), "cuda"))
    return found


def _first_output(
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


def _largest_probability_difference(
    findings: Sequence[FindingSpec], column: int, reference: NDArray[np.float64], numbers: NDArray[np.float64]
) -> float:
    """Largest difference of a probability that is computed from this column."""
    plain = FindingSpec(name="", column=column, calibration=Calibration(slope=1.0, intercept=0.0))
    specs = [spec for spec in findings if spec.column == column and spec.kind != "measured"] or [plain]
    return max(
        abs(calibrate(spec, float(a)) - calibrate(spec, float(b)))
        for spec in specs
        for a, b in zip(reference, numbers, strict=True)
    )


def evaluated_on(cohorts: Sequence[Cohort], findings: Sequence[FindingSpec]) -> Evaluated:
    """The test parts of all cohorts, with the outcomes of each offered finding; unknown in other cohorts.

    Raises
    ------
    ValueError
        Not exactly one cohort has a finding for its ages.
    """
    rows = [cohort.rows("test") for cohort in cohorts]
    starts = np.cumsum([0, *(len(r) for r in rows)])
    outcomes = {}
    for spec in findings:
        having = [i for i, c in enumerate(cohorts) if spec.name in c.labels and c.age_years == spec.age_years]
        if len(having) != 1:
            raise ValueError(f"{spec.name}: {len(having)} cohorts have it for its ages; exactly one is needed")
        (i,) = having
        y = np.full(starts[-1], np.nan)
        y[starts[i] : starts[i + 1]] = cohorts[i].labels[spec.name].to_numpy(dtype=np.float64)[rows[i]]
        outcomes[spec.column] = y
    x = np.concatenate([cohort.x[r] for cohort, r in zip(cohorts, rows, strict=True)])
    return Evaluated(x, outcomes, ", ".join(cohort.part_title("test") for cohort in cohorts))


def add_agreement(folder: Path, evaluated: Evaluated, *, out: Path, version: str) -> Path:
    """Write ``NAME-VERSION/`` under ``out``: the bundle in ``folder`` with the measured differences.

    Raises
    ------
    FileExistsError
        This version exists; a bundle is never replaced.
    """
    manifest = load_bundle(folder).manifest
    target = out / f"{manifest.name}-{version}"
    if target.exists():
        raise FileExistsError(f"{target.name} exists; a bundle is never replaced")
    model = folder / manifest.weights.path
    found = measure(
        model, manifest.outputs, evaluated.x, evaluated.outcomes, manifest.findings, part=evaluated.part, threads=2
    )
    new = manifest.model_copy(
        update={
            "version": version,
            "agreement": found,
            "from_bundle": (*manifest.from_bundle, ancestor(folder, manifest)),
        }
    )
    write_derived(folder, new, target, change="agreement of lower precisions measured; same weights")
    return target


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training agree",
        description="Measure how far lower precisions are from fp32, and write a new version of the bundle with it.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle: lung or cardiac")
    parser.add_argument("--cohort", type=Path, action="append", help="manifest (YAML) with a test part")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shipped cohorts' folder")
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="where the new version is written")
    parser.add_argument("--version", required=True, help="of the new bundle, for example 1.0.1")
    arguments = parser.parse_args(argv)
    from training.cohorts.local import local_cohort  # noqa: PLC0415

    try:
        manifest = load_bundle(arguments.bundle).manifest
        if manifest.name not in ("lung", "cardiac"):
            raise ValueError(
                f"{manifest.name}: only lung and cardiac can be measured here; the gate is measured when it is exported"
            )
        organ = importlib.import_module(f"training.organs.{manifest.name}")
        if arguments.cohort:
            with tempfile.TemporaryDirectory() as cache:
                # An imported network may take another input than the organ's own.
                cohorts = [local_cohort(path, manifest.input, cache=Path(cache)) for path in arguments.cohort]
        elif manifest.imported is not None:
            raise ValueError("imported weights were not trained on the shipped cohorts: give --cohort")
        else:
            cohorts = list(organ.shipped(arguments.data, manifest.input))
        evaluated = evaluated_on(cohorts, manifest.findings)
        folder = add_agreement(arguments.bundle, evaluated, out=arguments.out, version=arguments.version)
    except (ValueError, BundleError, FileExistsError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    for measured in BundleManifest.model_validate_json((folder / "screening.json").read_bytes()).agreement:
        print(
            f"{measured.runtime} {measured.precision}: AUC differs by at most {measured.auc_difference:.4f}, "
            f"a probability by {measured.probability_difference:.4f}, over {measured.n} cases ({measured.part})"
        )
    print(f"written: {folder}")
    return 0
