"""Whether a file and the context speak of the same person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from data_specs.visit.context import Context, Person
from inference.person import mismatch


@dataclass(frozen=True)
class File:
    age_years: float | None = None
    sex: str | None = None
    person_id: str | None = None
    recorded_on: date | None = None


def test_an_age_is_told_as_it_would_be_on_the_day_of_the_visit() -> None:
    """A file of twenty years ago that says 42, and a visit that says 42: what disagrees has to be what is told."""
    context = Context(person=Person(age_years=42), visited_on=date(2026, 11, 20))
    (problem,) = mismatch(File(age_years=42, recorded_on=date(2006, 11, 20)), context)
    assert (problem.severity, problem.found, problem.expected) == ("reject", "PatientAge 62", "42")
    assert mismatch(File(age_years=22, recorded_on=date(2006, 11, 20)), context) == []
