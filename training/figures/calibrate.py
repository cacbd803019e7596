"""Which calibration a finding gets, the ROC it carries for planning, and whether its probabilities may be offered.

**Choice.** Platt scaling (two constants; temperature scaling is its case without intercept) or isotonic regression (a
step for every change that the cases show), by log loss on persons left out. Isotonic has to be better by more than one
standard error of the difference over persons: on a few hundred cases it fits noise.

**ECE.** The reported figure is the plain expected calibration error over ten equal groups. It cannot be 0: with 11
cases in a group, the observed frequency of a perfectly calibrated model lies about 0.1 from the predicted one, so that
a limit of 0.05 on it would refuse every finding with a small test part and say nothing about the finding. Two further
figures stand beside it:

- ``ece_by_chance``: what a perfectly calibrated model with these very probabilities would show (mean and 95 % range of
  a parametric bootstrap: outcomes drawn from the probabilities, the same groups);
- ``ece_debiased`` = sqrt(max(0, ece² − ece_by_chance²)): sampling noise and miscalibration add as squares, as in the
  debiased estimator of the squared error (Kumar, Liang, Ma, NeurIPS 2019). Taking the mean away without squares would
  excuse large errors: where probabilities are really off, noise hardly adds to their distance.

A finding is withheld where a part shows that its error is above 0.05: where the lower end of the 95 % interval by
person, chance taken off (:func:`at_least`), lies above it. Simulated (logits of a normal distribution, 40 cohorts
each): of perfectly calibrated findings the rule offers all, at 109, 200 and 624 cases; of those with a true error of
0.08, all, all and 97 %; of those with 0.16, 72 %, 40 % and none. So a small test part refuses little and proves
little: the card gives the plain error, what chance explains of it and the number of cases for every finding. A rule on
the point estimate would refuse a third of perfectly calibrated findings at 109 cases, the plain figure 98 % of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedKFold

from data_specs.bundle import Calibration, Estimate, Evaluation, RocPoint
from data_specs.visit.contract import OperatingPoint
from training.figures.evaluate import calibrated, expected_calibration_error, fit_platt, prevalence_among

Floats = NDArray[np.float64]
Fit = Callable[[Floats, Floats], Calibration]

ECE_LIMIT = 0.05
ECE_GROUPS = 10
MAX_ROC_POINTS = 60
FOLDS, REPEATS = 5, 5


@dataclass(frozen=True)
class Choice:
    """The calibration taken, fitted to all cases, and why: mean log loss of persons left out, by kind."""

    calibration: Calibration
    log_loss: dict[str, float]
    standard_error: float

    def __str__(self) -> str:
        platt, isotonic = self.log_loss["platt"], self.log_loss["isotonic"]
        return (
            f"{self.calibration.kind} (log loss of persons left out: platt {platt:.4f}, isotonic {isotonic:.4f}, "
            f"standard error of the difference {self.standard_error:.4f})"
        )


def fit_isotonic(y: Floats, logits: Floats) -> Calibration:
    """Isotonic regression (Zadrozny and Elkan, KDD 2002), kept off 0 and 1 as Platt's smoothed targets are.

    Raises
    ------
    ValueError
        Fewer than two different logits.
    """
    known = ~np.isnan(y)
    y, z = y[known], logits[known].astype(np.float64)
    low, high = 1 / ((1 - y).sum() + 2), (y.sum() + 1) / (y.sum() + 2)
    fit = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(z, y)
    knots = zip(fit.X_thresholds_.tolist(), fit.y_thresholds_.tolist(), strict=True)
    return Calibration(kind="isotonic", knots=tuple(knots), prevalence=prevalence_among(y))


def moved(p: Floats, prevalence: float, to: float) -> Floats:
    """Probabilities that presume one prevalence, at another: the odds of each times the ratio of the prior odds.

    Right where the finding looks alike at both and is only more or less frequent (Saerens, Latinne, Decaestecker,
    Neural Computation 2002;14:21, equation 2.4).
    """
    return np.asarray(expit(logit(p) + logit(to) - logit(prevalence)))


def at_prevalence(calibration: Calibration, prevalence: float) -> Calibration:
    """The calibration with its probabilities :func:`moved` to ``prevalence``.

    Exact for Platt scaling. Of isotonic regression the knots move, which is exact at every case it was fitted to;
    between two knots it stays linear, as before.

    Raises
    ------
    ValueError
        It does not say which prevalence it presumes, or the new one is not between 0 and 1.
    """
    if calibration.prevalence is None or not 0 < prevalence < 1:
        raise ValueError(f"a calibration for a prevalence of {calibration.prevalence} cannot be moved to {prevalence}")
    if calibration.kind == "platt":
        shift = float(logit(prevalence) - logit(calibration.prevalence))
        new = {"intercept": calibration.intercept + shift}
    else:
        logits, probabilities = np.transpose(calibration.knots)
        knots = zip(logits.tolist(), moved(probabilities, calibration.prevalence, prevalence).tolist(), strict=True)
        new = {"knots": tuple(knots)}
    return calibration.model_copy(update={**new, "prevalence": prevalence})


def choose_calibration(
    y: Floats, logits: Floats, person: NDArray[np.str_], *, repeats: int = REPEATS, seed: int = 1
) -> Choice:
    """Platt or isotonic, by log loss over persons left out; see the module's docstring.

    Parameters
    ----------
    y
        ``(n,)`` 0, 1 or NaN (unknown: left out).
    logits
        ``(n,)``
    person
        ``(n,)``; cases of one person are never on both sides.

    Raises
    ------
    ValueError
        Fewer than two persons in a class: there is nobody to leave out.
    """
    known = ~np.isnan(y)
    y, logits, person = y[known], logits[known], person[known]
    loss = {
        name: _log_loss(y, cross_fitted(y, logits, person, fit, repeats=repeats, seed=seed))
        for name, fit in (("platt", fit_platt), ("isotonic", fit_isotonic))
    }
    _, index = np.unique(person, return_inverse=True)
    # A person's cases stand or fall together: sums by person, as clusters.
    gain = np.bincount(index, loss["platt"] - loss["isotonic"])
    error = float(np.sqrt(len(gain) * gain.var(ddof=1)) / len(y))
    better = gain.sum() / len(y) > error
    chosen = fit_isotonic(y, logits) if better else fit_platt(y, logits)
    return Choice(chosen, {name: float(values.mean()) for name, values in loss.items()}, error)


def cross_fitted(
    y: Floats, logits: Floats, person: NDArray[np.str_], fit: Fit, *, repeats: int = REPEATS, seed: int = 1
) -> Floats:
    """Each case's probability by calibrations that have not seen its person, ``(n, repeats)``."""
    p = np.zeros((len(y), repeats))
    for repeat, train, left_out in folds(y, person, repeats=repeats, seed=seed):
        p[left_out, repeat] = calibrated(logits[left_out], fit(y[train], logits[train]))
    return p


def folds(
    y: Floats, person: NDArray[np.str_], *, repeats: int = REPEATS, seed: int = 1
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
    """``(repeat, rows to fit, rows left out)``: persons whole, the rarer class spread evenly.

    Raises
    ------
    ValueError
        Fewer than two persons in a class.
    """
    persons, index = np.unique(person, return_inverse=True)
    having = [np.bincount(index[y == each], minlength=len(persons)) > 0 for each in (0, 1)]
    rarer = min(having, key=np.count_nonzero)
    if rarer.sum() < 2:
        raise ValueError("a class has fewer than two persons: nobody can be left out")
    n_folds = min(FOLDS, int(rarer.sum()))
    # Those who have the rarer class are spread evenly; where nearly everyone has it, there is nothing to spread.
    spread = rarer if (~rarer).sum() >= n_folds else np.zeros_like(rarer)
    for repeat in range(repeats):
        split = StratifiedKFold(n_folds, shuffle=True, random_state=seed + repeat)
        for _, out in split.split(persons, spread):
            is_out = np.isin(index, out)
            yield repeat, np.flatnonzero(~is_out), np.flatnonzero(is_out)


def _log_loss(y: Floats, p: Floats) -> Floats:
    """``(n,)`` mean over the repeats."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-np.where(y[:, None] == 1, np.log(p), np.log1p(-p)).mean(axis=1))


def ece_by_chance(p: Floats, *, draws: int = 1000, seed: int = 1) -> Floats:
    """``(draws,)`` expected calibration errors of outcomes drawn from ``p`` itself, ``(n,)``."""
    rng = np.random.default_rng(seed)
    # The groups of expected_calibration_error depend on p alone: one sort serves all draws.
    p = np.sort(p)
    starts = np.cumsum([0, *(len(g) for g in np.array_split(p, ECE_GROUPS) if len(g))])[:-1]
    expected = np.add.reduceat(p, starts)
    at_once = max(1, 1_000_000 // len(p))
    errors = []
    for begin in range(0, draws, at_once):
        y = (rng.random((min(at_once, draws - begin), len(p))) < p).astype(np.float64)
        errors.append(np.abs(np.add.reduceat(y, starts, axis=1) - expected).sum(axis=1) / len(p))
    return np.concatenate(errors)


def calibration_figures(y: Floats, p: Floats, *, cohort: str) -> tuple[Evaluation, ...]:
    """``ece_by_chance`` and ``ece_debiased`` of one part, to stand beside the plain ``ece``.

    ``p`` is ``(n,)``, or ``(n, n_repeats)`` of a repeated cross-validation: figures are then those of the mean ECE.
    The interval of ``ece_debiased`` is what a calibrated model shows by chance at most (0 to its 97.5 % point, by
    the same rule): a value inside it is no evidence of miscalibration.
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
    """Whether a finding may be offered, and the sentence that says why; true where it may."""

    offered: bool
    reason: str

    def __bool__(self) -> bool:
        return self.offered


def holds(evaluation: tuple[Evaluation, ...], *, limit: float = ECE_LIMIT) -> Verdict:
    """Whether any part that a finding was evaluated on shows that its probabilities are further off than ``limit``.

    Decided by :func:`at_least` where chance was computed (:func:`calibration_figures`), by the plain ``ece`` where it
    was not. A finding without either has no figure to be offered with.
    """
    parts = {(e.cohort, e.metric): e.estimate for e in evaluation if e.subgroup == "all"}
    cohorts = dict.fromkeys(cohort for cohort, metric in parts if metric == "ece")
    if not cohorts:
        return Verdict(False, "no calibration error was measured")
    said = []
    offered = True
    for cohort in cohorts:
        plain, chance = parts[cohort, "ece"], parts.get((cohort, "ece_by_chance"))
        least = at_least(plain, chance) if chance else plain.value
        offered &= least <= limit
        by_chance = f", of which chance explains {chance.value:.3f} with {chance.n} cases" if chance else ""
        shown = f"; shown to be at least {least:.3f}" if chance else ""
        said.append(f"{cohort}: ECE {plain.value:.3f}{by_chance}{shown}, limit {limit:g}")
    return Verdict(offered, "; ".join(said))


def at_least(ece: Estimate, chance: Estimate) -> float:
    """Lower end of the 95 % interval of the calibration error, chance taken off.

    A bootstrap draw of the plain error holds chance twice, that of the cases and that of drawing from them, so it is
    taken off twice, in squares.
    """
    return float(np.sqrt(max(0.0, ece.low**2 - 2 * chance.value**2)))


def roc_points(
    y: Floats, p: Floats, points: tuple[OperatingPoint, ...] = (), *, at_most: int = MAX_ROC_POINTS
) -> tuple[RocPoint, ...]:
    """Thresholds with the validation cases on either side: those of ``points``, and others evenly along the ROC.

    The first calls everyone positive, the last no one. Thresholds lie half-way between neighbouring probabilities, so
    that none sits on a case. At most ``at_most`` of them.

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
    thresholds = np.unique([*own, *candidates[np.clip(spread, 0, len(candidates) - 1)]])
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
