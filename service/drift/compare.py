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


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number or share, before and now.

    Parameters
    ----------
    before, now
        Medians of a number; shares of what is counted.
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
    """Those of which there are enough on both sides; numbers of as many films are tested together, which is faster."""
    from scipy.stats import mannwhitneyu  # noqa: PLC0415  slow to load, and rarely needed

    of_size: dict[tuple[int, int], list[str]] = {}
    for name, values in reference.numbers.items():
        size = len(values), len(now.numbers.get(name, ()))
        if min(size) >= LEAST_NOW:
            of_size.setdefault(size, []).append(name)
    found: dict[str, Comparison] = {}
    for (n_before, n_now), names in of_size.items():
        before = np.array([reference.numbers[name] for name in names])
        after = np.array([now.numbers[name] for name in names])
        differ = ~((before == before[:, :1]).all(axis=1) & (after == before[:, :1]).all(axis=1))
        p = np.ones(len(names))
        if differ.any():
            p[differ] = mannwhitneyu(before[differ], after[differ], axis=1, method="asymptotic").pvalue
        for name, was, is_now, each in zip(names, np.median(before, axis=1), np.median(after, axis=1), p, strict=True):
            found[name] = Comparison(name, float(was), float(is_now), n_before, n_now, max(float(each), _SMALLEST))
    return [found[name] for name in reference.numbers if name in found]


def _counts(name: str, before: tuple[int, int], now: tuple[int, int]) -> Comparison | None:
    from scipy.stats import fisher_exact  # noqa: PLC0415  slow to load, and rarely needed

    (a, n), (b, m) = before, now
    if not n or not m:
        return None
    p = float(fisher_exact(np.array([[a, n - a], [b, m - b]])).pvalue)
    return Comparison(name, a / n, b / m, n, m, max(p, _SMALLEST))


def _counted(sample: Sample, name: str) -> tuple[int, int]:
    """How many, of how many; a code that no film has is counted as none of all."""
    return sample.counts.get(name, (0, 0 if name == DISAGREED else sample.films))
