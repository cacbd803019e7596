"""What a recording shorter than the network's window costs: the same recordings cut, and whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_specs.bundle import EcgInput, FindingSpec, MeasuredTable
from data_specs.ecg.recording import MIN_DURATION_S, SHORT_S, Recording
from inference.bundles.loading import Bundle
from inference.findings import calibrated
from training.cohorts.cohort import Cohort
from training.cohorts.shipped_recordings import ptbxl
from training.figures.evaluate import Floats, bootstrap

SECONDS = (5.0, 6.0, 7.3, 8.0)
"""Lengths that are tried: the least that is read, one more, that of some tele-ECG systems, and the least without a
reserve."""
COLUMNS = (
    "finding",
    "length",
    "AUROC",
    "change of AUROC",
    "sensitivity",
    "specificity",
    "change of logit",
    "n (positive)",
)
BATCH = 64


def short_recordings(bundle: Bundle, data: Path) -> MeasuredTable:
    """The shipped validation recordings, cut, as the card shows them."""
    return measure_cuts(bundle, ptbxl(data))


def measure_cuts(bundle: Bundle, cohort: Cohort, *, seconds: Sequence[float] = SECONDS) -> MeasuredTable:
    """AUROC and the deciding point of each finding on cut recordings, beside the whole ones.

    Parameters
    ----------
    cohort
        ``x`` ``(n, 12, n_samples) float32`` at the network's rate; its validation part is used.
    seconds
        Lengths; of each recording its start, middle and end are taken.
    """
    spec = bundle.input_as(EcgInput)
    rows = cohort.rows("validation")
    x, person = cohort.x[rows], cohort.person[rows]
    whole = logits_of(bundle, x)
    by_length = {
        length: [logits_of(bundle, part) for part in cuts(x, round(length * spec.fs_hz))] for length in seconds
    }
    by_length[spec.n_samples / spec.fs_hz] = [whole]
    table = []
    for finding in bundle.manifest.findings:
        y = cohort.labels[finding.name].to_numpy(dtype=np.float64)[rows]
        known = ~np.isnan(y)
        for length, parts in by_length.items():
            cut = np.concatenate([part[known, finding.column] for part in parts])
            same, outcomes, of = (np.tile(a[known], len(parts)) for a in (whole[:, finding.column], y, person))
            table.append((finding.name, f"{length:g} s", *_cells(finding, outcomes, cut, same, of)))
    window_s = spec.n_samples / spec.fs_hz
    return MeasuredTable(
        title="Short recordings",
        text=(
            f"Recordings are assessed from {MIN_DURATION_S:g} s on, below {SHORT_S:g} s with a reserve. One that is "
            f"shorter than the network's window of {window_s:g} s is continued with beats of its own. Measured on "
            f"{cohort.part_title('validation')}: {len(x)} recordings, each cut at its start, middle and end (n counts "
            "cuts). The thresholds are the shipped ones, chosen on the same recordings, whole. Intervals: 95 %, "
            "bootstrap over persons; `change` is the cut recording less the whole one, paired. A rhythm that changes "
            "may do so outside a short recording: these figures show little of that, because few recordings change."
        ),
        columns=COLUMNS,
        rows=tuple(table),
    )


def cuts(x: NDArray[np.float32], n_samples: int) -> list[NDArray[np.float32]]:
    """The start, the middle and the end of recordings ``(n, 12, n_have)``."""
    spare = x.shape[2] - n_samples
    return [x[:, :, first : first + n_samples] for first in (0, spare // 2, spare)]


def logits_of(bundle: Bundle, x: NDArray[np.float32]) -> Floats:
    """Logits ``(n, n_columns)`` of recordings, through the same form as in serving."""
    spec = bundle.input_as(EcgInput)
    recordings = (Recording(leads, float(spec.fs_hz), "cut") for leads in x)
    windows = np.concatenate([spec.conform(recording, max_windows=1) for recording in recordings])
    parts = [bundle.session.run(windows[at : at + BATCH])[0] for at in range(0, len(windows), BATCH)]
    return np.concatenate(parts).astype(np.float64)


def _cells(finding: FindingSpec, y: Floats, cut: Floats, whole: Floats, person: NDArray[np.str_]) -> list[str]:
    def auroc(y: Floats, z: Floats) -> float:
        return float(roc_auc_score(y, z))

    def change(y: Floats, both: Floats) -> float:
        return auroc(y, both[:, 0]) - auroc(y, both[:, 1])

    point = next(point for point in finding.operating_points if point.name == finding.decides_at)
    if finding.calibration is None:
        raise ValueError(f"{finding.name} has no calibration")
    positive = calibrated(cut, finding.calibration) >= point.threshold
    figures = (
        bootstrap(auroc, y, cut, person),
        bootstrap(change, y, np.stack([cut, whole], axis=1), person),
        bootstrap(lambda y, found: float(found[y == 1].mean()), y, positive.astype(np.float64), person),
        bootstrap(lambda y, found: float(1 - found[y == 0].mean()), y, positive.astype(np.float64), person),
    )
    intervals = [f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for e in figures]
    return [*intervals, f"{(cut - whole).mean():+.2f}", f"{len(y)} ({int(y.sum())})"]
