"""The comparisons: small numbers, ties, what is constant, and how many false alarms a year may have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact, mannwhitneyu

from service.drift.compare import (
    FALSE_ALARMS_A_YEAR,
    LEAST_NOW,
    LEAST_REFERENCE,
    Comparison,
    compared,
    limit_of_p,
    smallest_noticed,
)
from service.drift.samples import Sample, SeenFilm, kind_of, sample_of

RANDOM = np.random.default_rng(7)


def films(n, shift=0.0, refused=0.05, disagreed=None, missing=0.0):
    return [
        SeenFilm(
            refused=bool(RANDOM.random() < refused),
            codes=("turned",) if RANDOM.random() < 0.1 else (),
            traits={"grey": float(RANDOM.normal(shift)), "short_side_px": 2048.0}
            | ({"distance": float(RANDOM.normal())} if RANDOM.random() >= missing else {}),
            disagreed=None if disagreed is None else bool(RANDOM.random() < disagreed),
        )
        for _ in range(n)
    ]


def by_name(found: list[Comparison]) -> dict[str, Comparison]:
    return {each.name: each for each in found}


def test_each_number_by_a_rank_test_and_each_share_exactly():
    before, now = sample_of(films(200, missing=0.3)), sample_of(films(60, shift=0.6, refused=0.4, missing=0.3))
    found = by_name(compared(before, now))
    for name in ("grey", "distance"):
        expected = mannwhitneyu(before.numbers[name], now.numbers[name], method="asymptotic").pvalue
        assert found[name].p == pytest.approx(expected)
        assert found[name].before == np.median(before.numbers[name])
        assert (found[name].n_before, found[name].n_now) == (len(before.numbers[name]), len(now.numbers[name]))
    (a, n), (b, m) = before.counts["refused"], now.counts["refused"]
    assert found["refused"].p == pytest.approx(fisher_exact([[a, n - a], [b, m - b]]).pvalue)
    assert found["refused"].now == b / m


def test_what_never_varies_is_no_alarm_and_what_begins_to_is():
    before, now = sample_of(films(150)), sample_of(films(40))
    assert by_name(compared(before, now))["short_side_px"].p == 1
    other = now.model_copy(update={"numbers": {**now.numbers, "short_side_px": (2000.0,) * 40}})
    assert by_name(compared(before, other))["short_side_px"].p < 1e-30


@pytest.mark.parametrize(("n_now", "n_other"), [(20, 1), (20, 2), (35, 2), (250, 4)])
def test_few_films_of_another_size_are_no_alarm(n_now, n_other):
    """The rank test's normal approximation finds p = 6e-7 in one film of 20."""
    before, now = sample_of(films(500)), sample_of(films(n_now))
    sizes = (1024.0,) * n_other + (2048.0,) * (n_now - n_other)
    found = by_name(compared(before, now.model_copy(update={"numbers": {"short_side_px": sizes}})))["short_side_px"]
    assert found.p == pytest.approx(2 * fisher_exact([[0, 500], [n_other, n_now - n_other]]).pvalue)
    assert found.p > limit_of_p(1, 25)
    assert (found.before, found.now) == (2048, np.mean(sizes))  # the medians would say that nothing has changed


def test_a_code_that_is_new_and_one_that_is_gone_are_compared():
    before, now = sample_of(films(150)), sample_of(films(40))
    new = now.model_copy(update={"counts": {"refused": (0, 40), "code saturated": (30, 40)}})
    found = by_name(compared(before, new))
    assert (found["code saturated"].before, found["code saturated"].p < 1e-10) == (0, True)
    assert found["code turned"].now == 0


def test_agreement_is_compared_among_those_who_signed():
    before = sample_of([*films(100, disagreed=0.1), *films(50)])
    now = sample_of([*films(30, disagreed=0.9), *films(30)])
    found = by_name(compared(before, now))["disagreed"]
    assert (found.n_before, found.n_now) == (100, 30)
    assert found.p < 1e-8
    nobody = sample_of(films(60))
    assert "disagreed" not in by_name(compared(before, nobody))


def test_few_films_are_not_compared():
    enough, few = sample_of(films(LEAST_REFERENCE)), sample_of(films(LEAST_REFERENCE - 1))
    assert compared(few, sample_of(films(50))) == []
    assert compared(enough, sample_of(films(LEAST_NOW - 1))) == []
    assert compared(enough, sample_of(films(LEAST_NOW))) != []


def test_the_limits_of_a_year_add_up_to_the_budget():
    checks = 365.25
    assert limit_of_p(7, 25) * 7 * 25 * checks == pytest.approx(FALSE_ALARMS_A_YEAR)
    assert limit_of_p(7, 25, every_hours=1) == pytest.approx(limit_of_p(7, 25) / 24)
    assert limit_of_p(0, 0) > 0


def test_the_smallest_shift_is_noticed_four_times_in_five():
    limit = limit_of_p(1, 3)
    shift = smallest_noticed(200, 80, limit)
    noticed = 0
    for _ in range(400):
        before, now = RANDOM.normal(size=200), RANDOM.normal(shift, size=80)
        noticed += mannwhitneyu(before, now, method="asymptotic").pvalue <= limit
    assert 0.74 < noticed / 400 < 0.86
    assert smallest_noticed(500, 350, limit) < shift


def test_a_sample_does_not_tell_which_numbers_are_of_one_film():
    sample = sample_of(films(50))
    assert all(list(values) == sorted(values) for values in sample.numbers.values())
    assert Sample.model_validate_json(sample.model_dump_json()) == sample


def test_what_a_name_is_about():
    assert [kind_of(name) for name in ("grey", "code turned", "refused")] == ["comes_in"] * 3
    assert [kind_of(name) for name in ("gate_chest", "distance")] == ["sees"] * 2
    assert (kind_of("logit abnormal (18-85)"), kind_of("disagreed")) == ("says", "agrees")
