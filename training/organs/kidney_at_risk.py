"""Persons of a cohort who are at risk of chronic kidney disease stages 3 to 5, and their values at the start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data_specs.person import MAX_AGE_YEARS, age_band
from inference.findings import ADULT_YEARS
from models.equations import LOG_ACR, egfr_ckd_epi_2021, log_acr

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BLOOD = ("creatinine_umol_per_l", "age_years", "female")
"""Features of the eGFR."""
CANDIDATES: tuple[tuple[str, ...], ...] = (
    ("egfr", "age_years", "hba1c_percent", "diabetes", "coronary_heart_disease"),
    ("egfr", "age_years", "hba1c_percent", "diabetes"),
    ("egfr", "age_years", "diabetes", "coronary_heart_disease"),
    ("egfr", "age_years", "diabetes"),
)
"""Sets of predictors that a district clinic has; the inner folds choose among them."""
WITHIN = {
    "creatinine_umol_per_l": "egfr",
    "urine_acr_mg_per_g": LOG_ACR,
    "urine_albumin_mg_per_l": LOG_ACR,
    "urine_creatinine_mmol_per_l": LOG_ACR,
}
"""Features that are used only through a value that is computed from them."""

MIN_PERSONS = 20
"""With fewer persons with or without the event, neither predictors nor thresholds can be chosen. (By the rule of ten
events per predictor, Peduzzi et al., J Clin Epidemiol 1996;49:1373, 20 events allow two predictors.)"""
MISSING_SHARE = 0.20
"""At most this share of the rows may lack a feature, and at most this share may lack any of the chosen features."""
AT_RISK_EGFR = 60.0
"""Persons at risk do not have the disease yet: eGFR of at least 60 mL/min/1.73 m2 (KDIGO 2024, stages G1 and G2)."""


class CannotTrain(ValueError):
    """The cohort cannot be used for training; the message says why."""


@dataclass(frozen=True)
class AtRisk:
    """Adults without chronic kidney disease stages 3 to 5 at the start, without missing values.

    Parameters
    ----------
    name
        Name of the cohort in the card and the operating points.
    table
        ``(n, n_predictors) float32``: predictors, and the features in ``BLOOD``.
    y
        ``(n,)``: 1 if the disease developed, else 0.
    candidates
        Sets of predictors to choose among.
    groups
        Columns to report separately (sex, age band, site), text or ``None``.
    held_out
        ``(n,)`` rows of the table's own test part.
    left_out
        Which rows and features were left out: sentences with counts, for the card.
    """

    name: str
    table: pd.DataFrame
    y: Floats
    person: NDArray[np.str_]
    candidates: tuple[tuple[str, ...], ...]
    groups: pd.DataFrame
    held_out: Flags
    left_out: tuple[str, ...] = ()


def at_risk(
    features: pd.DataFrame,
    y: Floats,
    person: NDArray[np.str_],
    *,
    name: str,
    everything: bool,
    site: NDArray[np.object_] | None = None,
    part: NDArray[np.str_] | None = None,
    age_years: tuple[float, float] | None = None,
) -> AtRisk:
    """Select the persons at risk and the usable features of a cohort.

    Parameters
    ----------
    features
        One column per canonical name, NaN where unknown.
    everything
        Whether all usable features together are one more candidate set.
    part
        ``(n,)`` parts of the table's split; ``None`` if it has none.
    age_years
        Ages to offer: lower bound included, upper bound not.

    Raises
    ------
    CannotTrain
        Creatinine, age or sex is missing, so there is no eGFR; or too few persons with or without the event are left.
    """
    absent = [c for c in BLOOD if c not in features or features[c].isna().all()]
    if absent:
        raise CannotTrain(f"{name}: the eGFR needs {', '.join(absent)}, which is missing in all rows")
    features = features.astype(np.float32)
    egfr = egfr_ckd_epi_2021(*(torch.tensor(features[c].to_numpy()) for c in BLOOD)).numpy()
    keep, reasons = np.ones(len(features), dtype=bool), []

    def leave_out(out: Flags, why: str) -> None:
        nonlocal keep
        if (keep & out).any():
            reasons.append(f"{int((keep & out).sum())} {why}")
        keep = keep & ~out

    age = features.age_years.to_numpy()
    if part is not None:
        leave_out(part == "unused", "in no part")
    leave_out(~np.isin(y, (0.0, 1.0)), "with an unknown outcome")
    leave_out(np.isnan(egfr), "without creatinine, age or sex")
    leave_out(age < ADULT_YEARS, f"under {ADULT_YEARS:g} years")
    leave_out(age > MAX_AGE_YEARS, f"over {MAX_AGE_YEARS:g} years")
    if age_years is not None:
        leave_out(
            (age < age_years[0]) | (age >= age_years[1]), f"not of {age_years[0]:g} to {age_years[1] - 1:g} years"
        )
    leave_out(egfr < AT_RISK_EGFR, f"with an eGFR under {AT_RISK_EGFR:g} at the start")
    taken, not_taken = usable_features(features[keep], only=None if everything else {p for c in CANDIDATES for p in c})
    for feature in taken:
        leave_out(features[feature].isna().to_numpy(), f"without {feature}")
    table = features.assign(egfr=egfr)
    if "urine_acr_mg_per_g" in taken:
        table[LOG_ACR] = log_acr(torch.tensor(features.urine_acr_mg_per_g.to_numpy())).numpy()
    predictors = tuple(WITHIN.get(feature, feature) for feature in taken)
    rows = AtRisk(
        name=name,
        table=table[[*dict.fromkeys([*BLOOD, "egfr", *taken, *predictors])]][keep],
        y=y[keep],
        person=person[keep],
        candidates=candidates(predictors, everything=everything),
        groups=groups_of(features[keep], None if site is None else site[keep]),
        held_out=np.zeros(int(keep.sum()), dtype=bool) if part is None else part[keep] == "test",
        left_out=(
            *([f"Left out: {', '.join(reasons)} (of {len(features)} rows)."] if reasons else []),
            *([f"No predictors: {'; '.join(not_taken)}."] if not_taken else []),
        ),
    )
    check_enough(rows)
    return rows


def check_enough(rows: AtRisk) -> None:
    """Check that enough persons with and without the event are left.

    Raises
    ------
    CannotTrain
        There are too few.
    """
    learn = ~rows.held_out
    n_with, n_without = (len(set(rows.person[learn & (rows.y == outcome)])) for outcome in (1, 0))
    if min(n_with, n_without) < MIN_PERSONS:
        why = " ".join(rows.left_out)
        raise CannotTrain(
            f"{rows.name}: {n_with} persons with the event and {n_without} without are left for training; at least "
            f"{MIN_PERSONS} of each are needed. {why}".rstrip()
        )


def usable_features(features: pd.DataFrame, only: set[str] | None = None) -> tuple[tuple[str, ...], list[str]]:
    """Features that can be predictors in addition to age, sex and eGFR, and why the others cannot.

    Features with the fewest missing values are taken first; a feature is not taken if less than four fifths of the rows
    would then be complete.
    """
    named = [c for c in sorted(features) if c not in BLOOD and (only is None or c in only)]
    complete = np.ones(len(features), dtype=bool)
    taken, not_taken = [], []
    for name in sorted(named, key=lambda c: (int(features[c].isna().sum()), c)):
        known = features[name].notna().to_numpy()
        if name in ("urine_albumin_mg_per_l", "urine_creatinine_mmol_per_l"):
            not_taken.append(f"{name} (only as the ratio of both)")
        elif 1 - known.mean() > MISSING_SHARE:
            not_taken.append(f"{name} (unknown in {1 - known.mean():.0%})")
        elif features[name].nunique() < 2:
            not_taken.append(f"{name} (the same in everyone)")
        elif 1 - (complete & known).mean() > MISSING_SHARE:
            not_taken.append(f"{name} (with the others, more than {MISSING_SHARE:.0%} of rows would be incomplete)")
        else:
            taken.append(name)
            complete &= known
    return tuple(sorted(taken)), not_taken


def candidates(predictors: tuple[str, ...], *, everything: bool) -> tuple[tuple[str, ...], ...]:
    """The candidate sets, reduced to the cohort's features; with ``everything`` also the set of all its features."""
    known = {"egfr", "age_years", *predictors}
    sets = [tuple(p for p in names if p in known) for names in CANDIDATES]
    if everything:
        sets.append(("egfr", "age_years", "female", *predictors))
    return tuple({frozenset(names): names for names in reversed(sets)}.values())[::-1]


def groups_of(features: pd.DataFrame, site: NDArray[np.object_] | None) -> pd.DataFrame:
    """Sex, age band and, if there are several, site; ``None`` where unknown."""
    groups = pd.DataFrame(
        {
            "sex": np.where(features.female > 0.5, "female", "male"),
            "age": [age_band(age) for age in features.age_years],
        },
        index=features.index,
    )
    if site is not None and len({s for s in site if s is not None}) > 1:
        groups["site"] = site
    return groups
