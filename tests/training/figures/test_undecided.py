"""Bounds between which a finding is undecided: by hand, by another program, and what they promise in the long run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from crepes import ConformalClassifier

from data_specs.bundle import Undecided
from inference.findings import Who, is_undecided
from training.figures.undecided import FEWEST, undecided_figures, undecided_ranges

NOBODY = pd.DataFrame(index=range(1000))


def drawn(rng: np.random.Generator, n_positive: int, n_negative: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and probabilities of cases of which one in four is on the wrong side."""
    y = np.repeat([1.0, 0.0], [n_positive, n_negative])
    return y, 1 / (1 + np.exp(-(rng.normal(size=len(y)) + 1.3 * y - 0.65)))


def everybody(y: np.ndarray, p: np.ndarray, threshold: float, coverage: float = 0.9) -> Undecided:
    ranges = undecided_ranges(y, p, NOBODY.iloc[: len(y)], threshold)
    (one,) = (r for r in ranges if r.coverage == coverage)
    return one


def test_bounds_counted_by_hand() -> None:
    """Chances: one of 20 is below the second smallest of the other 19, 2/20; one of 10 above the largest of 9, 1/10."""
    positive, negative = np.linspace(0.05, 0.95, 19), np.linspace(0.1, 0.9, 9)
    y, p = np.repeat([1.0, 0.0], [19, 9]), np.concatenate([positive, negative])
    one = everybody(y, p, 0.5)
    assert (one.low, one.high) == (pytest.approx(0.1), np.nextafter(negative[-1], 1))
    assert (one.n_positive, one.n_negative) == (19, 9)
    stricter = everybody(y, p, 0.5, 0.95)
    assert (stricter.low, stricter.high) == (pytest.approx(0.05), 1.0), "nine cases bound nothing at 95 %"
    fewer = everybody(y[1:], p[1:], 0.5, 0.95)
    assert fewer.low == 0.0, "nor do eighteen"


@pytest.mark.parametrize(("threshold", "low", "high"), [(0.02, 0.02, 0.9), (0.95, 0.1, 0.95), (0.5, 0.1, 0.9)])
def test_the_point_that_decides_lies_in_the_range(threshold: float, low: float, high: float) -> None:
    """Between it and a bound on its other side the verdict would be one that the bounds exclude."""
    y = np.repeat([1.0, 0.0], [19, 9])
    p = np.concatenate([np.linspace(0.05, 0.95, 19), np.linspace(0.1, 0.9, 9)])
    one = everybody(y, p, threshold)
    assert (one.low, one.high) == (pytest.approx(low), pytest.approx(high))


def test_who_is_told_apart_well_is_never_undecided() -> None:
    y = np.repeat([1.0, 0.0], [30, 30])
    p = np.concatenate([np.linspace(0.7, 0.9, 30), np.linspace(0.1, 0.3, 30)])
    one = everybody(y, p, 0.5)
    assert one.low == one.high == 0.5


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_another_program_finds_the_same_sets(confidence: float) -> None:
    rng = np.random.default_rng(5)
    y, p = drawn(rng, 83, 57)
    one = everybody(y, p, 0.5, confidence)
    new = rng.uniform(size=500)
    in_set = []
    for outcome, alphas in ((1, 1 - p), (0, p)):
        classifier = ConformalClassifier().fit(alphas[y == outcome])
        of_new = (1 - new if outcome else new)[:, None]
        in_set.append(classifier.predict_set(of_new, confidence=confidence, smoothing=False)[:, 0].astype(bool))
    both = in_set[0] & in_set[1]
    assert 0 < both.sum() < 500
    assert np.array_equal(both, [is_undecided((one,), each, Who(coverage=confidence)) for each in new])


@pytest.mark.parametrize("coverage", [0.9, 0.95])
def test_in_the_long_run_the_opposite_verdict_is_as_rare_as_promised(coverage: float) -> None:
    rng = np.random.default_rng(7)
    wrong_with, wrong_without = [], []
    for _ in range(400):
        y, p = drawn(rng, 40, 40)
        one = everybody(y, p, 0.5, coverage)
        new_y, new_p = drawn(rng, 50, 50)
        wrong_with.append((new_p[new_y == 1] < one.low).mean())
        wrong_without.append((new_p[new_y == 0] >= one.high).mean())
    for wrong in (wrong_with, wrong_without):
        error = np.std(wrong) / np.sqrt(len(wrong))
        assert np.mean(wrong) <= 1 - coverage + 3 * error
        assert np.mean(wrong) >= 1 - coverage - 1 / 41 - 3 * error, "and no rarer than its cases make it"


def test_a_group_has_bounds_of_its_own_where_it_has_enough_of_both() -> None:
    rng = np.random.default_rng(3)
    y, p = drawn(rng, 90, 90)
    groups = pd.DataFrame(
        {
            "view": ["AP"] * FEWEST + ["PA"] * 60 + ["AP"] * FEWEST + ["PA"] * 60,
            "sex": ["F"] * (FEWEST - 1) + ["M"] * 61 + ["F"] * 45 + ["M"] * 45,
            "age": ["18-40"] * 45 + ["76+"] * 45 + ["18-40"] * 45 + ["76+"] * 45,
            "site": ["north"] * 180,
        }
    )
    ranges = undecided_ranges(y, p, groups, 0.5)
    found = {(r.sex, r.view, r.age_years): r for r in ranges if r.coverage == 0.9}
    assert found.keys() == {
        (None, None, None),
        ("male", None, None),
        (None, "AP", None),
        (None, "PA", None),
        (None, None, (18.0, 41.0)),
        (None, None, (76.0, 131.0)),
    }
    ap = (groups.view == "AP").to_numpy()
    alone = everybody(y[ap], p[ap], 0.5)
    assert (found[None, "AP", None].low, found[None, "AP", None].high) == (alone.low, alone.high)


def test_figures_say_how_many_have_no_verdict_and_how_many_the_opposite() -> None:
    one = Undecided(coverage=0.9, low=0.3, high=0.7, n_positive=30, n_negative=30)
    men = one.model_copy(update={"sex": "male", "low": 0.2})
    y = np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    p = np.array([0.9, 0.5, 0.1, 0.25, 0.1, 0.5, 0.8, 0.25])
    groups = pd.DataFrame({"sex": ["F"] * 7 + ["M"]})
    figures = {e.metric: e.estimate for e in undecided_figures((one, men), y, p, groups, 0.5, "c")}
    assert {name: figures[name].value for name in figures if name.endswith("@0.9")} == {
        "right_with@0.9": 2 / 4,
        "right_without@0.9": 3 / 4,
        "undecided@0.9": 3 / 8,
    }
    assert figures["undecided@0.95"].value == 0, "no range was made for it"
    assert (figures["right_with@0.9"].n, figures["undecided@0.9"].n) == (4, 8)
    assert figures["right_with@0.9"].low == pytest.approx(0.15, abs=0.001), "Wilson's interval of 2 in 4"
