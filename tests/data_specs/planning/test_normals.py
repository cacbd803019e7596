"""Thresholds that a sample proves: worked by hand, held over many samples whose truth is known, and the test that ends
them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from data_specs.planning.normals import (
    Case,
    Limits,
    events_in_expectation,
    events_needed,
    evidence_against,
    in_sample,
    is_below,
    is_broken,
    one_case_each,
    prove,
    upper,
)

LIMITS = Limits(prevalence=(30, 1000))


def sample(events, normal, **groups):
    """Persons with a finding and without, by their probabilities."""
    sick = [Case(f"e{i}", p, True, groups) for i, p in enumerate(events)]
    return sick + [Case(f"n{i}", p, False, groups) for i, p in enumerate(normal)]


WELL = [i / 2000 for i in range(1000)]


@pytest.mark.parametrize(("events", "certified"), [(58, False), (59, True)])
def test_fewest_events_for_five_percent_at_95_percent(events, certified):
    """0.95^59 = 0.0485."""
    found = prove(sample([0.5 + i / 1000 for i in range(events)], WELL), LIMITS)
    assert found.needed == 59
    assert (found.whole.threshold == 0.5) is certified
    assert (found.refused == "") is certified
    assert found.refused in ("", "too_few")


def test_rank_of_the_threshold_is_that_of_the_binomial():
    """Of 200 events at most 4 may lie below: P(Bin(200, 0.05) <= 4) = 0.026, and with 5 it is 0.062."""
    assert binom.cdf(4, 200, 0.05) < 0.05 < binom.cdf(5, 200, 0.05)
    events = [0.2 + i / 1000 for i in range(200)]
    assert prove(sample(events, WELL), LIMITS).whole.threshold == events[4]


def test_groups_share_the_error_and_one_with_too_few_is_not_released():
    events = [0.5 + i / 1000 for i in range(80)]
    women, men = sample(events, WELL, sex="female"), sample(events[:70], WELL, sex="male")
    men = [Case(f"m{case.person}", case.probability, case.abnormal, case.groups) for case in men]
    found = prove(women + men, LIMITS)
    assert found.needed == events_needed(0.05, 0.05 / 3) == 80
    assert set(found.thresholds) == {"all", "sex female"}
    assert is_below(0.1, {"sex": "female"}, found.thresholds)
    assert not is_below(0.1, {"sex": "male"}, found.thresholds)
    assert not is_below(0.1, {"sex": "unknown"}, found.thresholds)
    assert found.released == (1000, 2000)
    assert found.refused == ""


def test_a_sample_without_certified_groups_of_somebody_is_too_few():
    events = [0.5 + i / 1000 for i in range(90)]
    halves = [Case(str(i), p, True, {"sex": "female" if i % 2 else "male"}) for i, p in enumerate(events)]
    found = prove([*halves, *sample([], WELL, sex="female")], LIMITS)
    assert set(found.thresholds) == {"all"}
    assert found.refused == "too_few"


def test_why_else_nothing_is_certified():
    events = [0.5 + i / 1000 for i in range(100)]
    assert prove(sample(events, [0.9] * 100), LIMITS).refused == "none_released"
    often = prove(sample(events, WELL), Limits(prevalence=(500, 1000)))
    assert often.refused == "too_often_abnormal"
    assert 0.01 < often.abnormal_at_most < 0.1
    assert prove([], LIMITS).refused == "too_few"


def test_bound_of_those_released_is_bayes_rule_of_the_three_bounds():
    found = prove(sample([0.9] * 59, [0.1] * 900 + [0.95] * 100), LIMITS)
    third = 0.05 / 3
    prevalence, missed = beta.ppf(1 - third, 31, 970), beta.ppf(1 - third, 1, 59)
    cleared = 1 - beta.ppf(1 - third, 101, 900)
    expected = prevalence * missed / (prevalence * missed + (1 - prevalence) * cleared)
    assert found.abnormal_at_most == pytest.approx(expected)


def test_a_person_counts_once_by_the_film_that_is_released_first():
    cases = [
        Case("a", 0.9, True, {}),
        Case("a", 0.3, True, {}),
        Case("a", 0.1, False, {}),
        Case("b", 0.5, False, {}),
        Case("b", 0.2, False, {}),
        Case("c", 0.1, True, {}, offered=False),
        Case("c", 0.7, True, {}),
    ]
    assert [(case.person, case.released_from) for case in one_case_each(cases)] == [("a", 0.3), ("b", 0.2), ("c", 0.7)]


def test_events_that_are_never_offered_are_never_missed():
    cases = [Case(str(i), 0.01, True, {}, offered=False) for i in range(59)]
    found = prove([*cases, *sample([], WELL)], LIMITS)
    assert found.whole.threshold == 1.0
    assert found.refused == ""


def test_bounds_hold_in_as_many_samples_as_they_say():
    """Probabilities of events are uniform, so that the truth is the threshold itself."""
    rng = np.random.default_rng(3)
    runs = 3000
    broken = 0
    for _ in range(runs):
        found = prove(sample(rng.random(99), []), LIMITS)
        assert found.whole.threshold is not None
        broken += found.whole.threshold > LIMITS.missed
    expected = binom.cdf(1, 99, 0.05)  # the second smallest of 99 events is the threshold
    assert binom.ppf(0.001, runs, expected) <= broken <= binom.ppf(0.999, runs, expected)
    assert expected < 0.05


@pytest.mark.parametrize("missed", [0.05, 0.01])
def test_events_in_expectation_and_with_confidence(missed):
    n = events_in_expectation(missed)
    assert 1 / (n + 1) <= missed < 1 / n
    assert (1 - missed) ** events_needed(missed, 0.05) <= 0.05 < (1 - missed) ** (events_needed(missed, 0.05) - 1)


def test_upper_end_is_clopper_and_pearsons():
    assert upper(0, 59, 0.05) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert binom.cdf(3, 100, upper(3, 100, 0.05)) == pytest.approx(0.05)
    assert upper(5, 5, 0.05) == 1


def test_evidence_is_the_mean_likelihood_ratio_of_all_larger_shares():
    k, n, bound = 2, 30, 0.003
    shares = np.linspace(bound, 1, 2_000_001)
    ratios = (shares / bound) ** k * ((1 - shares) / (1 - bound)) ** (n - k)
    assert evidence_against(k, n, bound) == pytest.approx(np.mean(ratios), rel=1e-4)
    assert evidence_against(0, 0, bound) == pytest.approx(1)
    assert evidence_against(0, 500, bound) < 1
    assert math.isfinite(evidence_against(500, 500, 1e-4))


def test_a_bound_that_holds_is_seldom_stopped_and_a_broken_one_soon():
    rng = np.random.default_rng(5)

    def stops(share, runs, read=1000, bound=0.01):
        count = 0
        for _ in range(runs):
            misses = np.flatnonzero(rng.random(read) < share)
            count += any(is_broken(k, int(at) + 1, bound, 0.95) for k, at in enumerate(misses, 1))
        return count

    assert stops(0.01, 400) <= binom.ppf(0.999, 400, 0.05)
    assert stops(0.06, 100) == 100


def test_a_tenth_is_drawn_by_the_key_and_nobody_else_knows_it():
    ids = [f"{i:032x}" for i in range(20_000)]
    drawn = {each for each in ids if in_sample(b"one key", each)}
    assert drawn == {each for each in ids if in_sample(b"one key", each)}
    assert len(drawn) == pytest.approx(2000, abs=200)
    other = {each for each in ids if in_sample(b"another", each)}
    assert len(drawn & other) == pytest.approx(200, abs=60)
