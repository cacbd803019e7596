"""Whether a file and the context speak of the same person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from data_specs.problems import Problem
from data_specs.visit.context import Context, Person
from inference.person import mismatch


@dataclass(frozen=True)
class File:
    age_years: float | None = None
    sex: str | None = None
    person_id: str | None = None
    recorded_on: date | None = None
    problems: tuple[Problem, ...] = ()


def test_an_age_is_told_as_it_would_be_on_the_day_of_the_visit() -> None:
    """A file of twenty years ago that says 42, and a visit that says 42: what disagrees has to be what is told."""
    context = Context(person=Person(age_years=42), visited_on=date(2026, 11, 20))
    (problem,) = mismatch(File(age_years=42, recorded_on=date(2006, 11, 20)), context)
    assert (problem.severity, problem.found, problem.expected) == ("reject", "PatientAge 62", "42")
    assert mismatch(File(age_years=22, recorded_on=date(2006, 11, 20)), context) == []


def test_a_file_that_contradicts_itself_is_not_held_against_the_context() -> None:
    """The context may have been made from the birth date of the same file; another sex still is another person."""
    two_ages = (Problem("age_contradicts", "warn", "54.0; 71.0", "±1"),)
    context = Context(person=Person(age_years=71, sex="male"))
    assert [each.code for each in mismatch(File(age_years=54), context)] == ["person_mismatch"]
    assert mismatch(File(age_years=54, problems=two_ages), context) == []
    (problem,) = mismatch(File(age_years=54, sex="female", problems=two_ages), context)
    assert (problem.severity, problem.found) == ("reject", "PatientSex F")
