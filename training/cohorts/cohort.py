"""Cases of one source, ready to be learnt from, and how their persons are split into parts.

Labels are 0, 1 or NaN (unknown). Parts: ``train``, ``validation`` (calibration, thresholds, choices), ``test``
(evaluated once).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.bundle import TrainingData

MIN_CASES = 10
"""With fewer positives or negatives than this no figure is given: 'too few to say'."""


@dataclass(frozen=True)
class Cohort:
    """Cases of one source.

    Parameters
    ----------
    name
        As the card names it.
    x
        ``(n, ...)`` network input.
    labels
        One column per label, 0, 1 or NaN.
    person
        ``(n,)`` person identifier; never in two parts.
    part
        ``(n,)`` of ``train``, ``validation``, ``test``.
    subgroups
        Columns to report separately (sex, view, age band, site), text, ``None`` where unknown.
    source
        Name, citation, licence and counts, for the card.
    title, part_names
        Names of the cohort and of its parts in the card and the operating points; a part without a name is called
        'TITLE, PART'.
    age_years
        Ages that its findings may be offered for: lower bound included, upper bound not; ``None``: any age.
    further
        Tasks that help the network to learn and are never offered: one column each, 0, 1 or NaN.
    weight
        ``(n,)`` how often a case is drawn in training, relative to the others of this cohort; ``None``: evenly.
    limits
        The doubtful results of its checks, for the card.
    prevalence
        Prevalence that its probabilities assume; ``None``: that of its train and validation cases.
    test_apart
        Whether its test part was collected separately. Calibration then also uses perturbed validation cases, because
        what is right for the validation cases may not be right there.
    """

    name: str
    x: NDArray[np.generic]
    labels: pd.DataFrame
    person: NDArray[np.str_]
    part: NDArray[np.str_]
    subgroups: pd.DataFrame
    source: TrainingData
    title: str = ""
    part_names: Mapping[str, str] = field(default_factory=dict)
    age_years: tuple[float, float] | None = None
    further: pd.DataFrame = field(default_factory=pd.DataFrame)
    weight: NDArray[np.float64] | None = None
    limits: tuple[str, ...] = ()
    prevalence: float | None = None
    test_apart: bool = False

    def rows(self, part: str) -> NDArray[np.intp]:
        return np.flatnonzero(self.part == part)

    def part_title(self, part: str) -> str:
        """Name of a part in the card; a promotion compares the figures of parts that have the same name."""
        return self.part_names.get(part, f"{self.title or self.name}, {part}")


def part_of_person(person: str, shares: dict[str, float], salt: str) -> str:
    """Part of a person, by hash: it stays the same when rows are added or removed, and for all rows of the person."""
    point = int(hashlib.sha256(f"{salt}:{person}".encode()).hexdigest()[:12], 16) / 16**12
    for part, share in shares.items():
        point -= share
        if point < 0:
            return part
    return next(reversed(shares))


def keep_share_of_persons(cohort: Cohort, share: float) -> Cohort:
    """The cohort with only a share of its training persons, chosen by hash; for a learning curve.

    Raises
    ------
    ValueError
        The share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of training persons is {share:g}; it must be above 0 and at most 1")
    if share == 1:
        return cohort
    kept = {p: part_of_person(p, {"train": share, "unused": 1 - share}, "persons") for p in set(cohort.person)}
    part = [kept[p] if part == "train" else part for p, part in zip(cohort.person, cohort.part, strict=True)]
    return replace(
        cohort, part=np.array(part), source=with_counts(cohort.source, cohort.person[np.array(part) == "train"])
    )


def refuse_two_answers(cohorts: Sequence[Cohort]) -> None:
    """Check that no two cohorts have the same name, or the same label for the same ages.

    Raises
    ------
    ValueError
        Two of them have.
    """
    for one, other in combinations(cohorts, 2):
        if one.name == other.name:
            raise ValueError(f"two cohorts are called {one.name}; give each its own name")
        (low, high), (low2, high2) = (c.age_years or (0.0, np.inf) for c in (one, other))
        both = [label for label in one.labels if label in other.labels]
        if both and max(low, low2) < min(high, high2):
            raise ValueError(
                f"{', '.join(both)}: a label of {one.name} and of {other.name} for the same ages, so a person would "
                "get two answers; join the tables, with a column for the site, or state age_years that do not overlap"
            )


def with_counts(source: TrainingData, person: NDArray[np.str_]) -> TrainingData:
    """The source with the number of persons and of cases; ``person`` is ``(n_cases,)``."""
    return source.model_copy(update={"n_persons": len(set(person)), "n_items": len(person)})


def subgroup_members(subgroups: pd.DataFrame, rows: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
    """Members among ``rows`` of each value of each column, named like ``sex F``; unknown values are in none."""
    return {
        f"{column} {value}": (values.notna() & (values.astype(str) == str(value))).to_numpy()[rows]
        for column, values in subgroups.items()
        for value in sorted(values.dropna().unique())
    }


def sites_to_leave_out(cohort: Cohort) -> list[str]:
    """Sites with cases enough to evaluate on, without which at least half of those to learn from are left."""
    if "site" not in cohort.subgroups:
        return []
    site, learnt = cohort.subgroups.site, cohort.part == "train"
    sizes = site[learnt].value_counts()
    return sorted(str(name) for name, n in sizes.items() if 2 * MIN_CASES <= n <= learnt.sum() / 2)


def apart(cohort: Cohort, site: str) -> tuple[Cohort, Cohort]:
    """The cohort without a site's cases, and these alone as a test part, without persons who stand in the rest."""
    of_site = (cohort.subgroups.site == site).to_numpy(dtype=bool)
    part = np.where(of_site, "unused", cohort.part)
    rest = replace(cohort, part=part, source=with_counts(cohort.source, cohort.person[part == "train"]))
    decided = np.isin(rest.part, ("train", "validation"))
    new = of_site & (cohort.part != "unused") & ~np.isin(cohort.person, cohort.person[decided])
    title = f"{cohort.title or cohort.name}: {site}, by a network that never saw it"
    alone = replace(cohort, part=np.where(new, "test", "unused"), title=title, part_names={})
    return rest, alone


ONE_QUESTION = 0.95
"""Correlation of two labels from which they are one question in a cohort, whatever their names."""


def same_question(cohort: Cohort, label: str, others: Sequence[str]) -> str:
    """The first of ``others`` that a network cannot learn apart from ``label`` here; empty if there is none.

    Two labels that are given to the same cases, or one to those without the other, have one answer in these cases. Of
    several sites the one with most positives is asked: elsewhere the label is missing more than it is absent.
    """
    labels = cohort.labels
    if "site" in cohort.subgroups and (labels[label] == 1).any():
        labels = labels[cohort.subgroups.site == cohort.subgroups.site[labels[label] == 1].mode().iloc[0]]
    for other in others:
        both = labels[[label, other]].dropna()
        varies = (both.nunique() == 2).all()
        if varies and abs(float(np.corrcoef(both.to_numpy(dtype=np.float64).T)[0, 1])) >= ONE_QUESTION:
            return other
    return ""


def digest_of(digests: Sequence[str], labels: pd.DataFrame, person: NDArray[np.str_]) -> str:
    """sha256 of the cases: the digest of each file, its labels and its person, in whatever order they come."""
    rows = zip(digests, person, labels.astype(object).itertuples(index=False), strict=True)
    named = sorted(f"{digest} {who} {dict(zip(labels, values, strict=True))}" for digest, who, values in rows)
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def even_weights(cells: pd.Series, train: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``(n,)`` weights by which each cell is drawn equally often; ``train`` marks the rows that train."""
    sizes = cells[train].value_counts()
    return 1.0 / cells.map(sizes).fillna(np.inf).to_numpy(dtype=np.float64)
