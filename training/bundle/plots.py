"""The ROC and the reliability diagram of a finding, in one PNG in the bundle's ``docs/``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from data_specs.bundle import FindingSpec
from training.cohorts.cohort import MIN_CASES
from training.figures.evaluate import expected_calibration_error

Floats = NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Colours that colour-blind readers can distinguish (Okabe and Ito 2008)."""
GROUPS = 10
"""Equal groups of the reliability diagram, the same as those of the expected calibration error."""


def plot_name(finding: FindingSpec) -> str:
    """File name under ``docs/``; with the column, because two findings may have one name."""
    return f"{finding.name}-{finding.column}.png"


def write_plot(docs: Path, finding: FindingSpec, parts: Mapping[str, tuple[Floats, Floats]]) -> Path | None:
    """Draw one finding; ``None`` if no part has enough cases of both classes.

    Parameters
    ----------
    parts
        By the name in the legend: outcomes ``(n,)``, 0, 1 or NaN (left out), and calibrated probabilities ``(n,)``, or
        ``(n, n_repeats)`` of a repeated cross-validation: then the mean probability is drawn, and the figures in the
        legend are means over the repeats, as in the card.
    """
    # Not pyplot, which needs a display and global state. Imported here because the card needs only the file name.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    known = {name: _known(y, p) for name, (y, p) in parts.items()}
    drawn = {name: (y, p) for name, (y, p) in known.items() if min(y.sum(), (1 - y).sum()) >= MIN_CASES}
    if not drawn:
        return None
    figure = Figure(figsize=(7.6, 3.9), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    roc, reliability = figure.subplots(1, 2)
    _roc(roc, finding, drawn)
    _reliability(reliability, drawn)
    ages = f", {finding.age_years[0]:g} to {finding.age_years[1] - 1:g} years" if finding.age_years else ""
    figure.suptitle(f"{finding.name}{ages}", fontsize=10)
    path = docs / plot_name(finding)
    figure.savefig(path, metadata={"Software": None})
    return path


def _known(y: Floats, p: Floats) -> tuple[Floats, Floats]:
    rows = ~np.isnan(y)
    return y[rows], (p if p.ndim == 2 else p[:, None])[rows]


def _mean(metric: Callable[[Floats, Floats], float], y: Floats, repeats: Floats) -> float:
    return float(np.mean([metric(y, p) for p in repeats.T]))


def _roc(axes: Any, finding: FindingSpec, parts: Mapping[str, tuple[Floats, Floats]]) -> None:
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    markers = dict(zip(dict.fromkeys(point.name for point in finding.operating_points), "os^Dv", strict=False))
    for colour, (name, (y, repeats)) in zip(COLOURS, parts.items(), strict=False):
        p = repeats.mean(axis=1)
        false_positives, true_positives, _ = roc_curve(y, p, drop_intermediate=False)
        label = f"{name}\nAUROC {_mean(roc_auc_score, y, repeats):.3f}, n = {len(y)} ({int(y.sum())})"
        axes.plot(false_positives, true_positives, color=colour, linewidth=1.5, label=label)
        for point in finding.operating_points:
            if point.name in markers:
                x, height = (p[y == 0] >= point.threshold).mean(), (p[y == 1] >= point.threshold).mean()
                axes.plot(x, height, markers[point.name], color=colour, markersize=6, markeredgecolor="white")
    for name, marker in markers.items():
        axes.plot([], [], marker, color="0.4", markersize=5, label=name)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    _finish(axes, "ROC", "lower right")


def _reliability(axes: Any, parts: Mapping[str, tuple[Floats, Floats]]) -> None:
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for colour, (name, (y, repeats)) in zip(COLOURS, parts.items(), strict=False):
        p = repeats.mean(axis=1)
        # Groups of equal size, as in the ECE; with fewer cases than groups some are empty.
        groups = [g for g in np.array_split(np.argsort(p, kind="stable"), GROUPS) if len(g)]
        predicted = np.array([p[g].mean() for g in groups])
        observed = np.array([y[g].mean() for g in groups])
        intervals = [binomtest(int(y[g].sum()), len(g)).proportion_ci(method="wilson") for g in groups]
        below = np.clip(observed - [i.low for i in intervals], 0, None)
        above = np.clip([i.high for i in intervals] - observed, 0, None)
        label = f"{name}\nECE {_mean(expected_calibration_error, y, repeats):.3f}"
        style = {"color": colour, "fmt": "o-", "markersize": 4, "linewidth": 1.2, "elinewidth": 0.8}
        axes.errorbar(predicted, observed, yerr=[below, above], label=label, **style)
        # Each case is a tick at its probability, positives at the top, negatives at the bottom.
        axes.plot(p, np.where(y == 1, 1.03, -0.03), "|", color=colour, alpha=0.15, markersize=4)
    axes.set(
        xlabel="predicted probability",
        ylabel="observed frequency (95 %, Wilson)",
        xlim=(-0.02, 1.02),
        ylim=(-0.06, 1.06),
        aspect="equal",
    )
    _finish(axes, "Reliability, ten equal groups", "lower right")


def _finish(axes: Any, title: str, where: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    axes.legend(fontsize=6, loc=where, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
