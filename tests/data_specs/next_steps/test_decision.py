"""Priority and next steps are one decision: no visit is less pressing than what is to be done for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_specs.next_steps.decision import decide, facts_of
from data_specs.next_steps.rules import Facts
from data_specs.next_steps.table import read_table
from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment, FoundFinding
from data_specs.visit.context import Context
from data_specs.visit.contract import PRIORITIES, Priority
from tests.data_specs.next_steps.test_next_steps import HOLDS, RULE, facts, own

SHIPPED = read_table()
RESERVES_OF_READERS = ["uncalibrated", "paced", "information_only", "not_here", "undecided", "findings_contradict"]
NOTHING = dict.fromkeys(("lung", "cardiac", "kidney"), "no_image")


def said(given: Facts) -> list[tuple[str, str]]:
    return [(reason.code, reason.found) for reason in decide(SHIPPED, given).reasons]


@pytest.mark.parametrize("rule", HOLDS)
def test_a_visit_is_as_pressing_as_its_most_pressing_step(rule: str) -> None:
    for given in HOLDS[rule]:
        decision = decide(SHIPPED, given)
        soonest = min((s.within_days for s in decision.next_steps if s.within_days is not None), default=9999)
        least: Priority = "urgent" if soonest <= 0 else "soon" if soonest <= 3 else "unassessed"
        assert PRIORITIES.index(decision.priority) <= PRIORITIES.index(least), decision


@pytest.mark.parametrize(
    ("given", "priority"),
    [
        (facts(missing=NOTHING), "unassessed"),
        (facts(missing=NOTHING, labs={"glucose": (2.4, "mmol/L")}), "urgent"),
        (facts(missing=NOTHING, systolic_mmHg=182), "urgent"),
        (facts(spo2_percent=89), "urgent"),
        (facts(labs={"potassium": (6.0, "mmol/L")}), "soon"),
        (facts(labs={"potassium": (5.5, "mmol/L")}), "soon"),
        (facts(labs={"potassium": (5.4, "mmol/L")}), "routine"),
        (facts(strong=("pneumonia",)), "urgent"),
        (facts(pneumonia=True), "soon"),
        (facts(pneumonia=True, age=3), "soon"),
        (facts(strong=("pneumonia",), age=3), "urgent"),
        (facts(strong=("myocardial_infarction",)), "soon"),
        (facts(strong=("myocardial_infarction", "st_t_change")), "urgent"),
        (facts(atrial_fibrillation=True), "routine"),
        (facts(effusion=True, categories={"lung": "high"}), "soon"),
        (facts(egfr_per_year=-8.0), "routine"),
        (facts(), "routine"),
        (Facts(organs={}), "unassessed"),
    ],
)
def test_priority(given: Facts, priority: str) -> None:
    assert decide(SHIPPED, given).priority == priority


def test_reasons_carry_the_values_that_they_speak_of_the_most_pressing_first() -> None:
    given = facts(
        spo2_percent=87,
        labs={"potassium": (6.1, "mmol/L")},
        atrial_fibrillation=True,
        normal_ecg=False,
        categories={"cardiac": "high", "kidney": "intermediate"},
    )
    assert said(given) == [
        ("finding_urgent", "spo2_percent 87"),
        ("category_high", "cardiac"),
        ("finding_soon", "potassium_mmol_per_l 6.1"),
        ("category_intermediate", "kidney"),
    ], "atrial fibrillation is told by its organ's category"
    reasons = decide(SHIPPED, given).reasons
    assert reasons[0].message("en") == "oxygen saturation (SpO2) 87%: act today."
    assert "6,1 mmol/L" in reasons[2].message("fr")


def test_values_that_wait_are_a_reason_too_and_words_are_not() -> None:
    assert said(facts(systolic_mmHg=150, effusion=True)) == [("finding_flagged", "effusion, systolic_mmHg 150")]
    assert said(facts(kdigo_g="G3a", categories={"kidney": "intermediate"})) == [("category_intermediate", "kidney")]
    assert said(facts(normal_ecg=False, categories={"cardiac": "intermediate"})) == [
        ("category_intermediate", "cardiac")
    ]


def test_reserves_are_a_reason_where_nothing_presses() -> None:
    pressing = facts(reserves={"lung": "information_only"}, categories={"cardiac": "high"})
    assert said(pressing) == [("category_high", "cardiac")]


def test_nothing_found_is_said_only_where_nothing_is() -> None:
    assert said(facts(normal_ecg=True)) == [("nothing_found", "")]
    assert said(facts(incident_ckd=True)) == [("finding_flagged", "incident_ckd")]
    assert said(facts(missing=NOTHING)) == [("nothing_assessed", "")]
    assert said(facts(reserves={"lung": "information_only"})) == [("information_only", "x")]
    assert said(facts(reserves={"lung": "short"})) == [("nothing_found", "")]


def test_the_problems_of_files_count_for_the_organ_of_their_field() -> None:
    refused = AssessedInput(index=4, accepted=False, problems=[Problem("far_from_training", "reject")])
    organs = {"lung": AssessedOrgan(status="not_assessed", reasons=[Problem("inputs_refused", "reject")])}
    found = Assessment(organs=organs, inputs=[refused], models=[])  # type: ignore[arg-type]
    given = facts_of(found, Context(), {4: "image"})
    assert [step.rule for step in decide(SHIPPED, given).next_steps] == ["film_for_a_doctor"]
    given = facts_of(found, Context(), {4: "ecg"})
    assert [step.rule for step in decide(SHIPPED, given).next_steps] == ["film_again"]


@pytest.mark.parametrize(("probability", "given"), [(0.04951, True), (0.04949, False)])
def test_a_rule_sees_the_number_that_a_reader_sees(probability: float, given: bool) -> None:
    kfre = FoundFinding(name="kfre_5y", probability=probability, calibrated=True)
    organs = {"kidney": AssessedOrgan(status="assessed", findings=[kfre])}
    decision = decide(SHIPPED, facts_of(Assessment(organs=organs, inputs=[], models=[]), Context(), {}))  # type: ignore[arg-type]
    assert ("kidney_failure_5_years" in [step.rule for step in decision.next_steps]) is given


def test_reasons_are_warnings_each_with_its_name_once() -> None:
    given = facts(
        labs={"potassium": (5.5, "mmol/L"), "hb": (7.0, "g/dL")},
        effusion=True,
        incident_ckd=True,
        kdigo_g="G3a",
        egfr=52.0,
        categories={"lung": "high", "kidney": "intermediate"},
    )
    assert decide(SHIPPED, given).reasons == (
        Problem("category_high", "warn", found="lung"),
        Problem("finding_soon", "warn", found="haemoglobin_g_per_l 70"),
        Problem("finding_soon", "warn", found="potassium_mmol_per_l 5.5"),
        Problem("category_intermediate", "warn", found="kidney"),
    )
    both = facts(systolic_mmHg=150, diastolic_mmHg=95, mass=True, nodule=True)
    flagged = "mass, nodule, systolic_mmHg 150, diastolic_mmHg 95"
    assert decide(SHIPPED, both).reasons == (Problem("finding_flagged", "warn", found=flagged),)
    assert decide(SHIPPED, facts()).reasons == (Problem("nothing_found", "warn"),)
    assert decide(SHIPPED, facts(missing=NOTHING)).reasons == (Problem("nothing_assessed", "warn"),)
    two_rules = facts(strong=("myocardial_infarction", "st_t_change"))
    assert [r.found for r in decide(SHIPPED, two_rules).reasons] == ["myocardial_infarction", "st_t_change"]


def test_a_word_beside_a_pressing_value_is_named_without_a_value(tmp_path: Path) -> None:
    rule = f'[ours]\n{RULE}within_days = 0\nany = [{{ value = "kdigo_g", is = ["G5"] }}, {{ positive = "mass" }}]\n'
    decision = decide(read_table(own(tmp_path, rule)), facts(kdigo_g="G5", mass=True))
    assert [reason.found for reason in decision.reasons] == ["kdigo_g", "mass"]


@pytest.mark.parametrize(("days", "priority"), [(0, "urgent"), (1, "soon"), (3, "soon"), (4, "routine")])
def test_the_soonest_step_gives_the_priority(tmp_path: Path, days: int, priority: str) -> None:
    rule = f'[ours]\n{RULE}within_days = {days}\nany = [{{ positive = "mass" }}]\n'
    later = f'[later]\n{RULE}within_days = 30\nany = [{{ positive = "mass" }}]\n'.replace("Ask.", "Later.")
    decision = decide(read_table(own(tmp_path, later + rule)), facts(mass=True))
    assert decision.priority == priority
    assert [step.within_days for step in decision.next_steps] == sorted([days, 30])
    code = {"urgent": "finding_urgent", "soon": "finding_soon", "routine": "finding_flagged"}[priority]
    assert [reason.code for reason in decision.reasons] == [code]


@pytest.mark.parametrize(("soon", "priority"), [(1, "routine"), (6, "routine"), (7, "soon"), (30, "soon")])
def test_a_programme_says_what_is_soon(tmp_path: Path, soon: int, priority: str) -> None:
    rule = f'[ours]\n{RULE}within_days = 7\nany = [{{ positive = "mass" }}]\n'
    decision = decide(read_table(own(tmp_path, f"soon_within_days = {soon}\n{rule}")), facts(mass=True))
    assert decision.priority == priority
    code = {"soon": "finding_soon", "routine": "finding_flagged"}[priority]
    assert [reason.code for reason in decision.reasons] == [code]


@pytest.mark.parametrize("code", RESERVES_OF_READERS)
def test_a_reserve_under_which_nothing_flagged_is_no_sign_is_a_reason(code: str) -> None:
    assert Problem(code, "warn", found="x") in decide(SHIPPED, facts(reserves={"cardiac": code})).reasons


def test_a_pressing_value_is_a_warning() -> None:
    assert decide(SHIPPED, facts(spo2_percent=80)).reasons == (
        Problem("finding_urgent", "warn", found="spo2_percent 80"),
    )
