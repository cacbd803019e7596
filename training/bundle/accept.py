"""``python -m training accept``: may a bundle decide at a site? Its own labelled cases say so, before it does.

Some hundred cases of the site are read, gated and assessed as in serving. Each finding gets a verdict by the rule of
:mod:`training.figures.triage`, a page shows the figures behind it, and the verdicts go into the registry's log, where
the service of that site looks them up.

The probabilities are judged at the share of positives among these cases (:func:`move_prevalence`): they are often
chosen half and half, and a calibration is not wrong because a finding is more frequent among them.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_specs.bundle import BundleManifest, Estimate, Evaluation, FindingSpec
from data_specs.cohort import ManifestInvalid, read_manifest
from inference.bundles.deciding import NotDone
from inference.bundles.loading import Bundle, BundleError, load_bundle
from inference.bundles.registry import SiteVerdict, finding_key
from inference.likeness import FAR, UNLIKE
from models.registry import accept
from training.bundle import card_tables
from training.bundle.evaluate_bundle import figures_of, outcomes, refusals, tables
from training.bundle.local_cases import CannotRecalibrate, Cases, cohort_cases, output_of
from training.bundle.plots import write_plot
from training.cohorts import gates
from training.cohorts.table import TableUnusable
from training.figures.calibrate import move_prevalence
from training.figures.calibration_error import calibration_figures, judge_calibration
from training.figures.evaluate import Floats, bootstrap, expected_calibration_error
from training.figures.triage import SITE_RULE, BadRule, SiteRule, read_rule, site_verdict

NEVER_SURE = 1e-6
"""A probability of 0 or 1 has no odds that could be moved to another prevalence."""


@dataclass(frozen=True)
class Accepted:
    """A finding with its figures on the site's cases, and what the site may use it for."""

    spec: FindingSpec
    verdict: SiteVerdict
    because: str
    n_positive: int
    remark: str = ""


def judge(bundle: Bundle, cases: Cases, thresholds: Mapping[str, float], rule: SiteRule = SITE_RULE) -> list[Accepted]:
    """A verdict for each finding of the bundle that gives a probability.

    Parameters
    ----------
    thresholds
        The site's own, by :func:`inference.bundles.registry.finding_key`: they decide in the place of the bundle's.
    """
    return [
        _judge(at_own_threshold(spec, thresholds), cases, rule)
        for spec in bundle.manifest.findings
        if spec.kind == "probability"
    ]


def by_key(manifest: BundleManifest, thresholds: Mapping[str, float]) -> dict[str, float]:
    """Thresholds by :func:`finding_key`; a name alone is that of the finding at all ages.

    Raises
    ------
    CannotRecalibrate
        The bundle has no such finding.
    """
    named = {key for spec in manifest.findings for key in (spec.name, finding_key(spec))}
    if unknown := sorted(set(thresholds) - named):
        raise CannotRecalibrate(f"--threshold: no finding of the bundle: {', '.join(unknown)}")
    found = {finding_key(s): thresholds.get(finding_key(s), thresholds.get(s.name)) for s in manifest.findings}
    return {key: value for key, value in found.items() if value is not None}


def at_own_threshold(spec: FindingSpec, thresholds: Mapping[str, float]) -> FindingSpec:
    """The finding with a site's own threshold at the point that decides."""
    own = thresholds.get(finding_key(spec))
    if own is None:
        return spec
    points = tuple(
        p.model_copy(update={"threshold": own, "sensitivity": None, "specificity": None, "cohort": "the site's own"})
        if p.name == spec.decides_at
        else p
        for p in spec.operating_points
    )
    return spec.model_copy(update={"operating_points": points})


def _judge(spec: FindingSpec, cases: Cases, rule: SiteRule) -> Accepted:
    y = cases.outcome(spec) if spec.name in cases.labels.columns else np.full(len(cases.person), np.nan)
    known = ~np.isnan(y)
    n_positive, n_negative = int((y == 1).sum()), int((y == 0).sum())
    name = cases.source.name
    spec = spec.model_copy(update={"evaluation": figures_of(spec, y, cases, name) if known.any() else ()})
    found: dict[str, Estimate] = {e.metric: e.estimate for e in spec.evaluation if e.subgroup == "all"}
    wrong, remark = "", ""
    if "auroc" in found:
        wrong, remark = _calibration(spec, y[known], outcomes(spec, cases)[1][known], cases.person[known])
    verdict, because = site_verdict(
        found.get("auroc"),
        found.get(f"sensitivity@{spec.decides_at}"),
        found.get(f"specificity@{spec.decides_at}"),
        n_positive=n_positive,
        n_negative=n_negative,
        miscalibrated=wrong,
        rule=rule,
        absence=spec.risk == "complement" or spec.name == "normal_ecg",
    )
    return Accepted(spec, verdict, because, n_positive, remark)


def _calibration(spec: FindingSpec, y: Floats, p: Floats, person: np.ndarray) -> tuple[str, str]:
    """Why the probabilities are wrong here (empty if they are not shown to be), and what prevalence does to them."""
    if spec.calibration is None:
        return "it was never calibrated", ""
    share, assumed = float(y.mean()), spec.calibration.prevalence
    remark = ""
    if assumed is not None:
        p = move_prevalence(np.clip(p, NEVER_SURE, 1 - NEVER_SURE), assumed, share)
        remark = (
            f"It assumes a prevalence of {assumed:.1%}; {share:.1%} of these cases have it. If they came as they come, "
            f"its probabilities are too {'high' if assumed > share else 'low'} by that much."
        )
    figures = (
        Evaluation(cohort="here", metric="ece", estimate=bootstrap(expected_calibration_error, y, p, person)),
        *calibration_figures(y, p, cohort="here"),
    )
    judged = judge_calibration(figures)
    return ("" if judged else judged.reason), remark


def page(site: str, bundle: Bundle, cases: Cases, found: Sequence[Accepted], plots: Sequence[Path]) -> str:
    """The page of an acceptance, Markdown."""
    manifest, source = bundle.manifest, cases.source
    n = len(cases.person) + len(cases.refused)
    rows = [[finding_key(a.spec), f"**{a.verdict}**", a.because] for a in found]
    parts = [
        f"# {manifest.name} {manifest.version} at {site}\n",
        f"{n} cases of {source.name}, {source.n_persons} persons assessed; sha256 `{source.digest}`.\n",
        card_tables.markdown(["finding", "verdict", "because"], rows),
        "## What is refused\n",
        refusals(cases.refused, len(cases.person)),
        *_refused_by_device(cases),
        *_likeness(bundle, cases),
        "## Figures\n",
        "At the points that decide here; 95 % intervals by person; groups are sex, age, view, device and site.\n",
        tables([a.spec for a in found if a.spec.evaluation]),
        *(f"- {finding_key(a.spec)}: {a.remark}\n" for a in found if a.remark),
        *(f"![ROC and reliability]({plot.name})\n" for plot in plots),
    ]
    return "\n".join(parts)


def _refused_by_device(cases: Cases) -> list[str]:
    if not cases.n_by_device:
        return []
    refused = Counter(each.device for each in cases.refused)
    rows = [
        [device, f"{refused[device]} of {n} ({refused[device] / n:.1%})"]
        for device, n in sorted(cases.n_by_device.items())
    ]
    return [card_tables.markdown(["device", "refused"], rows)]


def _likeness(bundle: Bundle, cases: Cases) -> list[str]:
    """How far the cases are from those that the network learnt from, where it says so."""
    limits = bundle.manifest.thresholds
    if "distance" not in bundle.manifest.outputs or not {UNLIKE, FAR} <= limits.keys() or not cases.inputs:
        return []
    found = output_of(bundle, cases.inputs, "distance")[:, 0]
    median, high = np.percentile(found, [50, 95])
    unlike, far = ((found > limits[name]).mean() for name in (UNLIKE, FAR))
    return [
        "## Likeness\n",
        f"Distance from the cases that the network learnt from: median {median:.2f}, 95 % below {high:.2f}; 2 is that "
        f"of an average one of those. Beyond {limits[UNLIKE]:.1f} a reserve is said ({unlike:.1%} of these cases), "
        f"beyond {limits[FAR]:.1f} nothing is assessed ({far:.1%}).\n",
    ]


def accept_at(
    site: str,
    folder: Path,
    cohort: Path,
    *,
    thresholds: Mapping[str, float],
    out: Path,
    rule: SiteRule = SITE_RULE,
) -> tuple[Bundle, Cases, list[Accepted]]:
    """Assess the site's cases with the bundle in ``folder``, and write the page into ``out``.

    Raises
    ------
    CannotRecalibrate, ManifestInvalid, TableUnusable
        The cohort cannot be used, a threshold is of no finding, or the bundle was made from these very cases.
    BundleError
        The bundle is damaged.
    """
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    thresholds = by_key(manifest, thresholds)
    learnt = read_manifest(cohort).name in {data.name for data in manifest.training_data}
    cases = cohort_cases(cohort, bundle, parts=("test",) if learnt else None)
    made_from = (*manifest.training_data, *([manifest.recalibrated_on] if manifest.recalibrated_on else []))
    if any(data.digest == cases.source.digest for data in made_from):
        raise CannotRecalibrate(
            f"{manifest.name} {manifest.version} was made from these very cases; an acceptance needs others of the site"
        )
    found = judge(bundle, cases, thresholds, rule)
    out.mkdir(parents=True, exist_ok=True)
    shown = [a.spec for a in found if a.spec.evaluation]
    drawn = [write_plot(out, spec, {cases.source.name: outcomes(spec, cases)}) for spec in shown]
    text = page(site, bundle, cases, found, [plot for plot in drawn if plot is not None])
    (out / "README.md").write_text(text, encoding="utf-8")
    return bundle, cases, found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training accept",
        description="Judge by a site's own labelled cases what it may use each finding of a bundle for, and log it.",
    )
    parser.add_argument("--site", required=True, help="the site, as the service names it")
    parser.add_argument("--cohort", type=Path, required=True, help="cohort manifest (YAML) of the site's cases")
    parser.add_argument("--bundle", required=True, metavar="NAME-VERSION", help="in the folder of the bundles")
    parser.add_argument("--bundles", type=Path, default=gates.bundles_folder(), help="folder of the bundles")
    parser.add_argument("--out", type=Path, help="folder of the page; by default runs/accept-SITE-NAME-VERSION")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="FINDING=0.3",
        help="the site's own, in the place of the bundle's; may be given several times",
    )
    parser.add_argument(
        "--triage-rule",
        type=Path,
        help="TOML: what the programme asks of a finding that decides",
    )
    parser.add_argument("--who", help="who accepts; by default who is logged in")
    parser.add_argument("--why", default="the site's own cases", help="and why")
    parser.add_argument("--dry-run", action="store_true", help="write the page, log nothing")
    arguments = parser.parse_args(argv)
    try:
        thresholds = {name: float(value) for name, value in (each.rsplit("=", 1) for each in arguments.threshold)}
    except ValueError:
        parser.error("--threshold: such as pneumonia=0.3")
    place = "-".join("".join(c if c.isalnum() else "-" for c in arguments.site).split())
    out = arguments.out or Path("runs") / f"accept-{place}-{arguments.bundle}"
    try:
        bundle, cases, found = accept_at(
            arguments.site,
            arguments.bundles / arguments.bundle,
            arguments.cohort,
            thresholds=thresholds,
            out=out,
            rule=replace(SITE_RULE, triage=read_rule(arguments.triage_rule)),
        )
        for each in found:
            print(f"{finding_key(each.spec)}: {each.verdict}. {each.because}")
        if not arguments.dry_run:
            accept(
                arguments.bundles,
                bundle.manifest.name,
                bundle.manifest.version,
                arguments.site,
                {finding_key(each.spec): each.verdict for each in found},
                who=arguments.who or getpass.getuser(),
                why=arguments.why,
                thresholds=by_key(bundle.manifest, thresholds),
                cases=cases.source.digest,
            )
    except (CannotRecalibrate, ManifestInvalid, TableUnusable, BundleError, NotDone, OSError, BadRule) as error:
        print(f"cannot accept: {error}", file=sys.stderr)
        return 2
    print(f"written: {out / 'README.md'}" + ("" if arguments.dry_run else f"; logged for {arguments.site}"))
    return 0
