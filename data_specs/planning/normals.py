"""Which films may be released as normal in a batch: thresholds that are proved on cases, and the test that ends it.

An *event* is a person of the sample with a finding. A film is released where its probability lies strictly below a
threshold. The loss is a person with a finding who is released, which happens the more often the higher the threshold.
So the highest threshold whose upper confidence bound keeps the limit is one with that bound, without any correction
for having been chosen (risk-controlling prediction sets: Bates, Angelopoulos, Lei, Malik and Jordan, J ACM 2021;68:43,
theorem 1). For a loss of 0 or 1 the bound is exact: the ``(k + 1)``-th smallest probability among ``n`` events, with
the largest ``k`` for which ``P(Binomial(n, limit) <= k)`` is at most the error (Clopper and Pearson, Biometrika
1934;26:404; Wilks, Ann Math Stat 1941;12:91).

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024) bounds the expected loss, over all
samples that might have been drawn; 19 events are enough for a limit of 5 % (:func:`events_in_expectation`). A doctor
who signs has one sample, so the certificate bounds the loss of that one.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EVERYBODY = "all"
SAMPLE_SHARE = 0.1
"""Share of all visits that are the random sample, and so of those released that are read in full."""


@dataclass(frozen=True, slots=True)
class Case:
    """One visit of the sample.

    Parameters
    ----------
    probability
        As the network gave it.
    abnormal
        Whether a doctor who did not see it, or an outcome, says that there is a finding of the organ.
    groups
        Value by kind: ``{"sex": "female", "age": "41-60", "device": "…"}``.
    offered
        Whether it would be released below a threshold; where something else stands against it, it never is.
    """

    person: str
    probability: float
    abnormal: bool
    groups: Mapping[str, str]
    offered: bool = True

    @property
    def released_from(self) -> float:
        """The threshold above which it is released."""
        return self.probability if self.offered else math.inf


@dataclass(frozen=True, slots=True)
class Limits:
    """What a programme allows.

    Parameters
    ----------
    missed
        Share of the persons with a finding who may be released, in every group.
    abnormal
        Share of the persons released who may have a finding.
    confidence
        Of each of the two, over all groups together.
    prevalence
        Persons with a finding, of how many, where the sample does not show that (it was enriched).
    """

    missed: float = 0.05
    abnormal: float = 0.01
    confidence: float = 0.95
    prevalence: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the sample; without a threshold it has too few events, and nobody of it is released."""

    name: str
    persons: int
    events: int
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Proved:
    """What a sample proves.

    Parameters
    ----------
    groups
        Everybody first. A person is released below the threshold of every group that they belong to.
    needed
        Events that each group needs.
    released
        Persons without a finding who would be released, of how many.
    abnormal_at_most
        Upper bound of the share with a finding among those released; 1 where nobody would be released.
    refused
        Why nothing is certified: ``too_few``, ``none_released``, ``too_often_abnormal``; empty where it is certified.
    """

    groups: tuple[Group, ...]
    needed: int
    released: tuple[int, int]
    abnormal_at_most: float
    refused: str

    @property
    def whole(self) -> Group:
        return self.groups[0]

    @property
    def thresholds(self) -> dict[str, float]:
        """Of the groups that may be released, by name."""
        return {group.name: group.threshold for group in self.groups if group.threshold is not None}


def prove(cases: Sequence[Case], limits: Limits) -> Proved:
    """The thresholds that the sample proves, or why it proves none.

    The limit on missed findings holds in all groups together: the error is shared by as many groups as there are
    (Bonferroni). The share with a finding among those released follows from three bounds with a third of the error
    each: of the prevalence, of the missed (the rank of the threshold among the events), and of the persons without a
    finding who are released. These last are independent of the events that gave the thresholds, so that their binomial
    bound is exact too.
    """
    return prove_on(one_case_each(cases), limits)


def prove_on(persons: Sequence[Case], limits: Limits) -> Proved:
    """As :func:`prove`, of cases that are each another person's."""
    members: dict[str, list[Case]] = defaultdict(list)
    for case in persons:
        for name in (EVERYBODY, *group_names(case.groups)):
            members[name].append(case)
    names = sorted(members, key=lambda name: (name != EVERYBODY, name)) or [EVERYBODY]
    error = (1 - limits.confidence) / len(names)
    groups = tuple(_group(name, members[name], limits.missed, error) for name in names)
    thresholds = {group.name: group.threshold for group in groups if group.threshold is not None}
    normal = [case for case in persons if not case.abnormal]
    released = sum(is_below(case.released_from, case.groups, thresholds) for case in normal)
    bound = _abnormal_at_most(groups[0], len(normal), released, limits, error)
    needed = events_needed(limits.missed, error)
    if not any(thresholds.keys() >= {EVERYBODY, *group_names(case.groups)} for case in persons):
        refused = "too_few"
    elif not released:
        refused = "none_released"
    else:
        refused = "too_often_abnormal" if bound > limits.abnormal else ""
    return Proved(groups, needed, (released, len(normal)), bound, refused)


def group_names(groups: Mapping[str, str]) -> list[str]:
    """Names of the groups that a person belongs to, like ``sex female``."""
    return [f"{kind} {value}" for kind, value in groups.items()]


def is_below(probability: float, groups: Mapping[str, str], thresholds: Mapping[str, float]) -> bool:
    """Whether a probability lies below the threshold of everybody and of every group of the person."""
    names = (EVERYBODY, *group_names(groups))
    return all(name in thresholds and probability < thresholds[name] for name in names)


def events_needed(missed: float, error: float) -> int:
    """The fewest events that can prove a limit: none of them below the threshold, ``(1 - missed)^n <= error``."""
    return math.ceil(math.log(error) / math.log1p(-missed))


def events_in_expectation(missed: float) -> int:
    """The fewest events with which conformal risk control says anything: ``1 / (n + 1) <= missed``."""
    return math.ceil(1 / missed) - 1


def in_sample(key: bytes, visit_id: str) -> bool:
    """Whether a visit is one of the random tenth; nobody without the key can know it, and nobody can choose it."""
    digest = hmac.digest(key, visit_id.encode(), hashlib.sha256)
    return int.from_bytes(digest[:8]) < SAMPLE_SHARE * 2**64


def evidence_against(abnormal: int, read: int, bound: float) -> float:
    """How much ``abnormal`` of ``read`` speaks against a share of at most ``bound``: a betting score.

    It is the mean of the likelihood ratios of all larger shares to ``bound``, each share as likely as another. However
    often one looks, it reaches ``1 / a`` with a probability of at most ``a`` while the share keeps the bound.

    References
    ----------
    Ville, Étude critique de la notion de collectif, 1939. Robbins, Statistical methods related to the law of the
    iterated logarithm, Ann Math Stat 1970;41:1397. Ramdas, Grünwald, Vovk and Shafer, Game-theoretic statistics and
    safe anytime-valid inference, Stat Sci 2023;38:576.
    """
    from scipy.special import betainc, betaln  # noqa: PLC0415  slow to load, and rarely needed

    if not 0 < bound < 1:
        return math.inf if abnormal and bound <= 0 else 0.0
    with_it, without = abnormal + 1, read - abnormal + 1
    above = float(betainc(without, with_it, 1 - bound))
    if above <= 0:
        return 0.0
    log = float(betaln(with_it, without)) + math.log(above) - math.log1p(-bound)
    log -= abnormal * math.log(bound) + (read - abnormal) * math.log1p(-bound)
    return math.exp(min(log, 700.0))


def is_broken(abnormal: int, read: int, bound: float, confidence: float) -> bool:
    """Whether what was read in full shows that the share with a finding is beyond the bound."""
    return evidence_against(abnormal, read, bound) >= 1 / (1 - confidence)


def one_case_each(cases: Iterable[Case]) -> list[Case]:
    """One case for each person, since cases of one person are not independent: of those with a finding one of the
    cases with it, and always the one that is released first."""
    chosen: dict[str, Case] = {}
    for case in cases:
        before = chosen.get(case.person)
        if before is None or (not case.abnormal, case.released_from) < (not before.abnormal, before.released_from):
            chosen[case.person] = case
    return list(chosen.values())


def _group(name: str, members: Sequence[Case], missed: float, error: float) -> Group:
    events = sorted(case.released_from for case in members if case.abnormal)
    rank = _rank(len(events), missed, error)
    return Group(name, len(members), len(events), None if rank is None else min(events[rank], 1.0))


def _rank(events: int, missed: float, error: float) -> int | None:
    """Events that may lie below the threshold; ``None`` where even none of them proves the limit."""
    from scipy.special import bdtr  # noqa: PLC0415  as above

    rank = None
    while (more := 0 if rank is None else rank + 1) < events and float(bdtr(more, events, missed)) <= error:
        rank = more
    return rank


def _abnormal_at_most(whole: Group, normal: int, released: int, limits: Limits, error: float) -> float:
    """Upper bound of the share with a finding among those released, by Bayes' rule from the bounds of its parts."""
    rank = _rank(whole.events, limits.missed, error)
    if rank is None or not released:
        return 1.0
    third = (1 - limits.confidence) / 3
    with_it, of = limits.prevalence or (whole.events, whole.persons)
    prevalence = upper(with_it, of, third)
    missed = upper(rank, whole.events, third)
    cleared = 1 - upper(normal - released, normal, third)
    abnormal = prevalence * missed
    return abnormal / (abnormal + (1 - prevalence) * cleared) if abnormal else 0.0


def per_1000(share: float) -> int:
    """A bound as a natural frequency, rounded up."""
    return math.ceil(round(1000 * share, 6))


def upper(k: int, n: int, error: float) -> float:
    """Upper end of the one-sided exact interval of a share (Clopper and Pearson, Biometrika 1934;26:404)."""
    from scipy.special import betaincinv  # noqa: PLC0415  as above

    return 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - error))
