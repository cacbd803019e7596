"""From the logits of one column to a finding that is offered, or to the reason why it is not.

Validation decides everything: whether the network tells the cases apart, how a logit becomes a probability, where the
operating points lie. The test part is looked at once, and its calibration has the last word.

**Elsewhere.** Validation cases of the training hospital flatter a calibration: taken on another scanner, the same films
give less extreme logits. Where the caller gives the logits of the validation cases as another clinic might have taken
them, calibration and thresholds come from both (Tomani et al., Post-hoc Uncertainty Calibration for Domain Drift
Scenarios, CVPR 2021). What is said beside a threshold is still that of the cases as taken.

**Prevalence.** A probability presumes how frequent the finding is: as frequent as among all cases that do not test, for
validation alone is a small sample of them, or as the cohort states. All figures are of the probabilities as offered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_specs.bundle import Calibration, Evaluation, FindingSpec, Withheld
from data_specs.visit.contract import OperatingPoint
from training.cohorts.cohort import MIN_CASES, Cohort
from training.figures.calibrate import FOLDS, at_prevalence, calibration_figures, choose_calibration, holds, roc_points
from training.figures.evaluate import (
    Metric,
    bootstrap,
    calibrated,
    evaluate,
    operating_points,
    sensitivity_at,
    specificity_at,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How one label of one cohort may be offered.

    Parameters
    ----------
    decides_at
        Operating point at which it is called positive.
    negative
        The term names the absence of disease (``normal_ecg``). Screening must not miss the diseased: 'normal' is said
        only where 95 % of them lie below, and suspicion is high only where 95 % of the normal ones lie above. So
        ``screening`` and ``rule_in`` change places.
    holds_from
        It is offered where the lower bound of its AUROC on validation lies above this.
    """

    decides_at: str = "balanced"
    negative: bool = False
    holds_from: float = 0.65


@dataclass(frozen=True)
class Offered:
    """A finding, and what its plot is drawn from.

    Parameters
    ----------
    parts
        ``validation`` and ``test``: outcomes and probabilities, ``(n,)`` each.
    chosen
        Which calibration was taken, and why.
    """

    spec: FindingSpec
    parts: dict[str, tuple[Floats, Floats]]
    chosen: str


def offer(
    cohort: Cohort,
    label: str,
    column: int,
    logits: Floats,
    rule: Rule,
    *,
    perturbed: Floats | None = None,
    draws: int = 1000,
) -> Offered | Withheld:
    """Calibrate, choose thresholds, evaluate once on test, decide.

    Parameters
    ----------
    column
        Of the graph's first output, which ``logits`` is.
    logits
        ``(n,)``, a row for each case of the cohort; those of train cases are not read.
    perturbed
        ``(n_validation, k)``, logits of the validation cases, in their order, as they might have been taken elsewhere.
    draws
        Of each bootstrap.

    Raises
    ------
    ValueError
        An array does not fit the cohort, or a logit is not finite.
    """
    y = cohort.labels[label].to_numpy(dtype=np.float64)
    rows = {part: cohort.rows(part)[~np.isnan(y[cohort.rows(part)])] for part in ("validation", "test")}
    if perturbed is not None:
        if perturbed.ndim != 2 or len(perturbed) != len(cohort.rows("validation")):
            raise ValueError(f"perturbed is {perturbed.shape}, of {len(cohort.rows('validation'))} validation cases")
        perturbed = perturbed[~np.isnan(y[cohort.rows("validation")])]
    _all_finite(y, logits, np.concatenate(list(rows.values())))
    names = {part: cohort.called(part) for part in rows}
    called = cohort.title or cohort.name
    if few := _too_few(y, cohort.person, rows):
        return Withheld(name=label, cohort=called, reason=few)
    v, t = rows["validation"], rows["test"]
    auroc = bootstrap(_auroc, y[v], logits[v], cohort.person[v], draws=draws)
    if not auroc.low > rule.holds_from:
        reason = (
            f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}) on {len(v)} validation cases, "
            f"{int(y[v].sum())} of them positive; its lower bound must lie above {rule.holds_from:g}"
        )
        return Withheld(name=label, cohort=called, reason=reason)

    seen = logits[v, None] if perturbed is None else np.column_stack([logits[v], perturbed])
    seen_y, seen_person = np.repeat(y[v], seen.shape[1]), np.repeat(cohort.person[v], seen.shape[1])
    choice = choose_calibration(seen_y, seen.ravel(), seen_person)
    calibration = at_prevalence(choice.calibration, cohort.prevalence or _share(y, cohort))
    p = calibrated(logits, calibration)
    source = names["validation"] + (", as taken and perturbed" if perturbed is not None else "")
    points = operating_points(seen_y, calibrated(seen.ravel(), calibration), source)
    points = tuple(_measured(point, y[v], p[v]) for point in points)
    if rule.negative:
        points = _places_changed(points)

    spec = FindingSpec(
        name=label,
        column=column,
        age_years=cohort.age_years,
        calibration=calibration,
        decides_at=rule.decides_at,
        operating_points=points,
        evaluation=(
            *evaluate(
                y[t],
                p[t],
                cohort.person[t],
                cohort=names["test"],
                points=points,
                subgroups=_groups(cohort.subgroups, t),
                decides_at=rule.decides_at,
                draws=draws,
            ),
            *calibration_figures(y[t], p[t], cohort=names["test"]),
            Evaluation(cohort=names["validation"], metric="auroc", estimate=auroc),
        ),
        roc=roc_points(y[v], p[v], points),
    )
    verdict = holds(spec.evaluation)
    if not verdict:
        reason = f"its probabilities are not true enough: {verdict.reason}"
        return Withheld(name=label, cohort=called, reason=reason)
    return Offered(spec, {"validation": (y[v], p[v]), "test": (y[t], p[t])}, str(choice))


def _share(y: Floats, cohort: Cohort) -> float:
    """Share of positives among all cases that do not test, which says more of it than the validation part alone."""
    return float(np.nanmean(y[np.concatenate([cohort.rows("train"), cohort.rows("validation")])]))


def _all_finite(y: Floats, logits: Floats, rows: NDArray[np.intp]) -> None:
    if logits.shape != y.shape:
        raise ValueError(f"logits are {logits.shape}, labels {y.shape}")
    if not np.isfinite(logits[rows]).all():
        raise ValueError("a logit of a labelled case is not finite")


def _too_few(y: Floats, person: NDArray[np.str_], rows: dict[str, NDArray[np.intp]]) -> str:
    """The counts, where a part has too few of a class to choose by (validation) or to evaluate on (test); else ''."""
    fewest = {"validation": FOLDS, "test": MIN_CASES}
    classes = [(r[y[r] == each], fewest[part]) for part, r in rows.items() for each in (0, 1)]
    if all(len(c) >= least and len(np.unique(person[c])) >= FOLDS for c, least in classes):
        return ""
    counts = "; ".join(
        f"{part} {int(y[r].sum())} with and {int((1 - y[r]).sum())} without it, "
        f"of {len(np.unique(person[r[y[r] == 1]]))} and {len(np.unique(person[r[y[r] == 0]]))} persons"
        for part, r in rows.items()
    )
    return (
        f"too few to say: {counts}; {FOLDS} persons of each are needed to choose by, {MIN_CASES} cases to evaluate on"
    )


def _auroc(y: Floats, p: Floats) -> float:
    return float(roc_auc_score(y, p))


def _measured(point: OperatingPoint, y: Floats, p: Floats) -> OperatingPoint:
    """The point with its sensitivity and specificity on these cases."""
    sensitivity, specificity = (p[y == 1] >= point.threshold).mean(), (p[y == 0] < point.threshold).mean()
    return point.model_copy(
        update={"sensitivity": round(float(sensitivity), 3), "specificity": round(float(specificity), 3)}
    )


def _places_changed(points: tuple[OperatingPoint, ...]) -> tuple[OperatingPoint, ...]:
    by_name = {point.name: point for point in points}
    return (
        by_name["rule_in"].model_copy(update={"name": "screening"}),
        by_name["balanced"],
        by_name["screening"].model_copy(update={"name": "rule_in"}),
    )


def _groups(subgroups: pd.DataFrame, rows: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
    """Members among ``rows`` of each value of each column, as ``sex F``; who is unknown is in none."""
    return {
        f"{column} {value}": (values.notna() & (values.astype(str) == str(value))).to_numpy()[rows]
        for column, values in subgroups.items()
        for value in sorted(values.dropna().unique())
    }


def elsewhere(spec: FindingSpec, y: Floats, logits: Floats, person: NDArray[np.str_], cohort: str) -> list[Evaluation]:
    """Figures of an offered finding, at its own thresholds, on cases of another place; they decide nothing.

    Sensitivity wants positives, specificity negatives, AUROC both: a collection of one class gives one of them.
    """
    known = ~np.isnan(y)
    y, p, person = y[known], calibrated(logits[known], spec.calibration or Calibration()), person[known]
    wanted: dict[str, tuple[Metric, tuple[int, ...]]] = {"auroc": (_auroc, (0, 1))}
    for point in spec.operating_points:
        wanted[f"sensitivity@{point.name}"] = (sensitivity_at(point.threshold), (1,))
        wanted[f"specificity@{point.name}"] = (specificity_at(point.threshold), (0,))
    enough = {each for each in (0, 1) if (y == each).sum() >= MIN_CASES}
    return [
        Evaluation(cohort=cohort, metric=name, estimate=bootstrap(metric, y, p, person, classes=classes))
        for name, (metric, classes) in wanted.items()
        if enough.issuperset(classes)
    ]
