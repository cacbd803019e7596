"""The person and the day as a film or a recording states them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from data_specs.person import BinarySex, age_at_examination, age_on
from data_specs.problems import Problem

MAX_DIFFERENCE_YEARS = 1.0
"""Completed years and the years since birth differ by less than one where both are right."""


@dataclass(frozen=True, slots=True)
class Subject:
    """``None`` where the file does not state it.

    Parameters
    ----------
    stated_years
        The age that the file states, as :func:`data_specs.person.read_age` gives it.
    born, recorded_on
        Birth date and day of the examination.
    """

    stated_years: float | None = None
    born: date | None = None
    sex: BinarySex | None = None
    person_id: str | None = None
    recorded_on: date | None = None

    @property
    def age_years(self) -> float | None:
        """The age that counts: :func:`data_specs.person.age_at_examination`."""
        return age_at_examination(self.stated_years, self.born, self.recorded_on)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """``age_contradicts`` (a reserve) where stated age and birth date are more than a year apart."""
        by_birth = age_on(self.born, self.recorded_on)
        if self.stated_years is None or by_birth is None:
            return ()
        if abs(self.stated_years - by_birth) <= MAX_DIFFERENCE_YEARS:
            return ()
        return (Problem("age_contradicts", "warn", f"{self.stated_years:.1f}; {by_birth:.1f}", "±1"),)
