"""Figures of evaluation worked out by hand: at a limit itself, and on either side of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.bundle import Estimate, Evaluation
from data_specs.visit.contract import OperatingPoint
from inference.findings import calibrated
from training.cohorts.cohort import MIN_CASES
from training.figures.evaluate import (
    bootstrap,
    calibration_slope,
    evaluate,
    expected_calibration_error,
    fit_platt,
    operating_points,
    prevalence_among,
)

Floats = NDArray[np.float64]


def persons(n: int) -> NDArray[np.str_]:
    return np.arange(n).astype(str)


# ---------------------------------------------------------------- calibration
def test_platt_scaling_fits_smoothed_targets() -> None:
    """Two logits and two constants: each group gets the mean of its targets, (4 + 1) / (4 + 2) and 1 / (5 + 2)."""
    y = np.array([1.0, 1, 1, 0, 1, 0, 0, 0, 0])
    logits = np.array([1.0, 1, 1, 1, -1, -1, -1, -1, -1])
    calibration = fit_platt(y, logits)
    above, below = (3 * 5 / 6 + 1 / 7) / 4, (5 / 6 + 4 / 7) / 5
    assert calibrated([1.0, -1.0], calibration).tolist() == pytest.approx([above, below], abs=1e-4)
    assert calibration.prevalence == pytest.approx(4 / 9)
    unknown = fit_platt(np.append(y, np.nan), np.append(logits, 7.0))
    assert unknown == calibration


@pytest.mark.parametrize(("y", "share"), [([0, 0], None), ([1, 1], None), ([0, 0, 0, 1], 0.25)])
def test_a_prevalence_needs_both_classes(y: list[float], share: float | None) -> None:
    assert prevalence_among(np.array(y, dtype=float)) == share


def test_the_calibration_error_is_the_mean_distance_over_ten_equal_groups() -> None:
    p = np.repeat(np.linspace(0.05, 0.95, 10), 10)
    y = np.concatenate([np.repeat([1.0, 0.0], [k, 10 - k]) for k in (1, 1, 2, 4, 5, 5, 6, 8, 9, 9)])
    distance = np.abs(np.array([1, 1, 2, 4, 5, 5, 6, 8, 9, 9]) / 10 - np.linspace(0.05, 0.95, 10))
    assert expected_calibration_error(y, p) == pytest.approx(distance.mean())
    order = np.random.default_rng(0).permutation(100)
    assert expected_calibration_error(y[order], p[order]) == pytest.approx(distance.mean())
    # Two groups of two and three: their sizes count.
    y, p = np.array([0.0, 1, 1, 1, 1]), np.array([0.1, 0.2, 0.5, 0.6, 0.7])
    assert expected_calibration_error(y, p, bins=2) == pytest.approx((3 * abs(2 / 3 - 0.8 / 3) + 2 * (1 - 0.65)) / 5)
    # Fewer cases than groups.
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([0.8, 0.3])) == pytest.approx((0.2 + 0.3) / 2)


def test_the_calibration_slope_is_the_ratio_of_the_distances_of_logits() -> None:
    """Two groups of which 3 of 4 and 1 of 4 are positive, said to be 0.9 and 0.2."""
    y = np.array([1.0, 1, 1, 0, 1, 0, 0, 0])
    said, seen = math.log(9) - math.log(0.25), 2 * math.log(3)
    assert calibration_slope(y, np.repeat([0.9, 0.2], 4)) == pytest.approx(seen / said, abs=2e-4)
    # Of 1 and 0 the logit is that of one in a million.
    assert calibration_slope(y, np.repeat([1.0, 0.0], 4)) == pytest.approx(seen / (2 * math.log(1e6)), rel=2e-3)
    assert calibration_slope(y, np.repeat([1.0, 0.5], 4)) == pytest.approx(seen / math.log(1e6), rel=2e-3)
    assert calibration_slope(y, np.repeat([0.5, 0.0], 4)) == pytest.approx(seen / math.log(1e6), rel=2e-3)


# ---------------------------------------------------------------- operating points
def points_of(y: Floats, p: Floats) -> dict[str, OperatingPoint]:
    return {point.name: point for point in operating_points(y, p, "c")}


def test_an_operating_point_keeps_exactly_95_percent() -> None:
    """20 positives and 20 negatives: 19 of 20 are 95 %, which is enough.

    From the lowest: twelve negatives, a positive, six negatives, a positive, a negative, seventeen positives, a
    negative, a positive.
    """
    order = [0] * 12 + [1] + [0] * 6 + [1] + [0] + [1] * 17 + [0] + [1]
    y = np.array(order, dtype=float)
    p = np.arange(1, len(y) + 1) / 100
    found = points_of(y, p)
    # screening: the highest threshold that misses one positive at most: after the first positive and six negatives.
    assert (found["screening"].threshold, found["screening"].sensitivity) == (0.195, 0.95)
    assert found["screening"].specificity == 0.9
    # balanced: 0.95 + 0.9 there, 0.9 + 0.95 after the next positive and negative; of equal ones the more sensitive.
    assert found["balanced"].threshold == 0.195
    # rule_in: the lowest threshold that 19 of 20 negatives stay below.
    assert (found["rule_in"].threshold, found["rule_in"].specificity) == (0.215, 0.95)
    assert found["rule_in"].sensitivity == 0.9
    assert {point.cohort for point in found.values()} == {"c"}
    assert list(found) == ["screening", "balanced", "rule_in"]


def test_points_of_a_weak_model_are_far_apart() -> None:
    rng = np.random.default_rng(2)
    y, p = np.repeat([0.0, 1.0], 200), np.concatenate([rng.normal(0.4, 0.1, 200), rng.normal(0.5, 0.1, 200)])
    found = points_of(y, p)
    higher = np.sort(np.unique(p))
    for point, reached in ((found["screening"], "sensitivity"), (found["rule_in"], "specificity")):
        at = int(np.searchsorted(higher, point.threshold))
        assert 0 < at < len(higher)
        assert getattr(point, reached) >= 0.95
    t = found["screening"].threshold
    above = higher[higher > t][0]
    assert (p[y == 1] > above).mean() < 0.95, "the next threshold misses more"
    t = found["rule_in"].threshold
    below = higher[higher < t][-1]
    assert (p[y == 0] < below).mean() < 0.95, "the threshold before lets more through"
    j = [(p[y == 1] >= t).mean() + (p[y == 0] < t).mean() for t in (higher[1:] + higher[:-1]) / 2]
    balanced = found["balanced"]
    assert (p[y == 1] >= balanced.threshold).mean() + (p[y == 0] < balanced.threshold).mean() == max(j)


def test_points_where_a_class_cannot_be_kept() -> None:
    """The lowest case is negative, or the highest: every case is positive, or only those above the last threshold."""
    found = points_of(np.array([1.0, 0, 1, 0]), np.array([0.2, 0.4, 0.6, 0.8]))
    assert found["screening"].threshold == 0.1, "below every case, so all are found"
    assert found["rule_in"].threshold == 0.7
    assert (found["rule_in"].sensitivity, found["rule_in"].specificity) == (0, 0.5)


def test_unknown_cases_set_no_threshold() -> None:
    y, p = np.array([0.0, 1, 0, 1]), np.array([0.2, 0.4, 0.6, 0.8])
    unknown = points_of(np.append(y, [np.nan, np.nan]), np.append(p, [0.5, 0.1]))
    assert unknown == points_of(y, p)


@pytest.mark.parametrize(
    ("low", "high", "threshold"),
    [
        (0.2, 0.4, 0.3),
        (0.123456, 0.123458, 0.123457),
        # With seven digits it would be the second value itself.
        (0.12345678, 0.1234568, 0.12345679),
        (0.1234561, 0.1234569, 0.1234565),
        (1 / 3, 2 / 3, 0.5),
        (0.1134567, 0.1334567, 0.123457),
    ],
)
def test_a_threshold_has_six_digits_or_as_many_as_it_needs(low: float, high: float, threshold: float) -> None:
    found = points_of(np.array([0.0, 1.0]), np.array([low, high]))
    assert found["balanced"].threshold == threshold
    assert low < threshold < high


def test_neighbouring_numbers_have_no_threshold_between_them_and_true_figures() -> None:
    for low in (0.3, math.nextafter(0.3, 1)):
        y, p = np.array([0.0, 1.0]), np.array([low, math.nextafter(low, 1)])
        for point in points_of(y, p).values():
            assert point.sensitivity == (p[1] >= point.threshold)
            assert point.specificity == (p[0] < point.threshold)


# ---------------------------------------------------------------- intervals
class Counted:
    """A figure that is its own number: 0, 1, 2 … in the order in which it is asked; it keeps what it is asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[Floats, Floats]] = []

    def __call__(self, y: Floats, p: Floats) -> float:
        self.asked.append((y, p))
        return float(len(self.asked) - 1)


def test_an_interval_is_of_95_percent() -> None:
    metric = Counted()
    estimate = bootstrap(metric, np.array([0.0, 1.0]), np.zeros(2), np.array(["a", "a"]))
    assert len(metric.asked) == 1001, "a thousand draws, then the figure itself"
    assert (estimate.value, estimate.low, estimate.high) == (1000, 24.975, 974.025)
    assert (estimate.n, estimate.n_positive) == (2, 1)
    fewer = bootstrap(Counted(), np.array([0.0, 1.0]), np.zeros(2), np.array(["a", "a"]), draws=41)
    assert (fewer.low, fewer.high) == (1, 39)


def test_each_draw_has_as_many_persons_as_there_are_with_all_their_rows() -> None:
    person = np.array(["a", "b", "a", "c", "b", "a"])
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    metric = Counted()
    bootstrap(metric, np.array([0.0, 1, 1, 0, 0, 1]), p, person, draws=300)
    whole = {"a": [0.1, 0.3, 0.6], "b": [0.2, 0.5], "c": [0.4]}
    drawn = {tuple(np.round(p, 1)) for _, p in metric.asked[:-1]}
    together = {tuple(whole[i] + whole[j] + whole[k]) for i in whole for j in whole for k in whole}
    assert drawn <= together
    assert len(drawn) > 20, "of 27, less those without both classes"
    assert metric.asked[-1][1].tolist() == p.tolist()


@pytest.mark.parametrize(("classes", "of_four"), [((0, 1), 2), ((1,), 3), ((0,), 3), ((), 4)])
def test_draws_without_a_class_that_is_needed_are_left_out(classes: tuple[int, ...], of_four: int) -> None:
    """Two persons, one of each class: of four equal draws two have both."""
    metric = Counted()
    bootstrap(metric, np.array([0.0, 1.0]), np.zeros(2), np.array(["a", "b"]), classes=classes, draws=400)
    assert len(metric.asked) - 1 == pytest.approx(100 * of_four, abs=35)
    assert all(set(classes) <= set(y) for y, _ in metric.asked)
    two_labels = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    metric = Counted()
    bootstrap(metric, two_labels, np.zeros((4, 2)), persons(4), draws=400)
    for y, _ in metric.asked:
        assert y.min(axis=0).tolist() == [0, 0]
        assert y.max(axis=0).tolist() == [1, 1]


def test_draws_are_the_same_each_time_and_other_ones_with_another_seed() -> None:
    y, p = np.array([0.0, 1.0] * 20), np.linspace(0, 1, 40)
    mean = lambda y, p: float(p.mean())  # noqa: E731
    one = bootstrap(mean, y, p, persons(40), draws=50)
    assert one == bootstrap(mean, y, p, persons(40), draws=50, seed=1)
    assert one != bootstrap(mean, y, p, persons(40), draws=50, seed=2)


def test_a_figure_is_rounded_to_four_digits() -> None:
    estimate = bootstrap(lambda y, p: 0.123456, np.array([0.0, 1.0]), np.zeros(2), persons(2), draws=9)
    assert (estimate.value, estimate.low, estimate.high) == (0.1235, 0.1235, 0.1235)
    several = bootstrap(lambda y, p: 0.5, np.array([[0.0, 1], [1, 0]]), np.zeros((2, 2)), persons(2), draws=9)
    assert (several.n, several.n_positive) == (2, None)


# ---------------------------------------------------------------- the figures of a finding
SCREENING = OperatingPoint(name="screening", threshold=0.3, cohort="v")
BALANCED = OperatingPoint(name="balanced", threshold=0.5, cohort="v")


def figures(found: tuple[Evaluation, ...], subgroup: str = "all") -> dict[str, float]:
    return {e.metric: e.estimate.value for e in found if e.subgroup == subgroup}


def test_all_figures_of_a_part() -> None:
    y = np.array([0.0, 0, 0, 0, 1, 1, 1, 1, np.nan])
    p = np.array([0.1, 0.2, 0.4, 0.6, 0.3, 0.5, 0.8, 0.9, 0.99])
    found = evaluate(y, p, persons(9), cohort="c, test", points=(SCREENING, BALANCED), draws=20)
    assert {e.cohort for e in found} == {"c, test"}
    assert {(e.estimate.n, e.estimate.n_positive) for e in found} == {(8, 4)}
    assert figures(found) == {
        # 13 of 16 pairs are in order: 0.3 is below 0.4 and 0.6, 0.5 below 0.6.
        "auroc": round(13 / 16, 4),
        # precision at each positive, from the highest: 1/1, 2/2, 3/4, 4/6
        "average_precision": round((1 + 1 + 3 / 4 + 4 / 6) / 4, 4),
        "brier": round((0.01 + 0.04 + 0.16 + 0.36 + 0.49 + 0.25 + 0.04 + 0.01) / 8, 4),
        "calibration_slope": pytest.approx(calibration_slope(y[:8], p[:8]), abs=1e-4),
        # eight groups of one case
        "ece": round((0.1 + 0.2 + 0.4 + 0.6 + 0.7 + 0.5 + 0.2 + 0.1) / 8, 4),
        "sensitivity@screening": 1.0,
        "specificity@screening": 0.5,
        "sensitivity@balanced": 0.75,
        "specificity@balanced": 0.75,
        "accuracy@balanced": 0.75,
    }


def test_figures_of_a_point_have_three_digits() -> None:
    y, p = np.array([0.0, 0, 0, 1, 1, 1]), np.array([0.1, 0.2, 0.6, 0.3, 0.7, 0.8])
    found = points_of(y, p)["rule_in"]
    assert (found.threshold, found.sensitivity, found.specificity) == (0.65, 0.667, 1.0)
    found = points_of(y, p)["screening"]
    assert (found.threshold, found.sensitivity, found.specificity) == (0.25, 1.0, 0.667)


def test_a_case_at_a_threshold_is_positive() -> None:
    y, p = np.array([0.0, 0, 1, 1]), np.array([0.2, 0.5, 0.5, 0.2])
    found = figures(evaluate(y, p, persons(4), cohort="c", points=(BALANCED,), draws=5))
    assert (found["sensitivity@balanced"], found["specificity@balanced"], found["accuracy@balanced"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("draws", [None, 77])
def test_every_figure_has_as_many_draws_as_asked(monkeypatch: pytest.MonkeyPatch, draws: int | None) -> None:
    asked: list[int] = []

    def stand_in(*args: object, draws: int, **others: object) -> Estimate:
        asked.append(draws)
        return Estimate(value=0, low=0, high=0, n=0)

    monkeypatch.setattr("training.figures.evaluate.bootstrap", stand_in)
    given = {} if draws is None else {"draws": draws}
    y = np.repeat([0.0, 1.0], 10)
    evaluate(y, y, persons(20), cohort="c", points=(BALANCED,), subgroups={"all": y >= 0}, **given)
    assert asked == [draws or 1000] * 12


def test_accuracy_is_that_of_the_balanced_point_and_left_out_without_one() -> None:
    y, p = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.9])
    assert "accuracy@balanced" not in figures(evaluate(y, p, persons(4), cohort="c", points=(SCREENING,), draws=5))
    found = figures(evaluate(y, p, persons(4), cohort="c", points=(SCREENING, BALANCED), draws=5))
    assert found["accuracy@balanced"] == 0.75


def test_figures_of_repeats_are_their_mean() -> None:
    y = np.array([0.0, 0, 1, 1])
    p = np.array([[0.1, 0.9], [0.2, 0.2], [0.8, 0.3], [0.9, 0.8]])
    found = figures(evaluate(y, p, persons(4), cohort="c", points=(BALANCED,), draws=5))
    assert found["auroc"] == (1 + 0.5) / 2
    assert found["sensitivity@balanced"] == (1 + 0.5) / 2


def subgroup_of(n_negative: int, n_positive: int, decides_at: str | None = "balanced") -> dict[str, float]:
    """Figures of a group among cases of which 20 more of each class are in no group."""
    y = np.repeat([0.0, 1.0, 0.0, 1.0], [n_negative, n_positive, 20, 20])
    p = np.where(y == 1, 0.8, 0.2)
    member = np.arange(len(y)) < n_negative + n_positive
    found = evaluate(
        y, p, persons(len(y)), cohort="c", points=(SCREENING, BALANCED), subgroups={"nobody": y > 1, "sex F": member},
        decides_at=decides_at, draws=5,
    )  # fmt: skip
    return figures(found, "sex F")


def test_a_group_needs_ten_cases_of_a_class_for_a_figure_of_it() -> None:
    assert MIN_CASES == 10
    at_balanced = {"sensitivity@balanced", "specificity@balanced"}
    assert subgroup_of(10, 10).keys() == {"prevalence", "auroc", *at_balanced}
    assert subgroup_of(9, 10).keys() == {"prevalence", "sensitivity@balanced"}
    assert subgroup_of(10, 9).keys() == {"prevalence", "specificity@balanced"}
    assert subgroup_of(9, 9).keys() == {"prevalence"}
    assert subgroup_of(0, 0).keys() == set()
    assert subgroup_of(10, 30)["prevalence"] == 0.75


def test_a_group_is_evaluated_where_the_finding_is_decided_or_at_every_point() -> None:
    everywhere = {
        f"{figure}@{point}" for figure in ("sensitivity", "specificity") for point in ("screening", "balanced")
    }
    assert subgroup_of(10, 10, decides_at=None).keys() == {"prevalence", "auroc", *everywhere}
    only = {"sensitivity@screening", "specificity@screening"}
    assert subgroup_of(10, 10, decides_at="screening").keys() == {"prevalence", "auroc", *only}


def test_unknown_cases_of_a_group_count_nowhere() -> None:
    y = np.concatenate([np.repeat([0.0, 1.0], 12), [np.nan]])
    found = evaluate(
        y,
        np.linspace(0, 1, 25),
        persons(25),
        cohort="c",
        points=(),
        subgroups={"all of them": np.ones(25, bool)},
        draws=5,
    )
    (said,) = (e.estimate for e in found if e.metric == "prevalence")
    assert (said.value, said.n, said.n_positive) == (0.5, 24, 12)
