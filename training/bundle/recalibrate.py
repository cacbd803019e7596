"""``python -m training recalibrate``: a bundle's numbers set right for one hospital, its network untouched.

A network that ranks people well elsewhere may still say 80 % where 30 % have the finding: other films, other people,
another prevalence. A few hundred labelled local cases set calibration and operating points right. The weights stay the
very same file; the new version says which cases it was recalibrated on and which bundle it came from.

The cases come as a table of files or logits (``training.bundle.local_cases``).

Every figure is of cases that neither calibration nor threshold was fitted to: persons are left out in turn, and for
each turn the kind of calibration, its constants and the thresholds are found again without them.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_specs.bundle import BundleManifest, Evaluation, FindingSpec, TrainingData
from data_specs.cohort import ManifestInvalid
from inference.bundles.loading import BundleError, load_bundle
from training.bundle.derive import ancestor, write_derived
from training.bundle.local_cases import CannotRecalibrate, Cases, Table, read_cases, read_cohort, read_csv
from training.bundle.plots import write_plot
from training.figures.calibrate import calibration_figures, choose_calibration, folds, holds, roc_points
from training.figures.evaluate import bootstrap, calibrated, evaluate, operating_points

Floats = NDArray[np.float64]

MIN_CASES, MIN_PERSONS_PER_CLASS = 50, 10
"""Fewer, and the two constants of Platt scaling and a threshold at 95 % sensitivity are mostly chance. (For a good
estimate of the calibration curve itself, Van Calster et al., J Clin Epidemiol 2016;74:167, ask for 200 of each.)"""
REPEATS = 2
"""Of the five-fold cross-validation by person that gives the figures."""
RECALIBRATED_ON = "Recalibrated on "
"""How the limit begins that every recalibration writes about itself."""


class TooFewCases(CannotRecalibrate):
    """Of one finding: it stays as it was."""


@dataclass(frozen=True)
class Recalibrated:
    """A finding set right, with what its plot is drawn from: outcomes, and probabilities of cases left out."""

    spec: FindingSpec
    y: Floats
    p: Floats
    said: str


def recalibrate_finding(spec: FindingSpec, cases: Cases, cohort: str) -> Recalibrated:
    """New calibration, operating points, ROC and figures of one finding.

    Raises
    ------
    TooFewCases
        Of a class, or altogether.
    CannotRecalibrate
        The network does not tell the cases apart, which no calibration mends.
    """
    y = cases.outcome(spec)
    known = ~np.isnan(y)
    y, logits, person = y[known], cases.logits[known, spec.column], cases.person[known]
    check_enough(spec.name + _ages(spec), y, person)
    auroc = bootstrap(lambda y, p: float(roc_auc_score(y, p)), y, logits, person)
    if auroc.low <= 0.5:
        raise CannotRecalibrate(
            f"{spec.name}{_ages(spec)}: the network does not tell these cases apart (AUROC {auroc.value:.3f}, "
            f"{auroc.low:.3f} to {auroc.high:.3f}); recalibrating cannot mend that, training can"
        )
    choice = choose_calibration(y, logits, person)
    fitted = calibrated(logits, choice.calibration)
    points = operating_points(y, fitted, cohort)
    p, decisions = left_out(y, logits, person)
    part = f"{cohort}, cross-validation by person"
    figures = (
        *evaluate(y, p, person, cohort=part, points=()),
        *_decision_figures(y, decisions, person, part),
        *calibration_figures(y, p, cohort=part),
    )
    new = spec.model_copy(
        update={
            "calibration": choice.calibration,
            "operating_points": points,
            "evaluation": figures,
            "roc": roc_points(y, fitted, points),
        }
    )
    return Recalibrated(new, y, p, str(choice))


def check_enough(name: str, y: Floats, person: NDArray[np.str_]) -> None:
    """Raises :class:`TooFewCases` with the counts where there are too few cases, or persons in a class."""
    counts = {
        "with the finding": len(np.unique(person[y == 1])),
        "without it": len(np.unique(person[y == 0])),
    }
    reasons = [f"{len(y)} labelled cases, at least {MIN_CASES} are needed"] if len(y) < MIN_CASES else []
    reasons += [
        f"{count} persons {which}, at least {MIN_PERSONS_PER_CLASS} are needed"
        for which, count in counts.items()
        if count < MIN_PERSONS_PER_CLASS
    ]
    if reasons:
        raise TooFewCases(f"{name}: too few to recalibrate on: " + "; ".join(reasons))


def left_out(y: Floats, logits: Floats, person: NDArray[np.str_]) -> tuple[Floats, dict[str, Floats]]:
    """Probabilities, and decisions (0 or 1) at each operating point, of cases that were not fitted to.

    Returns
    -------
    ``(n, REPEATS)`` each; the kind of calibration, its constants and the thresholds come from the other persons.
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


def _decision_figures(
    y: Floats, decisions: dict[str, Floats], person: NDArray[np.str_], cohort: str
) -> tuple[Evaluation, ...]:
    """Sensitivity and specificity at each operating point, from the decisions on cases left out."""
    figures = []
    for name, decided in decisions.items():
        for metric, share in (
            ("sensitivity", lambda y, d: float(d[y == 1].mean())),
            ("specificity", lambda y, d: float(1 - d[y == 0].mean())),
        ):
            estimate = bootstrap(share, y, decided, person)
            figures.append(Evaluation(cohort=cohort, metric=f"{metric}@{name}", estimate=estimate))
    return tuple(figures)


def recalibrate(folder: Path, table: Table, *, out: Path, version: str) -> Path:
    """Write ``NAME-VERSION/`` under ``out``: the weights of ``folder``, with numbers from ``table``.

    Findings without a label column, or with too few cases, stay as they are. One that the network does not tell apart
    in these cases, or whose calibration error is still too large, is left out. The card says so.

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
    cases = read_cases(table, bundle)
    cohort = table.source.name
    findings: list[FindingSpec] = []
    done: list[Recalibrated] = []
    limits: list[str] = []
    for spec in manifest.findings:
        if spec.name not in cases.labels.columns or spec.kind != "probability" or not _concerns(spec, cases):
            findings.append(spec)
            continue
        try:
            result = recalibrate_finding(spec, cases, cohort)
        except TooFewCases as reason:
            findings.append(spec)
            limits.append(f"Left as in the bundle it came from: {reason}.")
            continue
        except CannotRecalibrate as reason:
            limits.append(f"Not offered any more: {reason}.")
            continue
        verdict = holds(result.spec.evaluation)
        print(f"{spec.name}{_ages(spec)}: {result.said}. {verdict.reason}")
        if verdict:
            findings.append(result.spec)
            done.append(result)
        else:
            limits.append(f"Not offered any more: {spec.name}{_ages(spec)}: {verdict.reason}.")
    for limit in limits:
        print(limit)
    if not done:
        raise CannotRecalibrate(
            "\n".join(["no finding could be recalibrated:", *limits] if limits else [_nobody(cases)])
        )
    source = table.source.model_copy(update={"n_persons": len(np.unique(cases.person)), "n_items": len(cases.person)})
    new = manifest.model_copy(
        update={
            "version": version,
            "findings": tuple(findings),
            "from_bundle": (*manifest.from_bundle, ancestor(folder, manifest)),
            "recalibrated_on": source,
            "limits": (*_still_true(manifest), _limit(done, source, cases), *limits),
        }
    )
    write_derived(folder, new, target, change="recalibrated; same weights", draw=lambda docs: _plot(docs, done))
    return target


def _concerns(spec: FindingSpec, cases: Cases) -> bool:
    """Whether any labelled case is of the ages that the finding is offered for, where a name stands for several."""
    return bool((~np.isnan(cases.outcome(spec))).any())


def _nobody(cases: Cases) -> str:
    return f"none of the {len(cases.person)} cases has a label at an age that its finding is offered for"


def _ages(spec: FindingSpec) -> str:
    return f" ({spec.age_years[0]:g} to {spec.age_years[1] - 1:g} years)" if spec.age_years else ""


def _limit(done: list[Recalibrated], source: TrainingData, cases: Cases) -> str:
    names = ", ".join(f"`{r.spec.name}`{_ages(r.spec)}, {len(r.y)} cases" for r in done)
    unchecked = any(r.spec.age_years for r in done) and cases.age_years is None
    ages = " Ages were not given and are taken to be those that the findings are offered for." if unchecked else ""
    return (
        f"{RECALIBRATED_ON}{source.name} ({source.n_items} cases of {source.n_persons} persons): {names}. Their "
        "figures are of cases left out in turn, from the same place; other findings are as in the bundle it came "
        f"from.{ages}"
    )


def _still_true(manifest: BundleManifest) -> tuple[str, ...]:
    """Limits without what an earlier recalibration said of itself: the chain of provenance leads there."""
    return tuple(limit for limit in manifest.limits if not limit.startswith(RECALIBRATED_ON))


def _plot(docs: Path, done: list[Recalibrated]) -> None:
    for result in done:
        write_plot(docs, result.spec, {f"{result.spec.operating_points[0].cohort}, left out": (result.y, result.p)})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training recalibrate",
        description="Set a bundle's calibration and thresholds right on labelled local cases; the network stays.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle to start from")
    cases = parser.add_mutually_exclusive_group(required=True)
    cases.add_argument("--table", type=Path, help="CSV: person, file or logit, one column per finding, age_years")
    cases.add_argument("--cohort", type=Path, help="cohort document (YAML) in place of --table and --name")
    parser.add_argument("--name", help="what the cases are called in the card (with --table)")
    parser.add_argument("--citation", default="local cases, not published")
    parser.add_argument("--licence", default="not shared")
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="where the new version is written")
    parser.add_argument("--version", required=True, help="of the new bundle, for example 1.0.1")
    arguments = parser.parse_args(argv)
    if arguments.table and not arguments.name:
        parser.error("say --name: the card names the cases that a threshold comes from")
    try:
        if arguments.cohort:
            table = read_cohort(arguments.cohort)
        else:
            source = TrainingData(
                name=arguments.name, citation=arguments.citation, licence=arguments.licence, n_persons=0, n_items=0
            )
            table = read_csv(arguments.table, source)
        folder = recalibrate(arguments.bundle, table, out=arguments.out, version=arguments.version)
    except (CannotRecalibrate, ManifestInvalid, BundleError, FileExistsError) as error:
        print(f"cannot recalibrate: {error}", file=sys.stderr)
        return 2
    print(f"written: {folder}")
    return 0
