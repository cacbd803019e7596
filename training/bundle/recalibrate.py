"""``python -m training recalibrate``: new calibration and thresholds of a bundle for one hospital; same network.

A network that ranks persons well may still give 80 % where 30 % have the finding, because films, persons and prevalence
differ. A few hundred labelled local cases are enough to fit calibration and operating points again. The weights stay
the same file; the new version names the cases and the bundle that it was made from.

The cases are a cohort, which has to pass its checks, or a table of files or logits (``training.bundle.local_cases``).

All figures are cross-validated by person: for the persons of each fold, the kind of calibration, its constants and the
thresholds are fitted to the other persons. The bundle that it is made from and the version in service are evaluated on
the same cases (``predecessors``), so that a promotion compares like with like.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import BundleManifest, Evaluation, FindingSpec, Predecessor, TrainingData
from data_specs.cohort import ManifestInvalid
from inference.bundles.loading import Bundle, BundleError, load_bundle
from inference.findings import calibrated
from training.bundle.derive import ancestor, write_derived
from training.bundle.evaluate_bundle import in_service, on_the_same, predecessor
from training.bundle.local_cases import CannotRecalibrate, Cases, Table, cohort_cases, read_cases, read_csv
from training.bundle.plots import write_plot
from training.cohorts.cohort import MIN_CASES, subgroup_members
from training.cohorts.table import TableUnusable
from training.figures.calibrate import choose_calibration, folds
from training.figures.calibration_error import calibration_figures, judge_calibration
from training.figures.evaluate import auroc as auroc_of
from training.figures.evaluate import bootstrap, evaluate, operating_points
from training.figures.roc import roc_points
from training.figures.triage import SITE_RULE, TRIAGE_RULE, BadRule, TriageRule, read_rule
from training.figures.undecided import undecided_ranges
from training.figures.use import for_use

Floats = NDArray[np.float64]

FEWEST_CASES, MIN_PERSONS_PER_CLASS = 50, 10
"""With fewer cases, Platt scaling and a threshold at 95 % sensitivity are mostly chance. (For a good estimate of the
calibration curve itself, Van Calster et al., J Clin Epidemiol 2016;74:167, recommend 200 of each class.)"""
REPEATS = 2
"""Repeats of the five-fold cross-validation by person."""
RECALIBRATED_ON = "Recalibrated on "
"""First words of the limit that every recalibration adds."""


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
    check_enough(spec.name + _ages(spec), y, person)
    auroc = bootstrap(auroc_of, y, logits, person)
    if auroc.low <= 0.5 and auroc.high > SITE_RULE.auroc:
        raise TooFewCases(
            f"{spec.name}{_ages(spec)}: too few to say: AUROC {auroc.value:.3f}, {auroc.low:.3f} to {auroc.high:.3f}, "
            f"of {int(y.sum())} cases with it and {int((1 - y).sum())} without"
        )
    if auroc.low <= 0.5:
        raise CannotRecalibrate(
            f"{spec.name}{_ages(spec)}: the network does not tell the classes apart (AUROC {auroc.value:.3f}, "
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


def recalibrate(
    folder: Path, cases_from: Table | Path, *, out: Path, version: str, rule: TriageRule = TRIAGE_RULE
) -> Path:
    """Write ``NAME-VERSION/`` under ``out``: the bundle in ``folder``, recalibrated on a table or a cohort manifest.

    Findings without a label column, or with too few cases, do not change. A finding is left out if the network does not
    tell its classes apart, or if its calibration error is still too large. The card says so.

    Raises
    ------
    CannotRecalibrate
        The cases do not allow it.
    BundleError
        The bundle is damaged.
    FileExistsError
        This version exists; a bundle is never replaced.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise CannotRecalibrate(f"version '{version}' is not of the form 1.0.1")
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    target = out / f"{manifest.name}-{version}"
    if target.exists():
        raise FileExistsError(f"{target.name} exists; a bundle is never replaced")
    of_cohort = isinstance(cases_from, Path)
    cases = cohort_cases(cases_from, bundle) if of_cohort else read_cases(cases_from, bundle)
    source = cases.source
    cohort = source.name
    findings: list[FindingSpec] = []
    done: list[Recalibrated] = []
    limits: list[str] = []
    for spec in manifest.findings:
        if spec.name not in cases.labels.columns or spec.kind != "probability" or not _has_labels(spec, cases):
            findings.append(spec)
            continue
        try:
            result = recalibrate_finding(spec, cases, cohort, rule)
        except TooFewCases as reason:
            findings.append(spec)
            limits.append(f"Not changed: {reason}.")
            continue
        except CannotRecalibrate as reason:
            limits.append(f"No longer offered: {reason}.")
            continue
        verdict = judge_calibration(result.spec.evaluation)
        print(f"{spec.name}{_ages(spec)}: {result.calibration}. {verdict.reason}")
        if verdict:
            findings.append(result.spec)
            done.append(result)
        else:
            limits.append(f"No longer offered: {spec.name}{_ages(spec)}: {verdict.reason}.")
    for limit in limits:
        print(limit)
    if not done:
        raise CannotRecalibrate(
            "\n".join(["no finding could be recalibrated:", *limits] if limits else [_no_labels(cases)])
        )
    new = manifest.model_copy(
        update={
            "version": version,
            "findings": tuple(findings),
            "from_bundle": (*manifest.from_bundle, ancestor(folder, manifest)),
            "recalibrated_on": source,
            "predecessors": _predecessors(bundle, cases, cross_validated(cohort), out),
            "limits": (*_limits_to_keep(manifest), _limit(done, source, cases), *_refused(cases), *limits),
        }
    )
    write_derived(folder, new, target, change="recalibrated; same weights", draw=lambda docs: _plot(docs, done))
    return target


def _predecessors(bundle: Bundle, cases: Cases, cohort: str, bundles: Path) -> tuple[Predecessor, ...]:
    """The bundle that this one is made from, and the one in service in ``bundles``, on the same cases."""
    serves = in_service(bundles, bundle.manifest.name)
    others = [serves] if serves and serves.manifest.version != bundle.manifest.version else []
    found = []
    for other in (bundle, *others):
        taken = on_the_same(cases, bundle, other)
        if taken is not None:
            found.append(predecessor(other, [(taken, cohort)]))
    return tuple(found)


def _refused(cases: Cases) -> tuple[str, ...]:
    """What the gate refused among the cases, as a limit for the card."""
    if not cases.refused:
        return ()
    counts = ", ".join(f"{code} {n}" for code, n in Counter(each.code for each in cases.refused).most_common())
    n = len(cases.person) + len(cases.refused)
    return (f"{RECALIBRATED_ON}what serving lets through: {len(cases.refused)} of {n} cases are refused ({counts}).",)


def _has_labels(spec: FindingSpec, cases: Cases) -> bool:
    """Whether any case of the finding's ages has a label."""
    return bool((~np.isnan(cases.outcome(spec))).any())


def _no_labels(cases: Cases) -> str:
    return f"none of the {len(cases.person)} cases has a label of a finding that is offered for its age"


def _ages(spec: FindingSpec) -> str:
    return f" ({spec.age_years[0]:g} to {spec.age_years[1] - 1:g} years)" if spec.age_years else ""


def _limit(done: list[Recalibrated], source: TrainingData, cases: Cases) -> str:
    names = ", ".join(f"`{r.spec.name}`{_ages(r.spec)}, {len(r.y)} cases" for r in done)
    unchecked = any(r.spec.age_years for r in done) and cases.age_years is None
    ages = (
        " Ages were not given; all cases are assumed to be of the ages that the findings are offered for."
        if unchecked
        else ""
    )
    return (
        f"{RECALIBRATED_ON}{source.name} ({source.n_items} cases of {source.n_persons} persons): {names}. Their "
        "figures are cross-validated by person, on cases of the same site; other findings are those of the bundle it "
        f"was made from.{ages}"
    )


def _limits_to_keep(manifest: BundleManifest) -> tuple[str, ...]:
    """Limits without those of an earlier recalibration, which are in the card of that bundle."""
    return tuple(limit for limit in manifest.limits if not limit.startswith(RECALIBRATED_ON))


def _plot(docs: Path, done: list[Recalibrated]) -> None:
    for result in done:
        write_plot(docs, result.spec, {f"{result.spec.operating_points[0].cohort}, left out": (result.y, result.p)})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training recalibrate",
        description="Fit a bundle's calibration and thresholds to labelled local cases; the network does not change.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle to start from")
    cases = parser.add_mutually_exclusive_group(required=True)
    cases.add_argument("--table", type=Path, help="CSV: person, file or logit, one column per finding, age_years")
    cases.add_argument("--cohort", type=Path, help="cohort manifest (YAML), instead of --table and --name")
    parser.add_argument("--name", help="name of the cases in the card (with --table)")
    parser.add_argument("--citation", default="local cases, not published")
    parser.add_argument("--licence", default="not shared")
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="where the new version is written")
    parser.add_argument("--version", required=True, help="of the new bundle, for example 1.0.1")
    parser.add_argument("--triage-rule", type=Path, help="TOML: what the programme asks of a finding that decides")
    arguments = parser.parse_args(argv)
    if arguments.table and not arguments.name:
        parser.error("give --name: the card names the cases that the thresholds come from")
    try:
        rule = read_rule(arguments.triage_rule)
        cases: Table | Path = arguments.cohort
        if arguments.table:
            source = TrainingData(
                name=arguments.name, citation=arguments.citation, licence=arguments.licence, n_persons=0, n_items=0
            )
            cases = read_csv(arguments.table, source)
        folder = recalibrate(arguments.bundle, cases, out=arguments.out, version=arguments.version, rule=rule)
    except (CannotRecalibrate, ManifestInvalid, TableUnusable, BundleError, FileExistsError, BadRule) as error:
        print(f"cannot recalibrate: {error}", file=sys.stderr)
        return 2
    print(f"written: {folder}")
    return 0
