"""What a threshold means for the people of a programme: recalls, yield, missed cases, tests and costs, with intervals.

With prevalence π, sensitivity s and specificity c, a share π·s + (1 − π)·(1 − c) is recalled and π·(1 − s) is missed;
PPV = π·s / recalled, NPV = (1 − π)·c / not recalled (Altman and Bland, BMJ 1994;309:102).

The outcomes are those that the WHO's tool for the calibration of computer-aided detection gives at every threshold:
yields, sensitivity and specificity, predictive values, cases diagnosed and missed, total cost and cost per true case,
also for sub-populations (WHO operational handbook on tuberculosis, module 2: screening, section 4.3).

What is assumed: everybody who is recalled comes and is tested, and the confirmatory test is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.planning.performance import Performance
from data_specs.planning.programme import Costs, Prevalence, Programme

DRAWS = 10_000
SHARES = ("sensitivity", "specificity", "ppv", "npv")
PER_1000 = ("recalled", "found", "missed", "recalled_without", "tests")
MONEY = ("cost_per_1000", "cost_per_case", "total")
FIGURES = (*SHARES, *PER_1000, *MONEY)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; NaN where it is not defined (no PPV where nobody is recalled)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One threshold at one prevalence.

    Parameters
    ----------
    name
        Operating points of the bundle at this threshold, else empty.
    figures
        By :data:`FIGURES`: shares, people and tests per 1,000 screened, and money. ``total`` is of all people.
    """

    threshold: float
    name: str
    decides: bool
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Consequences:
    """A population at one prevalence, at every threshold."""

    population: str
    people: int
    prevalence: Prevalence
    performance: Performance
    rows: tuple[Row, ...]


def plan(
    programme: Programme, figures: Mapping[str, Performance], *, draws: int = DRAWS, seed: int = 1
) -> Iterator[Consequences]:
    """Each population at each of its prevalences.

    Parameters
    ----------
    figures
        By group of cases; a population takes those that it names.

    Raises
    ------
    KeyError
        A population names a group that is not there; its name is the argument.
    """
    if lacking := [each.cases for each in programme.populations.values() if each.cases not in figures]:
        raise KeyError(lacking[0])
    for name, population in programme.populations.items():
        performance = figures[population.cases]
        for prevalence in population.prevalence:
            rows = consequences(performance, prevalence, programme.costs, population.people, draws=draws, seed=seed)
            yield Consequences(name, population.people, prevalence, performance, rows)


def consequences(
    performance: Performance, prevalence: Prevalence, costs: Costs, people: int, *, draws: int = DRAWS, seed: int = 1
) -> tuple[Row, ...]:
    """Every threshold at one prevalence.

    Intervals: Jeffreys posteriors of sensitivity, specificity and, where it was counted, prevalence (Brown, Cai,
    DasGupta, Stat Sci 2001;16:101), drawn independently, because they come from different people. They are of what is
    expected of these people, at one threshold at a time. Where everybody or nobody is recalled whoever they are,
    sensitivity and specificity are exact.
    """
    rng = np.random.default_rng(seed)
    points = performance.points
    counts = np.array([[p.true_positives, p.false_negatives, p.true_negatives, p.false_positives] for p in points])
    tp, fn, tn, fp = (column[:, None] + 0.5 for column in counts.T.astype(np.float64))
    shape = (len(points), draws)
    sensitivity = np.array([[p.sensitivity] for p in points])
    specificity = np.array([[p.specificity] for p in points])
    certain = np.array([[not 0 < p.threshold < 1] for p in points])
    drawn_sensitivity = np.where(certain, sensitivity, rng.beta(tp, fn, shape))
    drawn_specificity = np.where(certain, specificity, rng.beta(tn, fp, shape))
    values = money(shares(sensitivity, specificity, prevalence.share), costs, people)
    spread = money(shares(drawn_sensitivity, drawn_specificity, prevalence.drawn(rng, draws)), costs, people)
    found = {name: _with_interval(values[name][:, 0], spread[name]) for name in FIGURES}
    return tuple(
        Row(
            threshold=point.threshold,
            name=performance.names.get(point.threshold, ""),
            decides=point.threshold == performance.decides,
            figures={name: figures[i] for name, figures in found.items()},
        )
        for i, point in enumerate(points)
    )


def shares(sensitivity: Floats, specificity: Floats, prevalence: Floats | float) -> dict[str, Floats]:
    """What happens to 1,000 people screened, and predictive values; NaN where one is not defined."""
    found, without = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    missed, cleared = prevalence * (1 - sensitivity), (1 - prevalence) * specificity
    recalled = found + without
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(found, recalled),
        "npv": ratio(cleared, missed + cleared),
        "recalled": 1000 * recalled,
        "found": 1000 * found,
        "missed": 1000 * missed,
        "recalled_without": 1000 * without,
    }


def money(of_1000: dict[str, Floats], costs: Costs, people: int) -> dict[str, Floats]:
    """The same with confirmatory tests and costs; no cost per case where no case is found."""
    tests = costs.tests_per_recall * of_1000["recalled"]
    cost = (
        1000 * costs.screening
        + costs.recall_visit * of_1000["recalled"]
        + costs.confirmatory_test * tests
        + costs.treatment_start * of_1000["found"]
    )
    return {
        **of_1000,
        "tests": tests,
        "cost_per_1000": cost,
        "cost_per_case": ratio(cost, of_1000["found"]),
        "total": cost * people / 1000,
    }


def ratio(part: Floats, of: Floats) -> Floats:
    """``part / of``; NaN where ``of`` is zero."""
    undefined = np.full(np.broadcast_shapes(part.shape, of.shape), np.nan)
    share: Floats = np.divide(part, of, out=undefined, where=of > 0)
    return share


def _with_interval(values: Floats, drawn: Floats) -> list[Figure]:
    """``(n,)`` values with the middle 95 % of their draws ``(n, draws)``, which are widened to hold the value."""
    drawn = np.broadcast_to(drawn, (len(values), drawn.shape[-1]))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=1)
    return [
        Figure(float(value), float(np.fmin(below, value)), float(np.fmax(above, value)))
        for value, below, above in zip(values, low, high, strict=True)
    ]
