"""Ages of a cohort: which are plausible, which bands they fall into, and which ages a finding may be offered for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from data_specs.person import MAX_AGE_YEARS
from inference.findings import ADULT_YEARS
from training.cohorts.cohort import MIN_CASES
from training.cohorts.inputs import Inputs
from training.cohorts.table import CohortTable
from training.cohorts.verdicts import Check, Verdict, check_of_rows, listed


def check_ages(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Implausible ages, and the ages that a finding may be offered for."""
    age = table.frame.age_years.to_numpy()
    given = table.raw.age_years.notna().to_numpy()
    wrong = given & ~is_plausible(age)
    stated = table.manifest.age_years
    if wrong.any():
        found = listed(sorted({str(v) for v in table.raw.age_years[wrong]}))
        text = f"found {found}; an age is 0 to {MAX_AGE_YEARS:g} years"
        # Stated ages decide which cases are evaluated, so a wrong age would put a case into the wrong part.
        yield check_of_rows(
            table, "implausible ages", "unusable" if stated else "doubtful", text, np.flatnonzero(wrong)
        )
    if stated:
        yield from _ages_as_stated(table, stated)
    elif table.manifest.modality != "labs":
        yield from _ages_as_found(table, inputs)


def _ages_as_stated(table: CohortTable, stated: tuple[float, float]) -> Iterable[Check]:
    age = table.frame.age_years.to_numpy()
    if table.raw.age_years.isna().all():
        yield Check("ages", "doubtful", "`age_years` is stated, but no age is known, so it cannot be checked")
        return
    inside = ((age >= stated[0]) & (age < stated[1])).sum()
    text = f"{inside} of {len(age)} are in the stated range, {stated[0]:g} to {stated[1]:g}"
    outside = outside_ages(table).sum()
    if outside:
        text += f"; {outside} outside it are left out of validation and test"
    yield Check("ages", "ok", text)


def _ages_as_found(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Ages to offer if the manifest states none: those of the table."""
    offered = ages_to_offer(table, inputs)
    if offered is None:
        text = (
            "no age is known, so the ages that findings may be offered for are unknown: add `age_years: [from, to]` to "
            "the manifest (to is not included), or name the column of ages (columns: {age_years: …})"
        )
        yield Check("ages", "unusable", text)
        return
    age = table.frame.age_years.to_numpy()
    used = inputs.readable & (table.frame.part != "unused").to_numpy()
    unknown, minors = int((used & ~is_plausible(age)).sum()), used & (age < ADULT_YEARS)
    verdict: Verdict = "ok"
    text = f"`age_years` is not stated; offered for the ages of the table, {offered[0]:g} to {offered[1]:g}"
    if unknown:
        verdict = "doubtful"
        text += f"; the age is unknown in {unknown} of {used.sum()}"
    in_test = int((minors & (table.frame.part == "test").to_numpy()).sum())
    if offered[0] < ADULT_YEARS < offered[1] and in_test < MIN_CASES:
        verdict = "doubtful"
        text += (
            f"; {minors.sum()} are under {ADULT_YEARS:g} years, {in_test} of them in test: too few to "
            "evaluate. State `age_years` if findings are not to be offered for them"
        )
    yield Check("ages", verdict, text)


def ages_to_offer(table: CohortTable, inputs: Inputs) -> tuple[float, float] | None:
    """Ages that a finding may be offered for, lower bound included, upper bound not.

    From the manifest, else the range of the known ages of the used rows, in whole years; ``None`` if none is known.
    """
    if table.manifest.age_years is not None:
        return table.manifest.age_years
    used = inputs.readable & (table.frame.part != "unused").to_numpy()
    age = table.frame.age_years.to_numpy()[used]
    age = age[is_plausible(age)]
    return (float(np.floor(age.min())), float(np.floor(age.max())) + 1) if len(age) else None


def outside_ages(table: CohortTable) -> NDArray[np.bool_]:
    """``(n,)`` rows of validation and test that are left out, because nothing is offered for their age."""
    if table.manifest.age_years is None or table.manifest.modality == "labs":
        return np.zeros(len(table.frame), dtype=bool)
    low, high = table.manifest.age_years
    age = table.frame.age_years.to_numpy()
    decides = table.frame.part.isin(["validation", "test"]).to_numpy()
    return np.asarray(decides & ((age < low) | (age >= high)))


def is_plausible(age: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (age >= 0) & (age <= MAX_AGE_YEARS)
