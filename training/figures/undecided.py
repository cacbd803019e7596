"""Where a finding is left undecided: conformal bounds by class and by group of persons.

A new person with the finding is exchangeable with the cases that have it. So the chance that their probability lies
below the k-th smallest of ``n`` such cases is at most k / (n + 1), whatever the network and its calibration are worth
(Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, section 4.6; Mondrian conformal prediction by
label). The same holds for those without it, from above. Nothing is said of persons of another hospital.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from data_specs.bundle import Estimate, Evaluation, Undecided
from data_specs.person import MAX_AGE_YEARS, read_binary_sex
from inference.findings import Who, is_undecided
from training.figures.evaluate import Floats

COVERAGES = (0.9, 0.95)
FEWEST = 30
"""Cases of each class that a group needs for bounds of its own; 19 are the fewest that bound anything at 95 %."""
_AGES = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+)|\+)")


def undecided_ranges(y: Floats, p: Floats, groups: pd.DataFrame, threshold: float) -> tuple[Undecided, ...]:
    """The ranges of a finding for everybody, and for each group that has enough cases.

    Parameters
    ----------
    y, p
        ``(n,)``: outcomes 0 or 1, and probabilities, of cases that the network did not learn from.
    groups
        A row for each case; the columns ``age`` (as ``41-60`` or ``76+``), ``sex`` and ``view`` are used.
    threshold
        Where the finding becomes positive. It lies in every range or at its end, so that nobody gets a verdict that
        the bounds exclude.
    """
    found = []
    for whom, member in _groups(groups):
        positive, negative = np.sort(p[member & (y == 1)]), np.sort(p[member & (y == 0)])
        if whom and min(len(positive), len(negative)) < FEWEST:
            continue
        for coverage in COVERAGES:
            low, high = _bounds(positive, negative, 1 - coverage)
            found.append(
                Undecided(
                    coverage=coverage,
                    low=min(low, threshold),
                    high=max(high, threshold),
                    n_positive=len(positive),
                    n_negative=len(negative),
                    **whom,
                )
            )
    return tuple(found)


def _bounds(positive: Floats, negative: Floats, error: float) -> tuple[float, float]:
    """``low``: at most ``error`` of those with the finding lie below it. ``high``: of those without it, at or above."""
    k = math.floor(error * (len(positive) + 1) + 1e-9)
    j = math.floor(error * (len(negative) + 1) + 1e-9)
    low = float(positive[k - 1]) if k else 0.0
    high = float(np.nextafter(negative[-j], 1.0)) if j else 1.0
    return low, high


def _groups(groups: pd.DataFrame) -> Iterator[tuple[dict[str, Any], NDArray[np.bool_]]]:
    """Whom a group's bounds are for, as :class:`Undecided` names them, and which cases are of the group."""
    yield {}, np.ones(len(groups), dtype=bool)
    for column in ("age", "sex", "view"):
        if column in groups:
            values = groups[column].astype(str)
            for value in sorted(set(values)):
                if whom := _whom(column, value):
                    yield whom, (values == value).to_numpy()


def _whom(column: str, value: str) -> dict[str, Any]:
    if column == "sex":
        sex = read_binary_sex(value, "words")
        return {"sex": sex} if sex else {}
    if column == "view":
        return {"view": value} if value in ("PA", "AP") else {}
    ages = _AGES.fullmatch(value)
    if ages is None:
        return {}
    last = float(ages["last"]) if ages["last"] else MAX_AGE_YEARS
    return {"age_years": (float(ages["first"]), last + 1)}


def undecided_figures(
    ranges: tuple[Undecided, ...], y: Floats, p: Floats, groups: pd.DataFrame, threshold: float, cohort: str
) -> tuple[Evaluation, ...]:
    """On cases that neither trained nor calibrated: how often the verdict is not the opposite, how many have none.

    Returns
    -------
    For each coverage ``right_with@C`` and ``right_without@C`` (of those with and without the finding, the share that
    did not get the opposite verdict) and ``undecided@C`` (share of all), with Wilson's 95 % intervals
    """
    figures = []
    for coverage in COVERAGES:
        open_ = np.array(
            [is_undecided(ranges, each, _who(groups.iloc[i], coverage)) for i, each in enumerate(p.tolist())]
        )
        wrong = ~open_ & ((p >= threshold) != (y == 1))
        shares = {
            f"right_with@{coverage}": ~wrong[y == 1],
            f"right_without@{coverage}": ~wrong[y == 0],
            f"undecided@{coverage}": open_,
        }
        figures += [
            Evaluation(cohort=cohort, metric=metric, estimate=_share(cases)) for metric, cases in shares.items()
        ]
    return tuple(figures)


def _who(group: pd.Series[Any], coverage: float) -> Who:
    known: dict[str, Any] = {}
    for column in ("age", "sex", "view"):
        if column in group:
            known |= _whom(column, str(group[column]))
    ages = cast("tuple[float, float] | None", known.pop("age_years", None))
    return Who(age_years=ages[0] if ages else None, coverage=coverage, **known)


def _share(cases: NDArray[np.bool_]) -> Estimate:
    n, k = len(cases), int(cases.sum())
    interval = binomtest(k, n).proportion_ci(method="wilson")
    return Estimate(value=round(k / n, 4), low=round(float(interval.low), 4), high=round(float(interval.high), 4), n=n)
