"""Who is seen first, rule by rule."""

from __future__ import annotations

import pytest

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
