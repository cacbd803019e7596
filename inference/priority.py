"""The priority of a visit: rules over findings, laboratory values and vitals.

``urgent``: a doctor acts on it on the same day. ``soon``: a high category, or a value that should not wait until the
next regular appointment. Everything else that was assessed is ``routine``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedOrgan
from data_specs.visit.contract import Organ, Priority

URGENT_BELOW_OR_ABOVE: dict[str, tuple[float, float]] = {
    "heart_rate": (40, 150),
    "qtc_interval": (-math.inf, 500),
    "egfr": (15, math.inf),
    "potassium_mmol_per_l": (2.5, 6.5),
    "spo2_percent": (90, math.inf),
}
"""Value to the range in which it is not urgent (lower bound included; the upper bound itself is urgent).

References
----------
heart_rate: ESC 2021 pacing guideline (< 40/min) and ALS tachycardia algorithm (>= 150/min).
qtc_interval: AHA/ACCF/HRS 2009 part IV and Drew et al., Circulation 2010;121:1047 (>= 500 ms).
egfr: KDIGO 2024, G5, kidney failure. potassium: UK Kidney Association hyperkalaemia guideline 2023 (severe, >= 6.5
mmol/L); severe hypokalaemia below 2.5 mmol/L. spo2: WHO IMCI and oxygen therapy guideline (< 90 %).
"""

SOON_FROM: dict[str, float] = {
    "potassium_mmol_per_l": 6.0,
    "systolic_mmHg": 180,
    "diastolic_mmHg": 110,
}
"""Value from which a visit is seen soon (UKKA 2023 moderate hyperkalaemia; ISH 2020 severe hypertension)."""

URGENT_WHEN_HIGH = (
    frozenset({"pneumothorax"}),
    frozenset({"pneumonia"}),
    frozenset({"myocardial_infarction", "st_t_change"}),
)
"""Findings that make the visit urgent when all of a set are past their ``rule_in`` points. Pneumonia: WHO IMCI, treated
the same day. Infarction: the ECG does not show how old it is, and most are old; with ST-T change it may be new."""


UNDECIDED = frozenset({"uncalibrated", "paced", "information_only", "not_here", "undecided"})
"""Reserves under which no finding of an organ is no sign that there is none."""


def prioritise(
    organs: Mapping[Organ, AssessedOrgan], values: Mapping[str, float], past_rule_in: frozenset[str]
) -> tuple[Priority, list[Problem]]:
    """Priority of a visit and its reasons, the most pressing first.

    Parameters
    ----------
    values
        Measured findings, laboratory values and vitals by name, units as in the vocabulary.
    past_rule_in
        Findings whose probability is past their ``rule_in`` operating point.
    """
    assessed = [name for name, organ in organs.items() if organ.status == "assessed"]
    urgent = [
        name for name, (low, high) in URGENT_BELOW_OR_ABOVE.items() if name in values and not low <= values[name] < high
    ]
    urgent += [name for together in URGENT_WHEN_HIGH if together <= past_rule_in for name in sorted(together)]
    high = [name for name in assessed if organs[name].category == "high"]
    soon = [name for name, limit in SOON_FROM.items() if values.get(name, -math.inf) >= limit and name not in urgent]
    intermediate = [name for name in assessed if organs[name].category == "intermediate"]
    reasons = [Problem("finding_urgent", "warn", found=name) for name in urgent]
    reasons += [Problem("category_high", "warn", found=name) for name in (*high, *soon)]
    reasons += [Problem("category_intermediate", "warn", found=name) for name in intermediate]
    if urgent:
        return "urgent", reasons
    if high or soon:
        return "soon", reasons
    if not assessed:
        return "unassessed", [*reasons, Problem("nothing_assessed", "warn")]
    undecided = [p for name in assessed for p in organs[name].reasons if p.code in UNDECIDED]
    return "routine", [*reasons, *undecided] or [Problem("nothing_found", "warn")]
