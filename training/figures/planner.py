"""``python -m training plan``: from a prevalence and a number of recalls to a threshold, and what it will cost.

Sensitivity and specificity come from the cases that the finding's operating points were chosen on (its ``roc``);
prevalence and the number of people that can be recalled per thousand come from the site. What follows (Altman and
Bland, BMJ 1994;309:102): with prevalence π, sensitivity s and specificity c, of 1,000 people screened 1000·(π·s +
(1 − π)·(1 − c)) are recalled, 1000·π·(1 − s) are missed, PPV = π·s / recalled, NPV = (1 − π)·c / not recalled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from data_specs.bundle import BundleManifest, FindingSpec, RocPoint

DRAWS = 20_000

WHO_SENSITIVITY, WHO_SPECIFICITY = 0.90, 0.70
"""Minimal requirements for a community-based triage or referral test for tuberculosis.

References
----------
WHO. High-priority target product profiles for new tuberculosis diagnostics: report of a consensus meeting, 28-29 April
2014. WHO/HTM/TB/2014.18, the profile of the triage test: sensitivity > 90 %, specificity > 70 % (optimal > 95, > 80 %).
WHO consolidated guidelines on tuberculosis, module 2: screening (2021), section 3, repeats them.
"""
WHO_PREVALENCES = (0.003, 0.01, 0.03, 0.10)


class PlanError(ValueError):
    """What was asked for cannot be planned with what the bundle carries."""


@dataclass(frozen=True)
class Range:
    """A figure, with its 95 % interval where it was measured on cases."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Plan:
    """What one threshold means for 1,000 people screened.

    Parameters
    ----------
    threshold
        A person is recalled from this probability on; ``None`` for a target that belongs to no model.
    recalled, found, missed
        People per thousand screened.
    """

    name: str
    threshold: float | None
    sensitivity: Range
    specificity: Range
    recalled: Range
    found: Range
    missed: Range
    ppv: Range
    npv: Range


def plan_point(name: str, point: RocPoint, prevalence: float, *, seed: int = 1) -> Plan:
    """One measured point at a prevalence.

    Intervals: Jeffreys posteriors of sensitivity and specificity (Brown, Cai, DasGupta, Stat Sci 2001;16:101), drawn
    independently (they come from different people) and carried through; the prevalence is taken as given.
    """
    rng = np.random.default_rng(seed)
    sensitivity = rng.beta(point.true_positives + 0.5, point.false_negatives + 0.5, DRAWS)
    specificity = rng.beta(point.true_negatives + 0.5, point.false_positives + 0.5, DRAWS)
    measured = _figures(np.array([point.sensitivity]), np.array([point.specificity]), prevalence)
    drawn = _figures(sensitivity, specificity, prevalence)
    ranges = {}
    for figure, values in drawn.items():
        value, (low, high) = float(measured[figure][0]), np.percentile(values, [2.5, 97.5])
        # At the ends of the curve the posterior leaves out the very value that was seen.
        ranges[figure] = Range(value, float(np.fmin(low, value)), float(np.fmax(high, value)))
    return Plan(name=name, threshold=point.threshold, **ranges)


def plan_target(name: str, sensitivity: float, specificity: float, prevalence: float) -> Plan:
    """A stated sensitivity and specificity at a prevalence: a target, so without intervals."""
    figures = _figures(np.array([sensitivity]), np.array([specificity]), prevalence)
    return Plan(name=name, threshold=None, **{figure: Range(float(v[0])) for figure, v in figures.items()})


def _figures(
    sensitivity: NDArray[np.float64], specificity: NDArray[np.float64], prevalence: float
) -> dict[str, NDArray[np.float64]]:
    found, false_alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    recalled = found + false_alarms
    cleared = (1 - prevalence) * specificity
    nan = np.full_like(recalled, np.nan)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "recalled": 1000 * recalled,
        "found": 1000 * found,
        "missed": 1000 * (prevalence - found),
        # Nobody recalled: no PPV. Everybody recalled: no NPV.
        "ppv": np.divide(found, recalled, out=nan.copy(), where=recalled > 0),
        "npv": np.divide(cleared, 1 - recalled, out=nan.copy(), where=cleared > 0),
    }


def choose(roc: tuple[RocPoint, ...], prevalence: float, recalls_per_1000: float) -> RocPoint:
    """The most sensitive point whose expected recalls fit; the more specific one of two that are equally sensitive.

    Raises
    ------
    PlanError
        The prevalence or the number of recalls is out of range, or no threshold that finds anyone fits.
    """
    if not 0 < prevalence < 1:
        raise PlanError(f"prevalence {prevalence:g} is not between 0 and 1 (0.3 % is 0.003)")
    if not 0 < recalls_per_1000 <= 1000:
        raise PlanError(f"{recalls_per_1000:g} recalls per thousand is not between 0 and 1000")

    def recalls(point: RocPoint) -> float:
        return 1000 * (prevalence * point.sensitivity + (1 - prevalence) * (1 - point.specificity))

    fitting = [point for point in roc if recalls(point) <= recalls_per_1000 and point.true_positives]
    if not fitting:
        fewest = min((recalls(p) for p in roc if p.true_positives), default=float("nan"))
        raise PlanError(
            f"no threshold that finds anyone recalls {recalls_per_1000:g} or fewer per thousand; the strictest one "
            f"recalls {fewest:.1f}"
        )
    return max(fitting, key=lambda point: (point.sensitivity, point.specificity))


def plan(finding: FindingSpec, prevalence: float, recalls_per_1000: float) -> str:
    """The plan of one finding as text: the chosen threshold, the bundle's own operating points, and the reserves."""
    if not finding.roc:
        raise PlanError(f"{finding.name}: this bundle carries no ROC; train it again, or recalibrate it on local cases")
    chosen = plan_point("chosen", choose(finding.roc, prevalence, recalls_per_1000), prevalence)
    rows = [chosen, *_own_points(finding, prevalence)]
    first = finding.roc[0]
    cohort = _cohort(finding)
    return "\n".join(
        [
            f"{finding.name}, planned on: {cohort} "
            f"({first.true_positives + first.false_negatives} with, "
            f"{first.true_negatives + first.false_positives} without)",
            f"prevalence {_percent(prevalence)}; at most {recalls_per_1000:g} recalled per 1,000 screened",
            "",
            table(rows),
            f"Recall from a probability of {chosen.threshold:.4f}. Of 1,000 people screened, "
            f"{chosen.recalled.value:.1f} are recalled, {chosen.found.value:.2f} of them rightly; "
            f"{chosen.missed.value:.2f} are missed.",
            *_reserve(rows, recalls_per_1000),
            RESERVES,
        ]
    )


RESERVES = (
    "Intervals: 95 %, from the number of cases behind sensitivity and specificity, which are taken to carry over to "
    "the people screened. They rarely do: milder disease lowers sensitivity, other diseases lower specificity. The "
    "threshold was chosen on these same cases; measure it on local ones before use."
)


def _reserve(rows: list[Plan], recalls_per_1000: float) -> list[str]:
    high = rows[0].recalled.high
    if high is None or high <= recalls_per_1000:
        return []
    return [f"The cases leave room for up to {high:.0f} recalls per 1,000: more than the {recalls_per_1000:g} allowed."]


def section(findings: Sequence[FindingSpec], prevalences: Sequence[float] = (0.003, 0.03, 0.2)) -> str:
    """Body of a card's section: the operating points at several prevalences; empty where no finding has a ROC."""
    parts = []
    for finding in findings:
        rows = [
            replace(row, name=f"{row.name} at {_percent(prevalence)}")
            for prevalence in prevalences
            for row in _own_points(finding, prevalence)
        ]
        if rows:
            parts += [f"### {finding.name}: per 1,000 screened, by prevalence\n", f"{_cohort(finding)}.\n", table(rows)]
    return "\n".join([*parts, RESERVES, ""]) if parts else ""


def _own_points(finding: FindingSpec, prevalence: float) -> list[Plan]:
    """The bundle's operating points, where its ROC has their thresholds; once where they coincide."""
    points = {point.threshold: point for point in finding.roc}
    named: dict[float, list[str]] = {}
    for own in finding.operating_points:
        if own.threshold in points:
            named.setdefault(own.threshold, []).append(own.name)
    return [plan_point(", ".join(names), points[threshold], prevalence) for threshold, names in named.items()]


def _cohort(finding: FindingSpec) -> str:
    return finding.operating_points[0].cohort if finding.operating_points else "validation"


def example() -> str:
    """The WHO's target for a tuberculosis triage test, at the prevalence of a general population and higher ones."""
    plans = [
        plan_target(f"prevalence {_percent(prevalence)}", WHO_SENSITIVITY, WHO_SPECIFICITY, prevalence)
        for prevalence in WHO_PREVALENCES
    ]
    first = plans[0]
    return "\n".join(
        [
            "Worked example: the least that the WHO asks of a triage test for tuberculosis (sensitivity 90 %, "
            "specificity 70 %; WHO/HTM/TB/2014.18)",
            "",
            table(plans),
            f"At a prevalence of {_percent(WHO_PREVALENCES[0])} a test that meets the target recalls "
            f"{first.recalled.value:.0f} of 1,000 people for {first.found.value:.1f} with tuberculosis: PPV "
            f"{100 * first.ppv.value:.1f} %, one in {1 / first.ppv.value:.0f} recalled. It misses "
            f"{first.missed.value:.1f}. Whether a second test can be offered to that many decides, not the model.",
        ]
    )


def table(plans: list[Plan]) -> str:
    """Markdown that is also readable as text."""
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
        _said(p.sensitivity, 100, 1),
        _said(p.specificity, 100, 1),
        _said(p.recalled, 1, 1),
        _said(p.found, 1, 2),
        _said(p.missed, 1, 2),
        _said(p.ppv, 100, 1),
        _said(p.npv, 100, 2),
    )


def _said(figure: Range, factor: float, digits: int) -> str:
    if np.isnan(figure.value):
        return "none"
    if figure.low is None or figure.high is None:
        return f"{factor * figure.value:.{digits}f}"
    low, high = (f"{factor * x:.{digits}f}" for x in (figure.low, figure.high))
    return f"{factor * figure.value:.{digits}f} ({low} to {high})"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def find(manifest: BundleManifest, name: str, cohort: str | None) -> FindingSpec:
    """The finding of that name; ``cohort``, a part of its cohort's name, tells two of one name apart.

    Raises
    ------
    PlanError
        There is none, or more than one.
    """
    named = [f for f in manifest.findings if f.name == name]
    if not named:
        offered = ", ".join(dict.fromkeys(f.name for f in manifest.findings))
        raise PlanError(f"{manifest.name} {manifest.version} has no finding '{name}'; it has {offered}")
    meant = [f for f in named if cohort is None or cohort.casefold() in _cohort(f).casefold()]
    if len(meant) != 1:
        cohorts = "; ".join(_cohort(f) for f in named)
        raise PlanError(f"'{name}' is meant {len(meant)} times: say --cohort with a part of one of: {cohorts}")
    return meant[0]


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
    arguments = parser.parse_args(argv)
    if arguments.example:
        print(example())
        return 0
    needed = ("bundle", "finding", "prevalence", "recalls_per_1000")
    missing = [f"--{name.replace('_', '-')}" for name in needed if getattr(arguments, name) is None]
    if missing:
        parser.error(f"say {', '.join(missing)}, or --example")
    try:
        manifest = BundleManifest.model_validate_json((arguments.bundle / "screening.json").read_bytes())
        finding = find(manifest, arguments.finding, arguments.cohort)
        print(plan(finding, arguments.prevalence, arguments.recalls_per_1000))
    except ValidationError as error:
        print(f"cannot plan: screening.json is no bundle's: {error.error_count()} faults", file=sys.stderr)
        return 2
    except (PlanError, OSError) as error:
        print(f"cannot plan: {error}", file=sys.stderr)
        return 2
    return 0
