"""Figures against values that were computed elsewhere or can be counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sklearn.metrics import brier_score_loss

from service.learning.figures import blocks, brier, by_finding, figures, peers, proportion
from service.learning.records import ANY, Answer


def answers(found, missed, added, cleared):
    return [
        *[Answer(True, True)] * found,
        *[Answer(True, False)] * missed,
        *[Answer(False, True)] * added,
        *[Answer(False, False)] * cleared,
    ]


def test_kappa_needs_two_truths():
    assert figures("mass", answers(5, 0, 0, 0)).kappa is None
    assert figures("mass", answers(3, 2, 0, 0)).kappa is None, "it would be 0, whatever was said"
    assert figures("mass", answers(0, 0, 2, 3)).kappa is None
    assert figures("mass", answers(5, 0, 5, 0)).kappa.value == 0
    assert figures("mass", answers(5, 0, 0, 5)).kappa.value == 1


def test_the_brier_score_is_that_of_a_library():
    rated = [(0.9, True), (0.7, False), (0.1, False), (0.5, True)]
    ours = brier(rated)
    theirs = brier_score_loss([there for _, there in rated], [said for said, _ in rated])
    assert ours.value == pytest.approx(theirs, abs=5e-4)
    assert 0 <= ours.low < ours.value < ours.high <= 1
    assert brier(rated[:1]) is None


def test_a_reader_who_was_right_in_a_few_cases_is_not_known_to_be_right_in_all():
    perfect = brier([(0.9, True), (0.1, False), (0.9, True)])
    assert perfect.value == pytest.approx(0.01)
    assert perfect.high > 0.5


def test_a_share_of_nothing_has_no_value():
    assert proportion(0, 0).model_dump() == {"n": 0, "of": 0, "value": None, "low": None, "high": None}
    assert (proportion(8, 10).low, proportion(8, 10).high) == (0.49, 0.943)  # Wilson: 0.4902 to 0.9433


def test_only_cases_whose_truth_is_known_count_for_a_finding():
    read = [
        {ANY: Answer(True, True), "mass": Answer(True, True, 5)},
        {ANY: Answer(False, False), "effusion": Answer(False, False, 1)},
        {ANY: Answer(False, True), "mass": Answer(False, True)},
    ]
    made = {each.finding: each for each in by_finding(read, ("mass", "effusion", "nodule"))}
    assert list(made) == [ANY, "mass", "effusion"]
    assert (made["mass"].cases, made["mass"].present, made["mass"].rated) == (2, 1, 1)
    assert made["effusion"].sensitivity.value is None


def test_blocks_follow_each_other_in_the_order_of_reading():
    start = datetime(2026, 11, 1, tzinfo=UTC)
    read = [{ANY: Answer(True, n >= 20)} | ({"mass": Answer(True, True)} if n < 2 else {}) for n in range(45)]
    made = blocks(read, [start + timedelta(days=n) for n in range(45)], ("mass",))
    found = [(each.first, each.last, [(row.finding, row.sensitivity.n) for row in each.figures]) for each in made]
    assert found == [(1, 20, [(ANY, 0), ("mass", 2)]), (21, 40, [(ANY, 20)]), (41, 45, [(ANY, 5)])]
    assert made[-1].until == start + timedelta(days=44)


def test_peers_are_quartiles_from_five_with_ten_cases_each():
    def peer(found):
        return [{"mass": each} for each in answers(found, 10 - found, 2, 8)]

    six = [peer(found) for found in (5, 6, 7, 8, 9, 10)]
    made = peers("mass", six)
    assert made.readers == 6
    assert made.sensitivity.model_dump() == {"lower": 0.625, "median": 0.75, "upper": 0.875}
    assert made.specificity.median == 0.8
    assert peers("mass", six[:4]) is None
    few = [each[:9] for each in six]
    assert peers("mass", few) is None, "nine cases are too few to be a peer"
    assert peers("effusion", six) is None
