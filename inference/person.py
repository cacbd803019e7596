"""Whether a file and the context are of the same person, and which age is used."""

from __future__ import annotations

import math
from datetime import date
from typing import Protocol

from data_specs.problems import Problem
from data_specs.visit.context import Context, Person

AGE_TOLERANCE_YEARS = 2.0
"""Ages are rounded, and a birthday may lie between a file and its visit; a larger difference is another person."""


class FromFile(Protocol):
    @property
    def age_years(self) -> float | None: ...
    @property
    def sex(self) -> str | None: ...
    @property
    def person_id(self) -> str | None: ...
    @property
    def recorded_on(self) -> date | None: ...


def mismatch(file: FromFile, context: Context) -> list[Problem]:
    """``person_mismatch`` where file and context disagree.

    A different sex or age refuses the file. A different identifier is only a reserve, because hospitals use different
    identifiers for one person: a local record number, a national number. Where both dates are known, the age is
    taken back from the day of the visit to the day on which the file was made.
    """
    person = context.person
    earlier_years = 0.0
    if context.visited_on is not None and file.recorded_on is not None:
        earlier_years = (context.visited_on - file.recorded_on).days / 365.25
    found, expected = [], []
    if person.sex in ("female", "male") and file.sex is not None and file.sex != person.sex:
        found.append(f"PatientSex {file.sex[0].upper()}")
        expected.append(person.sex[0].upper())
    if (
        person.age_years is not None
        and file.age_years is not None
        and abs(file.age_years + earlier_years - person.age_years) > AGE_TOLERANCE_YEARS
    ):
        found.append(f"PatientAge {file.age_years + earlier_years:.0f}")
        expected.append(f"{person.age_years:.0f}")
    if found:
        return [Problem("person_mismatch", "reject", found=", ".join(found), expected=", ".join(expected))]
    if person.id and file.person_id and person.id.strip() != file.person_id.strip():
        return [Problem("person_mismatch", "warn", found="PatientID ≠", expected="PatientID =")]
    return []


def age_text(age_years: float | None) -> str:
    """An age for a message about limits of age, rounded down: 17.96 must not be shown as 18."""
    return "" if age_years is None else f"{math.floor(age_years * 10) / 10:g}"


def age_of(file: FromFile, person: Person) -> float | None:
    """The age in years that is used: the context's, else the file's."""
    return person.age_years if person.age_years is not None else file.age_years
