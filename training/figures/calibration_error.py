"""The calibration error of a finding, how much of it chance explains, and whether the finding may be offered.

The reported ECE is the plain expected calibration error over ten equal groups. It cannot be 0: with 11 cases in a
group, the observed frequency of a perfectly calibrated model differs by about 0.1 from the predicted one. A limit of
0.05 on the plain ECE would refuse every finding with a small test part. So there are two further figures:

- ``ece_by_chance``: the ECE that a perfectly calibrated model with the same probabilities would show (mean and 95 %
  range of a parametric bootstrap: outcomes drawn from the probabilities, the same groups);
- ``ece_debiased`` = sqrt(max(0, ece² − ece_by_chance²)): sampling noise and miscalibration add as squares, as in the
  debiased estimator of the squared error (Kumar, Liang, Ma, NeurIPS 2019). Subtracting without squares would hide
  large errors, because noise adds little to a large error.

A finding is withheld if any part shows an error above 0.05: if the lower end of the 95 % interval by person, less
chance (:func:`proven_error`), is above it. In simulations (normally distributed logits, 40 cohorts each) the rule
offers all perfectly calibrated findings with 109, 200 and 624 cases; with a true error of 0.08 it offers all, all and
97 %; with 0.16 it offers 72 %, 40 % and none. So a small test part refuses little and proves little, and the card gives
the plain error, the part that chance explains and the number of cases for every finding. With 109 cases, a rule on the
point estimate would refuse a third of perfectly calibrated findings, and a rule on the plain ECE 98 % of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_specs.bundle import Estimate, Evaluation
from training.figures.evaluate import Floats, expected_calibration_error, group_starts

ECE_LIMIT = 0.05
ECE_GROUPS = 10


def ece_by_chance(p: Floats, *, draws: int = 1000, seed: int = 1) -> Floats:
    """``(draws,)`` expected calibration errors of outcomes drawn from ``p`` itself, ``(n,)``."""
    rng = np.random.default_rng(seed)
    # The groups of expected_calibration_error depend on p alone: one sort serves all draws.
    p = np.sort(p)
    starts = group_starts(len(p), ECE_GROUPS)
    expected = np.add.reduceat(p, starts)
    at_once = max(1, 1_000_000 // len(p))
    errors = []
    for begin in range(0, draws, at_once):
        y = (rng.random((min(at_once, draws - begin), len(p))) < p).astype(np.float64)
        errors.append(np.abs(np.add.reduceat(y, starts, axis=1) - expected).sum(axis=1) / len(p))
    return np.concatenate(errors)


def calibration_figures(y: Floats, p: Floats, *, cohort: str) -> tuple[Evaluation, ...]:
    """``ece_by_chance`` and ``ece_debiased`` of one part, in addition to the plain ``ece``.

    ``p`` is ``(n,)``, or ``(n, n_repeats)`` of a repeated cross-validation: figures are then those of the mean ECE.
    The interval of ``ece_debiased`` reaches from 0 to the 97.5 % point of a calibrated model: a value inside it is no
    evidence of miscalibration.
    """
    known = ~np.isnan(y)
    y, p = y[known], (p if p.ndim == 2 else p[:, None])[known]
    ece = float(np.mean([expected_calibration_error(y, repeat) for repeat in p.T]))
    chance = ece_by_chance(p[:, 0])
    mean, low, high = float(chance.mean()), *np.percentile(chance, [2.5, 97.5])
    counts = {"n": len(y), "n_positive": int(y.sum())}
    rows = {
        "ece_by_chance": (mean, float(low), float(high)),
        "ece_debiased": (_beyond(ece, mean), 0.0, _beyond(float(high), mean)),
    }
    return tuple(
        Evaluation(
            cohort=cohort,
            metric=metric,
            estimate=Estimate(value=round(value, 4), low=round(low, 4), high=round(high, 4), **counts),
        )
        for metric, (value, low, high) in rows.items()
    )


def _beyond(ece: float, chance: float) -> float:
    return float(np.sqrt(max(0.0, ece**2 - chance**2)))


@dataclass(frozen=True)
class Verdict:
    """Whether a finding may be offered, and the reason; true if it may."""

    offered: bool
    reason: str

    def __bool__(self) -> bool:
        return self.offered


def judge_calibration(evaluation: tuple[Evaluation, ...], *, limit: float = ECE_LIMIT) -> Verdict:
    """A finding may be offered unless one of the parts it was evaluated on shows a calibration error above ``limit``.

    The error is :func:`proven_error` if ``ece_by_chance`` was computed (:func:`calibration_figures`), else the plain
    ``ece``. Without either the finding is not offered.
    """
    parts = {(e.cohort, e.metric): e.estimate for e in evaluation if e.subgroup == "all"}
    cohorts = dict.fromkeys(cohort for cohort, metric in parts if metric == "ece")
    if not cohorts:
        return Verdict(False, "no calibration error was measured")
    reasons = []
    offered = True
    for cohort in cohorts:
        plain, chance = parts[cohort, "ece"], parts.get((cohort, "ece_by_chance"))
        least = proven_error(plain, chance) if chance else plain.value
        offered &= least <= limit
        by_chance = f", of which chance explains {chance.value:.3f} with {chance.n} cases" if chance else ""
        shown = f"; shown to be at least {least:.3f}" if chance else ""
        reasons.append(f"{cohort}: ECE {plain.value:.3f}{by_chance}{shown}, limit {limit:g}")
    return Verdict(offered, "; ".join(reasons))


def proven_error(ece: Estimate, chance: Estimate) -> float:
    """Lower end of the 95 % interval of the calibration error, less chance.

    A bootstrap draw of the plain error contains chance twice, from the cases and from drawing among them, so chance is
    subtracted twice, as squares.
    """
    return float(np.sqrt(max(0.0, ece.low**2 - 2 * chance.value**2)))
