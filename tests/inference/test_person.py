"""Whether a file and the context speak of the same person."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import pytest

from data_specs.problems import Problem
from data_specs.visit.context import Context, Person
from inference.person import age_of, format_age, mismatch


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


@pytest.mark.parametrize(
    ("age_years", "agrees"),
    [(38.0, True), (42.0, True), (math.nextafter(38, 0), False), (math.nextafter(42, 99), False), (None, True)],
)
def test_ages_agree_within_two_years(age_years: float | None, agrees: bool) -> None:
    problems = mismatch(File(age_years=age_years), Context(person=Person(age_years=40)))
    assert problems == (
        [] if agrees else [Problem("person_mismatch", "reject", f"PatientAge {format_age(age_years)}", "40")]
    )


def test_an_age_is_moved_only_where_both_days_are_known() -> None:
    file = File(age_years=22, recorded_on=date(2006, 11, 20))
    assert mismatch(file, Context(person=Person(age_years=22))) == []
    assert mismatch(File(age_years=22), Context(person=Person(age_years=22), visited_on=date(2026, 11, 20))) == []


@pytest.mark.parametrize(
    ("stated", "in_file", "found", "expected"),
    [
        ("male", "female", "PatientSex F", "M"),
        ("female", "male", "PatientSex M", "F"),
        ("male", "male", None, None),
        ("female", "female", None, None),
        ("other", "male", None, None),
        (None, "male", None, None),
        ("male", None, None, None),
    ],
)
def test_another_sex_is_another_person(
    stated: str | None, in_file: str | None, found: str | None, expected: str | None
) -> None:
    problems = mismatch(File(sex=in_file), Context.model_validate({"person": {"sex": stated}}))
    assert problems == ([Problem("person_mismatch", "reject", found, expected or "")] if found else [])


def test_sex_and_age_are_told_together_and_before_the_identifier() -> None:
    context = Context.model_validate({"person": {"sex": "male", "age_years": 40, "id": "A"}})
    assert mismatch(File(sex="female", age_years=60, person_id="B"), context) == [
        Problem("person_mismatch", "reject", "PatientSex F, PatientAge 60", "M, 40")
    ]


@pytest.mark.parametrize(
    ("stated", "in_file", "differs"),
    [
        ("A", "B", True),
        ("A", " A ", False),
        ("A", None, False),
        (None, "B", False),
        ("", "B", False),
        (None, None, False),
    ],
)
def test_another_identifier_is_a_reserve(stated: str | None, in_file: str | None, differs: bool) -> None:
    problems = mismatch(File(person_id=in_file), Context(person=Person(id=stated)))
    assert problems == ([Problem("person_mismatch", "warn", "PatientID")] if differs else [])


def test_an_age_in_a_message_never_reaches_the_bound_that_it_misses() -> None:
    assert [format_age(years) for years in (17.99, 18, 18.04, 0.0, None)] == ["17.9", "18", "18", "0", ""]


def test_the_contexts_age_counts_before_the_files() -> None:
    assert age_of(File(age_years=40), Person(age_years=50)) == 50
    assert age_of(File(age_years=40), Person()) == 40
    assert age_of(File(age_years=40), Person(age_years=0)) == 0
    assert age_of(File(), Person()) is None
