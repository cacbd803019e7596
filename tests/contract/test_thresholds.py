"""Serving and evaluation give the same probability to the last bit, and the same decision at a threshold itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_specs.bundle import BundleManifest, Calibration, FindingSpec
from data_specs.visit.contract import OperatingPoint
from inference.findings import answer, calibrate, calibrated, strength
from tests.conftest import ROOT
from training.figures.evaluate import evaluate, sensitivity_at, specificity_at
from training.figures.roc import roc_points

MANIFESTS = [
    BundleManifest.model_validate_json(path.read_bytes())
    for path in sorted((ROOT / "models" / "bundles").glob("*/screening.json"))
]
SPECS = {
    f"{manifest.name}-{manifest.version} {spec.name} {spec.column}": spec
    for manifest in MANIFESTS
    for spec in manifest.findings
    if spec.operating_points
}
POINTS = [(name, point.name) for name, spec in SPECS.items() for point in spec.operating_points]
ISOTONIC = Calibration(kind="isotonic", knots=((-3.0, 0.01), (-0.5, 0.2), (0.7, 0.2), (2.0, 0.97)))


@pytest.mark.parametrize("name", [*SPECS, "isotonic", "not calibrated"])
def test_a_probability_is_the_same_in_serving_and_in_evaluation(name: str) -> None:
    calibration = ISOTONIC if name == "isotonic" else SPECS[name].calibration if name in SPECS else None
    spec = FindingSpec(name="f", column=0, calibration=calibration)
    # What a network gives is float32; evaluation takes a whole cohort at once.
    logits = np.random.default_rng(5).normal(0, 4, 500).astype(np.float32)
    served = [calibrate(spec, float(logit)) for logit in logits]
    assert calibrated(logits, calibration or Calibration(slope=1.0, intercept=0.0)).tolist() == served


@pytest.mark.parametrize(("name", "at"), POINTS)
def test_a_threshold_itself_is_positive_everywhere(name: str, at: str) -> None:
    as_it_is = {"kind": "risk", "column": 0, "requires": (), "applies_when": {}, "risk": None, "decides_at": at}
    as_it_is |= {"use": "triage", "undecided": ()}
    spec = SPECS[name].model_copy(update=as_it_is)
    (point,) = (point for point in spec.operating_points if point.name == at)
    t = point.threshold
    below, above = math.nextafter(t, 0), math.nextafter(t, 1)
    p = np.array([below, t, above])
    served = [answer([spec], np.array([number])) for number in p]
    assert [found.findings[0].positive for found in served] == [False, True, True]
    assert [found.findings[0].probability for found in served] == p.tolist()
    if at == "rule_in":
        assert [found.category for found in served] == ["low", "high", "high"]

    positives, negatives = np.ones(3), np.zeros(3)
    assert sensitivity_at(t)(positives, p) == 2 / 3
    assert specificity_at(t)(negatives, p) == 1 / 3
    (row,) = (row for row in roc_points(np.array([1.0, 1, 1, 0, 0, 0]), np.tile(p, 2), (point,)) if row.threshold == t)
    assert (row.true_positives, row.false_negatives) == (2, 1)
    assert (row.false_positives, row.true_negatives) == (2, 1)
    both, twice, points = np.array([1.0, 0] * 3), np.repeat(p, 2), (point.model_copy(update={"name": "balanced"}),)
    figures = evaluate(both, twice, np.arange(6).astype(str), cohort="c", points=points, draws=2)
    said = {figure.metric: figure.estimate.value for figure in figures}
    assert (said["sensitivity@balanced"], said["specificity@balanced"]) == (0.6667, 0.3333)
    assert said["accuracy@balanced"] == 0.5


@pytest.mark.parametrize("manifest", [m for m in MANIFESTS if m.organ], ids=lambda m: f"{m.name}-{m.version}")
def test_what_is_strong_begins_at_the_threshold(manifest: BundleManifest) -> None:
    for spec in manifest.findings:
        by_name: dict[str, OperatingPoint] = {point.name: point for point in spec.operating_points}
        if "rule_in" not in by_name or by_name["rule_in"].threshold < by_name[spec.decides_at].threshold:
            continue
        t = by_name["rule_in"].threshold
        for p, strong in ((math.nextafter(t, 0), False), (t, True), (math.nextafter(t, 1), True)):
            assert (strength(spec, p) == "strong") is strong
