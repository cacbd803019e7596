"""From the logits of one column to a finding that is offered, or to the reason why it is withheld.

Validation decides whether the network tells positives from negatives, how a logit becomes a probability, and where the
operating points are. The test part is evaluated once, and a finding is withheld if its calibration fails there.

**Perturbed cases.** A calibration on cases of the training hospital is too confident: films of another scanner give
less extreme logits. If the caller gives the logits of perturbed validation cases, calibration and thresholds are fitted
to both (Tomani et al., Post-hoc Uncertainty Calibration for Domain Drift Scenarios, CVPR 2021). The sensitivity and
specificity of an operating point are still those of the unchanged cases.

**Prevalence.** A probability assumes a prevalence: the one that the cohort states, else the share of positives among
its train and validation cases, because validation alone is a small sample. All figures are computed from the
probabilities as they are offered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import Evaluation, FindingSpec, Withheld
from data_specs.visit.contract import OperatingPoint
from inference.findings import UNCALIBRATED, calibrated
from training.cohorts.cohort import MIN_CASES, Cohort, subgroup_members
from training.figures.calibrate import FOLDS, at_prevalence, choose_calibration
from training.figures.calibration_error import calibration_figures, judge_calibration
from training.figures.evaluate import (
    Floats,
    Metric,
    bootstrap,
    evaluate,
    operating_points,
    sensitivity_at,
    specificity_at,
)
from training.figures.evaluate import auroc as auroc_of
from training.figures.roc import roc_points, rocs_by_group
from training.figures.undecided import undecided_figures, undecided_ranges

DECIDES_AT = "screening"
"""Operating point that decides: who screens asks that few are missed, and what is asked is asked there."""


@dataclass(frozen=True)
class Rule:
    """The rule by which one label of one cohort is offered.

    Parameters
    ----------
    negative
        Whether the finding is the absence of disease (``normal_ecg``). ``screening`` and ``rule_in`` then change
        places, because 'normal' may only be reported above the threshold that 95 % of the diseased stay below.
    min_auroc
        The lower bound of its AUROC on validation has to be above this.
    """

    negative: bool = False
    min_auroc: float = 0.65


@dataclass(frozen=True)
class Offered:
    """A finding, and the cases that its plot is drawn from.

    Parameters
    ----------
    parts
        Outcomes and probabilities, ``(n,)`` each, by part (``validation``, ``test``).
    chosen
        Which calibration was chosen, and why.
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
    """Calibrate, choose thresholds, evaluate once on test, and decide whether the finding is offered.

    Parameters
    ----------
    column
        Column of the graph's first output that ``logits`` comes from.
    logits
        ``(n,)``, a row for each case of the cohort; train cases are not read.
    perturbed
        ``(n_validation, k)``, logits of ``k`` perturbed versions of each validation case, in the same order.
    draws
        Number of draws of each bootstrap.

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
    _check_finite(y, logits, np.concatenate(list(rows.values())))
    names = {part: cohort.part_title(part) for part in rows}
    called = cohort.title or cohort.name
    if few := _too_few(y, cohort.person, rows):
        return Withheld(name=label, cohort=called, reason=few)
    v, t = rows["validation"], rows["test"]
    auroc = bootstrap(auroc_of, y[v], logits[v], cohort.person[v], draws=draws)
    if not auroc.low > rule.min_auroc:
        measured = (
            f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}) on {len(v)} validation cases, "
            f"{int(y[v].sum())} of them positive"
        )
        if auroc.high <= rule.min_auroc:
            reason = f"it does not tell them apart: {measured}; asked: above {rule.min_auroc:g}"
        else:
            reason = f"too few to say: {measured}; asked: the whole interval above {rule.min_auroc:g}"
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
        points = _swap_screening_and_rule_in(points)
    threshold = next(point.threshold for point in points if point.name == DECIDES_AT)
    undecided = undecided_ranges(y[v], p[v], cohort.subgroups.iloc[v], threshold)

    spec = FindingSpec(
        name=label,
        column=column,
        age_years=cohort.age_years,
        calibration=calibration,
        decides_at=DECIDES_AT,
        operating_points=points,
        evaluation=(
            *evaluate(
                y[t],
                p[t],
                cohort.person[t],
                cohort=names["test"],
                points=points,
                subgroups=subgroup_members(cohort.subgroups, t),
                decides_at=DECIDES_AT,
                draws=draws,
            ),
            *undecided_figures(undecided, y[t], p[t], cohort.subgroups.iloc[t], threshold, names["test"]),
            *calibration_figures(y[t], p[t], cohort=names["test"]),
            Evaluation(cohort=names["validation"], metric="auroc", estimate=auroc),
        ),
        roc=roc_points(y[v], p[v], points),
        roc_by_group=rocs_by_group(y[v], p[v], subgroup_members(cohort.subgroups, v), points),
        undecided=undecided,
    )
    verdict = judge_calibration(spec.evaluation)
    if not verdict:
        reason = f"its calibration error is too large: {verdict.reason}"
        return Withheld(name=label, cohort=called, reason=reason)
    return Offered(spec, {"validation": (y[v], p[v]), "test": (y[t], p[t])}, str(choice))


def _share(y: Floats, cohort: Cohort) -> float:
    """Share of positives among the train and validation cases."""
    return float(np.nanmean(y[np.concatenate([cohort.rows("train"), cohort.rows("validation")])]))


def _check_finite(y: Floats, logits: Floats, rows: NDArray[np.intp]) -> None:
    if logits.shape != y.shape:
        raise ValueError(f"logits are {logits.shape}, labels {y.shape}")
    if not np.isfinite(logits[rows]).all():
        raise ValueError("a logit of a labelled case is not finite")


def _too_few(y: Floats, person: NDArray[np.str_], rows: dict[str, NDArray[np.intp]]) -> str:
    """The counts if a part has too few cases of a class; '' if all have enough."""
    fewest = {"validation": FOLDS, "test": MIN_CASES}
    classes = [(r[y[r] == outcome], fewest[part]) for part, r in rows.items() for outcome in (0, 1)]
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


def _measured(point: OperatingPoint, y: Floats, p: Floats) -> OperatingPoint:
    """The point with its sensitivity and specificity on these cases."""
    sensitivity, specificity = (p[y == 1] >= point.threshold).mean(), (p[y == 0] < point.threshold).mean()
    return point.model_copy(
        update={"sensitivity": round(float(sensitivity), 3), "specificity": round(float(specificity), 3)}
    )


def _swap_screening_and_rule_in(points: tuple[OperatingPoint, ...]) -> tuple[OperatingPoint, ...]:
    by_name = {point.name: point for point in points}
    return (
        by_name["rule_in"].model_copy(update={"name": "screening"}),
        by_name["balanced"],
        by_name["screening"].model_copy(update={"name": "rule_in"}),
    )


def figures_elsewhere(
    spec: FindingSpec, y: Floats, logits: Floats, person: NDArray[np.str_], cohort: str
) -> list[Evaluation]:
    """Figures of an offered finding, at its own thresholds, on cases of another site; they decide nothing.

    Sensitivity needs positives, specificity negatives, AUROC both; figures without enough cases are left out.
    """
    known = ~np.isnan(y)
    y, p, person = y[known], calibrated(logits[known], spec.calibration or UNCALIBRATED), person[known]
    wanted: dict[str, tuple[Metric, tuple[int, ...]]] = {"auroc": (auroc_of, (0, 1))}
    for point in spec.operating_points:
        wanted[f"sensitivity@{point.name}"] = (sensitivity_at(point.threshold), (1,))
        wanted[f"specificity@{point.name}"] = (specificity_at(point.threshold), (0,))
    enough = {outcome for outcome in (0, 1) if (y == outcome).sum() >= MIN_CASES}
    return [
        Evaluation(cohort=cohort, metric=name, estimate=bootstrap(metric, y, p, person, classes=classes))
        for name, (metric, classes) in wanted.items()
        if enough.issuperset(classes)
    ]
