"""Which calibration is taken, that serving computes the same, and what the rule on the ECE lets through."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from data_specs.bundle import Calibration, Estimate, Evaluation, FindingSpec, RocPoint
from inference.findings import calibrate, calibrated
from training.figures.calibrate import (
    Fit,
    at_prevalence,
    choose_calibration,
    cross_fitted,
    fit_isotonic,
    folds,
    move_prevalence,
)
from training.figures.calibration_error import calibration_figures, ece_by_chance, judge_calibration
from training.figures.evaluate import bootstrap, expected_calibration_error, fit_platt, operating_points
from training.figures.roc import MAX_ROC_POINTS, roc_points


def outcomes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and their true logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.3, 1.6, n)
    return (rng.random(n) < expit(logits)).astype(float), logits


def served(calibration: Calibration, logits: np.ndarray) -> np.ndarray:
    spec = FindingSpec(name="abnormal", column=0, calibration=calibration)
    return np.array([calibrate(spec, float(z)) for z in logits])


def test_serving_computes_isotonic_as_scikit_learn_does() -> None:
    y, z = outcomes(400)
    calibration = fit_isotonic(y, z)
    low, high = 1 / ((1 - y).sum() + 2), (y.sum() + 1) / (y.sum() + 2)
    reference = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(z, y)
    grid = np.concatenate([np.linspace(-12, 12, 2001), z])
    np.testing.assert_allclose(served(calibration, grid), reference.predict(grid), atol=1e-12)
    np.testing.assert_array_equal(served(calibration, grid), calibrated(grid, calibration))
    p = served(calibration, np.sort(grid))
    assert (np.diff(p) >= 0).all()
    assert p[0] == served(calibration, np.array([-1e9]))[0] == low > 0
    assert p[-1] == served(calibration, np.array([1e9]))[0] == high < 1


def test_isotonic_survives_the_manifest() -> None:
    calibration = fit_isotonic(*outcomes(100))
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_a_calibration_of_earlier_bundles_is_platt() -> None:
    calibration = Calibration.model_validate({"slope": 0.8, "intercept": 1.7})
    assert calibration.kind == "platt"
    assert served(calibration, np.array([0.5, -900.0, 900.0])) == pytest.approx([expit(2.1), 0, 1])
    np.testing.assert_allclose(calibrated(np.array([0.5, -900, 900]), calibration), [expit(2.1), 0, 1])


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
@pytest.mark.parametrize("prevalence", [0.003, 0.5, 0.97])
def test_another_prevalence_multiplies_every_odds_by_the_ratio_of_the_prior_odds(fit: Fit, prevalence: float) -> None:
    y, z = outcomes(400)
    before = fit(y, z)
    assert before.prevalence == pytest.approx(y.mean())
    after = at_prevalence(before, prevalence)
    assert after.prevalence == prevalence
    odds = lambda p: p / (1 - p)  # noqa: E731
    prior = odds(prevalence) / odds(y.mean())
    np.testing.assert_allclose(odds(calibrated(z, after)) / odds(calibrated(z, before)), prior, rtol=1e-9)
    np.testing.assert_allclose(
        move_prevalence(calibrated(z, before), y.mean(), prevalence), calibrated(z, after), atol=1e-12
    )
    np.testing.assert_allclose(served(after, z), calibrated(z, after), atol=1e-15)
    assert Calibration.model_validate_json(after.model_dump_json()) == after


def test_another_prevalence_is_what_a_rarer_finding_shows() -> None:
    # Nine in ten of the positives taken away: the moved probabilities are right, the others far too high.
    y, z = outcomes(60_000)
    calibration = fit_platt(y, z)
    kept = (y == 0) | (np.random.default_rng(3).random(len(y)) < 0.1)
    rarer = calibrated(z[kept], at_prevalence(calibration, y[kept].mean()))
    assert expected_calibration_error(y[kept], rarer) < 0.01
    assert expected_calibration_error(y[kept], calibrated(z[kept], calibration)) > 0.2


def test_only_a_known_prevalence_can_be_moved() -> None:
    y, z = outcomes(100)
    with pytest.raises(ValueError, match="cannot be moved"):
        at_prevalence(Calibration(slope=1.0, intercept=0.0), 0.1)
    for impossible in (0.0, 1.0, -0.2, float("nan")):
        with pytest.raises(ValueError, match="cannot be moved"):
            at_prevalence(fit_platt(y, z), impossible)
    assert at_prevalence(fit_platt(y, z), 0.1).slope == fit_platt(y, z).slope
    assert logit(0.1) - logit(y.mean()) == pytest.approx(
        at_prevalence(fit_platt(y, z), 0.1).intercept - fit_platt(y, z).intercept
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"slope": 1.0},
        {"slope": float("nan"), "intercept": 0.0},
        {"slope": 1.0, "intercept": 0.0, "knots": [[0, 0.1], [1, 0.2]]},
        {"kind": "isotonic"},
        {"kind": "isotonic", "knots": [[0, 0.5]]},
        {"kind": "isotonic", "knots": [[0, 0.5], [0, 0.6]]},
        {"kind": "isotonic", "knots": [[0, 0.5], [1, 0.4]]},
        {"kind": "isotonic", "knots": [[0, -0.1], [1, 0.4]]},
        {"kind": "isotonic", "knots": [[0, 0.5], [1, 1.4]]},
        {"kind": "isotonic", "knots": [[0, 0.5], [float("inf"), 0.9]]},
    ],
)
def test_a_calibration_that_says_too_little_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(wrong)


def test_platt_where_the_curve_is_logistic() -> None:
    y, z = outcomes(300)
    choice = choose_calibration(y, 3 * z + 1, np.arange(300).astype(str))
    assert choice.calibration == fit_platt(y, 3 * z + 1)


def test_isotonic_where_no_logistic_curve_fits() -> None:
    # Three plateaus: below -1, between, and above 1, of 5, 50 and 60 %.
    rng = np.random.default_rng(1)
    z = rng.uniform(-3, 3, 1000)
    y = (rng.random(1000) < np.select([z < -1, z < 1], [0.05, 0.5], 0.6)).astype(float)
    choice = choose_calibration(y, z, np.arange(1000).astype(str), repeats=2)
    assert choice.calibration.kind == "isotonic"
    assert choice.log_loss["isotonic"] < choice.log_loss["platt"] - choice.standard_error


def test_repeated_persons_do_not_buy_certainty() -> None:
    # The same gain, but every person stands there twenty times: what 1,000 people prove, 30 do not.
    rng = np.random.default_rng(1)
    z = rng.uniform(-3, 3, 30)
    y = (rng.random(30) < np.select([z < -1, z < 1], [0.05, 0.5], 0.6)).astype(float)
    one = np.arange(30).astype(str)
    choice = choose_calibration(np.repeat(y, 20), np.repeat(z, 20), np.repeat(one, 20))
    assert choice.calibration.kind == "platt"


def test_no_person_is_on_both_sides_and_everyone_is_left_out_once() -> None:
    rng = np.random.default_rng(0)
    person = rng.integers(0, 40, 200).astype(str)
    y = (rng.random(200) < 0.3).astype(float)
    seen = np.zeros((200, 3))
    for repeat, train, left_out in folds(y, person, repeats=3):
        assert not set(person[train]) & set(person[left_out])
        seen[left_out, repeat] += 1
    assert (seen == 1).all()


def test_the_rarer_class_is_in_every_fold_also_where_everyone_has_it() -> None:
    # Eleven persons with the finding among 300; then persons who all have films with and without it.
    few = (np.arange(300) < 11).astype(float), np.arange(300).astype(str)
    mixed = np.tile([0.0, 1.0], 20), np.repeat(np.arange(20), 2).astype(str)
    for y, person in (few, mixed):
        for _, train, left_out in folds(y, person, repeats=4):
            assert 0 < y[left_out].sum() < len(left_out)
            assert 0 < y[train].sum() < len(train)


def test_cross_fitted_probabilities_do_not_see_their_own_outcome() -> None:
    # Pure noise: fitted to itself, isotonic regression ranks it; on persons left out it cannot.
    rng = np.random.default_rng(0)
    y, z = (rng.random(200) < 0.5).astype(float), rng.normal(size=200)
    own = roc_auc_score(y, calibrated(z, fit_isotonic(y, z)))
    left_out = roc_auc_score(y, cross_fitted(y, z, np.arange(200).astype(str), fit_isotonic, repeats=1)[:, 0])
    assert own > 0.53 > left_out


def test_one_person_in_a_class_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="fewer than two persons"):
        choose_calibration(np.array([1.0, 0, 0, 0]), np.arange(4.0), np.array(["a", "b", "c", "d"]))


def figures(y: np.ndarray, p: np.ndarray) -> tuple[Evaluation, ...]:
    person = np.arange(len(y)).astype(str)
    estimate = bootstrap(expected_calibration_error, y, p, person, draws=200)
    return (Evaluation(cohort="t", metric="ece", estimate=estimate), *calibration_figures(y, p, cohort="t"))


def test_what_chance_explains_is_what_calibrated_models_show() -> None:
    # Against fresh outcomes of a model that is right by construction, with another generator.
    _, z = outcomes(109)
    rng = np.random.default_rng(77)
    shown = [expected_calibration_error((rng.random(109) < expit(z)).astype(float), expit(z)) for _ in range(400)]
    chance = ece_by_chance(expit(z))
    assert chance.mean() == pytest.approx(np.mean(shown), abs=0.004)
    assert np.percentile(chance, 95) == pytest.approx(np.percentile(shown, 95), abs=0.01)
    one_draw = np.random.default_rng(5).random((1, 109)) < np.sort(expit(z))
    same = expected_calibration_error(one_draw[0].astype(float), np.sort(expit(z)))
    assert ece_by_chance(expit(z), draws=1, seed=5)[0] == pytest.approx(same, abs=1e-12)
    assert np.mean(np.array(shown) <= 0.05) < 0.1, "the plain rule would refuse nearly every calibrated finding"


def test_the_rule_offers_what_is_calibrated_and_refuses_what_is_not() -> None:
    verdicts = {"calibrated": 0, "too steep": 0, "shifted": 0}
    for seed in range(40):
        y, z = outcomes(300, seed)
        for name, p in (("calibrated", expit(z)), ("too steep", expit(4 * z)), ("shifted", expit(z - 1))):
            verdicts[name] += bool(judge_calibration(figures(y, p)))
    assert verdicts["calibrated"] >= 39
    assert max(verdicts["too steep"], verdicts["shifted"]) <= 2


def test_every_part_has_to_hold_and_the_reason_has_the_figures() -> None:
    y, z = outcomes(1000)
    good, bad = figures(y, expit(z)), figures(y, expit(4 * z))
    elsewhere = tuple(e.model_copy(update={"cohort": "elsewhere"}) for e in bad)
    assert judge_calibration(good)
    verdict = judge_calibration((*good, *elsewhere))
    assert not verdict
    assert "elsewhere: ECE 0." in verdict.reason
    assert "1000 cases" in verdict.reason


def test_without_the_figures_of_chance_the_plain_error_decides() -> None:
    plain = lambda value: (Evaluation(cohort="t", metric="ece", estimate=Estimate(value=value, low=0, high=1, n=99)),)  # noqa: E731
    assert judge_calibration(plain(0.05))
    assert not judge_calibration(plain(0.051))
    assert not judge_calibration(())
    subgroup = plain(0.2)[0].model_copy(update={"subgroup": "sex F"})
    assert judge_calibration((*plain(0.01), subgroup))


def test_figures_stand_beside_the_evaluation_and_unknown_labels_are_left_out() -> None:
    y, z = outcomes(200)
    p = expit(2.5 * z)
    known = calibration_figures(y, p, cohort="c")
    assert known == calibration_figures(np.append(y, np.nan), np.append(p, 0.5), cohort="c")
    plain = expected_calibration_error(y, p)
    chance, debiased = (e.estimate.value for e in known)
    assert plain > chance > 0
    assert debiased == pytest.approx(np.sqrt(plain**2 - chance**2), abs=1e-3)


def test_what_is_left_when_chance_is_taken_away_is_the_true_error() -> None:
    # Two and a half times as steep as the truth; the true error from very many cases, the estimate from 150 at a time.
    y, z = outcomes(200_000)
    truth = expected_calibration_error(y, expit(2.5 * z))
    estimates = []
    for seed in range(60):
        y, z = outcomes(150, seed)
        estimates.append(calibration_figures(y, expit(2.5 * z), cohort="c")[1].estimate.value)
    assert truth > 0.1
    assert np.mean(estimates) == pytest.approx(truth, abs=0.012)


def test_the_roc_counts_every_case_at_every_threshold() -> None:
    y, z = outcomes(500)
    p = expit(z)
    points = operating_points(y, p, "c")
    roc = roc_points(y, p, points)
    assert len(roc) <= MAX_ROC_POINTS
    for r in roc:
        assert r.true_positives == ((p >= r.threshold) & (y == 1)).sum()
        assert r.false_positives == ((p >= r.threshold) & (y == 0)).sum()
        assert r.true_positives + r.false_negatives == y.sum()
        assert r.true_negatives + r.false_positives == (1 - y).sum()
    assert (roc[0].sensitivity, roc[0].specificity, roc[-1].sensitivity, roc[-1].specificity) == (1, 0, 0, 1)
    assert {point.threshold for point in points} <= {r.threshold for r in roc}
    area = np.trapezoid([r.sensitivity for r in roc][::-1], [1 - r.specificity for r in roc][::-1])
    assert area == pytest.approx(roc_auc_score(y, p), abs=0.01)
    steps = [abs(a.sensitivity - b.sensitivity) + abs(a.specificity - b.specificity) for a, b in pairwise(roc)]
    assert max(steps) < 0.08


def test_a_roc_of_few_or_tied_cases() -> None:
    y, p = np.array([0.0, 1, 1, 0, np.nan]), np.array([0.0, 1.0, 0.5, 0.5, 0.7])
    roc = roc_points(y, p)
    assert [(r.true_positives, r.false_positives) for r in roc] == [(2, 2), (2, 1), (1, 0), (0, 0)]
    with pytest.raises(ValueError, match="positives and negatives"):
        roc_points(np.ones(3), np.arange(3.0))
    with pytest.raises(ValidationError):
        RocPoint(threshold=0.5, true_positives=0, false_negatives=0, true_negatives=3, false_positives=1)
