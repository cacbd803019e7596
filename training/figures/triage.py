"""May a finding decide about a person? The one rule for bundles and for sites.

A finding that is offered for **triage** has a flag and a step. It has to find nearly all who have the finding and must
not recall most of those who have not: both are asked of the lower ends of the intervals, at the point that decides. A
finding that misses the rule is shown as information, without a flag.

At a site, its acceptance cases decide further whether it may be shown at all (:func:`site_verdict`).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from itertools import count
from math import ceil
from pathlib import Path

from scipy.stats import binomtest, norm

from data_specs.bundle import Estimate
from inference.bundles.registry import SiteVerdict


@dataclass(frozen=True)
class TriageRule:
    """What a programme asks of a finding that decides, at its deciding point.

    Parameters
    ----------
    sensitivity, sensitivity_low
        Least sensitivity, and least lower end of its 95 % interval.
    specificity_low
        Least lower end of the 95 % interval of the specificity: at 0.5 no more than half of the healthy are recalled.
    """

    sensitivity: float = 0.9
    sensitivity_low: float = 0.8
    specificity_low: float = 0.5

    @property
    def enough(self) -> int:
        """Cases of a class from which another place has to show the rule; with fewer it can only refute it.

        With so many a share equal to the asked sensitivity has a lower end as high as asked.
        """
        return enough_to_show(self.sensitivity, self.sensitivity_low)

    @property
    def fewest_positives(self) -> int:
        """With fewer positives not even a network without a miss reaches the lower end."""
        return fewest_without_error(self.sensitivity_low)

    @property
    def fewest_negatives(self) -> int:
        """With fewer negatives not even a network without a false alarm reaches the lower end."""
        return fewest_without_error(self.specificity_low)


@dataclass(frozen=True)
class SiteRule:
    """What a site asks of a finding before it shows it.

    Parameters
    ----------
    auroc
        The lower end of the AUROC's interval has to be above this, as on validation where a finding is offered.
    cases
        With fewer positives or negatives no figure is given.
    """

    triage: TriageRule = TriageRule()
    auroc: float = 0.65
    cases: int = 10


class BadRule(ValueError):
    """The file of a programme's rule cannot be used."""


TRIAGE_RULE, SITE_RULE = TriageRule(), SiteRule()
"""What is asked unless a programme states otherwise."""


@dataclass(frozen=True)
class Judgement:
    """Whether a finding may decide, and a sentence with the figures; true if it may."""

    fit: bool
    because: str

    def __bool__(self) -> bool:
        return self.fit


def judge_triage(
    sensitivity: Estimate, specificity: Estimate, rule: TriageRule = TRIAGE_RULE, *, absence: bool = False
) -> Judgement:
    """Whether a finding may decide, by its figures at the point that decides.

    Parameters
    ----------
    sensitivity, specificity
        As :func:`training.figures.evaluate.bootstrap` gives them: with ``n`` and ``n_positive`` of all cases.
    absence
        The finding is the absence of disease (``normal_ecg``): who is not called normal is recalled, so that its
        specificity is the sensitivity of the recall, and the other way round.

    Notes
    -----
    A bootstrap of shares without an error has an interval of no width, whatever the number of cases. The lower end is
    therefore the lower of the bootstrap's and that of Wilson's interval (Wilson, J Am Stat Assoc 1927;22:209).
    """
    n_positive, n_negative = _counts(sensitivity)
    found, cleared = (sensitivity, n_positive), (specificity, n_negative)
    if absence:
        found, cleared = cleared, found
    found_low, cleared_low = share_low(*found), share_low(*cleared)
    figures = (
        f"sensitivity {found[0].value:.2f} (from {found_low:.2f}; {found[1]} cases), "
        f"specificity {cleared[0].value:.2f} (from {cleared_low:.2f}; {cleared[1]} cases)"
    )
    asked = []
    if found[0].value < rule.sensitivity or found_low < rule.sensitivity_low:
        asked.append(f"a sensitivity of {rule.sensitivity:g} (from {rule.sensitivity_low:g})")
    if cleared_low < rule.specificity_low:
        asked.append(f"a specificity from {rule.specificity_low:g}")
    return Judgement(not asked, f"{figures}; " + (f"asked: {' and '.join(asked)}" if asked else "as asked"))


def refuted(
    sensitivity: Estimate | None,
    specificity: Estimate | None,
    rule: TriageRule = TRIAGE_RULE,
    *,
    absence: bool = False,
) -> str:
    """Why the figures of another place speak against triage; empty if they do not.

    A share of enough cases (:attr:`TriageRule.enough`) has to be as asked; of one of fewer cases, the whole interval
    has to lie below what is asked. A share without cases, ``None``, says nothing.

    Parameters
    ----------
    sensitivity, specificity, absence
        As in :func:`judge_triage`.
    """
    found = None if sensitivity is None else (sensitivity, _counts(sensitivity)[0])
    cleared = None if specificity is None else (specificity, _counts(specificity)[1])
    if absence:
        found, cleared = cleared, found
    against = []
    if found is not None:
        share, n = found
        missed = share.value < rule.sensitivity or share_low(share, n) < rule.sensitivity_low
        if missed if n >= rule.enough else share.high < rule.sensitivity:
            against.append(f"{_told('sensitivity', *found)} {rule.sensitivity:g} (from {rule.sensitivity_low:g})")
    if cleared is not None:
        share, n = cleared
        missed = share_low(share, n) < rule.specificity_low
        if missed if n >= rule.enough else share.high < rule.specificity_low:
            against.append(f"{_told('specificity', *cleared)} from {rule.specificity_low:g}")
    return " and ".join(against)


def _told(name: str, share: Estimate, n: int) -> str:
    return f"{name} {share.value:.2f} ({share_low(share, n):.2f} to {share.high:.2f}; {n} cases), asked:"


def site_verdict(
    auroc: Estimate | None,
    sensitivity: Estimate | None,
    specificity: Estimate | None,
    *,
    n_positive: int,
    n_negative: int,
    miscalibrated: str = "",
    rule: SiteRule = SITE_RULE,
    absence: bool = False,
) -> tuple[SiteVerdict, str]:
    """What a site may use a finding for, and why; in this order.

    ``too few to say``: a class has too few cases, or the AUROC's interval holds values on both sides of the limit.
    ``not here``: the whole interval is below the limit, or its probabilities are wrong here (``miscalibrated``).
    ``fit for triage``: by :func:`judge_triage`. ``information only``: everything else.

    Parameters
    ----------
    auroc, sensitivity, specificity
        ``None`` where there are too few cases. Sensitivity and specificity at the point that decides, if one does.
    miscalibrated
        The sentence that says so, else empty.
    """
    counts = f"{n_positive} with and {n_negative} without it"
    if auroc is None or min(n_positive, n_negative) < rule.cases:
        lacking = [
            f"{rule.cases - n} more {which} it"
            for n, which in ((n_positive, "with"), (n_negative, "without"))
            if n < rule.cases
        ]
        return "too few to say", f"{counts}: at least {' and '.join(lacking)} are needed"
    measured = f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}), {counts}"
    if auroc.high <= rule.auroc:
        return "not here", f"{measured}; it does not tell them apart here (limit {rule.auroc:g})"
    if auroc.low <= rule.auroc:
        return "too few to say", f"{measured}; the limit, {rule.auroc:g}, lies inside the interval"
    if miscalibrated:
        return "not here", f"{measured}; its probabilities are wrong here ({miscalibrated}): recalibrate it first"
    if sensitivity is None or specificity is None:
        return "information only", f"{measured}; it has no point that decides"
    judged = judge_triage(sensitivity, specificity, rule.triage, absence=absence)
    return ("fit for triage" if judged else "information only"), f"{measured}; {judged.because}"


def share_low(share: Estimate, n: int) -> float:
    """Lower end of the 95 % interval of a share of ``n`` cases: the lower of the bootstrap's and of Wilson's."""
    if n == 0:
        return 0.0
    return min(share.low, float(binomtest(round(share.value * n), n).proportion_ci(method="wilson").low))


def fewest_without_error(low: float) -> int:
    """Cases of a class that a share of 1 needs for its Wilson interval to begin at ``low``: n / (n + z²) = low."""
    return ceil(norm.ppf(0.975) ** 2 * low / (1 - low))


def enough_to_show(share: float, low: float) -> int:
    """Fewest cases of which ``share`` has a Wilson interval that begins at ``low`` or above."""
    return next(n for n in count(1) if wilson_low(share, n) >= low)


def wilson_low(share: float, n: int) -> float:
    """Lower end of Wilson's 95 % interval of a share of ``n`` cases, which need not be a whole number of them."""
    z = float(norm.ppf(0.975))
    spread = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return (share + z**2 / (2 * n) - spread) / (1 + z**2 / n)


def read_rule(path: Path | None) -> TriageRule:
    """The rule of a programme, TOML with :class:`TriageRule`'s names; without a file the usual one.

    Raises
    ------
    BadRule
        It cannot be read, or holds another name or something else than shares.
    """
    if path is None:
        return TRIAGE_RULE
    try:
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadRule(f"{path}: cannot be read ({type(error).__name__})") from error
    known = [each.name for each in fields(TriageRule)]
    wrong = sorted(
        name
        for name, value in stated.items()
        if name not in known or isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1
    )
    if wrong:
        raise BadRule(f"{path}: {', '.join(wrong)}: expected shares between 0 and 1 named {', '.join(known)}")
    rule = replace(TRIAGE_RULE, **stated)
    if rule.sensitivity_low >= rule.sensitivity:
        raise BadRule(f"{path}: sensitivity_low has to be below sensitivity")
    return rule


def _counts(estimate: Estimate) -> tuple[int, int]:
    n_positive = estimate.n_positive or 0
    return n_positive, estimate.n - n_positive
