"""Recalls, yield, tests and costs counted by hand; what always holds; and intervals that cover as often as they say."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_specs.bundle import RocPoint
from data_specs.planning.consequences import FIGURES, consequences, money, plan, shares
from data_specs.planning.performance import Performance
from data_specs.planning.programme import Costs, Population, Prevalence, Programme

COSTS = Costs(
    currency="VND", screening=50, recall_visit=100, confirmatory_test=400, tests_per_recall=1.5, treatment_start=1000
)


def point(threshold: float, tp: int, fn: int, tn: int, fp: int) -> RocPoint:
    return RocPoint(threshold=threshold, true_positives=tp, false_negatives=fn, true_negatives=tn, false_positives=fp)


ROC = (
    point(0.0, 100, 0, 0, 1000),
    point(0.2, 95, 5, 700, 300),
    point(0.7, 80, 20, 960, 40),
    point(1.0, 0, 100, 1000, 0),
)
CASES = Performance("Bac Ninh films", ROC, {0.2: "screening", 0.7: "balanced, rule_in"}, 0.2)


EXACT = Prevalence(0.05)


def rows(prevalence: Prevalence = EXACT, costs: Costs = COSTS, people: int = 2000):
    return consequences(CASES, prevalence, costs, people)


def test_a_thousand_people_counted_one_by_one() -> None:
    # 50 of 1,000 are ill, of whom 40 are found; of the 950 others 38 are recalled for nothing: 78 recalled, 117 tests.
    figures = {name: figure.value for name, figure in rows()[2].figures.items()}
    cost = 1000 * 50 + 78 * 100 + 117 * 400 + 40 * 1000
    assert cost == 144_600
    assert figures == pytest.approx(
        {
            "sensitivity": 0.8, "specificity": 0.96, "ppv": 40 / 78, "npv": 912 / 922, "recalled": 78, "found": 40,
            "missed": 10, "recalled_without": 38, "tests": 117, "cost_per_1000": cost, "cost_per_case": 3615,
            "total": 289_200,
        }
    )  # fmt: skip


def test_everybody_and_nobody_recalled_are_certain() -> None:
    everybody, *_, nobody = rows()
    assert [everybody.figures[name].value for name in ("recalled", "missed", "found")] == [1000, 0, pytest.approx(50)]
    for name in ("recalled", "missed", "found", "cost_per_1000", "cost_per_case"):
        figure = everybody.figures[name]
        assert figure.low == pytest.approx(figure.value) == figure.high
    assert math.isnan(everybody.figures["npv"].value)
    assert nobody.figures["cost_per_1000"].high == 50_000, "films cost money even if nobody is recalled"
    assert math.isnan(nobody.figures["cost_per_case"].value)
    assert math.isnan(nobody.figures["ppv"].value)


def test_who_is_not_recalled_may_all_be_missed() -> None:
    measured = Performance("", (point(0.5, 9, 1, 0, 10),), {}, None)
    (row,) = consequences(measured, EXACT, COSTS, 1000)
    assert row.figures["npv"].value == 0


def test_names_and_the_deciding_threshold() -> None:
    assert [(row.name, row.decides) for row in rows()] == [
        ("", False), ("screening", True), ("balanced, rule_in", False), ("", False),
    ]  # fmt: skip


unit = st.just(0.0) | st.floats(0.0001, 1)


@settings(deadline=None)  # how long it takes is the machine's matter
@given(sensitivity=unit, specificity=unit, prevalence=st.floats(0.0001, 0.9999))
def test_people_add_up(sensitivity: float, specificity: float, prevalence: float) -> None:
    made = money(shares(np.array([sensitivity]), np.array([specificity]), prevalence), COSTS, 1000)
    assert made["found"] + made["missed"] == pytest.approx(1000 * prevalence)
    assert made["found"] + made["recalled_without"] == pytest.approx(made["recalled"])
    assert made["recalled"][0] <= 1000 + 1e-9
    if sensitivity == 1:
        assert made["missed"][0] == pytest.approx(0, abs=1e-9)
    if made["found"][0] > 0:
        assert made["cost_per_case"] == pytest.approx(made["total"] / made["found"])


def test_a_higher_threshold_recalls_and_finds_fewer_and_misses_more() -> None:
    for lower, higher in pairwise(rows()):
        assert lower.figures["recalled"].value >= higher.figures["recalled"].value
        assert lower.figures["missed"].value <= higher.figures["missed"].value


def test_twice_the_people_cost_twice_as_much_in_all_and_the_same_each() -> None:
    one, two = rows(people=1000)[1].figures, rows(people=2000)[1].figures
    assert two["total"].high == pytest.approx(2 * one["total"].high)
    assert two["cost_per_case"] == one["cost_per_case"]


def test_without_prices_nothing_costs_anything() -> None:
    free = Costs(
        currency="EUR", screening=0, recall_visit=0, confirmatory_test=0, tests_per_recall=1, treatment_start=0
    )
    assert all(row.figures["total"].high == 0 for row in rows(costs=free))


def test_a_counted_prevalence_widens_what_depends_on_it() -> None:
    exact, counted = rows(Prevalence(0.05))[2].figures, rows(Prevalence(0.05, of=200))[2].figures
    assert exact["found"].value == counted["found"].value
    assert counted["found"].high - counted["found"].low > 2 * (exact["found"].high - exact["found"].low)
    assert counted["sensitivity"].low == pytest.approx(exact["sensitivity"].low, abs=0.005)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    # A test of known sensitivity and specificity in people of known prevalence, measured again and again.
    rng = np.random.default_rng(5)
    repeats = 300
    truth = money(shares(np.array([0.85]), np.array([0.9]), 0.03), COSTS, 1000)
    covered = dict.fromkeys(FIGURES, 0)
    counts = zip(
        rng.binomial(80, 0.85, repeats), rng.binomial(150, 0.9, repeats), rng.binomial(900, 0.03, repeats), strict=True
    )
    for tp, tn, ill in counts:
        measured = Performance("", (point(0.5, int(tp), 80 - int(tp), int(tn), 150 - int(tn)),), {}, None)
        (row,) = consequences(measured, Prevalence(ill / 900, of=900), COSTS, 1000, draws=2000)
        for name in FIGURES:
            covered[name] += row.figures[name].low <= truth[name][0] <= row.figures[name].high
    assert all(0.91 <= count / repeats <= 0.99 for count in covered.values()), covered


def test_each_population_at_each_prevalence_with_the_cases_it_names() -> None:
    few = Performance("women", (point(0.2, 9, 1, 80, 20),), {}, 0.2, is_whole=False)
    programme = Programme(
        costs=COSTS,
        populations={
            "villages": Population(people=8000, prevalence="0.002-0.02"),
            "women": Population(people=500, prevalence="3/400; 0.01", cases="sex F"),
        },
    )
    found = list(plan(programme, {"all": CASES, "sex F": few}, draws=100))
    assert [(each.population, str(each.prevalence), len(each.rows)) for each in found] == [
        ("villages", "0.002", 4), ("villages", "0.006325", 4), ("villages", "0.02", 4),
        ("women", "3/400", 1), ("women", "0.01", 1),
    ]  # fmt: skip
    with pytest.raises(KeyError, match="sex F"):
        list(plan(programme, {"all": CASES}))
