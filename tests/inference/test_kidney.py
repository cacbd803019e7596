"""From a person and laboratory values to the kidney's findings, with the shipped bundle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedOrgan, FoundFinding
from data_specs.visit.context import Context
from data_specs.visit.contract import Category
from inference.bundles.loading import Bundle, load_bundle
from inference.findings import Answer
from inference.kidney import KidneyPipeline, category, known_features, missing, risk
from inference.runtime.batcher import InferenceFailed
from inference.runtime.session import Array
from tests.conftest import ROOT
from tests.kdigo import HEAT_MAP


class Straight:
    """Runs the session at once, as the batcher does when nothing else waits; keeps the rows."""

    def __init__(self, bundle: Bundle, fails: str = "") -> None:
        self.bundle, self.fails, self.rows = bundle, fails, list[Array]()

    async def infer(self, rows: Array) -> tuple[Array, ...]:
        if self.fails:
            raise InferenceFailed(self.fails)
        self.rows.append(rows)
        return tuple(self.bundle.session.run(rows))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    folder: Path = ROOT / "models" / "bundles" / "kidney-1.1.0"
    return load_bundle(folder)


def man(age_years: float = 50, **context: object) -> Context:
    return Context.model_validate({"person": {"age_years": age_years, "sex": "male"}, **context})


async def assess(bundle: Bundle, context: Context, **labs: float) -> AssessedOrgan:
    return await KidneyPipeline(bundle, Straight(bundle)).assess(context, labs, [])  # type: ignore[arg-type]


def creatinine(egfr: float, age_years: float = 50) -> float:
    """µmol/L of a man with this eGFR, of 104 or less: CKD-EPI 2021 solved for creatinine above kappa."""
    return 88.4 * 0.9 * (142 * 0.9938**age_years / egfr) ** (1 / 1.2)


EGFR_WITHIN = {"G1": 95.0, "G2": 75.0, "G3a": 52.0, "G3b": 37.0, "G4": 22.0, "G5": 10.0}
ACR_WITHIN = {"A1": 12.0, "A2": 120.0, "A3": 900.0}
CATEGORY_OF = {"low": "low", "moderate": "intermediate", "high": "high", "very high": "high"}
CELLS = [(g, a, row[i]) for g, row in HEAT_MAP.items() for i, a in enumerate(ACR_WITHIN)]


@pytest.mark.parametrize(("g", "a", "prognosis"), CELLS)
async def test_every_cell_of_the_kdigo_map(bundle: Bundle, g: str, a: str, prognosis: str) -> None:
    organ = await assess(
        bundle, man(), creatinine_umol_per_l=creatinine(EGFR_WITHIN[g]), urine_acr_mg_per_g=ACR_WITHIN[a]
    )
    found = {finding.name: finding.value for finding in organ.findings}
    assert found["egfr"] == pytest.approx(EGFR_WITHIN[g], abs=0.1)
    assert (found["kdigo_g"], found["kdigo_a"], found["kdigo_risk"]) == (g, a, prognosis)
    assert organ.category == CATEGORY_OF[prognosis]
    assert organ.reasons == []


@pytest.mark.parametrize(
    ("g", "expected"),
    [("G1", None), ("G2", None), ("G3a", "intermediate"), ("G3b", "high"), ("G4", "high"), ("G5", "high")],
)
async def test_without_albuminuria_a_stage_is_at_least_its_first_column(
    bundle: Bundle, g: str, expected: Category | None
) -> None:
    organ = await assess(bundle, man(), creatinine_umol_per_l=creatinine(EGFR_WITHIN[g]))
    assert {finding.name: finding.value for finding in organ.findings}.items() >= {"kdigo_g": g}.items()
    assert organ.category == expected
    assert organ.reasons == [Problem("acr_missing", "warn")]
    if expected:
        assert expected == CATEGORY_OF[HEAT_MAP[g][0]]


@pytest.mark.parametrize(("acr", "stage"), [(29.99, "A1"), (30, "A2"), (300, "A2"), (300.1, "A3")])
async def test_albuminuria_stages_at_their_ends(bundle: Bundle, acr: float, stage: str) -> None:
    organ = await assess(bundle, man(), creatinine_umol_per_l=80, urine_acr_mg_per_g=acr)
    assert next(finding.value for finding in organ.findings if finding.name == "kdigo_a") == stage


async def test_albuminuria_that_is_known_is_not_asked_for_and_laboratory_problems_are_kept(bundle: Bundle) -> None:
    conflict = Problem("lab_conflict", "reject", "glucose, 5, 9", "1")
    pipeline = KidneyPipeline(bundle, Straight(bundle))  # type: ignore[arg-type]
    with_acr = await pipeline.assess(man(), {"creatinine_umol_per_l": 80, "urine_acr_mg_per_g": 0.0}, [conflict])
    assert with_acr.reasons == [conflict]
    without = await pipeline.assess(man(), {"creatinine_umol_per_l": 80}, [conflict])
    assert without.reasons == [conflict, Problem("acr_missing", "warn")]
    refused = await pipeline.assess(man(), {}, [conflict])
    assert refused == AssessedOrgan(
        status="not_assessed", reasons=[Problem("labs_missing", "reject", found="creatinine"), conflict]
    )


async def test_a_failed_run_is_not_assessed(bundle: Bundle) -> None:
    failing = KidneyPipeline(bundle, Straight(bundle, fails="session"))  # type: ignore[arg-type]
    conflict = Problem("lab_conflict", "reject")
    assert await failing.assess(man(), {"creatinine_umol_per_l": 80}, [conflict]) == AssessedOrgan(
        status="not_assessed", reasons=[Problem("inference_failed", "reject", found="session"), conflict]
    )


async def test_a_row_has_what_is_known_and_nan_where_it_is_not(bundle: Bundle) -> None:
    straight = Straight(bundle)
    context = man(61, conditions=["Diabetes"])
    await KidneyPipeline(bundle, straight).assess(context, {"creatinine_umol_per_l": 80}, [])  # type: ignore[arg-type]
    (row,) = straight.rows
    assert (row.dtype, row.shape) == (np.float32, (1, 7))
    # age_years, female, creatinine_umol_per_l, urine_acr_mg_per_g, hba1c_percent, diabetes, coronary_heart_disease
    np.testing.assert_array_equal(row[0], [61, 0, 80, np.nan, np.nan, 1, 0])


def test_features_are_labs_vitals_person_and_the_conditions_of_a_complete_list() -> None:
    context = Context.model_validate(
        {
            "person": {"age_years": 44, "sex": "female"},
            "vitals": {"systolic_mmHg": 130},
            "conditions": ["Type 2", "Smoker", "ischaemic-heart disease"],
        }
    )
    assert known_features(context, {"hba1c_percent": 6.1}) == {
        "hba1c_percent": 6.1,
        "systolic_mmHg": 130,
        "age_years": 44,
        "female": 1.0,
        "diabetes": 0.0,
        "hypertension": 0.0,
        "coronary_heart_disease": 1.0,
        "vascular_disease": 0.0,
        "smoking": 1.0,
        "dyslipidaemia": 0.0,
        "obesity": 0.0,
    }
    assert known_features(man(), {})["female"] == 0.0
    assert "diabetes" not in known_features(man(), {}), "no list says nothing of a condition"
    assert known_features(man(conditions=[]), {})["diabetes"] == 0.0
    unknown = known_features(Context.model_validate({"person": {"sex": "other"}}), {})
    assert unknown == {}


@pytest.mark.parametrize(
    ("person", "labs", "problem"),
    [
        ({}, {}, Problem("labs_missing", "reject", "creatinine, age_years, sex")),
        ({"sex": "male"}, {"creatinine_umol_per_l": 80}, Problem("labs_missing", "reject", "age_years")),
        ({"age_years": 50}, {"creatinine_umol_per_l": 80}, Problem("labs_missing", "reject", "sex")),
        (
            {"age_years": 50, "sex": "male"},
            {"potassium_mmol_per_l": 4},
            Problem("labs_missing", "reject", "creatinine"),
        ),
        ({"age_years": 50, "sex": "other"}, {"creatinine_umol_per_l": 80}, Problem("sex_unknown", "reject")),
        ({"age_years": 17, "sex": "male"}, {"creatinine_umol_per_l": 80}, "age_out_of_range"),
        ({"age_years": math.nextafter(18, 0), "sex": "male"}, {"creatinine_umol_per_l": 80}, "age_out_of_range"),
        ({"age_years": 18, "sex": "male"}, {"creatinine_umol_per_l": 80}, None),
        ({"age_years": 50, "sex": "female"}, {"creatinine_umol_per_l": 80}, None),
    ],
)
def test_what_is_missing_is_said(
    person: dict[str, object], labs: dict[str, float], problem: Problem | str | None
) -> None:
    context = Context.model_validate({"person": person})
    found = missing(context, known_features(context, labs))
    if isinstance(problem, str):
        assert found is not None
        assert (found.code, found.severity, found.expected) == (problem, "reject", "≥ 18")
    else:
        assert found == problem


def stated(**findings: object) -> Answer:
    """Findings with a value, or with a probability and whether it is positive."""
    return Answer(
        [
            FoundFinding(name=name, probability=given[0], positive=given[1])
            if isinstance(given, tuple)
            else FoundFinding(name=name, value=given)  # type: ignore[arg-type]
            for name, given in findings.items()
        ]
    )


def test_the_risk_is_that_of_failure_within_five_years_else_of_developing_the_disease() -> None:
    both = stated(incident_ckd=(0.3, True), kfre_5y=(0.04, False), kfre_2y=(0.01, False))
    assert risk(both) == 0.04
    assert risk(stated(incident_ckd=(0.3, True), kfre_2y=(0.01, False))) == 0.3
    assert risk(stated(egfr=90.0)) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (stated(kdigo_g="G2", incident_ckd=(0.3, True)), "intermediate"),
        (stated(kdigo_g="G2", incident_ckd=(0.01, False)), None),
        (stated(kdigo_g="G2"), None),
        (stated(kdigo_g="G3b", incident_ckd=(0.3, True)), "high"),
        (stated(kdigo_g="G1", kdigo_a="A1", kdigo_risk="low"), "low"),
        (stated(kdigo_g="G1", kdigo_a="A1", kdigo_risk="low", incident_ckd=(0.3, True)), "intermediate"),
        (stated(kdigo_g="G5", kdigo_a="A1", kdigo_risk="moderate"), "intermediate"),
    ],
)
def test_the_cell_decides_before_the_stage_and_the_stage_before_the_model(
    answer: Answer, expected: Category | None
) -> None:
    level, basis = category(answer)
    assert level == expected
    assert (basis is None) is (level is None)


@pytest.mark.parametrize(
    ("answer", "code", "found"),
    [
        (stated(kdigo_g="G3a", kdigo_a="A2", kdigo_risk="high"), "basis_kdigo", "G3a, A2"),
        (stated(kdigo_g="G3b"), "basis_gfr_stage", "G3b"),
        (stated(kdigo_g="G2", incident_ckd=(0.3, True)), "basis_incident_ckd", "incident_ckd"),
        (stated(kdigo_g="G3b", incident_ckd=(0.3, True)), "basis_gfr_stage", "G3b"),
    ],
)
def test_a_category_says_what_it_rests_on(answer: Answer, code: str, found: str) -> None:
    _, basis = category(answer)
    assert basis == Problem(code, "warn", found=found)
