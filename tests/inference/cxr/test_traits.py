"""Numbers of a film: what each of them says, by films that differ in that one thing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference.cxr.traits import finite, of_pixels


def film(side: int = 320) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:side, 0:side] / side
    smooth = 120 + 60 * np.sin(6 * rows) * np.cos(5 * columns)
    noise = np.random.default_rng(0).normal(0, 4, (side, side))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def as_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def test_grey_levels_of_a_known_film() -> None:
    found = of_pixels(np.repeat(np.arange(100, dtype=np.uint8), 100).reshape(100, 100))
    assert (found["dark"], found["grey"], found["bright"]) == pytest.approx((4.95, 49.5, 94.05), abs=0.1)
    assert found["contrast"] == pytest.approx(np.arange(100).std())
    assert found["short_side_px"] == 100


def test_compression_shows_at_the_borders_of_blocks() -> None:
    plain = of_pixels(film())["blocks"]
    assert abs(plain) < 0.05
    assert plain + 0.05 < of_pixels(as_jpeg(film(), 75))["blocks"] < of_pixels(as_jpeg(film(), 30))["blocks"]


def test_less_sharp_films_have_less_detail_whatever_their_contrast() -> None:
    sharp, pale = film(), (60 + film() // 2).astype(np.uint8)
    soft = np.asarray(Image.fromarray(sharp).reduce(2).resize((320, 320)))
    assert of_pixels(soft)["detail"] < of_pixels(sharp)["detail"] - 0.3
    assert of_pixels(pale)["detail"] == pytest.approx(of_pixels(sharp)["detail"], abs=0.1)


@pytest.mark.parametrize("shape", [(320, 320), (321, 325), (1500, 2200), (224, 3000)])
def test_the_blocks_of_any_size_are_found(shape: tuple[int, int]) -> None:
    side = max(shape)
    cut = np.ascontiguousarray(film(side)[: shape[0], : shape[1]])
    assert of_pixels(as_jpeg(cut, 30))["blocks"] > of_pixels(cut)["blocks"] + 0.1


def test_a_film_of_one_grey_has_numbers_too() -> None:
    found = of_pixels(np.full((300, 300), 7, np.uint8))
    assert all(np.isfinite(value) for value in found.values())


def test_what_is_no_number_is_left_out() -> None:
    assert finite({"a": np.array([1.0, 3.0]), "b": np.nan, "c": np.inf, "d": 4}) == {"a": 2.0, "d": 4.0}
