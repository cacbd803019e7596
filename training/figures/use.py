"""What a finding is used for, by its figures at home and at every other place."""

from __future__ import annotations

from data_specs.bundle import Estimate, FindingSpec
from training.figures.triage import TRIAGE_RULE, TriageRule, judge_triage, refuted


def for_use(spec: FindingSpec, rule: TriageRule = TRIAGE_RULE) -> FindingSpec:
    """For triage where the rule is shown at home and not refuted at any other place, else for information."""
    home, refusals = home_of(spec), []
    places = {(e.cohort, e.metric): e.estimate for e in spec.evaluation if e.subgroup == "all"}
    absence = spec.risk == "complement"
    for place in dict.fromkeys(cohort for cohort, _ in places):
        sensitivity, specificity = (
            places.get((place, f"{share}@{spec.decides_at}")) for share in ("sensitivity", "specificity")
        )
        if why := _against(sensitivity, specificity, rule, at_home=place == home, absence=absence):
            refusals.append(f"{place}: {why}")
    if not refusals:
        return spec
    return spec.model_copy(update={"use": "information", "use_because": "; ".join(refusals)})


def home_of(spec: FindingSpec) -> str | None:
    """The part that the finding was evaluated on: the one with a calibration error, else the first."""
    by_metric = {e.metric: e.cohort for e in reversed(spec.evaluation) if e.subgroup == "all"}
    first = spec.evaluation[0].cohort if spec.evaluation else None
    return by_metric.get("ece") or by_metric.get("auroc") or first


def _against(
    sensitivity: Estimate | None, specificity: Estimate | None, rule: TriageRule, *, at_home: bool, absence: bool
) -> str:
    """Why a place speaks against triage; empty where it does not, and where it has no figure at the deciding point."""
    if not at_home:
        return refuted(sensitivity, specificity, rule, absence=absence)
    if sensitivity is None or specificity is None:
        return ""
    judged = judge_triage(sensitivity, specificity, rule, absence=absence)
    return "" if judged else judged.because
