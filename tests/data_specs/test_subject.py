"""A file that states an age and a birth date: which age counts, and when they contradict each other."""

from __future__ import annotations

import math
from datetime import date

import pytest

from data_specs.problems import Problem
from data_specs.subject import MAX_DIFFERENCE_YEARS, Subject

BORN, ON = date(1960, 5, 20), date(2026, 5, 20)
"""66.0 years."""


@pytest.mark.parametrize(
    ("stated", "contradicts"),
    [
        (66.0, False),
        (65.0, False),
        (67.0, False),
        (math.nextafter(65.0, 0), True),
        (math.nextafter(67.0, 100), True),
        (1.0, True),
        (120.0, True),
    ],
)
def test_an_age_more_than_a_year_from_the_birth_date_is_a_reserve(stated: float, contradicts: bool) -> None:
    """Completed years (65, the day before the birthday) and the years since birth (66.0) are both right."""
    assert MAX_DIFFERENCE_YEARS == 1
    subject = Subject(stated_years=stated, born=BORN, recorded_on=ON)
    assert subject.age_years == stated, "the stated age counts"
    expected = (Problem("age_contradicts", "warn", f"{stated:.1f}; 66.0", "±1"),) if contradicts else ()
    assert subject.problems == expected


@pytest.mark.parametrize(
    ("subject", "age_years"),
    [
        (Subject(), None),
        (Subject(stated_years=40), 40),
        (Subject(stated_years=40, born=BORN), 40),
        (Subject(stated_years=40, recorded_on=ON), 40),
        (Subject(born=BORN, recorded_on=ON), 66),
        (Subject(born=BORN), None),
        (Subject(recorded_on=ON), None),
    ],
)
def test_where_one_of_them_is_not_known_nothing_contradicts(subject: Subject, age_years: float | None) -> None:
    assert subject.problems == ()
    assert subject.age_years == age_years
