"""How often certificates of normals are refused and broken, where the truth is known: draws from labelled persons.

The persons of a collection are taken for the whole of a site's people. Samples are drawn from them with replacement, by
person, and what a certificate would release is compared with the collection itself, in which everybody's label is
known. Beside that, the collection is split into random halves by person: one certifies, the other is released.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_specs.planning.normals import (
    Case,
    Limits,
    Proved,
    group_names,
    is_below,
    is_broken,
    one_case_each,
    prove_on,
    upper,
)

NORMALS = 1000
"""Persons without a finding in each sample that is drawn."""
PREVALENCE = (30, 1000)
"""Of a screening, as it would be counted on the spot: the collections were put together half and half."""


@dataclass
class Drawn:
    """What became of many samples.

    Parameters
    ----------
    certified, missed_too_often, abnormal_too_often
        How many were certified, and of these how many break a bound in the collection.
    refused
        How often by reason.
    released, missed, abnormal
        Of those certified: shares of the persons without and with a finding who are released, and share with a finding
        among those released.
    """

    samples: int
    certified: int = 0
    missed_too_often: int = 0
    abnormal_too_often: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    released: list[float] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)
    abnormal: list[float] = field(default_factory=list)


def draw_samples(
    people: Sequence[Case], events: int, limits: Limits, *, samples: int, rng: np.random.Generator
) -> Drawn:
    """Draw samples with so many events, certify on each, and look in the collection what is released."""
    people = one_case_each(people)
    sick = [case for case in people if case.abnormal]
    well = [case for case in people if not case.abnormal]
    found = Drawn(samples)
    for _ in range(samples):
        chosen = [sick[i] for i in rng.integers(len(sick), size=events)]
        chosen += [well[i] for i in rng.integers(len(well), size=NORMALS)]
        _judge(found, prove_on(chosen, limits), sick, well, limits)
    return found


def split_in_halves(people: Sequence[Case], limits: Limits, *, splits: int, rng: np.random.Generator) -> Drawn:
    """Certify on one half of the persons, and count in the other one. ``missed_too_often`` is what that half shows:
    an exact 95 % interval of its missed that lies beyond the limit."""
    people = one_case_each(people)
    found = Drawn(splits)
    for _ in range(splits):
        order = rng.permutation(len(people))
        first, second = order[: len(people) // 2], order[len(people) // 2 :]
        proved = prove_on([people[i] for i in first], limits)
        other = [people[i] for i in second]
        sick = [case for case in other if case.abnormal]
        if proved.refused:
            found.refused[proved.refused] += 1
            continue
        n_missed = sum(is_below(case.released_from, case.groups, proved.thresholds) for case in sick)
        found.certified += 1
        found.missed.append(n_missed / len(sick))
        found.missed_too_often += 1 - upper(len(sick) - n_missed, len(sick), 0.025) > limits.missed
    return found


def _judge(found: Drawn, proved: Proved, sick: Sequence[Case], well: Sequence[Case], limits: Limits) -> None:
    if proved.refused:
        found.refused[proved.refused] += 1
        return
    thresholds = proved.thresholds
    missed = _shares_below(sick, thresholds)
    released = _shares_below(well, thresholds)["all"]
    with_it, of = limits.prevalence or (len(sick), len(sick) + len(well))
    share = with_it / of
    abnormal = share * missed["all"] / (share * missed["all"] + (1 - share) * released)
    found.certified += 1
    found.missed_too_often += any(missed[name] > limits.missed for name in thresholds if name in missed)
    found.abnormal_too_often += abnormal > proved.abnormal_at_most
    found.released.append(released)
    found.missed.append(missed["all"])
    found.abnormal.append(abnormal)


def _shares_below(people: Sequence[Case], thresholds: Mapping[str, float]) -> dict[str, float]:
    """Share of each group that is released."""
    members: dict[str, list[bool]] = {}
    for case in people:
        below = is_below(case.released_from, case.groups, thresholds)
        for name in ("all", *group_names(case.groups)):
            members.setdefault(name, []).append(below)
    return {name: float(np.mean(below)) for name, below in members.items()}


@dataclass(frozen=True)
class Watched:
    """How a release ends whose true share with a finding is ``share``: how often, and after how many that were read."""

    share: float
    stopped: float
    median_read: float


def watch(share: float, bound: float, *, read: int, runs: int, rng: np.random.Generator) -> Watched:
    """Read so many of the random tenth one after the other, many times, and stop where the test says so."""
    at: list[int] = []
    for _ in range(runs):
        misses = np.flatnonzero(rng.random(read) < share)
        # between two misses the evidence falls, so that it is largest at a miss
        stop = next((int(i) + 1 for k, i in enumerate(misses, 1) if is_broken(k, int(i) + 1, bound, 0.95)), None)
        if stop is not None:
            at.append(stop)
    return Watched(share, len(at) / runs, float(np.median(at)) if at else float("nan"))
