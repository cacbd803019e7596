"""From numbers to findings: calibration, ages, requirements, operating points, categories, several inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_specs.bundle import Calibration, FindingSpec
from data_specs.visit.assessment import EvidenceMap, FoundFinding
from data_specs.visit.contract import OperatingPoint
from inference.findings import Answer, answer, calibrate, merge, positive_share


def points(screening: float, rule_in: float) -> tuple[OperatingPoint, ...]:
    return (
        OperatingPoint(name="screening", threshold=screening, cohort="c"),
        OperatingPoint(name="rule_in", threshold=rule_in, cohort="c"),
    )


ABNORMAL = FindingSpec(name="abnormal", column=0, risk="direct", operating_points=points(0.3, 0.8))
NORMAL = FindingSpec(name="normal_ecg", column=0, risk="complement", operating_points=points(0.7, 0.3))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_platt_scaling_is_applied_and_never_overflows() -> None:
    spec = FindingSpec(name="x", column=0, calibration=Calibration(slope=2.0, intercept=-1.0))
    assert calibrate(spec, 0.5) == pytest.approx(0.5)
    assert calibrate(spec, 1.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert calibrate(spec, 1e6) == 1.0
    assert calibrate(spec, -1e6) == 0.0


@pytest.mark.parametrize(
    ("p", "positive", "category"), [(0.2, False, "low"), (0.5, True, "intermediate"), (0.9, True, "high")]
)
def test_direct_risk(p: float, positive: bool, category: str) -> None:
    result = answer([ABNORMAL], np.array([logit(p)]))
    assert result.findings[0].positive is positive
    assert result.category == category
    assert result.risk == pytest.approx(p)


@pytest.mark.parametrize(
    ("p", "positive", "category"), [(0.9, True, "low"), (0.5, False, "intermediate"), (0.1, False, "high")]
)
def test_complement_risk(p: float, positive: bool, category: str) -> None:
    result = answer([NORMAL], np.array([logit(p)]))
    assert result.findings[0].positive is positive
    assert result.category == category
    assert result.risk == pytest.approx(1 - p)


def test_what_is_required_or_does_not_apply_is_left_out() -> None:
    specs = [
        FindingSpec(name="egfr", column=0, kind="measured", unit="u", digits=1, requires=("creatinine",)),
        FindingSpec(name="kdigo_g", column=1, kind="measured", labels=("G1", "G2"), requires=("creatinine",)),
        FindingSpec(name="kfre_5y", column=2, kind="risk", requires=("acr",), applies_when={"egfr": (0, 60)}),
    ]
    numbers = np.array([59.96, 1.0, 0.04])
    assert answer(specs, numbers).findings == []
    known = answer(specs, numbers, features={"creatinine": 100.0, "acr": 300.0}).by_name
    assert (known["egfr"].value, known["kdigo_g"].value) == (60.0, "G2")
    assert known["kfre_5y"].probability == pytest.approx(0.04)
    assert "kfre_5y" not in answer(specs, np.array([60.0, 1.0, 0.04]), features={"creatinine": 1.0, "acr": 1.0}).by_name
    assert "kfre_5y" not in answer(specs, np.array([50, 1, np.nan]), features={"creatinine": 1.0, "acr": 1.0}).by_name


def test_evidence_goes_with_positive_findings_only() -> None:
    asked = []

    def maps(spec: FindingSpec) -> list[EvidenceMap]:
        asked.append(spec.name)
        return [EvidenceMap(kind="heatmap", input=0, values=[[255]])]

    assert answer([ABNORMAL], np.array([logit(0.5)]), evidence=maps).findings[0].evidence
    assert not answer([ABNORMAL], np.array([logit(0.1)]), evidence=maps).findings[0].evidence
    assert asked == ["abnormal"], "a map that nobody sees is not made"


def test_several_inputs_give_the_most_suspicious_of_each_finding() -> None:
    def of(name: str, p: float, value: float | None = None) -> FoundFinding:
        return FoundFinding(name=name, probability=None if value else p, value=value)

    first = Answer([of("abnormal", 0.2), of("normal_ecg", 0.9), of("heart_rate", 0, 70.0)], 0.2, "low")
    second = Answer([of("abnormal", 0.6), of("normal_ecg", 0.4), of("heart_rate", 0, 90.0)], 0.6, "intermediate")
    merged = merge([first, second])
    found = merged.by_name
    assert (found["abnormal"].probability, found["normal_ecg"].probability) == (0.6, 0.4)
    assert found["heart_rate"].value == 70.0
    assert (merged.risk, merged.category) == (0.6, "intermediate")


def test_maps_show_positive_contributions_relative_to_the_largest() -> None:
    assert positive_share(np.array([[-3.0, 0.0], [2.0, 4.0]])) == [[0, 0], [128, 255]]
    assert positive_share(np.array([-1.0, -2.0])) == [[0, 0]]
