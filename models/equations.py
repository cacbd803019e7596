"""Published kidney equations as a torch module, so that they are exported as the networks are.

References
----------
CKD-EPI 2021: Inker LA, Eneanya ND, Coresh J, et al. New creatinine- and cystatin C-based equations to estimate GFR
without race. N Engl J Med 2021;385:1737-1749, table 2 (creatinine, without race).
KDIGO: KDIGO 2024 Clinical Practice Guideline for the Evaluation and Management of CKD. Kidney Int 2024;105(4S):S117,
tables of GFR and albuminuria categories and figure 'Prognosis of CKD by GFR and albuminuria categories'.
KFRE: Tangri N, Grams ME, Levey AS, et al. Multinational assessment of accuracy of equations for predicting risk of
kidney failure: a meta-analysis. JAMA 2016;315:164-174, four-variable equation; the baseline survivals outside North
America are those recalibrated there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_specs.labs import CREATININE_UMOL_PER_MG

KDIGO_G_LOWER = (90.0, 60.0, 45.0, 30.0, 15.0)
"""Lower bounds, included, of G1, G2, G3a, G3b and G4 in mL/min/1.73 m2; below the last is G5."""
KDIGO_G = ("G1", "G2", "G3a", "G3b", "G4", "G5")

KDIGO_A_UPPER_MG_PER_G = (30.0, 300.0)
"""A1 is below 30 mg/g, A2 is 30 to 300 mg/g (300 included), A3 above."""
KDIGO_A = ("A1", "A2", "A3")

KDIGO_RISK = ("low", "moderate", "high", "very high")
KDIGO_RISK_CELL = (
    (0, 1, 2),
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 3),
    (3, 3, 3),
    (3, 3, 3),
)
"""Index into :data:`KDIGO_RISK` by G stage (row) and A stage (column)."""

KFRE_SURVIVAL = {
    "kfre_2y": 0.9832,
    "kfre_5y": 0.9365,
    "kfre_2y_north_america": 0.9750,
    "kfre_5y_north_america": 0.9240,
}
"""Baseline survival of the four-variable equation: outside North America (names without a place), and inside."""


def egfr_ckd_epi_2021(creatinine_umol_per_l: Tensor, age_years: Tensor, female: Tensor) -> Tensor:
    """eGFR in mL/min/1.73 m2 from creatinine, adults; ``female`` is 1 or 0. Inker et al. 2021, table 2."""
    creatinine = creatinine_umol_per_l / (10 * CREATININE_UMOL_PER_MG)
    is_female = female > 0.5
    kappa = torch.where(is_female, 0.7, 0.9)
    alpha = torch.where(is_female, -0.241, -0.302)
    ratio = creatinine / kappa
    one = torch.ones_like(ratio)
    egfr = 142.0 * torch.minimum(ratio, one) ** alpha * torch.maximum(ratio, one) ** -1.200 * 0.9938**age_years
    return egfr * torch.where(is_female, 1.012, 1.0)


def kfre_four_variables(
    age_years: Tensor, female: Tensor, egfr: Tensor, acr_mg_per_g: Tensor, baseline_survival: float
) -> Tensor:
    """Risk of kidney failure, 0 to 1, in CKD stages 3 to 5. Tangri et al. 2016, four-variable equation."""
    linear = (
        -0.2201 * (age_years / 10 - 7.036)
        + 0.2467 * ((1 - female) - 0.5642)
        - 0.5567 * (egfr / 5 - 7.222)
        + 0.4510 * (torch.log(acr_mg_per_g) - 5.137)
    )
    return 1 - baseline_survival ** torch.exp(linear)


def kdigo_g_index(egfr: Tensor) -> Tensor:
    """Index into :data:`KDIGO_G`."""
    bounds = torch.tensor(KDIGO_G_LOWER)
    return (egfr[..., None] < bounds).sum(dim=-1)


def kdigo_a_index(acr_mg_per_g: Tensor) -> Tensor:
    """Index into :data:`KDIGO_A`."""
    low, high = KDIGO_A_UPPER_MG_PER_G
    return (acr_mg_per_g >= low).long() + (acr_mg_per_g > high).long()


LOG_ACR = "log_urine_acr"
"""Name of the predictor: natural logarithm of the albumin-to-creatinine ratio in mg/g, from 1 mg/g on."""


def log_acr(acr_mg_per_g: Tensor) -> Tensor:
    """Logarithm of the ratio, as in the KFRE; a ratio below 1 mg/g counts as 1."""
    # `where` keeps NaN in every runtime, `clamp` does not.
    return torch.log(torch.where(acr_mg_per_g < 1, torch.ones_like(acr_mg_per_g), acr_mg_per_g))


class KidneyGraph(nn.Module):
    """Equations and the fitted model of incident CKD 3 to 5, over one row of features per person.

    Parameters
    ----------
    features
        Names of the input's columns; ``age_years``, ``female``, ``creatinine_umol_per_l`` and ``urine_acr_mg_per_g``
        among them.
    mean, deviation, weight, bias
        Logistic regression on the standardised columns ``predictors``: names of features, ``egfr`` (computed here) or
        :data:`LOG_ACR`.

    Notes
    -----
    Input ``(n, n_features) float32``, NaN where unknown. Output ``values (n, n_columns) float32`` in the order of
    ``columns``; a value whose features are unknown is NaN there and is not offered by the bundle.
    """

    columns = ("egfr", "kdigo_g", "kdigo_a", "kdigo_risk", *KFRE_SURVIVAL, "incident_ckd")

    def __init__(
        self,
        features: tuple[str, ...],
        predictors: tuple[str, ...],
        mean: Tensor,
        deviation: Tensor,
        weight: Tensor,
        bias: float,
    ) -> None:
        super().__init__()
        self.column = {name: i for i, name in enumerate(features)}
        self.predictors = predictors
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.register_buffer("weight", weight)
        self.bias = bias
        self.register_buffer("risk_cell", torch.tensor(KDIGO_RISK_CELL))

    def forward(self, rows: Tensor) -> Tensor:
        age, female = rows[:, self.column["age_years"]], rows[:, self.column["female"]]
        acr = rows[:, self.column["urine_acr_mg_per_g"]]
        egfr = egfr_ckd_epi_2021(rows[:, self.column["creatinine_umol_per_l"]], age, female)
        g, a = kdigo_g_index(egfr), kdigo_a_index(acr)
        unknown_acr = torch.isnan(acr)
        nan = torch.full_like(egfr, torch.nan)
        values = [
            egfr,
            torch.where(torch.isnan(egfr), nan, g.float()),
            torch.where(unknown_acr, nan, a.float()),
            torch.where(unknown_acr | torch.isnan(egfr), nan, self.risk_cell[g, a].float()),
            *(kfre_four_variables(age, female, egfr, acr, survival) for survival in KFRE_SURVIVAL.values()),
        ]
        computed = {"egfr": egfr}
        if LOG_ACR in self.predictors:
            computed[LOG_ACR] = log_acr(acr)
        predictors = torch.stack(
            [computed[name] if name in computed else rows[:, self.column[name]] for name in self.predictors], dim=1
        )
        logit = ((predictors - self.mean) / self.deviation * self.weight).sum(dim=1) + self.bias
        return torch.stack([*values, logit], dim=1)
