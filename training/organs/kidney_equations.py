"""The published kidney equations as findings: eGFR, KDIGO stages and the risk of kidney failure (KFRE)."""

from __future__ import annotations

import torch

from data_specs.bundle import FindingSpec
from data_specs.visit.contract import OperatingPoint
from models.equations import KDIGO_A, KDIGO_G, KDIGO_RISK, KidneyGraph

REFERRAL = {
    "2y": OperatingPoint(name="referral", threshold=0.10, cohort="KDIGO 2024, practice point 2.2.3"),
    "5y": OperatingPoint(name="referral", threshold=0.05, cohort="KDIGO 2024, practice point 2.2.2"),
}
"""Risk of kidney failure above which to refer: 3 to 5 % in five years to a nephrologist, over 10 % in two years to
multidisciplinary care (KDIGO 2024 CKD guideline, section 2.2)."""
EQUATION_LIMITS = (
    "eGFR: CKD-EPI 2021 by creatinine, adults, without race (Inker et al., N Engl J Med 2021;385:1737). One value is "
    "no chronic kidney disease: KDIGO asks for three months.",
    "KDIGO stages and risk cell: KDIGO 2024, Kidney Int 2024;105(4S). Without albuminuria only the G stage is given.",
    "KFRE: four variables, Tangri et al., JAMA 2016;315:164; `kfre_2y` and `kfre_5y` with the baseline survival "
    "recalibrated outside North America, the others with the North American one. For eGFR under 60 with a known "
    "albumin-to-creatinine ratio. Not calibrated in Viet Nam.",
)


def equations_alone(features: tuple[str, ...]) -> KidneyGraph:
    """The graph without an incidence model: its column is NaN for every person."""
    nothing = torch.zeros(1)
    return KidneyGraph(features, ("egfr",), nothing, torch.ones(1), nothing, float("nan")).eval()


def equations() -> tuple[FindingSpec, ...]:
    """The findings of the published equations, by column of the graph."""
    column = {name: i for i, name in enumerate(KidneyGraph.columns)}
    blood = ("creatinine_umol_per_l", "age_years", "female")
    urine = ("urine_acr_mg_per_g",)
    measured = (
        FindingSpec(
            name="egfr",
            column=column["egfr"],
            kind="measured",
            unit="mL/min/1.73 m2",
            digits=1,
            requires=blood,
        ),
        FindingSpec(name="kdigo_g", column=column["kdigo_g"], kind="measured", labels=KDIGO_G, requires=blood),
        FindingSpec(name="kdigo_a", column=column["kdigo_a"], kind="measured", labels=KDIGO_A, requires=urine),
        FindingSpec(
            name="kdigo_risk",
            column=column["kdigo_risk"],
            kind="measured",
            labels=KDIGO_RISK,
            requires=(*blood, *urine),
        ),
    )
    kfre = tuple(
        FindingSpec(
            name=name,
            column=column[name],
            kind="risk",
            requires=(*blood, *urine),
            applies_when={"egfr": (0, 60), "urine_acr_mg_per_g": (1e-9, 1e9)},
            decides_at="referral",
            operating_points=(REFERRAL["2y" if "2y" in name else "5y"],),
        )
        for name in KidneyGraph.columns
        if name.startswith("kfre")
    )
    return (*measured, *kfre)
