"""Thresholds at equal recalls and at equal sensitivity: by hand, what always holds, and intervals that cover."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.equal import FEWEST, at_equal_recalls, at_equal_sensitivity
from models.recent import Answered


def answered(
    probability: float,
    served: bool | None,
    *,
    person: int | None = None,
    is_case: bool | None = None,
    name: str = "abnormal",
) -> Answered:
    who = ("someone",) if person is None else (str(person),)
    return Answered(name, who, (), served, None, 0.0, probability, is_case)


def visits(probabilities: list[float], recalled: int, name: str = "abnormal") -> list[Answered]:
    """The first so many were recalled by the version in service."""
    return [answered(p, i < recalled, person=i, name=name) for i, p in enumerate(probabilities)]


def test_as_many_are_recalled() -> None:
    # Twelve of thirty were recalled; by the new version's numbers that is from between the 12th and the 13th highest.
    probabilities = [round(0.03 * i, 2) for i in range(30)]
    found = at_equal_recalls(visits(probabilities, 12))
    assert found is not None
    assert found.threshold == pytest.approx((0.51 + 0.54) / 2)
    assert (found.n, found.reached) == (30, 12)
    assert found.low <= found.threshold <= found.high


def test_of_a_finding_that_reassures_those_below_are_recalled() -> None:
    probabilities = [round(0.03 * i, 2) for i in range(30)]
    found = at_equal_recalls(visits(probabilities, 12, "normal_ecg"))
    assert found is not None
    assert found.threshold == pytest.approx((0.33 + 0.36) / 2)
    assert found.reached == 12
    assert 0 <= found.low <= found.threshold <= found.high


def test_of_equal_probabilities_all_or_none_are_recalled_and_rather_all() -> None:
    found = at_equal_recalls(visits([0.9] * 8 + [0.5] * 8 + [0.1] * 14, 12))
    assert found is not None
    assert found.threshold == pytest.approx(0.3), "8 or 16 are as near to 12; 16 are recalled"
    assert found.reached == 16


def test_no_case_that_was_found_is_missed() -> None:
    # 18 of 20 known cases were found; the new version has to find 18 too, wherever they lie.
    cases = [answered(0.05 * (i + 1), i >= 2, person=i, is_case=True) for i in range(20)]
    others = [answered(0.9, True, person=100 + i, is_case=False) for i in range(30)]
    unknown = [answered(0.01, True, person=200 + i) for i in range(30)]
    found = at_equal_sensitivity([*cases, *others, *unknown])
    assert found is not None
    assert found.threshold == pytest.approx((0.10 + 0.15) / 2)
    assert (found.n, found.reached) == (20, 18)


@pytest.mark.parametrize("recalled", [0, FEWEST - 1, 30 - FEWEST + 1, 30])
def test_too_few_to_say(recalled: int) -> None:
    assert at_equal_recalls(visits([0.01 * i for i in range(30)], recalled)) is None


def test_too_few_known_cases() -> None:
    cases = [answered(0.5, True, person=i, is_case=True) for i in range(FEWEST - 1)]
    assert at_equal_sensitivity(cases) is None
    assert at_equal_sensitivity([answered(0.5, False, person=i, is_case=True) for i in range(40)]) is None
    assert at_equal_sensitivity([]) is None
    assert at_equal_recalls([]) is None


def test_what_was_left_open_is_left_out() -> None:
    probabilities = [round(0.03 * i, 2) for i in range(30)]
    open_ = [answered(0.99, None, person=100 + i) for i in range(50)]
    assert at_equal_recalls([*visits(probabilities, 12), *open_]) == at_equal_recalls(visits(probabilities, 12))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 10**5), min_size=25, max_size=60, unique=True).flatmap(
        lambda p: st.tuples(st.just([each / 10**5 for each in p]), st.integers(FEWEST, len(p) - FEWEST))
    )
)
def test_with_different_probabilities_exactly_as_many_are_recalled(given_: tuple[list[float], int]) -> None:
    probabilities, recalled = given_
    found = at_equal_recalls(visits(probabilities, recalled), draws=20)
    assert found is not None
    assert found.reached == recalled


def recalls_at(threshold: float, answers: list[Answered]) -> int:
    """How many a version that decides there recalls: from it, or below it for a finding that reassures."""
    return sum((each.probability >= threshold) is (each.finding != "normal_ecg") for each in answers)


PROBABILITIES = st.floats(0.001, 0.999) | st.integers(1, 19).map(lambda n: n / 20)
ANSWERS = st.tuples(
    st.sampled_from(["abnormal", "normal_ecg"]),
    st.lists(st.tuples(PROBABILITIES, st.booleans()), min_size=2 * FEWEST, max_size=60),
).map(lambda each: [answered(p, s, person=i, is_case=True, name=each[0]) for i, (p, s) in enumerate(each[1])])


def every_threshold(answers: list[Answered]) -> list[float]:
    """Thresholds to try: each probability as it is, and a little to both sides of it."""
    return [each.probability + aside for each in answers for aside in (-1e-6, 0, 1e-6)]


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
def test_no_threshold_is_nearer_to_equal_recalls(answers: list[Answered]) -> None:
    recalled = sum(bool(each.served) for each in answers)
    found = at_equal_recalls(answers, draws=5)
    if found is None:
        assert min(recalled, len(answers) - recalled) < FEWEST
        return
    assert recalls_at(found.threshold, answers) == found.reached
    distances = [abs(recalls_at(each, answers) - recalled) for each in every_threshold(answers)]
    apart = [b - a for a, b in pairwise(sorted({each.probability for each in answers}))]
    if not apart or min(apart) > 3e-6:
        assert abs(found.reached - recalled) == min(distances)


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
def test_no_higher_threshold_finds_as_many_known_cases(answers: list[Answered]) -> None:
    recalled = sum(bool(each.served) for each in answers)
    found = at_equal_sensitivity(answers, draws=5)
    if found is None:
        assert recalled == 0
        return
    assert recalls_at(found.threshold, answers) == found.reached >= recalled
    enough = [n for each in every_threshold(answers) if (n := recalls_at(each, answers)) >= recalled]
    apart = [b - a for a, b in pairwise(sorted({each.probability for each in answers}))]
    if not apart or min(apart) > 3e-6:
        assert found.reached == min(enough), "the threshold that recalls fewest and loses none"


@pytest.mark.parametrize("name", ["abnormal", "normal_ecg"])
def test_where_every_known_case_was_found_none_is_lost(name: str) -> None:
    cases = [answered(0.1 + 0.05 * i, True, person=i, is_case=True, name=name) for i in range(12)]
    found = at_equal_sensitivity(cases)
    assert found is not None
    assert found.reached == recalls_at(float(f"{found.threshold:.6f}"), cases) == 12


def test_a_monotone_change_of_the_probabilities_changes_nobodys_recall() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(200)
    served = p >= 0.7
    moved = 1 / (1 + np.exp(-(3 * np.log(p / (1 - p)) - 2)))
    answers = [answered(float(q), bool(s), person=i) for i, (q, s) in enumerate(zip(moved, served, strict=True))]
    found = at_equal_recalls(answers)
    assert found is not None
    assert [a.probability >= found.threshold for a in answers] == [a.served for a in answers]


def test_intervals_cover_the_threshold_as_often_as_they_say() -> None:
    """Both versions see one truth with noise of their own; the true threshold is that of very many visits."""

    def drawn(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        truth = rng.normal(size=n)
        served = truth + rng.normal(scale=0.6, size=n) >= 1.0
        return served, 1 / (1 + np.exp(-(truth + rng.normal(scale=0.6, size=n))))

    served, p = drawn(np.random.default_rng(9), 400_000)
    truth = np.quantile(p, 1 - served.mean())
    covered, repeats = 0, 100
    rng = np.random.default_rng(1)
    for _ in range(repeats):
        served, p = drawn(rng, 300)
        found = at_equal_recalls(
            [answered(float(q), bool(s), person=i) for i, (q, s) in enumerate(zip(p, served, strict=True))], draws=200
        )
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / repeats <= 0.99, covered


def test_films_of_one_person_count_as_one_person() -> None:
    probabilities = [0.01 * i for i in range(60)]
    alone = at_equal_recalls(visits(probabilities, 20))
    few = [answered(p, i < 20, person=i // 10) for i, p in enumerate(probabilities)]
    together = at_equal_recalls(few)
    assert alone is not None
    assert together is not None
    assert together.threshold == alone.threshold
    assert together.high - together.low > alone.high - alone.low
