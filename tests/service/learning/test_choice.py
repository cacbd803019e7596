"""Which case comes next: the mix, the difficulty, and boxes for cases where somebody erred."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from data_specs.visit.teaching import Case, NewReading
from service.learning.choice import BOX_DAYS, Wish, band, choose, difficulty, due
from service.learning.records import Signed, StoredCase

START = datetime(2026, 11, 1, 8, tzinfo=UTC)
MASS = NewReading.model_validate({"judgements": [{"finding": "mass", "verdict": "add"}]})
NOTHING = NewReading()


def stored(visit, there, *, machine=None, finding="mass"):
    known = Case(outcomes={finding: there}, machine={} if machine is None else {finding: machine})
    return StoredCase(visit, "teaching: x", "0" * 64, known)


def read(visit, right, days, number, there=True):
    return Signed(visit, "me", number, START + timedelta(days=days), MASS if right is there else NOTHING)


@pytest.fixture
def cases():
    """Forty cases, a quarter of them with a mass."""
    return {f"v{n:02}": stored(f"v{n:02}", n % 4 == 0) for n in range(40)}


def test_half_of_new_cases_have_no_finding_whatever_the_set_has(cases):
    drawn = Counter(cases[choose(cases, {}, [], Wish(), START, f"me:{seed}")].case.has_finding for seed in range(1000))
    assert 450 < drawn[True] < 550


def test_the_draw_is_repeatable_and_another_one_for_everybody(cases):
    assert len({choose(cases, {}, [], Wish(), START, "me:0") for _ in range(5)}) == 1
    assert len({choose(cases, {}, [], Wish(), START, f"{who}:0") for who in range(20)}) > 5


def test_where_one_kind_is_used_up_the_other_is_given(cases):
    only = {visit: each for visit, each in cases.items() if not each.case.has_finding}
    assert all(choose(only, {}, [], Wish(), START, f"me:{seed}") for seed in range(20))


def test_a_wish_for_a_finding_and_a_difficulty_is_held():
    cases = {
        "easy": stored("easy", True, machine=0.95),
        "medium": stored("medium", True, machine=0.6),
        "hard": stored("hard", True, machine=0.1),
        "other": stored("other", True, machine=0.1, finding="effusion"),
    }
    for name in ("easy", "medium", "hard"):
        for seed in range(5):
            assert choose(cases, {}, [], Wish("mass", name), START, str(seed)) == name
    assert choose(cases, {}, [], Wish("nodule"), START, "0") is None


def test_difficulty_moves_from_the_machine_to_those_who_read():
    case = stored("v", True, machine=0.9).case
    assert difficulty(case, []) == pytest.approx(0.1), "of what it implies nobody has spoken"
    assert difficulty(stored("v", True).case, []) == 0.5
    assert difficulty(case, [frozenset({"mass"})] * 4, "mass") == pytest.approx((0.4 + 4) / 8)
    assert difficulty(case, [frozenset()] * 4, "mass") == pytest.approx(0.4 / 8)
    assert [band(value) for value in (0, 0.19, 0.2, 0.5, 0.51, 1)] == [
        *("easy", "easy", "medium", "medium", "hard", "hard")
    ]


def test_boxes_go_up_by_one_and_back_to_the_first():
    cases = {"v": stored("v", True)}
    own, day, days = [], 0.0, []
    for number, right in enumerate((False, True, True, False, True, True, True, True, True), 1):
        own.append(read("v", right, day, number))
        again = due(cases, own).get("v")
        days.append(None if again is None else (again - own[-1].at).days)
        day += 20
    assert days == [1, 2, 4, 1, 2, 4, 8, 16, None]
    assert BOX_DAYS == (1, 2, 4, 8, 16)


def test_what_was_right_at_once_does_not_come_again():
    cases = {"v": stored("v", True)}
    assert due(cases, [read("v", True, 0, 1)]) == {}


def test_a_case_that_waits_comes_when_it_is_due_and_never_twice_in_a_row():
    cases = {"v": stored("v", True), "w": stored("w", True)}
    own = [read("v", False, 0, 1)]
    both = {"v": cases["v"]}
    assert choose(both, {}, own, Wish(), START + timedelta(days=9), "0") is None, "not twice in a row"
    own.append(read("w", True, 0.1, 1))
    assert choose(cases, {}, own, Wish(), START + timedelta(hours=23), "0") is None, "not yet"
    assert choose(cases, {}, own, Wish(), START + timedelta(hours=25), "0") == "v"
    assert choose(cases, {}, own, Wish("effusion"), START + timedelta(hours=25), "0") is None


def test_what_waits_and_what_is_new_take_turns():
    cases = {name: stored(name, True) for name in ("a", "b", "new")}
    own = [read("a", False, 0, 1), read("b", False, 0.1, 1)]
    later = START + timedelta(days=3)
    assert choose(cases, {}, own, Wish(), later, "0") == "a", "b was the last"
    own.append(read("a", True, 3, 2))
    assert choose(cases, {}, own, Wish(), later, "0") == "new"
    own.append(read("new", True, 3, 1))
    assert choose(cases, {}, own, Wish(), later + timedelta(days=1), "0") == "b"
