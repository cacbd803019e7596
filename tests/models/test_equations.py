"""Published kidney equations against worked values and against the papers' own arithmetic in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from data_specs.bundle import BundleManifest
from models.equations import (
    KDIGO_A,
    KDIGO_G,
    KDIGO_RISK,
    KFRE_SURVIVAL,
    LOG_ACR,
    KidneyGraph,
    egfr_ckd_epi_2021,
    kdigo_a_index,
    kdigo_g_index,
    kfre_four_variables,
    log_acr,
)
from tests.conftest import ROOT
from tests.kdigo import HEAT_MAP

FEATURES = ("age_years", "female", "creatinine_umol_per_l", "urine_acr_mg_per_g", "hba1c_percent")


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("mg_per_dl", "age", "female", "egfr"),
    [
        # National Kidney Foundation's calculator (CKD-EPI creatinine 2021), whole numbers as it prints them.
        (1.2, 55, 0, 71),
        (1.0, 50, 0, 92),
        (1.0, 50, 1, 69),
        # On both sides of kappa: the minimum and the maximum terms.
        (0.6, 40, 1, 116),
        (0.8, 40, 0, 115),
    ],
)
def test_ckd_epi_2021(mg_per_dl: float, age: float, female: float, egfr: int) -> None:
    found = egfr_ckd_epi_2021(column(mg_per_dl * 88.4), column(age), column(female))
    assert round(float(found)) == egfr


@pytest.mark.parametrize(
    ("mg_per_dl", "female", "at_18", "at_50", "at_85"),
    [
        # Table 2 of the paper, worked out in decimal arithmetic: below kappa, at kappa (0.7, 0.9), above it.
        (0.5, 1, 139.34, 114.19, 91.85),
        (0.7, 1, 128.48, 105.30, 84.70),
        (0.9, 1, 95.03, 77.88, 62.65),
        (1.4, 1, 55.93, 45.83, 36.87),
        (5.0, 1, 12.14, 9.95, 8.00),
        (0.5, 0, 151.62, 124.26, 99.95),
        (0.7, 0, 136.97, 112.25, 90.30),
        (0.9, 0, 126.96, 104.05, 83.70),
        (1.4, 0, 74.71, 61.23, 49.25),
        (5.0, 0, 16.22, 13.29, 10.69),
    ],
)
def test_ckd_epi_2021_for_both_sexes_on_either_side_of_kappa(
    mg_per_dl: float, female: float, at_18: float, at_50: float, at_85: float
) -> None:
    of_three = (torch.full((3,), mg_per_dl * 88.4), column(18, 50, 85), torch.full((3,), float(female)))
    assert egfr_ckd_epi_2021(*of_three).tolist() == pytest.approx([at_18, at_50, at_85], abs=0.006)


@pytest.mark.parametrize(
    ("age", "female", "egfr", "acr", "two_years", "five_years", "two_america", "five_america"),
    [
        # The printed equation, worked out in double precision, in percent.
        (60, 0, 45, 300, 1.13, 4.31, 1.69, 5.17),
        (60, 1, 45, 300, 0.88, 3.38, 1.32, 4.06),
        (75, 0, 20, 1000, 20.35, 58.57, 28.83, 65.42),
        (50, 1, 15, 2500, 55.66, 95.71, 70.34, 97.75),
        (80, 1, 55, 10, 0.04, 0.16, 0.06, 0.19),
    ],
)
def test_kfre_worked_values(
    age: float, female: float, egfr: float, acr: float,
    two_years: float, five_years: float, two_america: float, five_america: float,
) -> None:  # fmt: skip
    expected = {"kfre_2y": two_years, "kfre_5y": five_years}
    expected |= {"kfre_2y_north_america": two_america, "kfre_5y_north_america": five_america}
    assert list(KFRE_SURVIVAL) == list(expected)
    for name, survival in KFRE_SURVIVAL.items():
        found = kfre_four_variables(column(age), column(female), column(egfr), column(acr), survival)
        assert 100 * float(found) == pytest.approx(expected[name], abs=0.006), name


def test_the_shipped_bundles_read_each_finding_from_its_column() -> None:
    for path in sorted((ROOT / "models" / "bundles").glob("kidney-*/screening.json")):
        manifest = BundleManifest.model_validate_json(path.read_bytes())
        assert {spec.name: spec.column for spec in manifest.findings} == {
            name: i for i, name in enumerate(KidneyGraph.columns)
        }
        labels = {spec.name: spec.labels for spec in manifest.findings if spec.labels}
        assert labels == {"kdigo_g": KDIGO_G, "kdigo_a": KDIGO_A, "kdigo_risk": KDIGO_RISK}


def test_kfre_matches_the_printed_formula() -> None:
    age, female, egfr, acr = 65.0, 0.0, 28.0, 550.0
    linear = (
        -0.2201 * (age / 10 - 7.036)
        + 0.2467 * (1 - female - 0.5642)
        - 0.5567 * (egfr / 5 - 7.222)
        + 0.4510 * (math.log(acr) - 5.137)
    )
    for survival in KFRE_SURVIVAL.values():
        found = kfre_four_variables(column(age), column(female), column(egfr), column(acr), survival)
        assert float(found) == pytest.approx(1 - survival ** math.exp(linear), abs=1e-6)


def test_kfre_of_the_development_cohorts_mean_is_the_baseline_risk() -> None:
    # At the centring values the linear predictor is 0, so the risk is one minus the baseline survival.
    mean = (column(70.36), column(1 - 0.5642), column(5 * 7.222), column(math.exp(5.137)))
    assert float(kfre_four_variables(*mean, 0.9750)) == pytest.approx(0.025, abs=1e-5)
    assert float(kfre_four_variables(*mean, 0.9365)) == pytest.approx(0.0635, abs=1e-5)


@pytest.mark.parametrize(
    ("egfr", "stage"),
    [(120, "G1"), (90, "G1"), (89.9, "G2"), (60, "G2"), (59.9, "G3a"), (45, "G3a"), (44.9, "G3b"), (30, "G3b"),
     (29.9, "G4"), (15, "G4"), (14.9, "G5")],
)  # fmt: skip
def test_kdigo_g(egfr: float, stage: str) -> None:
    assert KDIGO_G[int(kdigo_g_index(column(egfr)))] == stage


@pytest.mark.parametrize(("acr", "stage"), [(5, "A1"), (29.9, "A1"), (30, "A2"), (300, "A2"), (300.1, "A3")])
def test_kdigo_a(acr: float, stage: str) -> None:
    assert KDIGO_A[int(kdigo_a_index(column(acr)))] == stage


def graph() -> KidneyGraph:
    one = torch.ones(1)
    return KidneyGraph(FEATURES, ("egfr",), mean=0 * one, deviation=one, weight=one, bias=0.5)


CREATININE_OF_A_MAN_OF_50 = {"G1": 80, "G2": 100, "G3a": 140, "G3b": 190, "G4": 300, "G5": 600}
ACR_OF = {"A1": 10, "A2": 100, "A3": 500}


@pytest.mark.parametrize("g", HEAT_MAP)
@pytest.mark.parametrize("a", ACR_OF)
def test_every_cell_of_the_kdigo_map(g: str, a: str) -> None:
    values = graph()(torch.tensor([[50.0, 0.0, CREATININE_OF_A_MAN_OF_50[g], ACR_OF[a], 6.0]]))[0]
    found = dict(zip(KidneyGraph.columns, values, strict=True))
    assert KDIGO_G[int(found["kdigo_g"])] == g
    assert KDIGO_A[int(found["kdigo_a"])] == a
    assert KDIGO_RISK[int(found["kdigo_risk"])] == HEAT_MAP[g][list(ACR_OF).index(a)]


def test_stages_of_a_single_value_and_of_a_table_of_values() -> None:
    assert int(kdigo_g_index(torch.tensor(50.0))) == KDIGO_G.index("G3a")
    assert kdigo_g_index(torch.tensor([[95.0, 14.0], [60.0, 30.0]])).tolist() == [[0, 5], [1, 3]]
    assert kdigo_a_index(torch.tensor([[10.0, 30.0], [300.0, 301.0]])).tolist() == [[0, 1], [1, 2]]


def test_unknown_albuminuria_is_nan_and_the_rest_stands() -> None:
    values = dict(zip(KidneyGraph.columns, graph()(torch.tensor([[50.0, 1.0, 90.0, torch.nan, 6.0]]))[0], strict=True))
    assert math.isnan(values["kdigo_a"])
    assert math.isnan(values["kdigo_risk"])
    assert math.isnan(values["kfre_5y"])
    assert float(values["egfr"]) == pytest.approx(67.17, abs=0.01)
    assert float(values["incident_ckd"]) == pytest.approx(float(values["egfr"]) + 0.5, abs=1e-4)


def test_the_incidence_model_is_a_logistic_regression_on_standardised_predictors() -> None:
    predictors = ("age_years", "egfr", LOG_ACR, "hba1c_percent")
    mean, deviation = torch.tensor([55.0, 90.0, 2.0, 6.0]), torch.tensor([10.0, 20.0, 1.5, 0.5])
    weight = torch.tensor([0.7, -1.1, 0.4, 0.25])
    model = KidneyGraph(FEATURES, predictors, mean, deviation, weight, bias=-2.0)
    rows = torch.tensor([[65.0, 0.0, 100.0, 45.0, 6.5], [40.0, 1.0, 60.0, 0.3, 5.5]])
    values = model(rows)
    assert values.shape == (2, len(KidneyGraph.columns))
    for row, found in zip(rows.tolist(), values.tolist(), strict=True):
        # A ratio below 1 mg/g counts as 1.
        given = (row[0], found[0], math.log(max(row[3], 1)), row[4])
        steps = zip(given, mean.tolist(), deviation.tolist(), weight.tolist(), strict=True)
        assert found[-1] == pytest.approx(-2 + sum(w * (x - m) / d for x, m, d, w in steps), abs=1e-5)


@pytest.mark.parametrize(("acr", "log"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.5, 0.405465), (30.0, 3.401197)])
def test_the_logarithm_of_a_ratio_begins_at_one(acr: float, log: float) -> None:
    assert float(log_acr(column(acr))) == pytest.approx(log, abs=1e-6)
    assert math.isnan(log_acr(column(math.nan)))


def test_a_model_without_the_ratio_does_not_need_it() -> None:
    assert LOG_ACR == "log_urine_acr"
    values = graph()(torch.tensor([[50.0, 0.0, 100.0, torch.nan, 6.0]]))
    assert not math.isnan(values[0, -1])
