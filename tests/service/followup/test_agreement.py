"""Kappa against a library and against the paper's own interval."""

from __future__ import annotations

import math

import pytest
from sklearn.metrics import cohen_kappa_score

from service.followup.agreement import kappa


def test_kappa_is_that_of_a_library_and_its_interval_nearly_that_of_the_paper():
    # Fleiss, Levin, Paik, Statistical methods for rates and proportions, 2003: a table of 20, 5, 10, 15
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    value, low, high = kappa(20, 5, 10, 15)
    assert value == pytest.approx(cohen_kappa_score(first, second), abs=5e-4) == 0.4
    error = math.sqrt(0.7 * 0.3 / 50) / (1 - 0.5)  # Cohen 1960, equation 7
    assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.04)


@pytest.mark.parametrize(("counts", "value"), [((5, 0, 0, 5), 1), ((0, 5, 5, 0), -1)])
def test_a_few_cases_leave_a_width_where_all_agree_or_none(counts, value):
    found, low, high = kappa(*counts)
    assert found == value
    assert -1 <= low < high <= 1
    assert high - low > 0.3


def test_kappa_needs_two_answers():
    assert kappa(0, 0, 0, 0) is None
    assert kappa(5, 0, 0, 0) is None
