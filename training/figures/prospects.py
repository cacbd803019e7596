"""``python -m training check --cohort cohort.yaml``: what is wrong with a cohort, and what can be offered with it.

The counts of a cohort decide before any training what its evaluation can show. A finding is offered only where the
interval of its AUROC on validation lies above a limit: with seven negatives no network gets there. So for each label is
said what these counts allow, and how many more cases are needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from data_specs.cohort import ManifestInvalid
from training.cohorts import gates
from training.cohorts.checks import check_cohort, counted_parts
from training.cohorts.cohort import MIN_CASES
from training.cohorts.inputs import Inputs, load_inputs
from training.cohorts.table import CohortTable, TableUnusable, load_table
from training.cohorts.verdicts import Check, Verdict, report, unusable
from training.figures.calibrate import FOLDS
from training.figures.offer import Rule
from training.figures.triage import TRIAGE_RULE, TriageRule

GOOD_AUROC = 0.85
"""AUROC of a network that is worth the while: cases that would not show even this one to hold are too few."""
GOOD_SENSITIVITY, GOOD_SPECIFICITY = 0.95, 0.6
"""Shares of such a network at its deciding point."""
MOST = 100_000
OFFERED = Rule()


def prospects(
    table: CohortTable, inputs: Inputs, rule: Rule = OFFERED, triage: TriageRule = TRIAGE_RULE
) -> list[Check]:
    """What can be offered of each label with these counts, and how many more cases it needs."""
    parts = counted_parts(table, inputs)
    if "all" in parts:  # laboratory values are cross-validated by rules of their own
        return []
    return [
        check
        for finding in table.labels
        for check in (_can_be_offered(table, parts, finding, rule), _can_triage(table, parts, finding, triage))
    ]


def _can_be_offered(table: CohortTable, parts: dict[str, np.ndarray], finding: str, rule: Rule) -> Check:
    y = table.labels[finding].to_numpy()
    reasons = []
    for part, fewest in (("validation", FOLDS), ("test", MIN_CASES)):
        persons = {v: len(set(table.frame.person[parts[part] & (y == v)])) for v in (1, 0)}
        for value, word in ((1, "positives"), (0, "negatives")):
            n = int((y[parts[part]] == value).sum())
            if n < fewest or persons[value] < FOLDS:
                lacking = max(fewest - n, FOLDS - persons[value])
                reasons.append(f"{n} {word} in {part}: {_more(lacking, part, table)} are needed")
    n_positive, n_negative = ((y[parts["validation"]] == v).sum() for v in (1, 0))
    counts = f"{n_positive} positives and {n_negative} negatives in validation"
    least = least_auroc(int(n_positive), int(n_negative), rule.min_auroc)
    if least is None or least > GOOD_AUROC:
        needs = "no network can be shown to hold" if least is None else f"only an AUROC from {least:.2f} would hold"
        reasons.append(
            f"{counts}: {needs}; for one of {GOOD_AUROC:g}, {_cases_for(n_positive, n_negative, rule, table)}"
        )
    if reasons:
        return Check(
            "can be offered", "doubtful", f"{finding}: no. " + "; ".join(reasons) + _by_folds(table, parts, y, rule)
        )
    text = f"{finding}: if its AUROC on validation is at least {least:.2f} ({counts})"
    return Check("can be offered", "ok", text, figure=least)


def _cases_for(n_positive: int, n_negative: int, rule: Rule, table: CohortTable) -> str:
    """How many more of the rarer class, or of both, show an AUROC of :data:`GOOD_AUROC` to hold."""
    rarer, other = min(n_positive, n_negative), max(n_positive, n_negative)
    word = "positives" if n_positive <= n_negative else "negatives"
    for n in range(rarer + 1, other + 1):
        if standard_error(GOOD_AUROC, n, other) <= _room(rule):
            return f"{_more(n - rarer, 'validation', table)} {word} are needed"
    for n in range(other + 1, MOST):
        if standard_error(GOOD_AUROC, n, n) <= _room(rule):
            return f"at least {n} of each in validation are needed"
    raise AssertionError("unreachable: the error falls with the cases")


def _room(rule: Rule) -> float:
    return float((GOOD_AUROC - rule.min_auroc) / norm.ppf(0.975))


def _by_folds(table: CohortTable, parts: dict[str, np.ndarray], y: np.ndarray, rule: Rule) -> str:
    """Whether cross-validation over the persons of train and validation would be enough."""
    both = parts["train"] | parts["validation"]
    least = least_auroc(int((y[both] == 1).sum()), int((y[both] == 0).sum()), rule.min_auroc)
    enough = all((y[parts["test"]] == v).sum() >= MIN_CASES for v in (0, 1))
    if least is None or least > GOOD_AUROC or not enough:
        return ""
    return (
        f". Cross-validated (--folds {FOLDS}), all {int(both.sum())} of train and validation decide: from {least:.2f}"
    )


def _can_triage(table: CohortTable, parts: dict[str, np.ndarray], finding: str, rule: TriageRule) -> Check:
    y = table.labels[finding].to_numpy()
    lacking = []
    for value, word, share, low, fewest in (
        (1, "positives", GOOD_SENSITIVITY, rule.sensitivity_low, rule.fewest_positives),
        (0, "negatives", GOOD_SPECIFICITY, rule.specificity_low, rule.fewest_negatives),
    ):
        n, needed = int((y[parts["test"]] == value).sum()), cases_for_share(share, low)
        if n < needed:
            at = f"{share:g} from {low:g}"
            first = "no result can be enough" if n < fewest else "enough only if nearly none is wrong"
            lacking.append(f"{n} {word} in test: {first}; {_more(needed - n, 'test', table)} to show {at}")
    verdict: Verdict = "doubtful" if lacking else "ok"
    text = f"{finding}: " + (
        "; ".join(lacking) if lacking else "the counts in test are enough to show that it may decide"
    )
    return Check("for triage", verdict, text)


def _more(n: int, part: str, table: CohortTable) -> str:
    """``at least 9 more``, and how many cases in all where persons are drawn into the parts."""
    in_all = ""
    if table.raw["split"].isna().all():
        in_all = f" (about {int(np.ceil(n / table.manifest.shares.model_dump()[part]))} more in all)"
    return f"at least {n} more{in_all}"


def least_auroc(n_positive: int, n_negative: int, limit: float) -> float | None:
    """The AUROC whose 95 % interval begins at ``limit`` with these counts; ``None`` if none below 1 does."""
    if not (n_positive and n_negative):
        return None

    def room(auroc: float) -> float:
        return float(auroc - norm.ppf(0.975) * standard_error(auroc, n_positive, n_negative) - limit)

    highest = 0.99
    return None if room(highest) <= 0 else float(brentq(room, limit, highest))


def standard_error(auroc: float, n_positive: int, n_negative: int) -> float:
    """Of an AUROC (Hanley and McNeil, Radiology 1982;143:29, equation 1)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (n_positive - 1) * (q1 - auroc**2) + (n_negative - 1) * (q2 - auroc**2)
    return sqrt(variance / (n_positive * n_negative))


def cases_for_share(share: float, low: float) -> int:
    """Fewest cases of a class with which a share's Wilson interval begins at ``low`` or above, and with more too."""
    reached = [binomtest(round(share * n), n).proportion_ci(method="wilson").low >= low for n in range(1, 400)]
    return len(reached) + 1 - next(i for i, ok in enumerate(reversed([False, *reached])) if not ok)


def main(argv: Sequence[str] | None = None) -> int:
    """Check one cohort and print the results; returns 2 if it is unusable."""
    parser = argparse.ArgumentParser(prog="python -m training check", description="Check a cohort before training.")
    parser.add_argument("--cohort", type=Path, required=True, help="the cohort's YAML document")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    try:
        table = load_table(arguments.cohort)
    except (ManifestInvalid, TableUnusable) as fault:
        print(fault)
        return 2
    gate = gates.serving_gate(table.manifest.modality)
    inputs = load_inputs(table, progress=not arguments.quiet, gate=gate)
    checks = check_cohort(table, inputs)
    print(report([*checks, *prospects(table, inputs)], table))
    return 2 if unusable(checks) else 0
