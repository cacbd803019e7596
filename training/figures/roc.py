"""Thresholds along the ROC with their counts, which a bundle carries for planning."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import RocPoint
from data_specs.visit.contract import OperatingPoint
from training.cohorts.cohort import MIN_CASES
from training.figures.evaluate import Floats

MAX_ROC_POINTS, MAX_GROUP_POINTS = 60, 30


def roc_points(
    y: Floats, p: Floats, points: tuple[OperatingPoint, ...] = (), *, at_most: int = MAX_ROC_POINTS
) -> tuple[RocPoint, ...]:
    """At most ``at_most`` thresholds with their counts: those of ``points``, and others spread evenly along the ROC.

    At the first threshold all cases are positive, at the last none. Thresholds lie half-way between neighbouring
    probabilities, so that none equals the probability of a case.

    Raises
    ------
    ValueError
        One class is missing.
    """
    known = ~np.isnan(y)
    y, p = y[known], p[known]
    positive, negative = np.sort(p[y == 1]), np.sort(p[y == 0])
    if not (len(positive) and len(negative)):
        raise ValueError("a ROC needs positives and negatives")
    values = np.unique(p)
    candidates = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0 if values[-1] < 1 else 1.000001]])
    along = sum(np.searchsorted(cases, candidates) / len(cases) for cases in (positive, negative))
    own = {point.threshold for point in points}
    spread = np.searchsorted(along, np.linspace(along[0], along[-1], at_most - len(own)))
    thresholds = np.unique([*own, *candidates[spread]])
    missed, cleared = np.searchsorted(positive, thresholds), np.searchsorted(negative, thresholds)
    return tuple(
        RocPoint(
            threshold=float(threshold),
            true_positives=len(positive) - int(m),
            false_negatives=int(m),
            true_negatives=int(c),
            false_positives=len(negative) - int(c),
        )
        for threshold, m, c in zip(thresholds, missed, cleared, strict=True)
    )


def rocs_by_group(
    y: Floats, p: Floats, groups: Mapping[str, NDArray[np.bool_]], points: tuple[OperatingPoint, ...] = ()
) -> dict[str, tuple[RocPoint, ...]]:
    """The ROC of each group with enough cases of both classes.

    Parameters
    ----------
    y, p
        ``(n,)`` outcomes, and probabilities.
    groups
        ``(n,)`` members of each group.
    """
    found = {}
    for name, member in groups.items():
        of_group, with_it = y[member], int((y[member] == 1).sum())
        if min(with_it, int((of_group == 0).sum())) >= MIN_CASES:
            found[name] = roc_points(of_group, p[member], points, at_most=MAX_GROUP_POINTS)
    return found
