"""Calibration, operating points and intervals against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from inference.findings import calibrated
from training.cohorts.cohort import part_of_person
from training.figures.evaluate import (
    auroc,
    bootstrap,
    calibration_slope,
    evaluate,
    expected_calibration_error,
    fit_platt,
    operating_points,
)


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    """Outcomes drawn from logits that are three times too steep and shifted by one."""
    rng = np.random.default_rng(4)
    true_logit = rng.normal(0, 1.5, 4000)
    y = (rng.random(4000) < 1 / (1 + np.exp(-true_logit))).astype(float)
    return y, 3 * true_logit + 1


def test_platt_scaling_recovers_the_truth(scores: tuple[np.ndarray, np.ndarray]) -> None:
    y, logits = scores
    calibration = fit_platt(y, logits)
    assert calibration.slope == pytest.approx(1 / 3, abs=0.03)
    assert calibration.intercept == pytest.approx(-1 / 3, abs=0.1)
    p = calibrated(logits, calibration)
    assert expected_calibration_error(y, p) < 0.03 < expected_calibration_error(y, 1 / (1 + np.exp(-logits)))
    assert calibration_slope(y, p) == pytest.approx(1, abs=0.05)


def test_unknown_labels_are_left_out(scores: tuple[np.ndarray, np.ndarray]) -> None:
    y, logits = scores
    with_unknown = np.concatenate([y, np.full(500, np.nan)])
    extended = np.concatenate([logits, np.full(500, 40.0)])
    assert fit_platt(with_unknown, extended) == fit_platt(y, logits)


def test_operating_points_keep_their_promises(scores: tuple[np.ndarray, np.ndarray]) -> None:
    y, logits = scores
    p = calibrated(logits, fit_platt(y, logits))
    points = {point.name: point for point in operating_points(y, p, "cohort")}
    for point in points.values():
        assert point.sensitivity == pytest.approx((p[y == 1] >= point.threshold).mean(), abs=2e-3)
        assert point.specificity == pytest.approx((p[y == 0] < point.threshold).mean(), abs=2e-3)
    assert points["screening"].sensitivity >= 0.95
    assert points["rule_in"].specificity >= 0.95
    assert points["screening"].threshold < points["balanced"].threshold < points["rule_in"].threshold


def test_points_stay_in_order_when_the_model_is_perfect() -> None:
    y = np.repeat([0.0, 1.0], 50)
    p = np.concatenate([np.linspace(0.0, 0.2, 50), np.linspace(0.8, 1.0, 50)])
    points = {point.name: point.threshold for point in operating_points(y, p, "cohort")}
    assert points["screening"] <= points["balanced"] <= points["rule_in"]


def test_persons_are_drawn_whole() -> None:
    # Every person stands there ten times: the interval has to be that of 60 persons, not of 600 rows.
    rng = np.random.default_rng(0)
    y, p = (rng.random(60) < 0.5).astype(float), rng.random(60)
    person = np.arange(60).astype(str)
    auroc = lambda y, p: float(roc_auc_score(y, p))  # noqa: E731
    once = bootstrap(auroc, y, p, person)
    tenfold = bootstrap(auroc, np.repeat(y, 10), np.repeat(p, 10), np.repeat(person, 10))
    assert tenfold.value == once.value
    assert tenfold.high - tenfold.low == pytest.approx(once.high - once.low, rel=0.15)


def test_small_subgroups_get_their_counts_and_no_figure(scores: tuple[np.ndarray, np.ndarray]) -> None:
    y, logits = scores[0][:300].copy(), scores[1][:300]
    few, nobody = np.arange(300) < 8, np.zeros(300, dtype=bool)
    y[0] = np.nan
    figures = evaluate(
        y, calibrated(logits, fit_platt(y, logits)), np.arange(300).astype(str), cohort="c", points=(),
        subgroups={"few": few, "most": ~few, "nobody": nobody}, draws=50,
    )  # fmt: skip
    by_group = {group: {f.metric: f.estimate for f in figures if f.subgroup == group} for group in ("few", "most")}
    assert {f.subgroup for f in figures} == {"all", "few", "most"}
    assert by_group["few"].keys() == {"prevalence"}
    assert by_group["most"].keys() == {"prevalence", "auroc"}
    said = by_group["few"]["prevalence"]
    assert (said.n, said.n_positive) == (7, int(y[1:8].sum()))
    assert said.value == pytest.approx(y[1:8].mean(), abs=1e-4)


def test_a_threshold_keeps_its_cases_apart_however_rare_the_finding() -> None:
    # Probabilities of one in a hundred thousand, and two that differ in the ninth digit.
    y = np.array([0.0, 0, 0, 1, 1, 1])
    p = np.array([1e-6, 2e-6, 3.00000001e-6, 3.00000003e-6, 8e-6, 9e-6])
    for point in operating_points(y, p, "c"):
        assert point.sensitivity == pytest.approx((p[y == 1] >= point.threshold).mean(), abs=1e-3)
        assert point.specificity == pytest.approx((p[y == 0] < point.threshold).mean(), abs=1e-3)
        assert (point.sensitivity, point.specificity) == (1, 1)


def test_a_person_always_lands_in_the_same_part() -> None:
    shares = {"validation": 0.2, "test": 0.2, "train": 0.6}
    parts = [part_of_person(f"p{i}", shares, "salt") for i in range(5000)]
    assert parts == [part_of_person(f"p{i}", shares, "salt") for i in range(5000)]
    assert parts.count("test") == pytest.approx(1000, abs=100)
    assert parts.count("train") == pytest.approx(3000, abs=120)


@pytest.mark.parametrize("seed", range(5))
def test_quick_figures_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.uniform(size=150) < 0.3).astype(float)
    p = np.round(1 / (1 + np.exp(-(rng.normal(size=150) + y))), 2)  # with ties
    assert auroc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    z = np.log(p / (1 - p))
    fitted = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-10).fit(z[:, None], y).coef_[0, 0]
    assert calibration_slope(y, p) == pytest.approx(fitted, abs=1e-4)


def test_cases_that_a_threshold_separates_have_a_large_slope() -> None:
    assert calibration_slope(np.array([0.0, 0, 1, 1]), np.array([0.2, 0.3, 0.6, 0.7])) > 5
