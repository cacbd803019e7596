"""Calibration, its error and the ROC, worked out by hand: at a limit itself, and on either side of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from data_specs.bundle import Calibration, Estimate, Evaluation
from data_specs.visit.contract import OperatingPoint
from training.figures.calibrate import (
    FOLDS,
    REPEATS,
    ChosenCalibration,
    at_prevalence,
    choose_calibration,
    cross_fitted,
    fit_isotonic,
    fit_platt,
    folds,
    move_prevalence,
)
from training.figures.calibration_error import (
    ECE_LIMIT,
    calibration_figures,
    ece_by_chance,
    judge_calibration,
    proven_error,
)
from training.figures.evaluate import expected_calibration_error
from training.figures.roc import roc_points

Floats = NDArray[np.float64]


# ---------------------------------------------------------------- fits
def test_isotonic_regression_stays_between_smoothed_targets() -> None:
    """Three positives: (3 + 1) / (3 + 2) at most; two negatives: 1 / (2 + 2) at least."""
    calibration = fit_isotonic(np.array([0.0, 0, 1, 1, 1]), np.array([-2.0, -1, 0, 1, 2]))
    assert calibration.kind == "isotonic"
    assert calibration.knots[0] == (-2, 0.25)
    assert calibration.knots[-1] == (2, 0.8)
    assert calibration.prevalence == 0.6
    pooled = fit_isotonic(np.array([0.0, 1, 0, 1, np.nan]), np.array([-2.0, -1, 0, 1, 9]))
    assert dict(pooled.knots) == {-2: 0.25, -1: 0.5, 0: 0.5, 1: 0.75}


@pytest.mark.parametrize(
    ("p", "prevalence", "to", "moved"),
    [(0.5, 0.5, 0.1, 0.1), (0.2, 0.4, 0.2, 3 / 35), (0.9, 0.5, 0.5, 0.9), (0.01, 0.1, 0.5, 1 / 12)],
)
def test_odds_are_multiplied_by_the_ratio_of_the_prior_odds(
    p: float, prevalence: float, to: float, moved: float
) -> None:
    assert float(move_prevalence(np.array(p), prevalence, to)) == pytest.approx(moved)


def test_both_kinds_of_calibration_are_moved() -> None:
    platt = at_prevalence(Calibration(slope=2.0, intercept=0.5, prevalence=0.4), 0.2)
    assert (platt.slope, platt.prevalence) == (2, 0.2)
    assert platt.intercept == pytest.approx(0.5 + math.log(0.2 / 0.8) - math.log(0.4 / 0.6))
    knots = ((-1.0, 0.2), (1.0, 0.5))
    isotonic = at_prevalence(Calibration(kind="isotonic", knots=knots, prevalence=0.4), 0.2)
    assert [knot[0] for knot in isotonic.knots] == [-1, 1]
    assert [knot[1] for knot in isotonic.knots] == pytest.approx([3 / 35, 3 / 11])
    with pytest.raises(ValueError, match=r"^a calibration for a prevalence of None cannot be moved to 0\.2$"):
        at_prevalence(Calibration(slope=1.0, intercept=0.0), 0.2)
    for impossible in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"of 0.4 cannot be moved to {impossible}"):
            at_prevalence(Calibration(slope=1.0, intercept=0.0, prevalence=0.4), impossible)


# ---------------------------------------------------------------- the choice
def chosen(monkeypatch: pytest.MonkeyPatch, platt: Floats, isotonic: Floats, person: list[str]) -> ChosenCalibration:
    """The choice where the probabilities of left-out persons, ``(n, repeats)``, are given."""

    def stand_in(y: Floats, logits: Floats, person: object, fit: object, *, repeats: int, seed: int) -> Floats:
        assert (repeats, seed) == (5, 1)
        return platt if fit is fit_platt else isotonic

    monkeypatch.setattr("training.figures.calibrate.cross_fitted", stand_in)
    y = np.tile([1.0, 0.0], len(person) // 2)
    return choose_calibration(y, np.linspace(-1, 1, len(person)), np.array(person))


def of_outcomes(right: list[float]) -> Floats:
    """``(n, 1)`` probabilities that give each outcome, 1 and 0 in turn, the probability ``right``."""
    return np.array([[p if i % 2 == 0 else 1 - p] for i, p in enumerate(right)])


def test_the_error_of_a_gain_is_that_of_sums_by_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gains of ln 1.2, ln 1.4, ln 1.1 and ln 1.3; the first two are of one person."""
    choice = chosen(monkeypatch, of_outcomes([0.5] * 4), of_outcomes([0.6, 0.7, 0.55, 0.65]), ["a", "a", "b", "c"])
    gains = np.log([1.2 * 1.4, 1.1, 1.3])
    error = math.sqrt(3 * gains.var(ddof=1)) / 4
    assert choice.standard_error == pytest.approx(error)
    assert choice.log_loss == pytest.approx({"platt": math.log(2), "isotonic": -np.log([0.6, 0.7, 0.55, 0.65]).mean()})
    assert gains.sum() / 4 > error
    assert choice.calibration.kind == "isotonic"
    assert str(choice) == (
        f"isotonic (log loss of left-out persons: platt {math.log(2):.4f}, isotonic "
        f"{choice.log_loss['isotonic']:.4f}, standard error of the difference {error:.4f})"
    )


@pytest.mark.parametrize(("last", "kind"), [(0.1, "platt"), (0.3, "platt"), (0.45, "isotonic")])
def test_isotonic_has_to_be_better_by_more_than_its_standard_error(
    monkeypatch: pytest.MonkeyPatch, last: float, kind: str
) -> None:
    right = [0.6, 0.7, 0.55, last]
    choice = chosen(monkeypatch, of_outcomes([0.5] * 4), of_outcomes(right), list("abcd"))
    gains = np.log(2 * np.array(right))
    better = gains.sum() / 4 - math.sqrt(4 * gains.var(ddof=1)) / 4
    assert bool(better > 0) is (kind == "isotonic")
    assert choice.calibration.kind == kind
    assert bool(gains.sum() > 0) is (last > 0.1), "0.3 is better, and not by more than the error"


def test_a_gain_of_nothing_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    same = of_outcomes([0.6, 0.7, 0.55, 0.65])
    choice = chosen(monkeypatch, same, same, list("abcd"))
    assert (choice.calibration.kind, choice.standard_error) == ("platt", 0)


def test_the_loss_of_a_certain_mistake_is_bounded_and_that_of_repeats_is_their_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certain = of_outcomes([0.0, 0.5, 0.5, 0.5])
    wrong = chosen(monkeypatch, certain, of_outcomes([0.5] * 4), list("abcd")).log_loss["platt"]
    assert wrong == pytest.approx((12 * math.log(10) + 3 * math.log(2)) / 4, rel=1e-5)
    sure = of_outcomes([1.0, 1.0, 0.5, 0.5])
    assert chosen(monkeypatch, sure, sure, list("abcd")).log_loss["platt"] == pytest.approx(math.log(2) / 2, abs=1e-9)
    negative = of_outcomes([0.5, 0.0, 0.5, 0.5])
    found = chosen(monkeypatch, negative, negative, list("abcd")).log_loss["platt"]
    assert found == pytest.approx((12 * math.log(10) + 3 * math.log(2)) / 4, rel=1e-4)
    twice = np.hstack([of_outcomes([0.5] * 4), of_outcomes([0.25] * 4)])
    both = chosen(monkeypatch, twice, twice, list("abcd")).log_loss["platt"]
    assert both == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_unknown_cases_choose_nothing() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=60)
    y = (rng.random(60) < expit(z)).astype(float)
    person = np.arange(60).astype(str)
    known = choose_calibration(y, z, person, repeats=1)
    more = choose_calibration(
        np.append(y, [np.nan] * 3), np.append(z, [9, 9, 9]), np.append(person, list("xyz")), repeats=1
    )
    assert known == more
    assert choose_calibration(y, z, person, repeats=1, seed=2) != known


# ---------------------------------------------------------------- folds
def test_five_times_five_folds_each_time_others() -> None:
    assert (FOLDS, REPEATS) == (5, 5)
    y, person = np.tile([0.0, 1.0], 20), np.arange(40).astype(str)
    found = list(folds(y, person))
    assert [repeat for repeat, *_ in found] == [r for r in range(5) for _ in range(5)]
    assert all(len(left_out) == 8 and len(train) == 32 for _, train, left_out in found)
    firsts = {tuple(left_out) for repeat, _, left_out in found}
    assert len(firsts) == 25
    shifted = list(folds(y, person, seed=2))
    np.testing.assert_array_equal(shifted[0][2], found[5][2], "the second repeat of one seed is the first of the next")
    left_out = cross_fitted(y, y, person, fit_isotonic)
    assert left_out.shape == (40, 5)
    z = np.random.default_rng(0).normal(size=40)
    np.testing.assert_array_equal(
        cross_fitted(y, z, person, fit_platt), cross_fitted(y, z, person, fit_platt, repeats=5, seed=1)
    )


@pytest.mark.parametrize(("n_rare", "n_folds"), [(2, 2), (4, 4), (5, 5), (6, 5)])
@pytest.mark.parametrize("rare", [0, 1])
def test_there_are_no_more_folds_than_persons_of_the_rarer_class(n_rare: int, n_folds: int, rare: int) -> None:
    y = np.repeat([float(rare), 1.0 - rare], [n_rare, 20])
    found = list(folds(y, np.arange(n_rare + 20).astype(str), repeats=1))
    assert len(found) == n_folds
    for _, _, left_out in found:
        assert (y[left_out] == rare).sum() in (n_rare // n_folds, -(-n_rare // n_folds))
    with pytest.raises(ValueError, match=r"^a class has fewer than two persons, so none can be left out$"):
        list(folds(np.repeat([float(rare), 1.0 - rare], [1, 20]), np.arange(21).astype(str)))


@pytest.mark.parametrize("n_others", [0, 1, 4, 5])
def test_persons_who_have_the_rarer_class_are_spread_where_enough_do_not(n_others: int) -> None:
    """Twenty persons with both classes, and some with one of them."""
    y = np.concatenate([np.tile([0.0, 1.0], 20), np.zeros(n_others)])
    person = np.concatenate([np.repeat(np.arange(20), 2), 100 + np.arange(n_others)]).astype(str)
    sizes = [len(set(person[left_out])) for _, _, left_out in folds(y, person, repeats=2)]
    assert max(sizes) - min(sizes) <= 1
    if n_others == 5:
        assert all(sum(int(p) >= 100 for p in person[left_out]) == 1 for _, _, left_out in folds(y, person, repeats=2))


# ---------------------------------------------------------------- the calibration error
def test_chance_is_drawn_from_the_probabilities_themselves() -> None:
    certain = np.repeat([0.0, 1.0], 30)
    assert ece_by_chance(certain).tolist() == [0.0] * 1000
    p = np.random.default_rng(0).random(40)
    drawn = np.random.default_rng(1).random((3, 40)) < np.sort(p)
    expected = [expected_calibration_error(y.astype(float), np.sort(p)) for y in drawn]
    assert ece_by_chance(p, draws=3).tolist() == pytest.approx(expected, abs=1e-12)
    assert ece_by_chance(p, draws=3, seed=2).tolist() != ece_by_chance(p, draws=3).tolist()
    many = np.full(400_001, 0.5)
    assert ece_by_chance(many, draws=5).shape == (5,)
    assert ece_by_chance(np.full(1_000_001, 0.5), draws=2).shape == (2,)
    assert ece_by_chance(np.array([0.3, 0.6]), draws=4).shape == (4,), "fewer cases than groups"


def test_figures_of_chance_and_of_what_is_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def stand_in(p: Floats) -> Floats:
        asked.append(p)
        return np.arange(1001) / 7000

    monkeypatch.setattr("training.figures.calibration_error.ece_by_chance", stand_in)
    y = np.array([1.0, 0, 1, 0, np.nan])
    p = np.array([[0.9, 0.8], [0.2, 0.3], [0.7, 0.6], [0.1, 0.2], [0.5, 0.5]])
    by_chance, debiased = calibration_figures(y, p, cohort="c")
    np.testing.assert_array_equal(asked[0], p[:4, 0])
    assert (by_chance.cohort, by_chance.metric) == ("c", "ece_by_chance")
    assert by_chance.estimate == Estimate(value=0.0714, low=0.0036, high=0.1393, n=4, n_positive=2)
    ece = ((0.1 + 0.2 + 0.3 + 0.1) / 4 + (0.2 + 0.3 + 0.4 + 0.2) / 4) / 2
    assert (debiased.cohort, debiased.metric) == ("c", "ece_debiased")
    beyond = [round(math.sqrt(error**2 - (500 / 7000) ** 2), 4) for error in (ece, 975 / 7000)]
    assert debiased.estimate == Estimate(value=beyond[0], low=0, high=beyond[1], n=4, n_positive=2)
    single = calibration_figures(y[:4], p[:4, 0], cohort="c")[1]
    assert single.estimate.value == round(math.sqrt(0.175**2 - (500 / 7000) ** 2), 4)
    right = calibration_figures(np.array([1.0, 0]), np.array([1.0, 0.0]), cohort="c")[1]
    assert right.estimate.value == 0


def estimate(value: float, low: float = 0.0, n: int = 120) -> Estimate:
    return Estimate(value=value, low=low, high=1.0, n=n)


def test_chance_is_taken_twice_from_the_lower_end_as_squares() -> None:
    assert proven_error(estimate(0.2, low=0.13), estimate(0.05)) == pytest.approx(math.sqrt(0.13**2 - 2 * 0.05**2))
    assert proven_error(estimate(0.2, low=0.07), estimate(0.05)) == 0


def evaluation(metric: str, given: Estimate, cohort: str = "c, test", subgroup: str = "all") -> Evaluation:
    return Evaluation(cohort=cohort, subgroup=subgroup, metric=metric, estimate=given)


def test_a_finding_holds_up_to_the_limit_itself() -> None:
    assert ECE_LIMIT == 0.05
    for value, offered in ((0.05, True), (math.nextafter(0.05, 1), False)):
        verdict = judge_calibration((evaluation("ece", estimate(value)),))
        assert bool(verdict) is offered
        assert verdict.reason == "c, test: ECE 0.050, limit 0.05"
    assert judge_calibration((evaluation("ece", estimate(0.09)),), limit=0.1)
    # With chance, it is the error that is proven: the plain one may be far above.
    low = math.sqrt(0.05**2 + 2 * 0.04**2)
    for factor, offered in ((0.9999, True), (1.0001, False)):
        given = (
            evaluation("ece", estimate(0.12, low=low * factor)),
            evaluation("ece_by_chance", estimate(0.04, n=87)),
        )
        assert bool(judge_calibration(given)) is offered
    assert judge_calibration(given).reason == (
        "c, test: ECE 0.120, of which chance explains 0.040 with 87 cases; shown to be at least 0.050, limit 0.05"
    )


def test_every_part_has_to_hold_and_one_that_was_not_measured_is_no_proof() -> None:
    good, bad = evaluation("ece", estimate(0.01)), evaluation("ece", estimate(0.2), cohort="elsewhere")
    for given in ((good, bad), (bad, good)):
        verdict = judge_calibration(given)
        assert not verdict
        assert set(verdict.reason.split("; ")) == {
            "c, test: ECE 0.010, limit 0.05",
            "elsewhere: ECE 0.200, limit 0.05",
        }
    assert judge_calibration((good, evaluation("ece", estimate(0.9), subgroup="sex F")))
    nothing = judge_calibration((evaluation("auroc", estimate(0.9)),))
    assert (bool(nothing), nothing.reason) == (False, "no calibration error was measured")


# ---------------------------------------------------------------- the ROC
def test_a_roc_of_few_cases_has_each_threshold_half_way() -> None:
    y, p = np.array([0.0, 1, 0, 1, np.nan]), np.array([0.2, 0.4, 0.6, 0.8, 0.5])
    roc = roc_points(y, p)
    assert [row.threshold for row in roc] == pytest.approx([0, 0.3, 0.5, 0.7, 1])
    assert [(row.true_positives, row.false_negatives) for row in roc] == [(2, 0), (2, 0), (1, 1), (1, 1), (0, 2)]
    assert [(row.true_negatives, row.false_positives) for row in roc] == [(0, 2), (1, 1), (1, 1), (2, 0), (2, 0)]


def test_nobody_is_positive_at_the_last_threshold_even_with_a_probability_of_one() -> None:
    assert roc_points(np.array([0.0, 0, 1]), np.array([0.2, 0.5, 1.0]))[-1].threshold == 1.000001
    last = roc_points(np.array([0.0, 1]), np.array([0.5, math.nextafter(1, 0)]))[-1]
    assert (last.threshold, last.true_positives) == (1.0, 0)


@pytest.mark.parametrize("at_most", [10, 60])
def test_a_roc_has_at_most_so_many_points_its_ends_and_those_that_decide(at_most: int) -> None:
    rng = np.random.default_rng(3)
    y = np.repeat([0.0, 1.0], [800, 200])
    p = np.concatenate([rng.beta(2, 4, 800), rng.beta(4, 2, 200)])
    points = tuple(OperatingPoint(name=name, threshold=t, cohort="c") for name, t in (("a", 0.31), ("b", 0.62)))
    roc = roc_points(y, p, points, at_most=at_most)
    if at_most == 60:
        assert roc_points(y, p, points) == roc
    assert at_most - 2 <= len(roc) <= at_most
    assert {0.31, 0.62} <= {row.threshold for row in roc}
    assert (roc[0].threshold, roc[0].false_positives, roc[0].true_positives) == (0, 800, 200)
    assert (roc[-1].threshold, roc[-1].false_positives, roc[-1].true_positives) == (1, 0, 0)
    along = [row.false_negatives / 200 + row.true_negatives / 800 for row in roc if row.threshold not in (0.31, 0.62)]
    assert np.diff(along).max() == pytest.approx(2 / (at_most - 3), abs=0.02), "spread evenly along the curve"


def test_a_roc_needs_both_classes() -> None:
    for y in ([1.0, 1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match=r"^a ROC needs positives and negatives$"):
            roc_points(np.array(y), np.array([0.2, 0.4]))
