"""Real films at the shipped gate: laterals are refused and frontal films accepted, however they lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_specs.cxr.files import read_image
from data_specs.cxr.image import MIN_SHORT_SIDE_PX, conform
from inference.bundles.loading import load_in_service
from inference.bundles.registry import read_registry
from inference.cxr.gate import Judged, judge, set_upright
from inference.runtime.session import Machine


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
