"""Figures with intervals: discrimination, calibration and operating points, for all cases and for subgroups.

Every interval is a percentile bootstrap over persons (1,000 draws), because films of one person are not independent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss

from data_specs.bundle import Calibration, Estimate, Evaluation
from data_specs.visit.contract import OperatingPoint
from training.cohorts.cohort import MIN_CASES

NEWTON_STEPS, CONVERGED, ILL_CONDITIONED = 25, 1e-8, 1e10
Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats], float]


def fit_platt(y: Floats, logits: Floats) -> Calibration:
    """Platt scaling on validation cases (Platt, Advances in Large Margin Classifiers 1999, with smoothed targets)."""
    known = ~np.isnan(y)
    y, z = y[known], logits[known]
    n_positive, n_negative = y.sum(), (1 - y).sum()
    target = np.where(y == 1, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    # scikit-learn takes no smoothed targets, so each case is given twice: positive and negative, with weights.
    fit = LogisticRegression(C=np.inf, max_iter=1000).fit(
        np.concatenate([z, z])[:, None],
        np.concatenate([np.ones_like(z), np.zeros_like(z)]),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return Calibration(slope=float(fit.coef_[0, 0]), intercept=float(fit.intercept_[0]), prevalence=prevalence_among(y))


def prevalence_among(y: Floats) -> float | None:
    """Share of positives; ``None`` if a class is missing."""
    share = float(y.mean())
    return share if 0 < share < 1 else None


def operating_points(y: Floats, p: Floats, cohort: str) -> tuple[OperatingPoint, ...]:
    """Thresholds from validation cases: ``screening``, ``balanced`` and ``rule_in``.

    ``screening``: the highest threshold with a sensitivity of at least 0.95. ``balanced``: Youden's J.
    ``rule_in``: the lowest threshold with a specificity of at least 0.95. If a model is so good that
    ``screening`` would be above ``rule_in``, both are put at ``balanced``, where both conditions hold.
    """
    known = ~np.isnan(y)
    y, p = y[known], p[known]
    positive, negative = np.sort(p[y == 1]), np.sort(p[y == 0])
    # Half-way between neighbouring probabilities, so that no threshold equals the probability of a case.
    values = np.unique(p)
    candidates = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
    sensitivity = 1 - np.searchsorted(positive, candidates) / len(positive)
    specificity = np.searchsorted(negative, candidates) / len(negative)
    sensitive = np.flatnonzero(sensitivity >= 0.95)
    specific = np.flatnonzero(specificity >= 0.95)
    balanced = int(np.argmax(sensitivity + specificity))
    chosen = {
        "screening": min(int(sensitive[-1]), balanced),  # below all cases it is 1
        "balanced": balanced,
        "rule_in": max(int(specific[0]) if len(specific) else len(candidates) - 1, balanced),
    }
    return tuple(
        OperatingPoint(
            name=name,
            threshold=_threshold(candidates[i], values),
            sensitivity=round(float(sensitivity[i]), 3),
            specificity=round(float(specificity[i]), 3),
            cohort=cohort,
        )
        for name, i in chosen.items()
    )


def _threshold(exact: float, values: Floats) -> float:
    """``exact`` rounded to as few digits (at least six) as possible between the same two ``values``.

    ``exact`` itself where there is no number between them.
    """
    below = np.searchsorted(values, exact)
    rounded = (float(f"{exact:.{digits}g}") for digits in range(6, 18))
    between = (t for t in rounded if np.searchsorted(values, t) == np.searchsorted(values, t, "right") == below)
    return next(between, float(exact))


def expected_calibration_error(y: Floats, p: Floats, bins: int = 10) -> float:
    """Mean distance of observed from predicted frequency over ``bins`` equal groups (Naeini et al., AAAI 2015)."""
    order = np.argsort(p, kind="stable")
    return float(np.abs(np.add.reduceat((y - p)[order], group_starts(len(p), bins))).sum() / len(p))


def group_starts(n: int, bins: int) -> NDArray[np.intp]:
    """Where each of ``bins`` equal groups of ``n`` cases begins; fewer groups where there are fewer cases."""
    return np.cumsum([0, *(len(group) for group in np.array_split(np.arange(n), bins) if len(group))])[:-1]


def auroc(y: Floats, p: Floats) -> float:
    """Area under the ROC curve as Mann and Whitney's U, much faster than scikit-learn's, as a bootstrap needs it."""
    n_positive = int(y.sum())
    of_positives = rankdata(p)[y == 1].sum() - n_positive * (n_positive + 1) / 2
    return float(of_positives / (n_positive * (len(y) - n_positive)))


def calibration_slope(y: Floats, p: Floats) -> float:
    """Slope of a logistic regression of the outcome on the logit of the probability (Cox 1958); 1 is ideal.

    By Newton's method, a hundred times as fast as scikit-learn's, which fits what Newton's steps do not: cases that one
    threshold separates have no finite slope.
    """
    p = np.clip(p, 1e-6, 1 - 1e-6)
    z = np.log(p / (1 - p))
    x, beta = np.column_stack([np.ones_like(z), z]), np.zeros(2)
    for _ in range(NEWTON_STEPS):
        fitted = expit(x @ beta)
        curvature = (x * (fitted * (1 - fitted))[:, None]).T @ x
        if np.linalg.cond(curvature) > ILL_CONDITIONED:
            break
        step = np.linalg.solve(curvature, x.T @ (y - fitted))
        beta += step
        if np.abs(step).max() < CONVERGED:
            return float(beta[1])
    return float(LogisticRegression(C=np.inf, max_iter=1000).fit(z[:, None], y).coef_[0, 0])


def bootstrap(
    metric: Metric,
    y: Floats,
    p: Floats,
    person: NDArray[np.str_],
    *,
    draws: int = 1000,
    seed: int = 1,
    classes: tuple[int, ...] = (0, 1),
) -> Estimate:
    """``metric`` with its 95 % interval over persons; draws in which it is not defined are left out.

    ``y`` and ``p`` are ``(n,)``, or ``(n, n_labels)`` for a figure over several labels. ``classes``: the outcomes that
    a draw must hold for the metric to be defined.
    """
    rng = np.random.default_rng(seed)
    _, index = np.unique(person, return_inverse=True)
    rows_of = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    values = []
    for _ in range(draws):
        rows = np.concatenate([rows_of[i] for i in rng.integers(len(rows_of), size=len(rows_of))])
        if all((y[rows] == outcome).any(axis=0).all() for outcome in classes):
            values.append(metric(y[rows], p[rows]))
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(
        value=round(float(metric(y, p)), 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
        n=len(y),
        n_positive=int(y.sum()) if y.ndim == 1 else None,
    )


def evaluate(
    y: Floats,
    p: Floats,
    person: NDArray[np.str_],
    *,
    cohort: str,
    points: tuple[OperatingPoint, ...],
    subgroups: dict[str, NDArray[np.bool_]] | None = None,
    decides_at: str | None = None,
    draws: int = 1000,
) -> tuple[Evaluation, ...]:
    """All figures of one finding on one part, and for each subgroup AUROC, sensitivity and specificity.

    For every subgroup its ``prevalence`` is given with the counts; if no other figure is given for it, it had too few
    cases. Sensitivity needs enough positives, specificity enough negatives, AUROC both. Subgroups are evaluated at
    ``decides_at``, or at every operating point if that is ``None``; a later version is compared by these figures.
    ``p`` is ``(n,)``, or ``(n, n_repeats)`` of a repeated cross-validation: a figure is then the mean over the repeats.
    """
    p = p if p.ndim == 2 else p[:, None]
    known = ~np.isnan(y)
    metrics: dict[str, Metric] = {
        "auroc": auroc,
        "average_precision": lambda y, p: float(average_precision_score(y, p)),
        "brier": lambda y, p: float(brier_score_loss(y, p)),
        "calibration_slope": calibration_slope,
        "ece": expected_calibration_error,
    }
    for point in points:
        metrics[f"sensitivity@{point.name}"] = sensitivity_at(point.threshold)
        metrics[f"specificity@{point.name}"] = specificity_at(point.threshold)
    balanced = next((point.threshold for point in points if point.name == "balanced"), None)
    if balanced is not None:
        metrics["accuracy@balanced"] = _accuracy(balanced)
    metrics = {name: _mean_over_repeats(metric) for name, metric in metrics.items()}
    rows = np.flatnonzero(known)
    figures = [
        Evaluation(cohort=cohort, metric=name, estimate=bootstrap(metric, y[rows], p[rows], person[rows], draws=draws))
        for name, metric in metrics.items()
    ]
    deciding = [point.name for point in points if decides_at in (None, point.name)]
    shares = {f"sensitivity@{name}": (1,) for name in deciding} | {f"specificity@{name}": (0,) for name in deciding}
    for name, member in (subgroups or {}).items():
        rows = np.flatnonzero(known & member)
        if not len(rows):
            continue
        enough = {outcome for outcome in (0, 1) if (y[rows] == outcome).sum() >= MIN_CASES}
        for metric, classes in {"prevalence": (), "auroc": (0, 1), **shares}.items():
            if enough.issuperset(classes):
                figure = _prevalence if metric == "prevalence" else metrics[metric]
                estimate = bootstrap(figure, y[rows], p[rows], person[rows], classes=classes, draws=draws)
                figures.append(Evaluation(cohort=cohort, subgroup=name, metric=metric, estimate=estimate))
    return tuple(figures)


def _mean_over_repeats(metric: Metric) -> Metric:
    return lambda y, p: float(np.mean([metric(y, repeat) for repeat in p.T]))


def _prevalence(y: Floats, p: Floats) -> float:
    return float(y.mean())


def sensitivity_at(threshold: float) -> Metric:
    return lambda y, p: float((p[y == 1] >= threshold).mean())


def specificity_at(threshold: float) -> Metric:
    return lambda y, p: float((p[y == 0] < threshold).mean())


def _accuracy(threshold: float) -> Metric:
    return lambda y, p: float(((p >= threshold) == (y == 1)).mean())
