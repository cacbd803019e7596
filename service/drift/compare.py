"""Are the films of the last days like those of the reference? Tests that know how few films there are.

One budget of false alarms holds for the whole service and a year. It is divided by the days, the devices and the
comparisons of a device: by Bonferroni's inequality the expected number of false alarms is at most the budget, however
the comparisons depend on each other, and those of a day on those of the day before.

References
----------
Mann H.B., Whitney D.R., On a test of whether one of two random variables is stochastically larger than the other, Ann
Math Stat 1947;18:50-60. Fisher R.A., The logic of inductive inference, J R Stat Soc 1935;98:39-82. Bonferroni's
inequality: Dunn O.J., Multiple comparisons among means, J Am Stat Assoc 1961;56:52-64.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from service.drift.samples import DISAGREED, Sample

FALSE_ALARMS_A_YEAR = 0.5
"""The budget: false alarms that are expected in a year at most, of all devices and comparisons together."""
HOURS_A_YEAR = 24 * 365.25
LEAST_REFERENCE, LEAST_NOW = 100, 20
"""Films, below which nothing is compared."""
ENDS_AT = 0.05
"""An alarm ends when its comparison's p is above this again."""
POWER_80 = 0.8416
"""The normal distribution's quantile of 0.8."""
_SMALLEST = 1e-300
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number or share, before and now.

    Parameters
    ----------
    before, now
        Medians of a number, or its means where the medians are the same; shares of what is counted.
    n_before, n_now
        Of how many films.
    p
        How often a difference at least so large is found where nothing has changed.
    """

    name: str
    before: float
    now: float
    n_before: int
    n_now: int
    p: float


def compared(reference: Sample, now: Sample) -> list[Comparison]:
    """Each number and share that the reference has, or that is new; none where there are too few films."""
    if reference.films < LEAST_REFERENCE or now.films < LEAST_NOW:
        return []
    counted = dict.fromkeys([*reference.counts, *now.counts])
    of_counts = [_counts(name, _counted(reference, name), _counted(now, name)) for name in counted]
    return [*_numbers(reference, now), *(each for each in of_counts if each is not None)]


def limit_of_p(n_devices: int, n_comparisons: int, every_hours: float = 24.0) -> float:
    """The p up to which a comparison is an alarm, where each device is compared every so many hours."""
    checks = HOURS_A_YEAR / every_hours
    return FALSE_ALARMS_A_YEAR / (checks * max(n_devices, 1) * max(n_comparisons, 1))


def smallest_noticed(n_before: int, n_now: int, limit: float) -> float:
    """The shift, in standard deviations, that is noticed four times in five, by the normal approximation.

    References
    ----------
    Noether G.E., Sample size determination for some common nonparametric tests, J Am Stat Assoc 1987;82:645-647; the
    efficiency of the rank test beside the t test for normal values is 3/pi.
    """
    from scipy.stats import norm  # noqa: PLC0415  slow to load, and rarely needed

    z = float(norm.isf(limit / 2)) + POWER_80
    return z * sqrt((1 / n_before + 1 / n_now) * np.pi / 3)


def _numbers(reference: Sample, now: Sample) -> list[Comparison]:
    """Those of which there are enough on both sides."""
    found = []
    for name, values in reference.numbers.items():
        before, after = np.array(values), np.array(now.numbers.get(name, ()))
        if min(len(before), len(after)) < LEAST_NOW:
            continue
        was, is_now = float(np.median(before)), float(np.median(after))
        if was == is_now:
            was, is_now = float(before.mean()), float(after.mean())
        p = max(_rank_test(before, after), _SMALLEST)
        found.append(Comparison(name, was, is_now, len(before), len(after), p))
    return found


def _rank_test(before: Values, now: Values) -> float:
    """p of the Mann-Whitney test by the normal approximation.

    Where more than half of all films have one value, the approximation does not hold: those above it and those below it
    are counted instead, and it is twice the smaller p of the two exact tests.
    """
    from scipy.stats import mannwhitneyu  # noqa: PLC0415  slow to load, and rarely needed

    values, n_of = np.unique(np.concatenate([before, now]), return_counts=True)
    most = n_of.argmax()
    if 2 * n_of[most] <= n_of.sum():
        return float(mannwhitneyu(before, now, method="asymptotic").pvalue)
    usual = values[most]
    above = exact_p(int((before > usual).sum()), len(before), int((now > usual).sum()), len(now))
    below = exact_p(int((before < usual).sum()), len(before), int((now < usual).sum()), len(now))
    return min(1.0, 2 * min(above, below))


def exact_p(a: int, n: int, b: int, m: int) -> float:
    """p of Fisher's exact test that ``a`` of ``n`` and ``b`` of ``m`` are of one share."""
    from scipy.stats import fisher_exact  # noqa: PLC0415  slow to load, and rarely needed

    return float(fisher_exact(np.array([[a, n - a], [b, m - b]])).pvalue)


def _counts(name: str, before: tuple[int, int], now: tuple[int, int]) -> Comparison | None:
    (a, n), (b, m) = before, now
    if not n or not m:
        return None
    return Comparison(name, a / n, b / m, n, m, max(exact_p(a, n, b, m), _SMALLEST))


def _counted(sample: Sample, name: str) -> tuple[int, int]:
    """How many, of how many; a code that no film has is counted as none of all."""
    return sample.counts.get(name, (0, 0 if name == DISAGREED else sample.films))
