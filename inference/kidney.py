"""Labs and context -> one row of features -> equations and the incidence model -> findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_specs.bundle import TabularInput
from data_specs.conditions import CONDITIONS, normal_name
from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedOrgan
from data_specs.visit.context import Context
from data_specs.visit.contract import Category
from data_specs.vocabulary import judged_findings
from inference.bundles.loading import Bundle
from inference.findings import ADULT_YEARS, Answer, answer
from inference.person import format_age
from inference.runtime.batcher import Batcher, InferenceFailed

CATEGORY_OF_KDIGO: dict[str, Category] = {
    "low": "low",
    "moderate": "intermediate",
    "high": "high",
    "very high": "high",
}
CELL = ("kdigo_g", "kdigo_a")
"""What the cell of KDIGO's table is read from."""
MAX_SHOWN = 40
"""Characters of a condition's name that its reserve quotes."""
CATEGORY_AT_LEAST: dict[str, Category] = {"G3a": "intermediate", "G3b": "high", "G4": "high", "G5": "high"}
"""Lowest category of a G stage at any albuminuria (KDIGO 2024, column A1 of the risk table)."""


@dataclass(frozen=True)
class KidneyPipeline:
    bundle: Bundle
    batcher: Batcher

    async def assess(self, context: Context, labs: dict[str, float], lab_problems: list[Problem]) -> AssessedOrgan:
        features = known_features(context, labs)
        refusal = missing(context, features)
        if refusal is not None:
            return AssessedOrgan(status="not_assessed", reasons=[refusal, *lab_problems])
        names = [feature.name for feature in self.bundle.input_as(TabularInput).features]
        row = np.array([[features.get(name, np.nan) for name in names]], dtype=np.float32)
        try:
            (values, *_) = await self.batcher.infer(row)
        except InferenceFailed as failure:
            failed = Problem("inference_failed", "reject", found=failure.code)
            return AssessedOrgan(status="not_assessed", reasons=[failed, *lab_problems])
        found = answer(self.bundle.manifest.findings, np.asarray(values[0], dtype=np.float64), features=features)
        reasons = list(lab_problems)
        if "urine_acr_mg_per_g" not in features:
            reasons.append(Problem("acr_missing", "warn"))
        level, basis = category(found)
        return AssessedOrgan(
            status="assessed",
            reasons=reasons,
            risk=risk(found),
            category=level,
            category_basis=basis,
            looked_for=[name for name in judged_findings("kidney") if name in found.by_name],
            findings=found.findings,
        )


def known_features(context: Context, labs: dict[str, float]) -> dict[str, float]:
    """Feature name to value, for the features that are known; nothing is imputed."""
    features = {**labs, **context.vitals.model_dump(exclude_none=True)}
    if context.person.age_years is not None:
        features["age_years"] = context.person.age_years
    if context.person.sex in ("female", "male"):
        features["female"] = float(context.person.sex == "female")
    if context.conditions is not None:
        stated = {normal_name(condition) for condition in context.conditions}
        for feature, names in CONDITIONS.items():
            features[feature] = float(bool(stated & names))
    return features


def unknown_conditions(context: Context) -> list[Problem]:
    """The reserve that names the stated conditions that are not in the table, with those that are."""
    known = frozenset().union(*CONDITIONS.values())
    unknown = [each for each in context.conditions or () if normal_name(each) not in known]
    if not unknown:
        return []
    shown = ["".join(c for c in each if c.isalnum() or c in " _-/.")[:MAX_SHOWN].strip() or "—" for each in unknown]
    return [Problem("condition_unknown", "warn", ", ".join(dict.fromkeys(shown)), " | ".join(CONDITIONS))]


def missing(context: Context, features: dict[str, float]) -> Problem | None:
    """Why the eGFR, and so everything else, cannot be computed; ``None`` where it can."""
    absent = [
        name
        for name, feature in (("creatinine", "creatinine_umol_per_l"), ("age_years", "age_years"))
        if feature not in features
    ]
    if context.person.sex is None:
        absent.append("sex")
    if absent:
        return Problem("labs_missing", "reject", found=", ".join(absent))
    if "female" not in features:
        return Problem("sex_unknown", "reject")
    if features["age_years"] < ADULT_YEARS:
        return Problem("age_out_of_range", "reject", format_age(features["age_years"]), f"≥ {ADULT_YEARS:.0f}")
    return None


def risk(found: Answer) -> float | None:
    """Five-year risk of kidney failure where it applies, else the risk of developing CKD 3 to 5."""
    for name in ("kfre_5y", "incident_ckd"):
        if name in found.by_name:
            return found.by_name[name].probability
    return None


def category(found: Answer) -> tuple[Category | None, Problem | None]:
    """The category and what it rests on.

    From the KDIGO cell; without albuminuria from the G stage alone. A positive incidence model makes it intermediate at
    least.
    """
    cell, stage = found.by_name.get("kdigo_risk"), str(found.by_name["kdigo_g"].value)
    if cell is not None:
        level: Category | None = CATEGORY_OF_KDIGO[str(cell.value)]
        basis = Problem("basis_kdigo", "warn", found=", ".join(str(found.by_name[name].value) for name in CELL))
    else:
        level, basis = CATEGORY_AT_LEAST.get(stage), Problem("basis_gfr_stage", "warn", found=stage)
    incidence = found.by_name.get("incident_ckd")
    if level in (None, "low") and incidence and incidence.positive:
        return "intermediate", Problem("basis_incident_ckd", "warn", found="incident_ckd")
    return level, basis if level else None
