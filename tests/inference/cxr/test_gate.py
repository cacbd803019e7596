"""Which pictures the gate takes for a frontal chest film, how it sets them upright, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_specs.cxr.files import read_image
from data_specs.cxr.image import MIN_SHORT_SIDE_PX, conform
from data_specs.problems import Problem
from inference.bundles.loading import load_in_service
from inference.bundles.registry import read_registry
from inference.cxr.gate import Judged, judge, saturated_share, set_upright
from inference.runtime.session import Machine

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
LUNGS = np.where(np.arange(100).reshape(10, 10) < 20, 5.0, -5.0)
"""A fifth of the picture is lung."""


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def judged(
    chest: float = 0.99,
    inverted: float = 0.01,
    cut_off: float = 0.01,
    right: float = 0.01,
    *,
    saturated: float = 0.0,
    distance: float = 2.0,
    lungs: NDArray[np.float64] = LUNGS,
) -> Judged:
    logits = np.array([logit(share) for share in (chest, inverted, cut_off, right)])
    return judge(LIMIT, saturated, logits, distance, lungs)


def codes(found: Judged) -> list[str]:
    return [problem.code for problem in found.problems]


@pytest.mark.parametrize(
    ("film", "expected"),
    [
        ({}, []),
        ({"chest": 0.201}, []),
        ({"chest": 0.199}, ["not_a_chest_image"]),
        ({"chest": 0.39, "lungs": -np.ones((10, 10))}, ["not_a_chest_image"]),
        ({"chest": 0.41, "lungs": -np.ones((10, 10))}, []),
        ({"distance": 12.0}, []),
        ({"distance": 12.1}, ["not_a_chest_image"]),
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


def test_refusals_and_reserves() -> None:
    severity = {p.code: p.severity for each in ({"chest": 0.1}, {"inverted": 0.9}) for p in judged(**each).problems}
    severity |= {p.code: p.severity for p in judged(cut_off=0.8, saturated=0.5, right=0.95).problems}
    assert severity == {
        "not_a_chest_image": "reject",
        "inverted": "reject",
        "lungs_cut_off": "warn",
        "saturated": "warn",
        "heart_on_the_right": "warn",
    }


def test_a_bundle_that_does_not_look_for_the_heart() -> None:
    assert judge(LIMIT, 0.0, np.array([4.0, -4.0, -4.0]), 2.0, LUNGS).problems == []


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


def test_the_problems_of_a_turned_film_are_those_that_it_has_upright() -> None:
    _, problems = set_upright(LIMIT, NO, (NO, judged(0.9, cut_off=0.8), NO))
    assert [p.code for p in problems] == ["turned", "lungs_cut_off"]
    _, problems = set_upright(LIMIT, NO, (judged(0.9, inverted=0.9), NO, NO))
    assert [p.code for p in problems] == ["turned", "inverted"]


def test_a_bundle_without_a_limit_for_turned_films_turns_none() -> None:
    old = {name: value for name, value in LIMIT.items() if name != "chest_turned"}
    assert set_upright(old, NO, (judged(1 - 1e-12), NO, NO)) == (0, NO.problems)


def test_the_share_of_black_and_white() -> None:
    pixels = np.full((300, 10), 128, dtype=np.uint8)
    pixels[0] = 0
    pixels[-2:] = 255
    assert saturated_share(pixels) == pytest.approx(0.01)


class Gate:
    """The shipped gate over many films at once."""

    def __init__(self) -> None:
        bundles = Path(__file__).parents[3] / "models/bundles"
        self.bundle = load_in_service(read_registry(bundles), "cxr_gate", Machine("cpu", 1))

    def __call__(self, films: NDArray[np.uint8]) -> Iterator[list[set[str]]]:
        """Codes of each of ``(n, 1, side, side)``: as they lie, and turned by one, two and three quarters."""
        limit = self.bundle.manifest.thresholds
        of_turns = [self._judged(np.ascontiguousarray(np.rot90(films, turns, axes=(2, 3)))) for turns in range(4)]
        for lying in range(4):
            first, *others = of_turns[lying:] + of_turns[:lying]
            set_up = (set_upright(limit, each, turned) for each, *turned in zip(first, *others, strict=True))
            yield [{p.code for p in problems} for _, problems in set_up]

    def _judged(self, films: NDArray[np.uint8]) -> list[Judged]:
        logits, distance, lungs = (np.asarray(output, dtype=np.float64) for output in self.bundle.session.run(films))
        limit = self.bundle.manifest.thresholds
        return [judge(limit, 0.0, *film) for film in zip(logits, distance[:, 0], lungs[:, 0], strict=True)]

    def films(self, paths: list[Path]) -> NDArray[np.uint8]:
        return np.stack([conform(read_image(path.read_bytes()).pixels, 64) for path in paths])


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


def large_enough(path: Path) -> bool:
    with Image.open(path) as film:
        return min(film.size) >= MIN_SHORT_SIDE_PX


def test_lateral_films_are_refused_however_they_lie(gate: Gate, shared_data: Path) -> None:
    paths = [path for path in sorted((shared_data / "cxr/lateral").glob("*.jpg")) if large_enough(path)]
    if not paths:
        pytest.skip("cxr/lateral not found: real lateral films are not tried")
    films = gate.films(paths)
    for found in (*gate(films), *gate(films[..., ::-1])):
        accepted = ["not_a_chest_image" not in codes for codes in found]
        assert sum(accepted) <= 0.02 * len(accepted), np.flatnonzero(accepted)


@pytest.mark.parametrize("folder", ["nih/images", "nih_more/images", "kermany/test/*", "tb/images"])
def test_frontal_films_are_accepted_however_they_lie(gate: Gate, shared_data: Path, folder: str) -> None:
    paths = sorted((shared_data / "cxr").glob(f"{folder}/*.*"))[::6]
    if not paths:
        pytest.skip(f"cxr/{folder} not found: its films are not tried")
    films = gate.films(paths)
    for found in (*gate(films), *gate(films[..., ::-1])):
        refused = ["not_a_chest_image" in codes for codes in found]
        assert sum(refused) <= max(1, 0.005 * len(refused)), np.flatnonzero(refused)


def test_the_heart_on_the_right_is_noticed_and_seldom_said_without_reason(gate: Gate, shared_data: Path) -> None:
    paths = sorted((shared_data / "cxr/tb/images").glob("*.*"))[::2]
    if not paths:
        pytest.skip("cxr/tb not found: the side of the heart is not looked for in real films")
    films = gate.films(paths)
    as_they_are, mirrored = next(gate(films)), next(gate(films[..., ::-1]))
    assert np.mean(["heart_on_the_right" in codes for codes in as_they_are]) <= 0.02
    assert np.mean(["heart_on_the_right" in codes for codes in mirrored]) >= 0.8
