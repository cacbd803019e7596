"""Every limit of the shipped table at itself and just below it, as its source says; and how a rule is read."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from data_specs.next_steps.rules import ADULT_YEARS, Probability, Rule, Value
from data_specs.next_steps.table import read_table
from tests.data_specs.next_steps.test_next_steps import facts

FROM_BELOW: list[tuple[str, str, float | None, float | None]] = [
    # rule, value or probability, from (included), below (not included)
    ("hypoxaemia", "spo2_percent", None, 90),  # WHO IMCI: SpO2 < 90 %
    ("slow_heart", "heart_rate", None, 40),  # ESC 2021: < 40/min
    ("slow_heart", "heart_rate_per_min", None, 40),
    ("fast_heart", "heart_rate", 150, None),  # AHA 2020: >= 150/min
    ("fast_heart", "heart_rate_per_min", 150, None),
    ("long_qt", "qtc_interval", 500, None),  # AHA/ACCF 2010: >= 500 ms
    ("potassium_severe", "potassium_mmol_per_l", 6.5, None),  # UKKA 2023: mild 5.5 to 5.9, moderate 6.0 to 6.4, severe
    ("potassium_moderate", "potassium_mmol_per_l", 6.0, 6.5),
    ("potassium_mild", "potassium_mmol_per_l", 5.5, 6.0),
    ("potassium_very_low", "potassium_mmol_per_l", None, 2.5),  # Unwin 2011: severe < 2.5 mmol/L
    ("kidney_failure", "egfr", None, 15),  # KDIGO 2024: G5 < 15
    ("egfr_falls", "egfr_per_year", None, -5),  # KDIGO 2024: rapid progression
    ("egfr_low", "egfr", 15, 30),  # KDIGO 2024: referral < 30
    ("glucose_very_low", "glucose_mmol_per_l", None, 3.0),  # ADA 2024: level 2 < 3.0 mmol/L
    ("severe_hypertension", "systolic_mmHg", 180, None),  # ISH 2020: grade 2 and emergencies >= 180 and/or >= 110
    ("severe_hypertension", "diastolic_mmHg", 110, None),
    ("raised_blood_pressure", "systolic_mmHg", 140, None),  # ISH 2020: hypertension >= 140 and/or >= 90
    ("raised_blood_pressure", "diastolic_mmHg", 90, None),
    ("kidney_failure_2_years", "kfre_2y", 0.1, None),  # KDIGO 2024, 2.2.2: 10 %
    ("kidney_failure_5_years", "kfre_5y", 0.05, None),  # KDIGO 2024, 2.2.1: 3 to 5 %
    ("kidney_failure_5_years_near", "kfre_5y", 0.03, 0.05),
    ("kidney_failure_5_years_near", "kfre_5y_north_america", 0.05, None),
    ("kidney_failure_5_years_near", "kfre_2y_north_america", 0.1, None),
    ("severe_anaemia", "haemoglobin_g_per_l", None, 80),  # WHO 2024: severe < 80 g/L
    ("diabetes_range", "hba1c_percent", 6.5, None),  # ADA 2024: >= 6.5 %, random glucose >= 11.1 mmol/L
    ("diabetes_range", "glucose_mmol_per_l", 11.1, None),
]
AGES = {
    # in years, from (included) and below; BTS and WHO: a child's pneumonia is under 5.
    "slow_heart": (18, 131),
    "fast_heart": (18, 131),
    "long_qt": (18, 131),
    "severe_hypertension": (18, 131),
    "pneumonia_child": (0, 5),
    "pneumonia_child_possible": (0, 5),
    "pneumonia_urgent": (5, 131),
    "pneumonia_possible": (5, 131),
    "film_abnormal": (15, 131),
    "atrial_fibrillation": (18, 131),
    "raised_blood_pressure": (18, 131),
    "severe_anaemia": (15, 131),
}
WITHIN_DAYS = {
    0: """hypoxaemia pneumothorax pulmonary_oedema infarction_perhaps_new slow_heart fast_heart long_qt potassium_severe
       potassium_very_low kidney_failure glucose_very_low severe_hypertension pneumonia_child pneumonia_urgent""",
    1: "potassium_moderate pneumonia_child_possible",
    2: "pneumonia_possible tuberculosis infarction_pattern severe_anaemia",
    3: "potassium_mild",
    7: """pleural_effusion film_abnormal atrial_fibrillation st_t_change film_again ecg_again outside_ages
       film_for_a_doctor ecg_for_a_doctor
       other_person ecg_contradicts read_by_a_doctor
       numbers_not_calibrated undecided_by_the_model other_finding complete""",
    14: "lung_mass diabetes_range",
    28: "raised_blood_pressure",
    30: """large_heart conduction hypertrophy ecg_not_normal egfr_low kidney_failure_2_years albuminuria_severe
        egfr_falls labs_missing albuminuria_missing""",
    90: "kidney_failure_5_years kidney_failure_5_years_near kidney_to_confirm",
    365: "kidney_disease_to_come",
    None: "next_round",
}
LABS = {
    "potassium_mmol_per_l": ("potassium", "mmol/L"),
    "glucose_mmol_per_l": ("glucose", "mmol/L"),
    "haemoglobin_g_per_l": ("hb", "g/L"),
    "hba1c_percent": ("hba1c", "%"),
}
RULES = read_table().rules


def holds(rule: str, name: str, number: float) -> bool:
    given = facts(labs={LABS[name][0]: (number, LABS[name][1])}) if name in LABS else facts(**{name: number})
    matched = RULES[rule].matches(given)
    assert matched in (None, (name,))
    return matched is not None


@pytest.mark.parametrize(("rule", "name", "from_", "below"), FROM_BELOW)
def test_each_limit_from_both_sides(rule: str, name: str, from_: float | None, below: float | None) -> None:
    if from_ is not None:
        assert holds(rule, name, from_)
        assert not holds(rule, name, math.nextafter(from_, 0))
    if below is not None:
        assert not holds(rule, name, below)
        assert holds(rule, name, math.nextafter(below, -math.inf))


def test_no_other_limit_stands_in_the_table() -> None:
    stated = [
        (
            name,
            condition.value if isinstance(condition, Value) else condition.probability,
            condition.from_,
            condition.below,
        )
        for name, rule in RULES.items()
        for condition in (*rule.all_of, *rule.any_of)
        if isinstance(condition, Probability) or (isinstance(condition, Value) and not condition.words)
    ]
    assert sorted(stated, key=str) == sorted(FROM_BELOW, key=str)


@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_for_its_ages_and_within_its_days(name: str) -> None:
    rule = RULES[name]
    assert name in WITHIN_DAYS[rule.within_days].split()
    first, end = AGES.get(name, (None, None))
    for years in (0.0, 4.0, 40.0, 130.0):
        assert rule.is_for_age(years) is (first is None or first <= years < end)
    if first is not None and end is not None:
        assert rule.is_for_age(first)
        assert not rule.is_for_age(math.nextafter(first, -1))
        assert not rule.is_for_age(end)
        assert rule.is_for_age(math.nextafter(end, 0))
    assert rule.is_for_age(None) is (not name.startswith("pneumonia_child")), "an unknown age is an adult's"


def made(**members: object) -> Rule:
    row = {"step": "ask", "vi": "Hỏi.", "fr": "Demander.", "en": "Ask.", "source": "s"}
    return Rule.model_validate(row | {"any": [{"positive": "mass"}]} | members)


def test_an_unknown_age_is_that_of_an_adult_from_the_eighteenth_birthday() -> None:
    assert ADULT_YEARS == 18
    for end, is_adults in ((18, False), (18.5, True), (19, True), (17, False)):
        assert made(ages=[0, end]).is_for_age(None) is is_adults


@pytest.mark.parametrize(("ages", "possible"), [([0, 1], True), ([-0.5, 1], False), ([5, 5], False), ([5, 5.1], True)])
def test_ages_begin_at_birth_and_are_not_empty(ages: list[float], possible: bool) -> None:
    if possible:
        assert made(ages=ages).ages == tuple(ages)
    else:
        with pytest.raises(ValidationError, match="no age can be from"):
            made(ages=ages)


@pytest.mark.parametrize(
    ("condition", "possible"),
    [
        # potassium: 1 to 11 mmol/L can reach the rules.
        ({"value": "potassium_mmol_per_l", "from": 11}, True),
        ({"value": "potassium_mmol_per_l", "from": 11.01}, False),
        ({"value": "potassium_mmol_per_l", "below": 1.01}, True),
        ({"value": "potassium_mmol_per_l", "below": 1}, False),
        ({"value": "potassium_mmol_per_l", "from": 0.5, "below": 1}, False),
        ({"value": "potassium_mmol_per_l", "from": 6, "below": 6}, False),
        ({"value": "potassium_mmol_per_l", "from": 6, "below": 6.01}, True),
        ({"value": "spo2_percent", "from": 100}, True),
        ({"value": "spo2_percent", "below": 30}, False),
        ({"value": "egfr", "below": 0}, False),
        ({"value": "egfr", "below": 0.5}, True),
        ({"value": "qtc_interval", "below": 0.5}, True),
        ({"probability": "kfre_5y", "from": 1}, True),
        ({"probability": "kfre_5y", "from": 1.001}, False),
        ({"probability": "kfre_5y", "below": 0}, False),
        ({"value": "kdigo_g", "is": ["G4"], "from": 1}, False),
        ({"value": "kdigo_g", "is": ["G4"], "below": 1}, False),
        ({"value": "kdigo_g", "is": ["G4", "G5"]}, True),
        ({"value": "kdigo_g", "is": []}, False),
    ],
)
def test_a_condition_that_nobody_can_meet_is_refused(condition: dict[str, object], possible: bool) -> None:
    if possible:
        assert made(any=[condition])
    else:
        with pytest.raises(ValidationError):
            made(any=[condition])


def test_the_first_unknown_word_is_named() -> None:
    with pytest.raises(ValidationError, match="is: 'G7' is not one of G1, G2, G3a, G3b, G4, G5"):
        made(any=[{"value": "kdigo_g", "is": ["G4", "G7", "G8"]}])


def test_a_condition_of_no_kind_is_told_which_kinds_there_are() -> None:
    with pytest.raises(ValidationError) as raised:
        made(any=[{"smoker": True}])
    (error,) = raised.value.errors()
    assert error["type"] == "condition"
    assert error["msg"] == "a condition is about one of positive, negative, probability, value, organ"


@pytest.mark.parametrize("member", [{"all": [{"positive": "mass"}]}, {"ages": [0, 5]}, {"unless": ["other"]}])
def test_an_otherwise_rule_has_no_condition_of_its_own(member: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="an otherwise rule holds for whatever is left"):
        made(any=[], otherwise="open", **member)
    assert made(any=[], otherwise="open").otherwise == "open"


def test_a_sentence_is_one_line_of_up_to_300_characters() -> None:
    assert made(en=" Ask\n  again. ").en == "Ask again."
    assert made(en="x").en == "x"
    assert len(made(en="x" * 300).en) == 300
    with pytest.raises(ValidationError):
        made(en="x" * 301)
    with pytest.raises(ValidationError):
        made(en=" ")


def test_a_value_that_is_not_known_meets_no_condition() -> None:
    assert holds("hypoxaemia", "spo2_percent", 80)
    assert RULES["hypoxaemia"].matches(facts()) is None
    assert "spo2_percent" not in facts(systolic_mmHg=120).values


def test_a_problem_of_a_file_belongs_to_the_organ_that_it_was_posted_for() -> None:
    given = facts(reserves={"lung": "age_unknown"}, refused={"lung": "unreadable", "cardiac": "lead_flat"})
    assert given.reasons("lung") == {"age_unknown", "unreadable"}
    assert given.reasons("cardiac") == {"lead_flat"}
    assert given.reasons("kidney") == set()


def test_everything_is_decided_where_everything_was_assessed() -> None:
    assert facts(normal_ecg=True, pneumonia=False, egfr=95).all_decided
    assert not facts(missing={"lung": "no_image"}).all_decided
    assert not facts(missing=dict.fromkeys(("lung", "cardiac", "kidney"), "no_image")).all_decided
    assert not facts(pneumonia=0.5, normal_ecg=True).all_decided, "one probability that nothing decided"
