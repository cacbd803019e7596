"""What a threshold means for 1,000 people screened, at a given prevalence (:mod:`data_specs.planning.consequences`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_specs.bundle import RocPoint
from data_specs.planning.consequences import shares

DRAWS = 20_000
RANGES = ("sensitivity", "specificity", "recalled", "found", "missed", "ppv", "npv")
"""Of the shares, those that a card shows."""


class PlanError(ValueError):
    """The bundle or the request does not allow a plan; the message says why."""


@dataclass(frozen=True)
class Range:
    """A figure, with its 95 % interval if it was measured on cases."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Plan:
    """What one threshold means for 1,000 people screened.

    Parameters
    ----------
    threshold
        Probability from which on a person is recalled; ``None`` for a target without a model.
    recalled, found, missed
        People per thousand screened.
    """

    name: str
    threshold: float | None
    sensitivity: Range
    specificity: Range
    recalled: Range
    found: Range
    missed: Range
    ppv: Range
    npv: Range


def plan_point(name: str, point: RocPoint, prevalence: float, *, seed: int = 1) -> Plan:
    """One measured point at a prevalence.

    Intervals: Jeffreys posteriors of sensitivity and specificity (Brown, Cai, DasGupta, Stat Sci 2001;16:101), drawn
    independently, because they come from different people; the prevalence is taken as exact.
    """
    rng = np.random.default_rng(seed)
    sensitivity = rng.beta(point.true_positives + 0.5, point.false_negatives + 0.5, DRAWS)
    specificity = rng.beta(point.true_negatives + 0.5, point.false_positives + 0.5, DRAWS)
    measured = shares(np.array([point.sensitivity]), np.array([point.specificity]), prevalence)
    drawn = shares(sensitivity, specificity, prevalence)
    ranges = {}
    for figure in RANGES:
        values = drawn[figure]
        value, (low, high) = float(measured[figure][0]), np.percentile(values, [2.5, 97.5])
        # At the ends of the curve the posterior interval does not contain the measured value.
        ranges[figure] = Range(value, float(np.fmin(low, value)), float(np.fmax(high, value)))
    return Plan(name=name, threshold=point.threshold, **ranges)


def plan_target(name: str, sensitivity: float, specificity: float, prevalence: float) -> Plan:
    """A stated sensitivity and specificity at a prevalence: a target, so without intervals."""
    figures = shares(np.array([sensitivity]), np.array([specificity]), prevalence)
    return Plan(name=name, threshold=None, **{figure: Range(float(figures[figure][0])) for figure in RANGES})


def choose(roc: tuple[RocPoint, ...], prevalence: float, recalls_per_1000: float) -> RocPoint:
    """The most sensitive point with at most ``recalls_per_1000`` expected recalls; of equal ones the most specific.

    Raises
    ------
    PlanError
        The prevalence or the number of recalls is out of range, or no threshold recalls so few.
    """
    if not 0 < prevalence < 1:
        raise PlanError(f"prevalence {prevalence:g} is not between 0 and 1 (0.3 % is 0.003)")
    if not 0 < recalls_per_1000 <= 1000:
        raise PlanError(f"{recalls_per_1000:g} recalls per thousand is not between 0 and 1000")

    def recalls(point: RocPoint) -> float:
        return 1000 * (prevalence * point.sensitivity + (1 - prevalence) * (1 - point.specificity))

    fitting = [point for point in roc if recalls(point) <= recalls_per_1000 and point.true_positives]
    if not fitting:
        fewest = min((recalls(p) for p in roc if p.true_positives), default=float("nan"))
        raise PlanError(
            f"no threshold with a true positive recalls {recalls_per_1000:g} or fewer per thousand; the fewest are "
            f"{fewest:.1f}"
        )
    return max(fitting, key=lambda point: (point.sensitivity, point.specificity))
