"""The comparisons of the service (:func:`service.drift.compare.compared`) over films that are drawn again and again.

Values are ranked once for all draws, so that a day of a simulated year costs a fraction of a millisecond. A test holds
both ways together: the same p for the same films.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln
from scipy.stats import norm

from benchmarks.drift.films import Seen
from service.drift.compare import LEAST_NOW
from service.drift.samples import CODE, DIGITS, REFUSED

Indices = NDArray[np.intp]


class Pool:
    """Films before and after a change, as numbers; a film is named by its place in ``seen``."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.traits = list(dict.fromkeys(name for film in seen for name in film.traits))
        values = np.array([[film.traits.get(name, np.nan) for name in self.traits] for film in seen]).round(DIGITS)
        ranked = [np.unique(column, return_inverse=True)[1] for column in values.T]
        self._n_values = 1 + max(int(column.max()) for column in ranked)
        places = np.stack(ranked, axis=1) + self._n_values * np.arange(len(self.traits))
        self._places = np.where(np.isnan(values), -1, places)
        codes = dict.fromkeys(code for film in seen for code in film.codes)
        self.counted = [REFUSED, *(CODE + code for code in codes)]
        self._counted = np.array([[not film.accepted, *(code in film.codes for code in codes)] for film in seen])

    def counts(self, films: Indices) -> NDArray[np.int64]:
        """How often each value of each number is among the films, ``(n_traits, n_values)``."""
        places = self._places[films].ravel()
        shape = len(self.traits), self._n_values
        return np.bincount(places[places >= 0], minlength=shape[0] * shape[1]).reshape(shape)

    def compared(self, before: Indices, counts: NDArray[np.int64], now: Indices) -> dict[str, float]:
        """The p of each comparison.

        Parameters
        ----------
        counts
            :meth:`counts` of ``before``, which stays the same for many ``now``.
        """
        found = dict(zip(self.traits, _rank_tests(counts, self.counts(now)), strict=True))
        found = {name: float(p) for name, p in found.items() if not np.isnan(p)}
        with_before, with_now = self._counted[before].sum(axis=0), self._counted[now].sum(axis=0)
        for name, a, b in zip(self.counted, with_before, with_now, strict=True):
            if name == REFUSED or a or b:
                found[name] = _fisher(int(a), len(before), int(b), len(now))
        return found


def _rank_tests(before: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.float64]:
    """p of the Mann-Whitney tests of all rows, by the normal approximation with corrections for ties and continuity, as
    ``scipy.stats.mannwhitneyu`` has it; exact where more than half have one value; NaN where there are too few."""
    n_before, n_now, both = before.sum(axis=1), now.sum(axis=1), before + now
    n = n_before + n_now
    u = (now * (np.cumsum(before, axis=1) - before / 2)).sum(axis=1)
    u = np.maximum(u, n_before * n_now - u)
    ties = (both.astype(float) ** 3 - both).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(n_before * n_now / 12 * (n + 1 - ties / (n * (n - 1.0))))
        p = np.minimum(2 * norm.sf((u - n_before * n_now / 2 - 0.5) / sd), 1.0)
    most = both.argmax(axis=1)
    for row in np.flatnonzero(2 * both.max(axis=1) > n):
        p[row] = _beside(before[row], now[row], most[row])
    return np.where(np.minimum(n_before, n_now) < LEAST_NOW, np.nan, p)


def _beside(before: NDArray[np.int64], now: NDArray[np.int64], usual: np.intp) -> float:
    """p of the films above and below the value that most have, of which each row has the counts by value."""
    n, m = int(before.sum()), int(now.sum())
    above = _fisher(int(before[usual + 1 :].sum()), n, int(now[usual + 1 :].sum()), m)
    below = _fisher(int(before[:usual].sum()), n, int(now[:usual].sum()), m)
    return min(1.0, 2 * min(above, below))


@lru_cache(100_000)
def _fisher(a: int, n: int, b: int, m: int) -> float:
    """As :func:`service.drift.compare.exact_p`, in a hundredth of its time."""
    of_both = a + b
    x = np.arange(max(0, of_both - m), min(n, of_both) + 1)
    log = -betaln(x + 1, n - x + 1) - betaln(of_both - x + 1, m - of_both + x + 1)
    likely = np.exp(log - log.max())
    return float(min(1.0, likely[likely <= (1 + 1e-7) * likely[a - x[0]]].sum() / likely.sum()))
