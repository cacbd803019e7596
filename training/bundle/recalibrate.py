"""``python -m training recalibrate``: new calibration and thresholds of a bundle for one hospital; same network.

A network that ranks persons well may still give 80 % where 30 % have the finding, because films, persons and prevalence
differ. A few hundred labelled local cases are enough to fit calibration and operating points again. The weights stay
the same file; the new version names the cases and the bundle that it was made from.

The cases are a cohort, which has to pass its checks, or a table of files or logits (``training.bundle.case_table``).

Each finding: :mod:`training.bundle.recalibrate_finding`. The bundle that it is made from and the version in service are
evaluated on the same cases (``predecessors``), so that a promotion compares like with like.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import BundleManifest, FindingSpec, Predecessor, TrainingData
from data_specs.cohort import ManifestInvalid
from inference.bundles.loading import Bundle, BundleError, load_bundle
from training.bundle.case_table import Table, read_cases, read_csv
from training.bundle.derive import ancestor, write_derived
from training.bundle.evaluate_bundle import in_service, on_the_same, predecessor
from training.bundle.local_cases import CannotRecalibrate, Cases, cohort_cases
from training.bundle.plots import write_plot
from training.bundle.recalibrate_finding import Recalibrated, TooFewCases, ages_of, cross_validated, recalibrate_finding
from training.cohorts.table import TableUnusable
from training.figures.calibration_error import judge_calibration
from training.figures.triage import TRIAGE_RULE, BadRule, TriageRule, read_rule

Floats = NDArray[np.float64]

RECALIBRATED_ON = "Recalibrated on "
"""First words of the limit that every recalibration adds."""


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
        print(f"{spec.name}{ages_of(spec)}: {result.calibration}. {verdict.reason}")
        if verdict:
            findings.append(result.spec)
            done.append(result)
        else:
            limits.append(f"No longer offered: {spec.name}{ages_of(spec)}: {verdict.reason}.")
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


def _limit(done: list[Recalibrated], source: TrainingData, cases: Cases) -> str:
    names = ", ".join(f"`{r.spec.name}`{ages_of(r.spec)}, {len(r.y)} cases" for r in done)
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
