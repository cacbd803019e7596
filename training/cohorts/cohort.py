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
        Columns to report apart (sex, view, age band, site), text, ``None`` where unknown.
    source
        What the card says of it.
    title, part_names
        How the card and the operating points call it and its parts; parts without a name are 'TITLE, PART'.
    age_years
        Whom its findings may be offered for: lower bound included, upper bound not; ``None``: any age.
    further
        Tasks that help to learn and are never offered: one column each, 0, 1 or NaN.
    weight
        ``(n,)`` how often a case is drawn in training, relative to the others of this cohort; ``None``: evenly.
    limits
        What its checks doubt, for the card.
    prevalence
        Share of positives that its probabilities are to presume; ``None``: that of its cases that do not test.
    test_apart
        Its test part was collected apart from the others: what is right on validation may not be right there, so
        calibration also looks at validation cases as they might have been taken elsewhere.
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

    def called(self, part: str) -> str:
        """How a part stands in the card; a promotion compares figures of parts of one name."""
        return self.part_names.get(part, f"{self.title or self.name}, {part}")


def part_of_person(person: str, shares: dict[str, float], salt: str) -> str:
    """Part of a person, by hash: stable when rows come and go, and the same person always lands in the same part."""
    point = int(hashlib.sha256(f"{salt}:{person}".encode()).hexdigest()[:12], 16) / 16**12
    for part, share in shares.items():
        point -= share
        if point < 0:
            return part
    return next(reversed(shares))


def with_persons(cohort: Cohort, share: float) -> Cohort:
    """The cohort with a share of its training persons, by hash; the others are left out, for a learning curve."""
    if not 0 < share <= 1:
        raise ValueError(f"the share of training persons is {share:g}; it lies above 0 and is at most 1")
    if share == 1:
        return cohort
    kept = {p: part_of_person(p, {"train": share, "unused": 1 - share}, "persons") for p in set(cohort.person)}
    part = [kept[p] if part == "train" else part for p, part in zip(cohort.person, cohort.part, strict=True)]
    return replace(cohort, part=np.array(part), source=counted(cohort.source, cohort.person[np.array(part) == "train"]))


def one_answer_each(cohorts: Sequence[Cohort]) -> None:
    """Refuse what would give one person two answers to one question, and cohorts that nobody could tell apart."""
    for one, other in combinations(cohorts, 2):
        if one.name == other.name:
            raise ValueError(f"two cohorts are called {one.name}; give them names of their own")
        (low, high), (low2, high2) = (c.age_years or (0.0, np.inf) for c in (one, other))
        both = [label for label in one.labels if label in other.labels]
        if both and max(low, low2) < min(high, high2):
            raise ValueError(
                f"{', '.join(both)}: asked by {one.name} and by {other.name} for the same ages, so a person would be "
                "given two answers; join the tables, with a column for the site, or state age_years that do not meet"
            )


def counted(source: TrainingData, person: NDArray[np.str_]) -> TrainingData:
    return source.model_copy(update={"n_persons": len(set(person)), "n_items": len(person)})


def even_over(cells: pd.Series, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``(n,)`` weights under which each cell is drawn as often as any other; ``counted`` are the rows that train."""
    sizes = cells[counted].value_counts()
    return 1.0 / cells.map(sizes).fillna(np.inf).to_numpy(dtype=np.float64)
