"""How far inputs are from those that a network learnt from, in its own features; and from where on that is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_specs.bundle import FindingSpec, MeasuredTable
from inference.likeness import FAR, UNLIKE
from models.likeness import WithDistance, pooled
from training.cohorts.cohort import MIN_CASES, Cohort
from training.figures.evaluate import auroc
from training.learning.fit import predict

SHARE_UNLIKE = 0.01
"""Share of a cohort's validation cases beyond the distance from which a reserve is said."""
FAR_FACTOR = 4.0
"""Distance from which nothing is assessed, in distances from which a reserve is said."""
BATCH = 64


def with_distance(network: nn.Module, cohorts: Sequence[Cohort]) -> tuple[WithDistance, dict[str, float]]:
    """The network with the distance from the train parts among its outputs, and the thresholds of that distance.

    These come from the validation parts: the most tolerant of the cohorts decides, because each of them is known.
    """
    learnt = [features_of(network, cohort.x[cohort.rows("train")]) for cohort in cohorts]
    measured = WithDistance(network, learnt[0].shape[1])
    measured.likeness.fit(torch.cat(learnt))
    measured.eval()
    seen = [distances(measured, cohort.x[cohort.rows("validation")]) for cohort in cohorts]
    unlike = max(float(np.quantile(each, 1 - SHARE_UNLIKE)) for each in seen)
    return measured, {UNLIKE: unlike, FAR: FAR_FACTOR * unlike}


def likeness_table(
    measured: WithDistance, limits: Mapping[str, float], specs: Sequence[FindingSpec], cohorts: Sequence[Cohort]
) -> MeasuredTable:
    """How many cases of test parts, here and elsewhere, are unlike those learnt from, and how the others fare.

    Parameters
    ----------
    specs
        What is offered; the first one that a cohort has both outcomes of is shown.
    """
    rows = []
    for cohort in cohorts:
        test = cohort.rows("test")
        if not len(test):
            continue
        found = distances(measured, cohort.x[test])
        shares = [f"{(found > limits[name]).mean():.1%}" for name in (UNLIKE, FAR)]
        rows.append(
            (cohort.part_title("test"), str(len(test)), *shares, *_auroc(measured, specs, cohort, found, limits))
        )
    text = (
        f"Distance of the pooled features from those of the cases learnt from; 2 is that of an average one of them. "
        f"Beyond {limits[UNLIKE]:.1f} a reserve is said ({SHARE_UNLIKE:.0%} of validation cases), beyond "
        f"{limits[FAR]:.1f} nothing is assessed."
    )
    columns = ("cases", "n", "unlike", "far", "AUROC of all", "of those that are not unlike")
    return MeasuredTable(title="Likeness", text=text, columns=columns, rows=tuple(rows))


def _auroc(
    measured: WithDistance,
    specs: Sequence[FindingSpec],
    cohort: Cohort,
    found: NDArray[np.float64],
    limits: Mapping[str, float],
) -> tuple[str, str]:
    """Of the first finding with enough cases of both outcomes: of all, and of those within the limit."""
    test = cohort.rows("test")
    for spec in specs:
        if spec.name not in cohort.labels or spec.age_years != cohort.age_years:
            continue
        y = cohort.labels[spec.name].to_numpy(dtype=np.float64)[test]
        if min((y == 1).sum(), (y == 0).sum()) >= MIN_CASES:
            logits = predict(measured, torch.from_numpy(cohort.x[test]))[:, spec.column]
            like, known = found <= limits[UNLIKE], ~np.isnan(y)
            values = [auroc(y[known & of], logits[known & of]) for of in (np.ones(len(y), dtype=bool), like)]
            return f"{spec.name} {values[0]:.3f}", f"{values[1]:.3f}"
    return "", ""


def distances(measured: WithDistance, x: NDArray[np.generic]) -> NDArray[np.float64]:
    """``(n,)`` of inputs ``(n, ...)``."""
    with torch.inference_mode():
        vectors = features_of(measured.network, x)
        return np.asarray(measured.likeness(vectors)[:, 0].numpy(), dtype=np.float64)


def features_of(network: nn.Module, x: NDArray[np.generic]) -> Tensor:
    """Pooled features ``(n, channels)`` of inputs ``(n, ...)``."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([pooled(network.features(part)) for part in torch.from_numpy(x).split(BATCH)])  # type: ignore[operator]
