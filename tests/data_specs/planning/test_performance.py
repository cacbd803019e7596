"""What a bundle carries to plan from: of all cases and of groups, and for a finding that reassures."""

from __future__ import annotations

import json

import pytest

from data_specs.bundle import BundleManifest, Estimate, Evaluation, FindingSpec, RocPoint
from data_specs.planning.performance import performances
from data_specs.visit.contract import OperatingPoint
from tests.conftest import ROOT

BUNDLES = ROOT / "models" / "bundles"


def roc(threshold: float, tp: int, fn: int, tn: int, fp: int) -> RocPoint:
    return RocPoint(threshold=threshold, true_positives=tp, false_negatives=fn, true_negatives=tn, false_positives=fp)


def share(group: str, metric: str, value: float, n: int, with_it: int, cohort: str = "test") -> Evaluation:
    estimate = Estimate(value=value, low=0, high=1, n=n, n_positive=with_it)
    return Evaluation(cohort=cohort, subgroup=group, metric=metric, estimate=estimate)


SPEC = FindingSpec(
    name="pneumonia",
    column=0,
    operating_points=(OperatingPoint(name="screening", threshold=0.4, cohort="validation"),),
    roc=(roc(0.0, 50, 0, 0, 80), roc(0.4, 45, 5, 60, 20), roc(1.0, 0, 50, 80, 0)),
    evaluation=(
        share("all", "sensitivity@screening", 0.9, 100, 30),
        share("all", "specificity@screening", 0.8, 100, 30),
        share("sex F", "sensitivity@screening", 0.9333, 45, 15),
        share("sex F", "specificity@screening", 0.7, 45, 15),
        share("sex M", "sensitivity@screening", 0.9, 55, 15),
        share("all", "sensitivity@screening", 0.95, 20, 20, "positives only"),
    ),
)


def test_all_cases_at_every_threshold_and_groups_at_the_one_that_decides() -> None:
    found = performances(SPEC)
    assert list(found) == ["all", "all (test)", "sex F"]
    assert (found["all"].counts, found["all"].is_whole, len(found["all"].points)) == ((50, 80), True, 3)
    women = found["sex F"]
    assert (women.cases, women.is_whole, women.points) == ("test", False, (roc(0.4, 14, 1, 21, 9),))
    assert found["all (test)"].points == (roc(0.4, 27, 3, 56, 14),)


def test_a_group_whose_roc_the_bundle_carries_has_every_threshold() -> None:
    with_roc = SPEC.model_copy(update={"roc_by_group": {"sex F": (roc(0.1, 20, 0, 10, 20), roc(0.4, 19, 1, 21, 9))}})
    women = performances(with_roc)["sex F"]
    assert (women.is_whole, len(women.points), women.cases) == (True, 2, "validation")


def test_of_a_finding_that_reassures_those_below_the_threshold_are_recalled() -> None:
    normal = performances(SPEC.model_copy(update={"name": "normal_ecg"}))["all"]
    assert normal.counts == (80, 50), "those who are looked for do not have a normal ECG"
    everybody_normal, deciding, everybody_recalled = normal.points
    assert (everybody_normal.sensitivity, everybody_normal.specificity) == (0, 1)
    assert (deciding.sensitivity, deciding.specificity) == (60 / 80, 45 / 50)
    assert (everybody_recalled.sensitivity, everybody_recalled.specificity) == (1, 0)


def test_nothing_is_made_up_for_a_bundle_without_figures() -> None:
    assert performances(FindingSpec(name="pneumonia", column=0)) == {}


@pytest.mark.parametrize("name", ["lung-1.4.0", "cardiac-1.2.2", "kidney-1.1.0"])
def test_every_shipped_finding_that_decides_can_be_planned(name: str) -> None:
    manifest = BundleManifest.model_validate(json.loads((BUNDLES / name / "screening.json").read_bytes()))
    for spec in manifest.findings:
        if spec.kind == "probability" and spec.use == "triage":
            found = performances(spec)["all"]
            decides = next(point for point in spec.operating_points if point.name == spec.decides_at)
            assert found.decides in {point.threshold for point in found.points}
            assert found.names[decides.threshold].split(", ").count(spec.decides_at) == 1
