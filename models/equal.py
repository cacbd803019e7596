"""The threshold at which another version recalls as many as the one in service, or finds as many known cases.

A threshold belongs to one version: the probabilities of the next one mean the same only as far as both calibrations
hold at the site. So it is taken from the site's own visits, with its interval by a bootstrap over persons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.vocabulary import is_reassuring
from models.recent import Answered, persons_of

DRAWS, FEWEST = 1000, 10
"""Draws of the bootstrap; recalls, and known cases, below which no threshold is given."""
PER_UNIT = 1_000_000
"""Thresholds are millionths, so that one that is copied from a table recalls the same visits."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Equal:
    """A threshold with its 95 % interval.

    Parameters
    ----------
    n, reached
        Visits (known cases) that it comes from, and how many of them it recalls.
    """

    threshold: float
    low: float
    high: float
    n: int
    reached: int


def at_equal_recalls(answers: Sequence[Answered], *, draws: int = DRAWS, seed: int = 1) -> Equal | None:
    """The threshold at which the version in the shadow recalls as many visits as the one in service did.

    ``None`` where the version in service recalled, or did not recall, fewer than :data:`FEWEST`. Visits that it left
    open are left out. Of two thresholds as near to the number, the one that recalls more.
    """
    decided = [each for each in answers if each.served is not None]
    recalled = sum(bool(each.served) for each in decided)
    if min(recalled, len(decided) - recalled) < FEWEST:
        return None
    return _threshold(decided, draws, seed, at_least=False)


def at_equal_sensitivity(answers: Sequence[Answered], *, draws: int = DRAWS, seed: int = 1) -> Equal | None:
    """The highest threshold at which the version in the shadow finds as many known cases as the one in service found.

    ``None`` with fewer than :data:`FEWEST` known cases that the version in service decided. Outcomes are recorded
    mostly of persons who were recalled, which flatters the version in service: with such outcomes the threshold is
    rather too low than too high.
    """
    cases = [each for each in answers if each.is_case and each.served is not None]
    if len(cases) < FEWEST or not any(each.served for each in cases):
        return None
    return _threshold(cases, draws, seed, at_least=True)


def _threshold(answers: Sequence[Answered], draws: int, seed: int, *, at_least: bool) -> Equal:
    """By ranks of probabilities; for a finding that reassures by those of their opposite."""
    below = is_reassuring(answers[0].finding)
    scores = np.array([each.probability for each in answers])
    ranks = -scores if below else scores
    recalled = np.array([bool(each.served) for each in answers], dtype=np.float64)
    persons = np.array(persons_of(answers))
    n_persons = int(persons.max()) + 1
    ladder = _Ladder(ranks)
    found = ladder.at(np.ones(len(ranks)), recalled, at_least=at_least)
    rng = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for i in range(draws):
        weights = np.bincount(rng.integers(n_persons, size=n_persons), minlength=n_persons)[persons].astype(np.float64)
        drawn[i] = ladder.at(weights, recalled, at_least=at_least)
    # A rank is rounded down: at the threshold rather more are recalled than fewer.
    low, high = np.percentile(drawn, [2.5, 97.5])
    low, found, high = np.floor(np.array([low, found, high]) * PER_UNIT) / PER_UNIT
    reached = int((ranks >= found).sum())
    if below:
        found, low, high = -found, -high, -low
    found, low, high = (float(min(max(0.0, each), 1.0)) for each in (found, low, high))
    return Equal(found, low, high, len(answers), reached)


class _Ladder:
    """Thresholds between neighbouring values, from above all of them to below all, and how many lie above each."""

    def __init__(self, values: Floats) -> None:
        self._order = np.argsort(-values, kind="stable")
        ranked = values[self._order]
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        steps = ranked[self._ends]
        self._thresholds = np.concatenate(
            [[steps[0] + 1 / PER_UNIT], (steps[1:] + steps[:-1]) / 2, [steps[-1] - 0.5 / PER_UNIT]]
        )

    def at(self, weights: Floats, recalled: Floats, *, at_least: bool) -> float:
        """The threshold above which the weight is that of ``recalled``, or ``at_least`` that.

        Where several leave the same weight above them, the middle between the highest and the lowest.
        """
        counts = np.concatenate([[0.0], np.cumsum(weights[self._order])[self._ends]])
        wanted = float(weights @ recalled)
        if at_least:
            best = counts[np.searchsorted(counts, wanted)]
        else:
            distance = np.abs(counts - wanted)
            best = counts[np.flatnonzero(distance == distance.min())].max()
        same = np.flatnonzero(counts == best)
        return float((self._thresholds[same[0]] + self._thresholds[same[-1]]) / 2)
