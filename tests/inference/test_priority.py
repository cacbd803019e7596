"""Who is seen first, rule by rule."""

from __future__ import annotations

import math

import pytest

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedOrgan
from data_specs.visit.contract import Category, Organ
from inference.priority import prioritise


def organs(**categories: Category | None) -> dict[Organ, AssessedOrgan]:
    """Organs that were assessed, with their category; those not named were not."""
    return {
        name: AssessedOrgan(status="assessed", category=categories[name])
        if name in categories
        else AssessedOrgan(status="not_assessed")
        for name in ("lung", "cardiac", "kidney")
    }


@pytest.mark.parametrize(
    ("values", "past", "urgent"),
    [
        ({"heart_rate": 39}, (), True),
        ({"heart_rate": 40}, (), False),
        ({"heart_rate": 149}, (), False),
        ({"heart_rate": 150}, (), True),
        ({"qtc_interval": 500}, (), True),
        ({"egfr": 14.9}, (), True),
        ({"potassium_mmol_per_l": 6.5}, (), True),
        ({"potassium_mmol_per_l": 2.4}, (), True),
        ({"spo2_percent": 89}, (), True),
        ({"spo2_percent": 90}, (), False),
        ({}, ("pneumonia",), True),
        ({}, ("myocardial_infarction",), False),
        ({}, ("myocardial_infarction", "st_t_change"), True),
        ({}, ("effusion", "atrial_fibrillation"), False),
    ],
)
def test_urgent(values: dict[str, float], past: tuple[str, ...], urgent: bool) -> None:
    priority, reasons = prioritise(organs(lung="low"), values, frozenset(past))
    assert (priority == "urgent") is urgent
    assert ("finding_urgent" in {r.code for r in reasons}) is urgent


@pytest.mark.parametrize(
    ("assessed", "values", "priority", "code"),
    [
        ({"lung": "high"}, {}, "soon", "category_high"),
        ({"lung": "low"}, {"systolic_mmHg": 180}, "soon", "category_high"),
        ({"lung": "intermediate"}, {}, "routine", "category_intermediate"),
        ({"lung": "low", "kidney": None}, {}, "routine", "nothing_found"),
        ({}, {}, "unassessed", "nothing_assessed"),
        ({}, {"potassium_mmol_per_l": 7.0}, "urgent", "finding_urgent"),
    ],
)
def test_the_rest(assessed: dict[str, Category], values: dict[str, float], priority: str, code: str) -> None:
    found, reasons = prioritise(organs(**assessed), values, frozenset())
    assert found == priority
    assert reasons[0].code == code


def just_below(number: float) -> float:
    return math.nextafter(number, -math.inf)


@pytest.mark.parametrize(
    ("name", "urgent", "not_urgent"),
    [
        # ESC 2021 pacing guideline: < 40/min; ALS tachycardia algorithm: >= 150/min.
        ("heart_rate", (0, just_below(40), 150, 300), (40, 60, just_below(150))),
        # AHA/ACCF/HRS 2009: >= 500 ms. A short one is no reason.
        ("qtc_interval", (500, 501), (0, 320, just_below(500))),
        # KDIGO 2024: G5 is below 15.
        ("egfr", (0, just_below(15)), (15, 60, 140, 1e6)),
        # UKKA 2023: severe from 6.5 mmol/L; severe hypokalaemia below 2.5.
        ("potassium_mmol_per_l", (1, just_below(2.5), 6.5, 11), (2.5, 4, just_below(6.5))),
        # WHO: oxygen below 90 %.
        ("spo2_percent", (30, just_below(90)), (90, 95, 100)),
    ],
)
def test_each_urgent_limit_from_both_sides(name: str, urgent: tuple[float, ...], not_urgent: tuple[float, ...]) -> None:
    for value in urgent:
        assert prioritise(organs(lung="low"), {name: value}, frozenset()) == (
            "urgent",
            [Problem("finding_urgent", "warn", found=name)],
        )
    for value in not_urgent:
        priority, reasons = prioritise(organs(lung="low"), {name: value}, frozenset())
        assert priority != "urgent", value
        assert all(reason.code != "finding_urgent" for reason in reasons)


@pytest.mark.parametrize(
    ("name", "limit"),
    # UKKA 2023: moderate hyperkalaemia from 6.0 mmol/L. ISH 2020: severe hypertension from 180 or from 110 mmHg.
    [("potassium_mmol_per_l", 6.0), ("systolic_mmHg", 180), ("diastolic_mmHg", 110)],
)
def test_each_limit_of_soon_from_both_sides(name: str, limit: float) -> None:
    for value in (limit, limit + 0.1):
        assert prioritise(organs(kidney="low"), {name: value}, frozenset()) == (
            "soon",
            [Problem("category_high", "warn", found=name)],
        )
    assert prioritise(organs(kidney="low"), {name: just_below(limit)}, frozenset()) == (
        "routine",
        [Problem("nothing_found", "warn")],
    )


def test_what_is_urgent_is_not_said_again_as_soon() -> None:
    _, reasons = prioritise(organs(kidney="low"), {"potassium_mmol_per_l": 6.5, "systolic_mmHg": 200}, frozenset())
    assert [(reason.code, reason.found) for reason in reasons] == [
        ("finding_urgent", "potassium_mmol_per_l"),
        ("category_high", "systolic_mmHg"),
    ]


@pytest.mark.parametrize(
    ("past", "named"),
    [
        # No shipped finding is called pneumothorax yet; a bundle that finds it makes the visit urgent.
        (("pneumothorax",), ["pneumothorax"]),
        (("pneumonia", "abnormal"), ["pneumonia"]),
        (("st_t_change",), []),
        (("myocardial_infarction",), []),
        (("st_t_change", "myocardial_infarction"), ["myocardial_infarction", "st_t_change"]),
    ],
)
def test_findings_that_are_urgent_past_their_rule_in_point(past: tuple[str, ...], named: list[str]) -> None:
    _, reasons = prioritise(organs(lung="low"), {}, frozenset(past))
    assert [reason.found for reason in reasons if reason.code == "finding_urgent"] == named


def test_the_most_pressing_reason_stands_first_and_every_reason_is_a_reserve() -> None:
    assessed = organs(lung="intermediate", cardiac="high", kidney="high")
    values = {"heart_rate": 160.0, "diastolic_mmHg": 120.0}
    priority, reasons = prioritise(assessed, values, frozenset({"pneumonia"}))
    assert priority == "urgent"
    assert [(reason.code, reason.found) for reason in reasons] == [
        ("finding_urgent", "heart_rate"),
        ("finding_urgent", "pneumonia"),
        ("category_high", "cardiac"),
        ("category_high", "kidney"),
        ("category_high", "diastolic_mmHg"),
        ("category_intermediate", "lung"),
    ]
    assert {reason.severity for reason in reasons} == {"warn"}


def test_an_organ_that_was_not_assessed_has_no_category() -> None:
    given = organs(lung="low")
    given["cardiac"] = AssessedOrgan(status="not_assessed", category="high")
    assert prioritise(given, {}, frozenset()) == ("routine", [Problem("nothing_found", "warn")])


def test_nothing_assessed_is_no_routine_visit() -> None:
    assert prioritise(organs(), {}, frozenset()) == ("unassessed", [Problem("nothing_assessed", "warn")])
    assert prioritise(organs(), {"systolic_mmHg": 185}, frozenset())[0] == "soon"


def test_an_uncalibrated_output_is_not_the_absence_of_a_finding() -> None:
    bare, other = Problem("uncalibrated", "warn", found="mass"), Problem("saturated", "warn")
    given = organs(lung=None, kidney="low")
    given["lung"] = AssessedOrgan(status="assessed", reasons=[other, bare])
    assert prioritise(given, {}, frozenset()) == ("routine", [bare])
    given["kidney"] = AssessedOrgan(status="assessed", category="intermediate")
    assert [r.code for r in prioritise(given, {}, frozenset())[1]] == ["category_intermediate", "uncalibrated"]


@pytest.mark.parametrize("code", ["uncalibrated", "paced"])
def test_what_could_not_be_decided_is_never_nothing_found(code: str) -> None:
    reserve = Problem(code, "warn")
    cardiac = AssessedOrgan(status="assessed", reasons=[reserve], category=None)
    assert prioritise({"cardiac": cardiac}, {}, frozenset()) == ("routine", [reserve])
