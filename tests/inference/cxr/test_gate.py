"""Which pictures the gate takes for a frontal chest film, how it sets them upright, and what it says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.problems import Problem
from inference.cxr.gate import Judged, judge, saturated_share, set_upright

LIMIT = {
    "chest": 0.2,
    "chest_without_lungs": 0.4,
    "chest_turned": 0.6,
    "lung_area": 0.04,
    "distance": 12.0,
    "inverted": 0.5,
    "cut_off": 0.7,
    "heart_on_the_right": 0.9,
    "saturated": 0.4,
}


def lungs_in(percent: int, logit: float = 0.1) -> NDArray[np.float64]:
    """Logits of the lung fields, of which this share of the picture is lung."""
    return np.where(np.arange(100).reshape(10, 10) < percent, logit, -5.0)


A_FIFTH_LUNG = lungs_in(20)


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def judged(
    chest: float = 0.99,
    inverted: float = 0.01,
    cut_off: float = 0.01,
    right: float = 0.01,
    *,
    saturated: float = 0.0,
    distance: float = 2.0,
    lungs: NDArray[np.float64] = A_FIFTH_LUNG,
    limit: Mapping[str, float] = LIMIT,
) -> Judged:
    logits = np.array([logit(share) for share in (chest, inverted, cut_off, right)])
    return judge(limit, saturated, logits, distance, lungs)


def codes(found: Judged) -> list[str]:
    return [problem.code for problem in found.problems]


@pytest.mark.parametrize(
    ("film", "expected"),
    [
        ({}, []),
        ({"chest": 0.201}, []),
        ({"chest": 0.199}, ["not_a_chest_image"]),
        ({"chest": 0.39, "lungs": lungs_in(0)}, ["not_a_chest_image"]),
        ({"chest": 0.41, "lungs": lungs_in(0)}, []),
        ({"chest": 0.3, "lungs": lungs_in(3)}, ["not_a_chest_image"]),
        ({"chest": 0.3, "lungs": lungs_in(4)}, []),
        ({"chest": 0.3, "lungs": lungs_in(4, logit=0.0)}, ["not_a_chest_image"]),
        ({"distance": 12.0}, []),
        ({"distance": 12.1}, ["not_a_chest_image"]),
        ({"distance": math.nan}, ["not_a_chest_image"]),
        ({"inverted": 0.51}, ["inverted"]),
        ({"inverted": 0.49}, []),
        ({"inverted": 0.99, "chest": 0.1}, ["not_a_chest_image"]),
        ({"cut_off": 0.71}, ["lungs_cut_off"]),
        ({"cut_off": 0.69}, []),
        ({"saturated": 0.4}, []),
        ({"saturated": 0.41}, ["saturated"]),
        ({"right": 0.91}, ["heart_on_the_right"]),
        ({"right": 0.89}, []),
        ({"cut_off": 0.8, "saturated": 0.5, "right": 0.95}, ["lungs_cut_off", "saturated", "heart_on_the_right"]),
    ],
    ids=str,
)
def test_every_limit_from_both_sides(film: dict[str, float], expected: list[str]) -> None:
    assert codes(judged(**film)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "film", "expected"),
    [
        ("chest", {"chest": 0.5}, []),
        ("chest", {"chest": 0.5, "inverted": 0.9}, ["inverted"]),
        ("chest_without_lungs", {"chest": 0.5, "lungs": lungs_in(0)}, []),
        ("inverted", {"inverted": 0.5}, ["inverted"]),
        ("cut_off", {"cut_off": 0.5}, ["lungs_cut_off"]),
        ("heart_on_the_right", {"right": 0.5}, ["heart_on_the_right"]),
    ],
    ids=str,
)
def test_every_limit_of_a_share_at_itself(name: str, film: dict[str, float], expected: list[str]) -> None:
    """A logit of 0 is a share of exactly a half."""
    assert codes(judged(**film, limit={**LIMIT, name: 0.5})) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("film", "problems"),
    [
        ({"inverted": 0.9}, [Problem("inverted", "reject", "90%", "< 50%")]),
        ({"chest": 0.1}, [Problem("not_a_chest_image", "reject", "10%, Δ 2.0", "≥ 20%, Δ ≤ 12")]),
        (
            {"chest": 0.3, "lungs": lungs_in(0)},
            [Problem("not_a_chest_image", "reject", "30%, Δ 2.0", "≥ 40%, Δ ≤ 12")],
        ),
        (
            {"cut_off": 0.8, "saturated": 0.5, "right": 0.95},
            [
                Problem("lungs_cut_off", "warn", "80%", "< 70%"),
                Problem("saturated", "warn", "50%", "≤ 40%"),
                Problem("heart_on_the_right", "warn", "95%", "< 90%"),
            ],
        ),
    ],
    ids=str,
)
def test_refusals_and_reserves_quote_what_was_found_and_the_limit(
    film: dict[str, float], problems: list[Problem]
) -> None:
    assert judged(**film).problems == problems  # type: ignore[arg-type]


@pytest.mark.parametrize("film", [{}, {"inverted": 0.9}, {"distance": 20.0}], ids=str)
def test_the_likeness_is_told_whatever_is_found(film: dict[str, float]) -> None:
    assert judged(0.75, **film).likeness == pytest.approx(0.75)  # type: ignore[arg-type]


def test_a_bundle_that_does_not_look_for_the_heart() -> None:
    assert judge(LIMIT, 0.0, np.array([4.0, -4.0, -4.0]), 2.0, A_FIFTH_LUNG).problems == []


NO, YES, PERHAPS, SURE = judged(0.1), judged(0.3), judged(0.5), judged(0.9)


@pytest.mark.parametrize(
    ("as_it_lies", "turned", "turns"),
    [
        (YES, (SURE, NO, NO), 0),
        (NO, (SURE, NO, NO), 1),
        (NO, (NO, SURE, NO), 2),
        (NO, (NO, NO, SURE), 3),
        (NO, (judged(0.8), NO, SURE), 3),
        (NO, (SURE, NO, judged(0.8)), 1),
        (NO, (PERHAPS, PERHAPS, PERHAPS), 0),
        (NO, (judged(0.9, distance=20), NO, NO), 0),
    ],
)
def test_a_film_is_turned_only_where_that_is_sure(as_it_lies: Judged, turned: tuple[Judged, ...], turns: int) -> None:
    found, problems = set_upright(LIMIT, as_it_lies, turned)
    assert found == turns
    if turns:
        assert problems == [Problem("turned", "warn", found=f"{90 * turns}°")]
    else:
        assert problems == as_it_lies.problems


def test_a_film_is_turned_at_the_limit_itself() -> None:
    assert set_upright({**LIMIT, "chest_turned": 0.5}, NO, (PERHAPS, NO, NO))[0] == 1


def test_the_problems_of_a_turned_film_are_those_that_it_has_upright() -> None:
    _, problems = set_upright(LIMIT, NO, (NO, judged(0.9, cut_off=0.8), NO))
    assert [p.code for p in problems] == ["turned", "lungs_cut_off"]
    _, problems = set_upright(LIMIT, NO, (judged(0.9, inverted=0.9), NO, NO))
    assert [p.code for p in problems] == ["turned", "inverted"]


def test_a_bundle_without_a_limit_for_turned_films_turns_none() -> None:
    old = {name: value for name, value in LIMIT.items() if name != "chest_turned"}
    assert set_upright(old, NO, (Judged(1.0, []), NO, NO)) == (0, NO.problems)


def test_the_share_of_black_and_white() -> None:
    """Seven rows of a thousand, in a film that is gone through in more than one strip; 1 and 254 are grey."""
    pixels = np.full((1000, 500), 1, dtype=np.uint8)
    pixels[300:] = 254
    pixels[0] = 0
    pixels[-6:] = 255
    assert saturated_share(pixels) == 0.007
