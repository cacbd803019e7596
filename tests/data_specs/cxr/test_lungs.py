"""A film cut to its lung fields and equalised, and a map of that part placed on the whole film."""

from __future__ import annotations

import numpy as np
import pytest

from data_specs.cxr.lungs import WHOLE, Window, cut_to, equalised, placed, window_of


def fields(top: int, bottom: int, left: int, right: int, side: int = 64) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_window_is_the_lung_fields_and_a_margin() -> None:
    """Rows 16 to 47 and columns 8 to 55 of 64, from middle to middle; 6 % more at three sides, 9 % below."""
    height, width = 31 / 64, 47 / 64
    middle = 32 / 64
    assert window_of(fields(16, 48, 8, 56)) == pytest.approx(
        (middle - 0.56 * height, middle + 0.59 * height, middle - 0.56 * width, middle + 0.56 * width)
    )


def test_single_pixels_beside_the_fields_do_not_count() -> None:
    mask = fields(16, 48, 8, 56)
    mask[0, 0] = mask[63, 63] = True
    assert window_of(mask) == pytest.approx(window_of(fields(16, 48, 8, 56)), abs=0.01)


def test_the_window_stays_on_the_film() -> None:
    assert window_of(fields(0, 64, 0, 64)) == WHOLE


@pytest.mark.parametrize(("rows", "whole"), [(5, True), (6, False)])
def test_with_hardly_any_lung_the_whole_film_is_taken(rows: int, whole: bool) -> None:
    """5 x 64 of 4,096 pixels are 7.8 %, 6 x 64 are 9.4 %."""
    assert (window_of(fields(20, 20 + rows, 0, 64)) == WHOLE) is whole


def test_what_lies_outside_the_window_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    film = rng.integers(0, 256, (336, 336), dtype=np.uint8)
    other = np.where(np.pad(np.ones((168, 168), bool), 84), film, 255 - film).astype(np.uint8)
    window = Window(0.3, 0.7, 0.3, 0.7)
    assert np.array_equal(cut_to(film, window, 224), cut_to(other, window, 224))
    assert cut_to(film, window, 224).shape == (224, 224)


def test_how_a_film_is_exposed_changes_hardly_anything() -> None:
    rows, columns = np.mgrid[0:336, 0:336]
    film = (120 + 60 * np.sin(rows / 40) + 50 * np.cos(columns / 30)).astype(np.uint8)
    darker = (255 * (film / 255) ** 1.8).astype(np.uint8)
    softer = (60 + film // 2).astype(np.uint8)
    for other in (darker, softer):
        difference = cut_to(film, WHOLE, 224).astype(int) - cut_to(other, WHOLE, 224)
        assert np.abs(difference).mean() < 3
    assert np.abs(film.astype(int) - darker).mean() > 20


def test_equalised_values_are_the_share_of_pixels_up_to_them() -> None:
    film = np.array([[10, 10], [20, 200]], dtype=np.uint8)
    assert equalised(film).tolist() == [[127, 127], [191, 255]]
    assert equalised(np.full((4, 4), 7, dtype=np.uint8)).tolist() == [[255] * 4] * 4


def test_a_map_lies_where_its_window_does() -> None:
    whole = placed(np.ones((7, 7)), Window(0.25, 0.75, 0.0, 0.5), 28)
    assert whole.shape == (28, 28)
    assert whole[7:21, 0:14].tolist() == [[1.0] * 14] * 14
    assert whole.sum() == 14 * 14
    corner = placed(np.array([[0.0, 0.0], [0.0, 4.0]]), WHOLE, 4)
    assert np.unravel_index(corner.argmax(), corner.shape) == (3, 3)
