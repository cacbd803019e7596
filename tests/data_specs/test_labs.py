"""Laboratory values: names, units, plausibility, and what is left out rather than guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_specs.labs import ANALYTES, standard_labs
from data_specs.visit.context import Lab
from data_specs.vocabulary import LANGUAGES


def one(name: str, value: float, unit: str) -> tuple[dict[str, float], list[str]]:
    values, problems = standard_labs([Lab(name=name, value=value, unit=unit)])
    return values, [problem.code for problem in problems]


@pytest.mark.parametrize(
    ("name", "value", "unit", "key", "canonical"),
    [
        ("creatinine", 88, "umol/L", "creatinine_umol_per_l", 88),
        ("creatinine", 88, "µmol/L", "creatinine_umol_per_l", 88),
        ("creatinine", 88, "μmol/l", "creatinine_umol_per_l", 88),
        ("Creatinine", 1.0, "mg/dL", "creatinine_umol_per_l", 88.4),
        ("Créatinine", 10.0, "mg/L", "creatinine_umol_per_l", 88.4),
        ("2160-0", 1.0, "mg/dl", "creatinine_umol_per_l", 88.4),
        ("urine_acr", 3.4, "mg/mmol", "urine_acr_mg_per_g", 30.06),
        ("ACR", 30, "mg/g", "urine_acr_mg_per_g", 30),
        ("urine_acr", 30, "mg/g{creat}", "urine_acr_mg_per_g", 30),
        ("urine_acr", 30, "mg/g．CR", "urine_acr_mg_per_g", 30),
        ("urine_acr", 30, "ｍｇ／ｇ", "urine_acr_mg_per_g", 30),
        ("glucose", 90, "mg／dl", "glucose_mmol_per_l", 4.9956),
        ("creatinine", 90, "μmol⁄L", "creatinine_umol_per_l", 90),
        ("creatinine", 90, "µmol∕l", "creatinine_umol_per_l", 90),
        ("urine_acr", 30, "mg/g creatinine", "urine_acr_mg_per_g", 30),
        ("urine_acr", 30, "µg/mg", "urine_acr_mg_per_g", 30),
        ("potassium", 4.5, "mmol/L", "potassium_mmol_per_l", 4.5),
        ("potassium", 4.5, "mEq/L", "potassium_mmol_per_l", 4.5),
        ("hba1c", 6.5, "%", "hba1c_percent", 6.5),
        ("HbA1c", 48, "mmol/mol", "hba1c_percent", 6.54),
        ("hba1c", 48, "mmol/mol{Hb}", "hba1c_percent", 6.54),
        ("glucose", 126, "mg/dL", "glucose_mmol_per_l", 6.99),
        ("glucose", 1.26, "g/L", "glucose_mmol_per_l", 6.99),
        ("total_cholesterol", 200, "mg/dL", "total_cholesterol_mmol_per_l", 5.17),
        ("triglycerides", 150, "mg/dL", "triglycerides_mmol_per_l", 1.694),
        ("haemoglobin", 13.5, "g/dL", "haemoglobin_g_per_l", 135),
        ("urea", 30, "mg/dL", "urea_mmol_per_l", 4.99),
        ("BUN", 14, "mg/dL", "urea_mmol_per_l", 5.0),
        ("uric_acid", 6, "mg/dL", "uric_acid_umol_per_l", 356.9),
        ("albumin", 4, "g/dL", "albumin_g_per_l", 40),
    ],
)
def test_units_are_converted(name: str, value: float, unit: str, key: str, canonical: float) -> None:
    values, problems = one(name, value, unit)
    assert problems == []
    assert values == {key: pytest.approx(canonical, rel=2e-3)}


def test_hba1c_agrees_with_the_published_pairs() -> None:
    """IFCC 42, 48, 53, 64, 75 mmol/mol are NGSP 6.0, 6.5, 7.0, 8.0, 9.0 % (Hoelzel 2004, master equation)."""
    for ifcc, ngsp in ((42, 6.0), (48, 6.5), (53, 7.0), (64, 8.0), (75, 9.0)):
        assert round(one("hba1c", ifcc, "mmol/mol")[0]["hba1c_percent"], 1) == ngsp


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("creatinine", 88, "mg/dL"),
        ("creatinine", 0.9, "umol/L"),
        ("potassium", 45, "mmol/L"),
        ("potassium", -4, "mmol/L"),
        ("hba1c", 48, "%"),
        ("hba1c", -5, "mmol/mol"),
        ("glucose", 126, "mmol/L"),
        ("haemoglobin", 13.5, "g/L"),
        ("urine_acr", 1e6, "mg/g"),
    ],
)
def test_a_value_in_the_wrong_unit_is_refused(name: str, value: float, unit: str) -> None:
    values, problems = one(name, value, unit)
    assert (values, problems) == ({}, ["value_implausible"])


@pytest.mark.parametrize(
    ("name", "unit"), [("creatinine", ""), ("creatinine", "U/L"), ("hba1c", "mmol/L"), ("bun", "mmol/L")]
)
def test_a_unit_is_never_guessed(name: str, unit: str) -> None:
    assert one(name, 60, unit) == ({}, ["unit_not_accepted"])


def test_an_unknown_name_is_said_and_the_rest_is_used() -> None:
    values, problems = standard_labs(
        [Lab(name="unobtainium", value=1, unit="mg/dL"), Lab(name="potassium", value=4, unit="mmol/L")]
    )
    assert values == {"potassium_mmol_per_l": 4}
    assert [(p.code, p.severity, p.found) for p in problems] == [("lab_unknown", "warn", "labs[0]")]


def test_the_same_value_twice_is_one_value() -> None:
    twice = [Lab(name="creatinine", value=88, unit="umol/L"), Lab(name="creatinine", value=1.0, unit="mg/dL")]
    assert standard_labs(twice) == ({"creatinine_umol_per_l": 88}, [])


@pytest.mark.parametrize("second", [("creatinine", 120.0, "umol/L"), ("scr", 2.0, "mg/dL")])
def test_two_values_that_differ_are_both_left_out(second: tuple[str, float, str]) -> None:
    name, value, unit = second
    labs = [Lab(name="creatinine", value=88, unit="umol/L"), Lab(name=name, value=value, unit=unit)]
    values, problems = standard_labs(labs)
    assert values == {}
    assert [(p.code, p.severity) for p in problems] == [("lab_conflict", "reject")]
    assert "88 umol/L" in problems[0].found


def test_the_ratio_is_computed_from_its_parts_unless_it_was_reported() -> None:
    parts = [Lab(name="urine_albumin", value=34, unit="mg/L"), Lab(name="urine_creatinine", value=10, unit="mmol/L")]
    values, problems = standard_labs(parts)
    assert problems == []
    assert values["urine_acr_mg_per_g"] == pytest.approx(3.4 * 8.84)
    reported = Lab(name="urine_acr", value=50, unit="mg/g")
    assert standard_labs([*parts, reported])[0]["urine_acr_mg_per_g"] == 50
    differing = Lab(name="acr", value=90, unit="mg/g")
    assert "urine_acr_mg_per_g" not in standard_labs([*parts, reported, differing])[0]


def test_names_and_keys_are_unambiguous() -> None:
    names = [name for analyte in ANALYTES for name in (analyte.name, *analyte.aliases)]
    assert len(set(names)) == len(names)
    for analyte in ANALYTES:
        suffix = analyte.unit.replace("%", "percent").replace("/", "_per_").lower()
        assert analyte.key.endswith(suffix)
        assert analyte.minimum < analyte.maximum
        assert (
            any(unit.factor == 1 and unit.offset == 0 for unit in analyte.units.values())
            or analyte.name == "urea_nitrogen"
        )


def test_messages_are_said_in_three_languages_in_words_of_the_vocabulary() -> None:
    _, (problem,) = standard_labs([Lab(name="creatinine", value=9000, unit="umol/L")])
    assert problem.message("vi").startswith("creatinin máu, 9000 umol/L")
    assert problem.message("fr").startswith("créatinine sanguine, 9000 umol/L")


@given(
    st.lists(
        st.builds(
            Lab,
            name=st.text(min_size=1, max_size=60),
            value=st.floats(allow_nan=False, allow_infinity=False),
            unit=st.text(max_size=30),
        ),
        max_size=5,
    )
)
def test_any_input_gives_values_in_range_or_problems(labs: list[Lab]) -> None:
    values, problems = standard_labs(labs)
    by_key = {analyte.key: analyte for analyte in ANALYTES}
    assert all(by_key[key].minimum <= value <= by_key[key].maximum for key, value in values.items())
    for problem in problems:
        assert all(problem.message(language) for language in LANGUAGES)
