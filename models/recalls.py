"""What would have happened to a site's recent visits: who would newly be recalled by another version, who no longer."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from math import sqrt

from scipy.stats import binomtest

from data_specs.vocabulary import is_reassuring
from models.equal import Equal, at_equal_recalls, at_equal_sensitivity
from models.recent import Answered, Recent, persons_of

ALL = "all"
SCORES = ("finding", "probability", "served_probability", "outcome", "person", "site", "sex", "age")


@dataclass(frozen=True)
class Share:
    """A share of ``n`` with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Recalls:
    """How two versions recall the visits of one group for one finding.

    Parameters
    ----------
    both, newly, no_longer, neither
        Visits that both versions decided.
    open
        Visits that one of them leaves open.
    cases_both, cases_newly, cases_no_longer, cases_neither
        Of the four, those with a recorded outcome that says the person has what is looked for.
    """

    finding: str
    group: str
    both: int = 0
    newly: int = 0
    no_longer: int = 0
    neither: int = 0
    open: int = 0
    cases_both: int = 0
    cases_newly: int = 0
    cases_no_longer: int = 0
    cases_neither: int = 0

    @property
    def decided(self) -> int:
        return self.both + self.newly + self.no_longer + self.neither

    @property
    def cases(self) -> int:
        return self.cases_both + self.cases_newly + self.cases_no_longer + self.cases_neither

    @property
    def newly_recalled(self) -> Share | None:
        """Share of the decided visits."""
        return wilson(self.newly, self.decided)

    @property
    def no_longer_recalled(self) -> Share | None:
        """Share of the decided visits."""
        return wilson(self.no_longer, self.decided)

    @property
    def sensitivity_loss(self) -> Share | None:
        """Sensitivity of the version in service less that of the other, on known cases; ``None`` without any."""
        cells = (self.cases_both, self.cases_no_longer, self.cases_newly, self.cases_neither)
        return paired_difference(*cells) if self.cases else None


def recalls(found: Recent, finding: str) -> list[Recalls]:
    """Of all visits, and of each group, the largest first."""
    answers = found.of(finding)
    groups = dict.fromkeys(group for each in answers for group in each.groups)
    by_group = [_counted(finding, group, (each for each in answers if group in each.groups)) for group in groups]
    return [_counted(finding, ALL, answers), *sorted(by_group, key=lambda each: -each.decided)]


def _counted(finding: str, group: str, answers: Iterable[Answered]) -> Recalls:
    names = {(True, True): "both", (False, True): "newly", (True, False): "no_longer", (False, False): "neither"}
    counts: dict[str, int] = {}
    for each in answers:
        open_ = each.served is None or each.shadow is None
        name = "open" if open_ else names[bool(each.served), bool(each.shadow)]
        counts[name] = counts.get(name, 0) + 1
        if each.is_case and not open_:
            counts[f"cases_{name}"] = counts.get(f"cases_{name}", 0) + 1
    return Recalls(finding, group, **counts)


def wilson(k: int, n: int) -> Share | None:
    """A share with its interval (Wilson, J Am Stat Assoc 1927;22:209); ``None`` of none."""
    if not n:
        return None
    interval = binomtest(k, n).proportion_ci(method="wilson")
    return Share(k / n, float(interval.low), float(interval.high))


def paired_difference(both: int, first: int, second: int, neither: int) -> Share:
    """Share of ``both`` and ``first`` less that of ``both`` and ``second`` in the same cases, with its interval.

    References
    ----------
    Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired data, Stat
    Med 1998;17:2635, method 10.
    """
    n = both + first + second + neither
    one, two = wilson(both + first, n), wilson(both + second, n)
    if one is None or two is None:
        raise ValueError("a difference needs cases")
    product = (both + first) * (second + neither) * (both + second) * (first + neither)
    cross = float(both * neither - first * second)
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / sqrt(product) if product else 0.0

    def reach(a: float, b: float) -> float:
        return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    difference = one.value - two.value
    below = reach(one.value - one.low, two.high - two.value)
    above = reach(one.high - one.value, two.value - two.low)
    return Share(difference, difference - below, difference + above)


# ---------------------------------------------------------------- what is shown
HEAD = (
    "finding", "group", "visits", "recalled now", "recalled then", "newly, per 1,000", "no longer, per 1,000", "open",
    "known cases", "newly found", "no longer found", "sensitivity lost",
)  # fmt: skip


def rows(found: Recent) -> list[tuple[str, ...]]:
    """One row for each finding and group, as :data:`HEAD` names the columns."""
    return [
        (
            each.finding, each.group, str(each.decided), str(each.both + each.no_longer), str(each.both + each.newly),
            _share(each.newly_recalled, 1000), _share(each.no_longer_recalled, 1000), str(each.open), str(each.cases),
            str(each.cases_newly), str(each.cases_no_longer), _share(each.sensitivity_loss, 1, digits=2),
        )
        for finding in found.findings
        for each in recalls(found, finding)
    ]  # fmt: skip


def thresholds(found: Recent) -> list[tuple[str, str, str, str]]:
    """By finding: threshold at equal recalls, and at equal sensitivity on known cases."""
    return [
        (finding, str(len(answers)), _equal(at_equal_recalls(answers)), _equal(at_equal_sensitivity(answers)))
        for finding in found.findings
        for answers in (found.of(finding),)
    ]


def _equal(found: Equal | None) -> str:
    if found is None:
        return "too few to say"
    return f"{found.threshold:.6f} ({found.low:.3g} to {found.high:.3g}; {found.reached} of {found.n})"


def _share(share: Share | None, factor: float, digits: int = 0) -> str:
    if share is None:
        return "-"
    value, low, high = (f"{factor * each:.{digits}f}" for each in (share.value, share.low, share.high))
    return f"{value} ({low} to {high})"


def scores(found: Recent) -> str:
    """Probabilities, outcomes and groups as CSV, with running numbers in the place of persons."""
    written = StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(SCORES)
    answers: Sequence[Answered] = found.answers
    for person, each in zip(persons_of(answers), answers, strict=True):
        of_whom = dict(group.split(" ", 1) for group in each.groups)
        outcome = "" if each.is_case is None else _outcome(each)
        groups = (of_whom.get(name, "") for name in ("site", "sex", "age"))
        lines.writerow([each.finding, each.probability, each.served_probability, outcome, f"P{person}", *groups])
    return written.getvalue()


def _outcome(each: Answered) -> str:
    return "confirmed" if each.is_case is not is_reassuring(each.finding) else "refuted"
