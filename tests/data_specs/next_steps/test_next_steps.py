"""The table of next steps: each shipped rule holds for somebody, no visit stays unanswered, a wrong table stops."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from data_specs.next_steps.decision import STEPS, decide
from data_specs.next_steps.rules import Facts, Otherwise
from data_specs.next_steps.table import SHIPPED_TABLE, BadTable, Table, read_table
from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedOrgan, FoundFinding
from data_specs.visit.context import Lab, Vitals
from data_specs.visit.contract import FIELD_OF_ORGAN, ORGANS, Category, OperatingPoint, Organ
from data_specs.visit.next_step import NextStep
from data_specs.vocabulary import LANGUAGES, judged_findings, terms
from tests.conftest import ROOT

JUDGED = [name for organ in ORGANS for name in judged_findings(organ)]


def found(name: str, what: object, *, strong: bool = False) -> FoundFinding:
    """``True`` or ``False``: positive or not; a share: a probability that nothing decides; else a measured value."""
    term = terms()[name]
    made: dict[str, Any] = {"name": name}
    if isinstance(what, bool):
        point = OperatingPoint(name="screening", threshold=0.5, cohort="made up")
        strength = ("strong" if strong else "flagged") if what else "below"
        made |= {"probability": 0.9 if what else 0.1, "calibrated": True, "positive": what, "operating_point": point}
        made["strength"] = strength
    elif term.judged:
        made |= {"probability": what, "calibrated": True}
    else:
        made |= {"value": what, "unit": term.unit}
    return FoundFinding(**made)


def facts(
    *,
    age: float | None = 50,
    strong: tuple[str, ...] = (),
    categories: dict[Organ, Category] | None = None,
    missing: dict[str, str] | None = None,
    reserves: dict[str, str] | None = None,
    labs: dict[str, tuple[float, str]] | None = None,
    refused: dict[str, str] | None = None,
    **values: object,
) -> Facts:
    """A visit in which all three organs were assessed and nothing was found, but for what is given.

    ``strong``: findings past their ``rule_in`` points. ``refused``: organ to the reason why its file was refused.
    """
    vitals = {name: values.pop(name) for name in list(values) if name in Vitals.model_fields}
    findings = [found(name, what) for name, what in values.items()] + [
        found(name, True, strong=True) for name in strong
    ]
    organs: dict[Organ, AssessedOrgan] = {}
    for organ in ORGANS:
        codes = [code for given in (missing, reserves) for name, code in (given or {}).items() if name == organ]
        organs[organ] = AssessedOrgan(
            status="not_assessed" if organ in {**(missing or {}), **(refused or {})} else "assessed",
            reasons=[Problem(code, "warn", found="x") for code in codes],
            category=(categories or {}).get(organ),
            findings=[each for each in findings if terms()[each.name].organ == organ],
        )
    return Facts(
        organs=organs,
        age_years=age,
        labs=tuple(Lab(name=name, value=value, unit=unit) for name, (value, unit) in (labs or {}).items()),
        vitals=Vitals(**vitals),  # type: ignore[arg-type]
        file_problems={FIELD_OF_ORGAN[organ]: frozenset({code}) for organ, code in (refused or {}).items()},  # type: ignore[index]
    )


def next_steps(table: Table, given: Facts) -> tuple[NextStep, ...]:
    return decide(table, given).next_steps


# For each rule of the shipped table: a visit in which it holds, and one close to it in which it does not.
HOLDS: dict[str, tuple[Facts, Facts]] = {
    "hypoxaemia": (facts(spo2_percent=89.9), facts(spo2_percent=90)),
    "pneumothorax": (facts(pneumothorax=True), facts(pneumothorax=False)),
    "pulmonary_oedema": (facts(edema=True), facts(edema=False)),
    "infarction_perhaps_new": (
        facts(strong=("myocardial_infarction", "st_t_change")),
        facts(strong=("myocardial_infarction",), st_t_change=True),
    ),
    "slow_heart": (facts(heart_rate=39), facts(heart_rate_per_min=40)),
    "fast_heart": (facts(heart_rate_per_min=150), facts(heart_rate=170, age=1)),
    "long_qt": (facts(qtc_interval=500), facts(qtc_interval=499)),
    "potassium_severe": (facts(labs={"potassium": (6.5, "mmol/L")}), facts(labs={"potassium": (6.49, "mmol/L")})),
    "potassium_very_low": (facts(labs={"kali": (2.4, "meq/L")}), facts(labs={"kali": (2.5, "meq/L")})),
    "kidney_failure": (facts(egfr=14.9), facts(egfr=15)),
    "glucose_very_low": (facts(labs={"glucose": (50, "mg/dL")}), facts(labs={"glucose": (60, "mg/dL")})),
    "severe_hypertension": (facts(diastolic_mmHg=110), facts(systolic_mmHg=179, diastolic_mmHg=109)),
    "pneumonia_child": (facts(strong=("pneumonia",), age=4.9), facts(strong=("pneumonia",), age=5)),
    "pneumonia_child_possible": (facts(pneumonia=True, age=4.9), facts(strong=("pneumonia",), age=4.9)),
    "pneumonia_urgent": (facts(strong=("pneumonia",)), facts(pneumonia=True)),
    "pneumonia_possible": (facts(pneumonia=True, age=None), facts(pneumonia=True, spo2_percent=80)),
    "tuberculosis": (facts(tuberculosis=True, age=8), facts(tuberculosis=False)),
    "lung_mass": (facts(nodule=True), facts(nodule=False, mass=False)),
    "pleural_effusion": (facts(effusion=True), facts(effusion=False)),
    "large_heart": (facts(cardiomegaly=True), facts(cardiomegaly=True, edema=True)),
    "film_abnormal": (facts(abnormal=True), facts(abnormal=True, tuberculosis=True)),
    "atrial_fibrillation": (facts(atrial_fibrillation=True), facts(atrial_fibrillation=False)),
    "infarction_pattern": (
        facts(myocardial_infarction=True),
        facts(strong=("myocardial_infarction", "st_t_change")),
    ),
    "st_t_change": (
        facts(st_t_change=True),
        facts(strong=("myocardial_infarction", "st_t_change")),
    ),
    "conduction": (facts(conduction_disturbance=True), facts(conduction_disturbance=True, heart_rate=35)),
    "hypertrophy": (facts(hypertrophy=True), facts(hypertrophy=True, systolic_mmHg=180)),
    "ecg_not_normal": (facts(normal_ecg=False), facts(normal_ecg=False, st_t_change=True)),
    "raised_blood_pressure": (facts(systolic_mmHg=140), facts(systolic_mmHg=185)),
    "egfr_low": (facts(egfr=29.9), facts(egfr=30)),
    "egfr_falls": (facts(egfr_per_year=-5.1), facts(egfr_per_year=-5.0)),
    "kidney_failure_2_years": (facts(kfre_2y=0.1), facts(kfre_2y=0.2, egfr=25)),
    "kidney_failure_5_years": (facts(kfre_5y=0.05), facts(kfre_5y=0.049)),
    "kidney_failure_5_years_near": (facts(kfre_5y=0.03), facts(kfre_5y=0.029)),
    "albuminuria_severe": (facts(kdigo_a="A3"), facts(kdigo_a="A3", kfre_5y=0.3)),
    "kidney_to_confirm": (facts(kdigo_g="G3a", kdigo_a="A1"), facts(kdigo_g="G2", kdigo_a="A1")),
    "kidney_disease_to_come": (facts(incident_ckd=True), facts(incident_ckd=False)),
    "potassium_moderate": (facts(labs={"potassium": (6.0, "mmol/L")}), facts(labs={"potassium": (5.9, "mmol/L")})),
    "potassium_mild": (facts(labs={"potassium": (5.5, "mmol/L")}), facts(labs={"potassium": (5.4, "mmol/L")})),
    "severe_anaemia": (facts(labs={"hb": (7.9, "g/dL")}), facts(labs={"hb": (8.0, "g/dL")})),
    "diabetes_range": (facts(labs={"hba1c": (6.5, "%")}), facts(labs={"hba1c": (6.4, "%")})),
    "other_person": (
        facts(refused={"lung": "person_mismatch"}),
        facts(missing={"lung": "inputs_refused"}),
    ),
    "outside_ages": (facts(missing={"lung": "age_out_of_range"}, age=0.5), facts(missing={"lung": "no_image"})),
    "film_for_a_doctor": (
        facts(refused={"lung": "far_from_training"}),
        facts(refused={"cardiac": "far_from_training"}),
    ),
    "ecg_for_a_doctor": (
        facts(refused={"cardiac": "far_from_training"}),
        facts(refused={"lung": "far_from_training"}),
    ),
    "film_again": (facts(missing={"lung": "no_image"}), facts(missing={"cardiac": "no_ecg"})),
    "ecg_again": (
        facts(refused={"cardiac": "lead_flat"}),
        facts(reserves={"cardiac": "noisy"}),
    ),
    "labs_missing": (facts(missing={"kidney": "labs_missing"}), facts(reserves={"kidney": "lab_unknown"})),
    "albuminuria_missing": (facts(reserves={"kidney": "acr_missing"}), facts(missing={"kidney": "labs_missing"})),
    "numbers_not_calibrated": (facts(reserves={"lung": "uncalibrated"}), facts()),
    "ecg_contradicts": (facts(reserves={"cardiac": "findings_contradict"}), facts(reserves={"cardiac": "paced"})),
    "undecided_by_the_model": (facts(reserves={"lung": "undecided"}), facts(reserves={"lung": "information_only"})),
    "other_finding": (facts(hernia=True), facts(normal_ecg=True)),
    "complete": (facts(missing={"cardiac": "inference_failed"}), facts(missing={"cardiac": "no_ecg"})),
    "read_by_a_doctor": (facts(categories={"lung": "high"}), facts(categories={"lung": "high"}, egfr=10)),
    "next_round": (facts(normal_ecg=True, pneumonia=False, egfr=95, kdigo_g="G1"), facts(pneumonia=0.5)),
}


def rules(given: Facts, table: Path | None = None) -> list[str]:
    return [step.rule for step in next_steps(read_table(table), given)]


def test_every_rule_of_the_table_is_tried() -> None:
    assert list(read_table().rules) == list(HOLDS)


@pytest.mark.parametrize("rule", HOLDS)
def test_a_rule_holds_where_it_should_and_not_beside_it(rule: str) -> None:
    holds, beside = HOLDS[rule]
    assert rule in rules(holds)
    assert rule not in rules(beside)
    assert rules(beside), "no visit stays without an answer"


@pytest.mark.parametrize("reason", ["age_out_of_range", "far_from_training"])
@pytest.mark.parametrize("organ", ["lung", "cardiac"])
def test_nobody_is_asked_to_send_again_what_the_machine_never_assesses(organ: str, reason: str) -> None:
    (step,) = next_steps(read_table(), facts(refused={organ: reason}, age=10))
    assert step.step == "ask"
    assert "a doctor reads" in step.text["en"]


def test_steps_say_what_they_follow_from_in_three_languages() -> None:
    (step,) = next_steps(read_table(), facts(egfr=20.0))
    assert (step.step, step.within_days, step.because) == ("refer", 30, ("egfr",))
    assert set(step.text) == set(LANGUAGES)
    assert len(set(step.text.values())) == 3
    assert "KDIGO 2024" in step.source


def test_the_most_pressing_step_stands_first() -> None:
    steps = next_steps(
        read_table(),
        facts(
            age=70,
            pneumonia=True,
            atrial_fibrillation=True,
            mass=True,
            missing={"kidney": "labs_missing"},
            spo2_percent=85,
        ),
    )
    order = [(step.within_days, STEPS.index(step.step)) for step in steps]
    assert order == sorted(order)
    assert steps[0].rule == "hypoxaemia"
    assert {"atrial_fibrillation", "lung_mass", "labs_missing"} <= {step.rule for step in steps}


@pytest.mark.parametrize("name", sorted({*JUDGED} - {"normal_ecg"}))
@pytest.mark.parametrize("age", [3, 40, None])
def test_every_positive_finding_is_answered_and_nobody_with_one_goes_home(name: str, age: float | None) -> None:
    steps = next_steps(read_table(), facts(age=age, **{name: True}))
    assert any(name in step.because for step in steps)
    assert "next_round" not in [step.rule for step in steps]


@pytest.mark.parametrize("organ", ORGANS)
@pytest.mark.parametrize("code", ["inference_failed", "labs_missing", "unreadable", "no_ecg", "sex_unknown"])
def test_an_organ_that_was_not_assessed_is_never_taken_for_normal(organ: str, code: str) -> None:
    steps = next_steps(read_table(), facts(missing={organ: code}))
    assert any(organ in step.because for step in steps)
    assert "next_round" not in [step.rule for step in steps]


def test_nothing_assessed_at_all_is_not_clear() -> None:
    assert rules(Facts(organs={})) == ["read_by_a_doctor"]


def test_a_bare_output_that_is_not_calibrated_decides_nothing() -> None:
    bare = found("kfre_5y", 0.9).model_copy(update={"calibrated": False})
    given = facts()
    organs = {**given.organs, "kidney": given.organs["kidney"].model_copy(update={"findings": [bare]})}
    assert rules(Facts(organs=organs)) == ["read_by_a_doctor"]


def test_findings_of_every_shipped_bundle_can_stand_in_a_rule() -> None:
    bundles = sorted((ROOT / "models/bundles").glob("*/screening.json"))
    assert bundles
    for bundle in bundles:
        told = json.loads(bundle.read_text())
        for spec in told["findings"] if told["organ"] else []:
            term = terms()[spec["name"]]
            assert term.organ == told["organ"]
            assert term.measured if spec["kind"] == "measured" else term.judged
            assert tuple(spec["labels"]) == term.words


# ---------------------------------------------------------------- a programme's own table

RULE = 'step = "ask"\nvi = "Hỏi."\nfr = "Demander."\nen = "Ask."\nsource = "the programme, 2026"\n'
LEFT = "".join(f'[left_{what}]\n{RULE.replace("Ask", what)}otherwise = "{what}"\n' for what in get_args(Otherwise))


def own(folder: Path, text: str, left: str = LEFT) -> Path:
    path = folder / "programme.toml"
    path.write_text(text + left, encoding="utf-8")
    return path


def test_a_programmes_own_table_replaces_the_shipped_one(tmp_path: Path) -> None:
    path = own(tmp_path, f'[ours]\n{RULE}within_days = 3\nany = [{{ positive = "pneumonia", at = "screening" }}]\n')
    (step,) = next_steps(read_table(path), facts(pneumonia=True))
    assert (step.rule, step.step, step.within_days, step.source) == ("ours", "ask", 3, "the programme, 2026")
    assert rules(facts(egfr=10.0), path) == ["left_clear"], "the shipped rules do not hold any more"
    assert rules(facts(edema=True), path) == ["left_positive"]
    assert rules(facts(missing={"lung": "no_image"}), path) == ["left_not_assessed"]


def test_an_operating_point_is_the_one_that_decided(tmp_path: Path) -> None:
    path = own(tmp_path, f'[ours]\n{RULE}any = [{{ positive = "pneumonia", at = "rule_in" }}]\n')
    assert rules(facts(pneumonia=True), path) == ["left_positive"]


def test_two_rules_that_say_the_same_are_one_step_the_sooner_of_them(tmp_path: Path) -> None:
    one = f'[one]\n{RULE}within_days = 9\nany = [{{ positive = "edema" }}]\n'
    two = f'[two]\n{RULE}within_days = 2\nany = [{{ positive = "mass" }}]\n'
    (step,) = next_steps(read_table(own(tmp_path, one + two)), facts(edema=True, mass=True))
    assert (step.rule, step.within_days, set(step.because)) == ("two", 2, {"edema", "mass"})


def rule(members: str, drop: str = "") -> str:
    return (
        "[ours]\n" + "".join(line for line in RULE.splitlines(True) if not (drop and line.startswith(drop))) + members
    )


WRONG: dict[str, tuple[str, str]] = {
    "not TOML": ("[ours\n", r"is not TOML in UTF-8"),
    "no rule": ("title = 1\n", r"title: a table holds rules only"),
    "name": (f'["Our Rule"]\n{RULE}', r"rule 'Our Rule': the name of a rule"),
    "unknown member": (rule('any = [{ positive = "mass" }]\nwithin = 3\n'), r"rule ours: within: "),
    "a name of the code": (rule('any_of = [{ positive = "mass" }]\n'), r"rule ours: any_of: "),
    "missing language": (rule('any = [{ positive = "mass" }]\n', drop="fr"), r"rule ours: fr: Field required"),
    "empty sentence": (rule('any = [{ positive = "mass" }]\nfr = "  "\n', drop="fr"), r"rule ours: fr: "),
    "missing source": (rule('any = [{ positive = "mass" }]\n', drop="source"), r"rule ours: source: Field required"),
    "unknown step": (rule('any = [{ positive = "mass" }]\nstep = "send"\n', drop="step"), r"rule ours: step: "),
    "past": (rule('any = [{ positive = "mass" }]\nwithin_days = -1\n'), r"rule ours: within_days: "),
    "never holds": (rule(""), r"rule ours: it says neither all nor any nor otherwise"),
    "unknown finding": (rule('any = [{ positive = "flu" }]\n'), r"rule ours: any\.0\.positive: 'flu' is not a finding"),
    "organ as finding": (rule('any = [{ positive = "lung" }]\n'), r"any\.0\.positive: 'lung' is not a finding"),
    "lab as finding": (rule('any = [{ negative = "potassium" }]\n'), r"any\.0\.negative: 'potassium' is not a finding"),
    "measured as judged": (
        rule('all = [{ positive = "egfr" }]\n'),
        r"all\.0\.positive: 'egfr' is measured, not judged",
    ),
    "judged as measured": (rule('any = [{ value = "mass", from = 1 }]\n'), r"any\.0\.value: 'mass' is not a measured"),
    "lab without unit": (
        rule('any = [{ value = "potassium", from = 6 }]\n'),
        r"any\.0\.value: 'potassium' is not a meas",
    ),
    "point": (
        rule('any = [{ positive = "mass", at = "Rule in" }]\n'),
        r"any\.0\.positive\.at: the name of an operating",
    ),
    "empty range": (
        rule('any = [{ value = "egfr", from = 30, below = 15 }]\n'),
        r"no value can be from 30 to below 15",
    ),
    "lab nobody has": (rule('any = [{ value = "potassium_mmol_per_l", from = 60 }]\n'), r"from 60 .*possible: 1 to 11"),
    "vital nobody has": (rule('any = [{ value = "spo2_percent", below = 20 }]\n'), r"below 20 .*possible: 30 to 100"),
    "percent for share": (rule('any = [{ probability = "kfre_5y", from = 5 }]\n'), r"from 5 .*possible: 0 to 1"),
    "open range": (rule('any = [{ probability = "kfre_5y" }]\n'), r"any\.0\.probability: say from or below"),
    "no range": (rule('any = [{ value = "egfr" }]\n'), r"any\.0\.value: its value is a number: say from or below"),
    "word and range": (
        rule('any = [{ value = "kdigo_g", from = 3 }]\n'),
        r"any\.0\.value: its value is a word: say is",
    ),
    "unknown word": (rule('any = [{ value = "kdigo_g", is = ["G3"] }]\n'), r"is: 'G3' is not one of G1, G2, G3a"),
    "nan": (rule('any = [{ value = "egfr", from = nan }]\n'), r"rule ours: any\.0\.value\.from: "),
    "unknown organ": (rule('any = [{ organ = "liver", status = "assessed" }]\n'), r"rule ours: any\.0\.organ: "),
    "organ alone": (rule('any = [{ organ = "lung" }]\n'), r"any\.0\.organ: say status or reasons"),
    "unknown reason": (rule('any = [{ organ = "any", reasons = ["lost"] }]\n'), r"'lost' is not a reason of messages"),
    "unknown strength": (rule('any = [{ positive = "mass", strength = "very" }]\n'), r"any\.0\.positive\.strength: "),
    "priority": (rule('any = [{ priority = ["urgent"] }]\n'), r"rule ours: any\.0: a condition is about one of"),
    "unknown condition": (
        rule("any = [{ smoker = true }]\n"),
        r"rule ours: any\.0: a condition is about one of positive",
    ),
    "no condition": (rule('any = ["pneumonia"]\n'), r"rule ours: any\.0: a condition is about one of positive"),
    "two conditions": (
        rule('any = [{ positive = "mass", negative = "mass" }]\n'),
        r"rule ours: any\.0\.positive\.negative: ",
    ),
    "ages": (
        rule('any = [{ positive = "mass" }]\nages = [18, 5]\n'),
        r"rule ours: ages: no age can be from 18 to below 5",
    ),
    "unless unknown": (rule('any = [{ positive = "mass" }]\nunless = ["later"]\n'), r"unless: 'later' is not the name"),
    "unless itself": (rule('any = [{ positive = "mass" }]\nunless = ["ours"]\n'), r"unless: 'ours' is not the name"),
    "otherwise and any": (
        rule('any = [{ positive = "mass" }]\notherwise = "open"\n'),
        r"ours: an otherwise rule holds for",
    ),
    **{
        f"soon {soon}": (f"soon_within_days = {soon}\n", r"soon_within_days: a whole number from 1 to 30")
        for soon in ("0", "31", "2.0", "true", '"3"')
    },
    "otherwise twice": (
        rule('otherwise = "clear"\n'),
        r'one rule has to say otherwise = "clear", and ours, left_clear does',
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_table_is_refused_with_file_rule_and_member(what: str, tmp_path: Path) -> None:
    text, why = WRONG[what]
    path = own(tmp_path, text)
    with pytest.raises(BadTable) as raised:
        read_table(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert re.search(why, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("what", get_args(Otherwise))
def test_a_table_that_leaves_something_unanswered_is_refused(what: str, tmp_path: Path) -> None:
    left = re.sub(rf"\[left_{what}\][^\[]*", "", LEFT)
    with pytest.raises(BadTable, match=f'otherwise = "{what}", and none does'):
        read_table(own(tmp_path, "", left))


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTable, match="cannot be read"):
        read_table(tmp_path / "none.toml")
    with pytest.raises(BadTable, match="cannot be read"):
        read_table(tmp_path)
    for content in (b"\xff\xfe", b"a" + b"=[" * 50_000, b"x" * 1_000_001, b"".join(b"[r%d]\n" % n for n in range(501))):
        path = tmp_path / "bytes.toml"
        path.write_bytes(content)
        with pytest.raises(BadTable):
            read_table(path)


def test_the_sentences_of_the_table_stand_in_one_line_and_name_their_source() -> None:
    for name, each in read_table(SHIPPED_TABLE).rules.items():
        assert all(len(getattr(each, language)) <= 230 for language in LANGUAGES), name
        assert re.search(r"\b(19|20)\d\d\b|[Tt]his table", each.source), name
