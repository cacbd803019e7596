"""``python -m training plan``: from a prevalence and a number of recalls to a threshold and its consequences.

With ``--programme``, a table of costs and people: every threshold with what it finds, misses and costs
(:mod:`training.figures.costs`).

Sensitivity and specificity come from the cases that the finding's operating points were chosen on (its ``roc``). The
prevalence and the number of people that can be recalled per thousand come from the site.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from data_specs.bundle import BundleManifest, FindingSpec
from data_specs.planning.performance import performances
from data_specs.planning.programme import ALL_CASES, BadProgramme, read_programme
from data_specs.planning.table import as_csv
from data_specs.vocabulary import is_reassuring
from training.figures import costs
from training.figures.screening import Plan, PlanError, Range, choose, plan_point, plan_target

WHO_SENSITIVITY, WHO_SPECIFICITY = 0.90, 0.70
"""Minimal requirements for a community-based triage or referral test for tuberculosis.

References
----------
WHO. High-priority target product profiles for new tuberculosis diagnostics: report of a consensus meeting, 28-29 April
2014. WHO/HTM/TB/2014.18, the profile of the triage test: sensitivity > 90 %, specificity > 70 % (optimal > 95, > 80 %).
WHO consolidated guidelines on tuberculosis, module 2: screening (2021), section 3, repeats them.
"""
WHO_PREVALENCES = (0.003, 0.01, 0.03, 0.10)


def plan_text(finding: FindingSpec, prevalence: float, recalls_per_1000: float) -> str:
    """The plan of one finding as text: the chosen threshold, the bundle's own operating points, and cautions."""
    if not finding.roc:
        raise PlanError(f"{finding.name}: this bundle has no ROC; train it again, or recalibrate it on local cases")
    points = performances(finding)[ALL_CASES].points
    chosen = plan_point("chosen", choose(points, prevalence, recalls_per_1000), prevalence)
    rows = [chosen, *_own_points(finding, prevalence)]
    first = points[0]
    cohort = _cohort(finding)
    return "\n".join(
        [
            f"{finding.name}, planned on: {cohort} "
            f"({first.true_positives + first.false_negatives} with, "
            f"{first.true_negatives + first.false_positives} without)",
            f"prevalence {_percent(prevalence)}; at most {recalls_per_1000:g} recalled per 1,000 screened",
            "",
            markdown_table(rows),
            f"Recall {'below' if is_reassuring(finding.name) else 'from'} a probability of {chosen.threshold:.4f}. "
            f"Of 1,000 people screened, "
            f"{chosen.recalled.value:.1f} are recalled, {chosen.found.value:.2f} of them correctly; "
            f"{chosen.missed.value:.2f} are missed.",
            *_recall_warning(rows, recalls_per_1000),
            CAUTION,
        ]
    )


BELOW = " Recalled is who lies below the threshold: found are those who do not have this finding."
CAUTION = (
    "Intervals: 95 %, from the number of cases behind sensitivity and specificity, which are assumed to be the same "
    "in the people screened. Often they are not: milder disease lowers sensitivity, other diseases lower specificity. "
    "The threshold was chosen on these same cases; measure it on local cases before use."
)


def _recall_warning(rows: list[Plan], recalls_per_1000: float) -> list[str]:
    high = rows[0].recalled.high
    if high is None or high <= recalls_per_1000:
        return []
    return [f"The interval reaches up to {high:.0f} recalls per 1,000, more than the {recalls_per_1000:g} allowed."]


def card_section(findings: Sequence[FindingSpec], prevalences: Sequence[float] = (0.003, 0.03, 0.2)) -> str:
    """Section of a card: the operating points at several prevalences; empty if no finding has a ROC."""
    parts = []
    for finding in findings:
        rows = [
            replace(row, name=f"{row.name} at {_percent(prevalence)}")
            for prevalence in prevalences
            for row in _own_points(finding, prevalence)
        ]
        if rows:
            parts += [
                f"### {finding.name}: per 1,000 screened, by prevalence\n",
                f"{_cohort(finding)}.{BELOW if is_reassuring(finding.name) else ''}\n",
                markdown_table(rows),
            ]
    return "\n".join([*parts, CAUTION, ""]) if parts else ""


def _own_points(finding: FindingSpec, prevalence: float) -> list[Plan]:
    """The bundle's operating points whose thresholds are in its ROC; those with one threshold are joined."""
    found = performances(finding).get(ALL_CASES)
    points = {point.threshold: point for point in found.points} if found else {}
    named: dict[float, list[str]] = {}
    for own in finding.operating_points:
        if own.threshold in points:
            named.setdefault(own.threshold, []).append(own.name)
    return [plan_point(", ".join(names), points[threshold], prevalence) for threshold, names in named.items()]


def _cohort(finding: FindingSpec) -> str:
    return finding.operating_points[0].cohort if finding.operating_points else "validation"


def worked_example() -> str:
    """The WHO's target for a tuberculosis triage test at several prevalences, as text."""
    plans = [
        plan_target(f"prevalence {_percent(prevalence)}", WHO_SENSITIVITY, WHO_SPECIFICITY, prevalence)
        for prevalence in WHO_PREVALENCES
    ]
    first = plans[0]
    return "\n".join(
        [
            "Worked example: the minimum that the WHO requires of a triage test for tuberculosis (sensitivity 90 %, "
            "specificity 70 %; WHO/HTM/TB/2014.18)",
            "",
            markdown_table(plans),
            f"At a prevalence of {_percent(WHO_PREVALENCES[0])} a test that meets the target recalls "
            f"{first.recalled.value:.0f} of 1,000 people for {first.found.value:.1f} with tuberculosis: PPV "
            f"{100 * first.ppv.value:.1f} %, one in {1 / first.ppv.value:.0f} recalled. It misses "
            f"{first.missed.value:.1f}. What matters is whether a second test can be offered to that many.",
        ]
    )


def markdown_table(plans: list[Plan]) -> str:
    """A Markdown table with aligned columns."""
    header = ("", "from", "sensitivity %", "specificity %", "recalled", "found", "missed", "PPV %", "NPV %")
    rows = [header, *(_row(p) for p in plans)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"


def _row(p: Plan) -> tuple[str, ...]:
    return (
        p.name,
        "" if p.threshold is None else f"{p.threshold:.4f}",
        _cell(p.sensitivity, 100, 1),
        _cell(p.specificity, 100, 1),
        _cell(p.recalled, 1, 1),
        _cell(p.found, 1, 2),
        _cell(p.missed, 1, 2),
        _cell(p.ppv, 100, 1),
        _cell(p.npv, 100, 2),
    )


def _cell(figure: Range, factor: float, digits: int) -> str:
    if np.isnan(figure.value):
        return "none"
    if figure.low is None or figure.high is None:
        return f"{factor * figure.value:.{digits}f}"
    low, high = (f"{factor * x:.{digits}f}" for x in (figure.low, figure.high))
    return f"{factor * figure.value:.{digits}f} ({low} to {high})"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def find_finding(manifest: BundleManifest, name: str, cohort: str | None) -> FindingSpec:
    """The finding of that name; ``cohort``, a part of its cohort's name, chooses between findings of one name.

    Raises
    ------
    PlanError
        There is none, or more than one.
    """
    named = [f for f in manifest.findings if f.name == name]
    if not named:
        offered = ", ".join(dict.fromkeys(f.name for f in manifest.findings))
        raise PlanError(f"{manifest.name} {manifest.version} has no finding '{name}'; it has {offered}")
    matching = [f for f in named if cohort is None or cohort.casefold() in _cohort(f).casefold()]
    if len(matching) != 1:
        cohorts = "; ".join(_cohort(f) for f in named)
        raise PlanError(f"{len(matching)} findings match '{name}': give --cohort with a part of one of: {cohorts}")
    return matching[0]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training plan", description="What a threshold costs: recalls, PPV, NPV and missed cases."
    )
    parser.add_argument("--example", action="store_true", help="the WHO's target for tuberculosis triage")
    parser.add_argument("--bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--finding")
    parser.add_argument("--cohort", help="part of the cohort's name, where two findings have one name")
    parser.add_argument("--prevalence", type=float, help="share of the people screened, 0.003 for 0.3 %%")
    parser.add_argument("--recalls-per-1000", type=float, help="people that can be recalled, per thousand screened")
    whole = parser.add_argument_group(
        "every threshold, with costs (in the place of --prevalence and --recalls-per-1000)"
    )
    whole.add_argument("--programme", type=Path, help="TOML: the programme's costs, people and prevalences")
    whole.add_argument("--scores", type=Path, help="CSV of local probabilities and outcomes, to plan from")
    whole.add_argument("--group", action="append", default=[], help="a column of --scores whose values are groups")
    whole.add_argument("--csv", type=Path, help="write every threshold")
    whole.add_argument("--plot", type=Path, help="draw recalls, missed cases and cost per case (.png, .svg, .pdf)")
    arguments = parser.parse_args(argv)
    if arguments.example:
        print(worked_example())
        return 0
    by_recalls = ("prevalence", "recalls_per_1000")
    needed = ("bundle", "finding", *(() if arguments.programme else by_recalls))
    missing = [f"--{name.replace('_', '-')}" for name in needed if getattr(arguments, name) is None]
    if missing:
        parser.error(f"give {', '.join(missing)}, or --example")
    only_whole = ("scores", "group", "csv", "plot")
    unused = [f"--{name}" for name in only_whole if getattr(arguments, name) and not arguments.programme]
    if arguments.group and not arguments.scores:
        unused.append("--group")
    if unused:
        parser.error(f"{', '.join(dict.fromkeys(unused))}: only with --programme, and --group with --scores")
    try:
        manifest = BundleManifest.model_validate_json((arguments.bundle / "screening.json").read_bytes())
        finding = find_finding(manifest, arguments.finding, arguments.cohort)
        if arguments.programme:
            print(_with_costs(arguments, manifest, finding))
        else:
            print(plan_text(finding, arguments.prevalence, arguments.recalls_per_1000))
    except ValidationError as error:
        print(f"cannot plan: screening.json is not valid: {error.error_count()} faults", file=sys.stderr)
        return 2
    except (PlanError, BadProgramme, OSError) as error:
        print(f"cannot plan: {error}", file=sys.stderr)
        return 2
    return 0


def _with_costs(arguments: argparse.Namespace, manifest: BundleManifest, finding: FindingSpec) -> str:
    """The plan of a programme as text; CSV and plot are written where they are asked for."""
    programme = read_programme(arguments.programme)
    said: list[str] = []
    if arguments.scores:
        from training.figures.scored import on_local_scores  # noqa: PLC0415  pandas and scikit-learn take a second to load

        finding, said = on_local_scores(finding, arguments.scores, arguments.group)
    found = costs.planned(programme, finding)
    if arguments.csv:
        arguments.csv.write_text(as_csv(found, programme.costs.currency), encoding="utf-8")
    if arguments.plot:
        costs.draw(arguments.plot, found, costs.title_of(manifest, finding), programme.costs.currency)
    return costs.as_text(found, programme, finding, local=bool(arguments.scores), said=said)
