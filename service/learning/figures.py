"""How a trainee reads: figures over first readings, each with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from data_specs.schema import Schema
from data_specs.visit.teaching import PROBABILITY
from service.followup.agreement import kappa
from service.followup.screening import interval
from service.learning.records import ANY, Answer

CASES_IN_BLOCK = 20
FEWEST_PEERS = 5
"""With fewer, a quartile would be somebody's own figure."""
FEWEST_CASES_OF_PEER = 10


class Proportion(Schema):
    """``n`` of ``of``, with Wilson's interval; no value where ``of`` is 0."""

    n: int
    of: int
    value: float | None
    low: float | None
    high: float | None


class Estimate(Schema):
    """A figure with its interval."""

    value: float
    low: float
    high: float


class Step(Schema):
    """One step of confidence: the probability that it says, and how often the finding was there."""

    confidence: int
    says: float
    there: Proportion


class Quartiles(Schema):
    lower: float
    median: float
    upper: float


class Peers(Schema):
    """Quartiles of the other trainees of the site; ``None`` where too few have the figure."""

    readers: int
    sensitivity: Quartiles | None
    specificity: Quartiles | None
    kappa: Quartiles | None


class Figures(Schema):
    """Of one finding, or of cases as a whole (``any``).

    Parameters
    ----------
    cases, present
        Cases in which its truth is known, and in which it is there.
    kappa
        Cohen's kappa with the truth; ``None`` where the truth is the same in every case.
    brier
        Mean squared distance of confidence from truth, 0 is best; ``None`` with fewer than two answers with confidence.
    """

    finding: str
    cases: int
    present: int
    sensitivity: Proportion
    specificity: Proportion
    kappa: Estimate | None
    brier: Estimate | None
    rated: int
    reliability: tuple[Step, ...]
    peers: Peers | None = None


class Block(Schema):
    """Some cases in the order in which they were read: the ``first`` to the ``last``, signed until a time."""

    first: int
    last: int
    until: datetime
    figures: tuple[Figures, ...]


Answers = Sequence[Mapping[str, Answer]]
"""What a trainee says of each case, by finding, in the order of reading."""


def proportion(n: int, of: int) -> Proportion:
    if not of:
        return Proportion(n=n, of=of, value=None, low=None, high=None)
    low, high = interval(n, of)
    return Proportion(n=n, of=of, value=round(n / of, 3), low=low, high=high)


def figures(finding: str, given: Sequence[Answer]) -> Figures:
    """Figures of one finding over the cases in which its truth is known."""
    there = [each for each in given if each.there]
    absent = [each for each in given if not each.there]
    found, cleared = sum(each.said for each in there), sum(not each.said for each in absent)
    agreed = kappa(found, len(there) - found, len(absent) - cleared, cleared) if there and absent else None
    rated = [(PROBABILITY[each.confidence], each.there) for each in given if each.confidence is not None]
    return Figures(
        finding=finding,
        cases=len(given),
        present=len(there),
        sensitivity=proportion(found, len(there)),
        specificity=proportion(cleared, len(absent)),
        kappa=Estimate(value=agreed[0], low=agreed[1], high=agreed[2]) if agreed else None,
        brier=brier(rated),
        rated=len(rated),
        reliability=_reliability(given),
    )


def brier(rated: Sequence[tuple[float, bool]]) -> Estimate | None:
    """The Brier score; ``None`` with fewer than two answers.

    Each answer adds something from 0 to 1. That varies at most as much as a yes or no of the same mean (Bhatia R.,
    Davis C., A better bound on the variance, Am Math Mon 2000;107:353-357), so the interval of a share is wide enough.

    References
    ----------
    Brier G.W., Verification of forecasts expressed in terms of probability, Mon Weather Rev 1950;78:1-3.
    """
    n = len(rated)
    if n < 2:
        return None
    total = sum((said - there) ** 2 for said, there in rated)
    low, high = interval(math.floor(total), n)[0], interval(math.ceil(total), n)[1]
    return Estimate(value=round(total / n, 3), low=low, high=high)


def by_finding(read: Answers, order: Sequence[str]) -> tuple[Figures, ...]:
    """Figures of cases as a whole, then of each finding that was asked about."""
    made = [(name, [each[name] for each in read if name in each]) for name in (ANY, *order)]
    return tuple(figures(name, given) for name, given in made if given)


def blocks(read: Answers, at: Sequence[datetime], order: Sequence[str]) -> tuple[Block, ...]:
    """Figures over time, as :func:`by_finding`; the last block may be shorter."""
    made = []
    for start in range(0, len(read), CASES_IN_BLOCK):
        some = read[start : start + CASES_IN_BLOCK]
        end = start + len(some)
        made.append(Block(first=start + 1, last=end, until=at[end - 1], figures=by_finding(some, order)))
    return tuple(made)


def peers(finding: str, others: Sequence[Answers]) -> Peers | None:
    """Quartiles of others who have read enough cases with this finding; ``None`` where they are too few."""
    enough = [
        figures(finding, given)
        for read in others
        if len(given := [each[finding] for each in read if finding in each]) >= FEWEST_CASES_OF_PEER
    ]
    if len(enough) < FEWEST_PEERS:
        return None
    return Peers(
        readers=len(enough),
        sensitivity=_quartiles([each.sensitivity.value for each in enough]),
        specificity=_quartiles([each.specificity.value for each in enough]),
        kappa=_quartiles([each.kappa.value if each.kappa else None for each in enough]),
    )


def _quartiles(values: Sequence[float | None]) -> Quartiles | None:
    known = [value for value in values if value is not None]
    if len(known) < FEWEST_PEERS:
        return None
    lower, median, upper = (round(float(each), 3) for each in np.percentile(known, (25, 50, 75)))
    return Quartiles(lower=lower, median=median, upper=upper)


def _reliability(given: Sequence[Answer]) -> tuple[Step, ...]:
    made = []
    for confidence, says in PROBABILITY.items():
        some = [each.there for each in given if each.confidence == confidence]
        if some:
            made.append(Step(confidence=confidence, says=says, there=proportion(sum(some), len(some))))
    return tuple(made)
