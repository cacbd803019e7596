"""Which calibration a finding gets: Platt scaling or isotonic regression.

Platt scaling has two constants (temperature scaling is the special case without intercept); isotonic regression has a
step for each change in the cases. The one with the lower log loss on left-out persons is taken. Isotonic regression has
to be better by more than one standard error of the difference over persons, because it overfits a few hundred cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import StratifiedKFold

from data_specs.bundle import Calibration
from inference.findings import calibrated
from training.figures.evaluate import Floats, fit_platt, prevalence_among

Fit = Callable[[Floats, Floats], Calibration]

FOLDS, REPEATS = 5, 5


@dataclass(frozen=True)
class ChosenCalibration:
    """The chosen calibration, fitted to all cases, and the reason: mean log loss of left-out persons, by kind."""

    calibration: Calibration
    log_loss: dict[str, float]
    standard_error: float

    def __str__(self) -> str:
        platt, isotonic = self.log_loss["platt"], self.log_loss["isotonic"]
        return (
            f"{self.calibration.kind} (log loss of left-out persons: platt {platt:.4f}, isotonic {isotonic:.4f}, "
            f"standard error of the difference {self.standard_error:.4f})"
        )


def fit_isotonic(y: Floats, logits: Floats) -> Calibration:
    """Isotonic regression (Zadrozny and Elkan, KDD 2002), between Platt's smoothed targets.

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


def move_prevalence(p: Floats, prevalence: float, to: float) -> Floats:
    """Probabilities for another prevalence: their odds times the ratio of the prior odds.

    Correct if only the frequency of the finding differs, and not how it looks (Saerens, Latinne, Decaestecker,
    Neural Computation 2002;14:21, equation 2.4).
    """
    return np.asarray(expit(logit(p) + logit(to) - logit(prevalence)))


def at_prevalence(calibration: Calibration, prevalence: float) -> Calibration:
    """The calibration with its probabilities changed to ``prevalence`` by :func:`move_prevalence`.

    Exact for Platt scaling. For isotonic regression it is exact at the knots, and linear between them as before.

    Raises
    ------
    ValueError
        The calibration has no prevalence, or the new one is not between 0 and 1.
    """
    if calibration.prevalence is None or not 0 < prevalence < 1:
        raise ValueError(f"a calibration for a prevalence of {calibration.prevalence} cannot be moved to {prevalence}")
    if calibration.kind == "platt":
        shift = float(logit(prevalence) - logit(calibration.prevalence))
        new = {"intercept": calibration.intercept + shift}
    else:
        logits, probabilities = np.transpose(calibration.knots)
        knots = zip(
            logits.tolist(), move_prevalence(probabilities, calibration.prevalence, prevalence).tolist(), strict=True
        )
        new = {"knots": tuple(knots)}
    return calibration.model_copy(update={**new, "prevalence": prevalence})


def choose_calibration(
    y: Floats, logits: Floats, person: NDArray[np.str_], *, repeats: int = REPEATS, seed: int = 1
) -> ChosenCalibration:
    """Platt or isotonic, by log loss over left-out persons; see the module's docstring.

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
        Fewer than two persons in a class, so that none can be left out.
    """
    known = ~np.isnan(y)
    y, logits, person = y[known], logits[known], person[known]
    loss = {
        name: _log_loss(y, cross_fitted(y, logits, person, fit, repeats=repeats, seed=seed))
        for name, fit in (("platt", fit_platt), ("isotonic", fit_isotonic))
    }
    _, index = np.unique(person, return_inverse=True)
    # Cases of one person are not independent, so the error is that of sums by person (clusters).
    gain = np.bincount(index, loss["platt"] - loss["isotonic"])
    error = float(np.sqrt(len(gain) * gain.var(ddof=1)) / len(y))
    better = gain.sum() / len(y) > error
    chosen = fit_isotonic(y, logits) if better else fit_platt(y, logits)
    return ChosenCalibration(chosen, {name: float(values.mean()) for name, values in loss.items()}, error)


def cross_fitted(
    y: Floats, logits: Floats, person: NDArray[np.str_], fit: Fit, *, repeats: int = REPEATS, seed: int = 1
) -> Floats:
    """Probability of each case by calibrations that were fitted without its person, ``(n, repeats)``."""
    p = np.zeros((len(y), repeats))
    for repeat, train, left_out in folds(y, person, repeats=repeats, seed=seed):
        p[left_out, repeat] = calibrated(logits[left_out], fit(y[train], logits[train]))
    return p


def folds(
    y: Floats, person: NDArray[np.str_], *, repeats: int = REPEATS, seed: int = 1
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
    """``(repeat, rows to fit, rows left out)``: all cases of a person in one fold, the rarer class spread evenly.

    Raises
    ------
    ValueError
        Fewer than two persons in a class.
    """
    persons, index = np.unique(person, return_inverse=True)
    with_class = [np.bincount(index[y == outcome], minlength=len(persons)) > 0 for outcome in (0, 1)]
    rarer = min(with_class, key=np.count_nonzero)
    if rarer.sum() < 2:
        raise ValueError("a class has fewer than two persons, so none can be left out")
    n_folds = min(FOLDS, int(rarer.sum()))
    # Persons with the rarer class are spread evenly, unless nearly all persons have it.
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
