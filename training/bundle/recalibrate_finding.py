"""New calibration and operating points of one finding on labelled local cases.

All figures are cross-validated by person: for the persons of each fold, the kind of calibration, its constants and the
thresholds are fitted to the other persons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import Evaluation, FindingSpec
from inference.findings import calibrated
from training.bundle.local_cases import CannotRecalibrate, Cases
from training.cohorts.cohort import MIN_CASES, subgroup_members
from training.figures.calibrate import choose_calibration, folds
from training.figures.calibration_error import calibration_figures
from training.figures.evaluate import auroc as auroc_of
from training.figures.evaluate import bootstrap, evaluate, operating_points
from training.figures.roc import roc_points, rocs_by_group
from training.figures.triage import SITE_RULE, TRIAGE_RULE, TriageRule
from training.figures.undecided import undecided_ranges
from training.figures.use import for_use

Floats = NDArray[np.float64]

FEWEST_CASES, MIN_PERSONS_PER_CLASS = 50, 10
"""With fewer cases, Platt scaling and a threshold at 95 % sensitivity are mostly chance. (For a good estimate of the
calibration curve itself, Van Calster et al., J Clin Epidemiol 2016;74:167, recommend 200 of each class.)"""

REPEATS = 2
"""Repeats of the five-fold cross-validation by person."""


class TooFewCases(CannotRecalibrate):
    """One finding has too few cases; it does not change."""


@dataclass(frozen=True)
class Recalibrated:
    """A recalibrated finding, and the outcomes and cross-validated probabilities that its plot is drawn from."""

    spec: FindingSpec
    y: Floats
    p: Floats
    calibration: str


def recalibrate_finding(spec: FindingSpec, cases: Cases, cohort: str, rule: TriageRule = TRIAGE_RULE) -> Recalibrated:
    """New calibration, operating points, ROC and figures of one finding.

    Raises
    ------
    TooFewCases
        There are too few cases, or too few persons in a class, or too few to say whether the classes are told apart.
    CannotRecalibrate
        The network does not tell the classes apart, which calibration cannot change.
    """
    y = cases.outcome(spec)
    known = ~np.isnan(y)
    y, logits, person = y[known], cases.logits[known, spec.column], cases.person[known]
    check_enough(spec.name + ages_of(spec), y, person)
    auroc = bootstrap(auroc_of, y, logits, person)
    if auroc.low <= 0.5 and auroc.high > SITE_RULE.auroc:
        raise TooFewCases(
            f"{spec.name}{ages_of(spec)}: too few to say: "
            f"AUROC {auroc.value:.3f}, {auroc.low:.3f} to {auroc.high:.3f}, "
            f"of {int(y.sum())} cases with it and {int((1 - y).sum())} without"
        )
    if auroc.low <= 0.5:
        raise CannotRecalibrate(
            f"{spec.name}{ages_of(spec)}: the network does not tell the classes apart (AUROC {auroc.value:.3f}, "
            f"{auroc.low:.3f} to {auroc.high:.3f}); it would have to be trained again"
        )
    choice = choose_calibration(y, logits, person)
    fitted = calibrated(logits, choice.calibration)
    points = operating_points(y, fitted, cohort)
    p, decisions = cross_validate(y, logits, person)
    part = cross_validated(cohort)
    groups = subgroup_members(cases.subgroups, np.flatnonzero(known))
    figures = (
        *evaluate(y, p, person, cohort=part, points=(), subgroups=groups),
        *_decision_figures(y, decisions, person, part, groups, spec.decides_at),
        *calibration_figures(y, p, cohort=part),
    )
    threshold = next((point.threshold for point in points if point.name == spec.decides_at), None)
    # By probabilities of persons whom the calibration did not see, as conformal bounds need them.
    of_whom = cases.subgroups.reindex(np.arange(len(known))).loc[known]  # a table may have no groups at all
    ranges = () if threshold is None else undecided_ranges(y, p.mean(axis=1), of_whom, threshold)
    new = spec.model_copy(
        update={
            "calibration": choice.calibration,
            "operating_points": points,
            "evaluation": figures,
            "roc": roc_points(y, fitted, points),
            "roc_by_group": rocs_by_group(y, fitted, groups, points),
            "undecided": ranges,
            "use": "triage",
            "use_because": "",
        }
    )
    return Recalibrated(for_use(new, rule), y, p, str(choice))


def check_enough(name: str, y: Floats, person: NDArray[np.str_]) -> None:
    """Check that there are enough cases, and enough persons in each class.

    Raises
    ------
    TooFewCases
        The message has the counts.
    """
    counts = {
        "with the finding": len(np.unique(person[y == 1])),
        "without it": len(np.unique(person[y == 0])),
    }
    reasons = [f"{len(y)} labelled cases, at least {FEWEST_CASES} are needed"] if len(y) < FEWEST_CASES else []
    reasons += [
        f"{count} persons {which}, at least {MIN_PERSONS_PER_CLASS} are needed"
        for which, count in counts.items()
        if count < MIN_PERSONS_PER_CLASS
    ]
    if reasons:
        raise TooFewCases(f"{name}: too few to recalibrate on: " + "; ".join(reasons))


def cross_validate(y: Floats, logits: Floats, person: NDArray[np.str_]) -> tuple[Floats, dict[str, Floats]]:
    """Cross-validated probabilities, and decisions (0 or 1) at each operating point.

    Returns
    -------
    ``(n, REPEATS)`` each; calibration and thresholds are fitted to the other persons.
    """
    p = np.zeros((len(y), REPEATS))
    decisions: dict[str, Floats] = {}
    for repeat, train, test in folds(y, person, repeats=REPEATS):
        calibration = choose_calibration(y[train], logits[train], person[train], repeats=1).calibration
        p[test, repeat] = calibrated(logits[test], calibration)
        for point in operating_points(y[train], calibrated(logits[train], calibration), "other persons"):
            decided = decisions.setdefault(point.name, np.zeros_like(p))
            decided[test, repeat] = p[test, repeat] >= point.threshold
    return p, decisions


def cross_validated(cohort: str) -> str:
    """Name of a cohort in the figures of a recalibration, and in those of the versions that it is compared with."""
    return f"{cohort}, cross-validation by person"


def _decision_figures(
    y: Floats,
    decisions: dict[str, Floats],
    person: NDArray[np.str_],
    cohort: str,
    groups: dict[str, NDArray[np.bool_]],
    decides_at: str,
) -> tuple[Evaluation, ...]:
    """Sensitivity and specificity at each operating point, from the cross-validated decisions; of groups where it
    decides, as :func:`training.figures.evaluate.evaluate` gives them."""
    figures = []
    everyone = np.ones(len(y), dtype=bool)
    for name, decided in decisions.items():
        for outcome, metric, share in (
            (1, "sensitivity", lambda y, d: float(d[y == 1].mean())),
            (0, "specificity", lambda y, d: float(1 - d[y == 0].mean())),
        ):
            for group, rows in ({"all": everyone} | (groups if name == decides_at else {})).items():
                if group == "all" or (y[rows] == outcome).sum() >= MIN_CASES:
                    classes = (0, 1) if group == "all" else (outcome,)
                    estimate = bootstrap(share, y[rows], decided[rows], person[rows], classes=classes)
                    figures.append(
                        Evaluation(cohort=cohort, subgroup=group, metric=f"{metric}@{name}", estimate=estimate)
                    )
    return tuple(figures)


def ages_of(spec: FindingSpec) -> str:
    """The ages that a finding is offered for, in parentheses; empty for all."""
    return f" ({spec.age_years[0]:g} to {spec.age_years[1] - 1:g} years)" if spec.age_years else ""
