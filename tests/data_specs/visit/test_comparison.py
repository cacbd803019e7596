"""A person's visits beside each other: changes, courses, and what makes a change doubtful."""

from __future__ import annotations

from datetime import date

import pytest

from data_specs.visit.assessment import AssessedOrgan, Assessment, FoundFinding
from data_specs.visit.comparison import AssessedVisit, compare
from data_specs.visit.contract import ModelUsed


def visit(
    on: date, *, egfr: float | None = None, pneumonia: float | None = None, stage: str = "G2", lung: str = "1.2.0"
):
    kidney, films = [], []
    if egfr is not None:
        kidney = [
            FoundFinding(name="egfr", value=egfr, unit="mL/min/{1.73_m2}"),
            FoundFinding(name="kdigo_g", value=stage),
        ]
    if pneumonia is not None:
        films = [FoundFinding(name="pneumonia", probability=pneumonia, positive=pneumonia >= 0.5)]
    organs = {
        "lung": AssessedOrgan(status="assessed" if films else "not_assessed", findings=films),
        "kidney": AssessedOrgan(status="assessed" if kidney else "not_assessed", findings=kidney),
    }
    models = [ModelUsed(name="lung", version=lung, sha256="0" * 64)]
    found = Assessment(organs=organs, inputs=[], models=models, priority="routine", priority_reasons=[])
    return AssessedVisit(f"visit of {on}", on, 1, found)


def test_the_slope_is_the_least_squares_line_per_year() -> None:
    years = [visit(date(2023 + n, 3, 1), egfr=value) for n, value in enumerate((90, 86, 82))]
    (course,) = compare(visit(date(2026, 3, 1), egfr=78), years).courses
    assert course.per_year == pytest.approx(-4, abs=0.02)
    assert [value for _, value in course.points] == [90, 86, 82, 78]
    assert not course.provisional


@pytest.mark.parametrize(("days", "told"), [(60, False), (91, True)])
def test_values_too_close_together_have_no_slope(days: int, told: bool) -> None:
    then, now = date(2026, 1, 1), date.fromordinal(date(2026, 1, 1).toordinal() + days)
    (course,) = compare(visit(now, egfr=70), [visit(then, egfr=80)]).courses
    assert (course.per_year is not None) is told
    assert course.provisional


@pytest.mark.parametrize(
    ("then", "now", "turn"), [(0.2, 0.8, "new"), (0.8, 0.2, "gone"), (0.8, 0.9, "still"), (0.1, 0.2, "still_not")]
)
def test_a_finding_turns(then: float, now: float, turn: str) -> None:
    found = compare(visit(date(2026, 1, 1), pneumonia=now), [visit(date(2025, 1, 1), pneumonia=then)])
    (change,) = found.earlier[0].changes
    assert (change.turn, change.difference) == (turn, pytest.approx(now - then))


def test_words_change_without_a_difference_and_what_was_missing_is_no_change() -> None:
    found = compare(
        visit(date(2026, 1, 1), egfr=55, stage="G3a", pneumonia=0.1), [visit(date(2025, 1, 1), egfr=70, stage="G2")]
    )
    changes = {each.finding: each for each in found.earlier[0].changes}
    assert (changes["kdigo_g"].then, changes["kdigo_g"].now, changes["kdigo_g"].difference) == ("G2", "G3a", None)
    assert "pneumonia" not in changes


def test_different_bundles_are_told_and_the_latest_comes_first() -> None:
    found = compare(
        visit(date(2026, 1, 1), pneumonia=0.4),
        [visit(date(2024, 1, 1), pneumonia=0.4, lung="1.0.0"), visit(date(2025, 1, 1), pneumonia=0.4)],
    )
    assert [each.on.year for each in found.earlier] == [2025, 2024]
    assert [[(d.name, d.then, d.now) for d in each.different_bundles] for each in found.earlier] == [
        [],
        [("lung", "1.0.0", "1.2.0")],
    ]
