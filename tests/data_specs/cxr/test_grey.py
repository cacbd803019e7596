"""Samples of raster files to grey of 8 bits, worked by hand: depths, signs, luma, transparency, orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from data_specs.cxr.grey import check_size, decoded_bytes, grey, upright
from data_specs.problems import Problem, Refused


def film(*values: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    return np.array([values], dtype=dtype)


def shown(values: NDArray[Any], **stated: Any) -> list[int]:
    found = grey(values, **stated)
    assert found.dtype == np.uint8
    return found.ravel().tolist()


# ---------------------------------------------------------------- size and memory
@pytest.mark.parametrize(("rows", "columns"), [(10_000, 10_000), (224, 5000), (5000, 224)])
def test_sizes_that_a_film_may_have(rows: int, columns: int) -> None:
    check_size(rows, columns)


@pytest.mark.parametrize(
    ("rows", "columns", "problem"),
    [
        (10_000, 10_001, Problem("too_large", "reject", "10001 × 10000 px", "100 Mpx")),
        (223, 5000, Problem("too_small", "reject", "5000 × 223 px", "224 px")),
        (5000, 223, Problem("too_small", "reject", "223 × 5000 px", "224 px")),
    ],
)
def test_sizes_that_a_film_may_not_have(rows: int, columns: int, problem: Problem) -> None:
    with pytest.raises(Refused) as refused:
        check_size(rows, columns)
    assert refused.value.problem == problem


@pytest.mark.parametrize(
    ("samples", "sample_bytes", "per_pixel"),
    [(1, 1, 1 + 1), (1, 2, 2 + 1), (2, 1, 2 + 1), (3, 1, 3 + 1 + 1), (3, 2, 6 + 2 + 1), (4, 2, 8 + 2 + 1)],
)
def test_memory_is_the_samples_the_luma_of_colour_and_the_film(samples: int, sample_bytes: int, per_pixel: int) -> None:
    assert decoded_bytes(20, 30, samples, sample_bytes) == 600 * per_pixel


# ---------------------------------------------------------------- depths
@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float16, bool])
def test_only_integers_of_8_and_16_bits_are_samples(dtype: DTypeLike) -> None:
    with pytest.raises(Refused) as refused:
        grey(film(0, 1, dtype=dtype))
    expected = Problem("unsupported_format", "reject", str(np.dtype(dtype)), "uint8, uint16")
    assert refused.value.problem == expected


def test_8_bits_stay_as_they_are() -> None:
    assert shown(film(0, 1, 127, 254, 255)) == [0, 1, 127, 254, 255]
    assert shown(film(7, 9)) == [7, 9], "8 bits are not stretched"


@pytest.mark.parametrize(
    ("bits", "values", "levels"),
    [
        (2, (0, 1, 2, 3), [0, 85, 170, 255]),
        (4, (0, 1, 7, 15), [0, 17, 119, 255]),
        (7, (0, 1, 64, 127), [0, 2, 129, 255]),
    ],
)
def test_fewer_bits_use_the_whole_range(bits: int, values: tuple[int, ...], levels: list[int]) -> None:
    """A level is 255 / (2^bits - 1)."""
    assert shown(film(*values), bits=bits) == levels
    assert shown(film(2**bits, 255), bits=bits) == [255, 255], "what has more bits than stated is white"


@pytest.mark.parametrize("widened", [257, 256])
def test_bytes_that_were_widened_to_16_bits_are_bytes_again(widened: int) -> None:
    assert shown(film(*(widened * value for value in (3, 100, 251)), dtype=np.uint16)) == [3, 100, 251]


def test_one_value_between_them_and_they_are_no_bytes() -> None:
    """Of four values the lowest and the highest are black and white."""
    assert shown(film(0, 256, 512, 769, dtype=np.uint16)) == [0, 85, 170, 255]


def test_a_large_film_is_no_widened_bytes_where_a_part_of_it_is() -> None:
    """Of its two strips of 512 rows, the first has multiples of 256 alone."""
    values = np.repeat(np.array([256, 512, 257, 513], np.uint16), 256)[:, None].repeat(512, axis=1)
    assert grey(values)[::256, 0].tolist() == [0, 254, 1, 255]


def test_values_of_12_bits_are_no_widened_bytes() -> None:
    assert shown(film(0, 256, 512, 768, dtype=np.uint16), bits=12) == [0, 85, 170, 255]
    assert shown(film(-512, -256, 0, 256, dtype=np.int16)) == [0, 85, 170, 255], "and a sign is none of a byte"


@pytest.mark.parametrize(("dtype", "first"), [(np.uint16, 3), (np.int16, -5003)])
def test_more_bits_are_shown_between_two_percentiles(dtype: DTypeLike, first: int) -> None:
    """Of 1,001 values in steps of ten, five at each end are beyond black and white, and 990 steps lie between."""
    values = (first + 10 * np.arange(1001)).astype(dtype).reshape(7, 143)
    levels = dict(enumerate(shown(values)))
    assert [levels[n] for n in (0, 5, 5 + 198, 5 + 396, 995 - 198, 995, 1000)] == [0, 0, 51, 102, 204, 255, 255]
    assert levels[5 + 2] == 1, "two of 990 are half a level of 255, and more"
    assert levels[995 - 2] == 254


def test_signed_bytes() -> None:
    """A level is 255 / 199 of the values from -100 to 99."""
    assert shown(film(-100, -1, 0, 99, dtype=np.int8)) == [0, 127, 128, 255]


def test_where_the_percentiles_are_one_value_the_whole_range_is_shown() -> None:
    values = np.full((20, 20), 700, np.uint16)
    values[0, 0], values[0, 1] = 600, 1100
    assert shown(values)[:3] == [0, 255, 51]
    assert set(shown(np.full((20, 20), 700, np.uint16))) == {0}


# ---------------------------------------------------------------- colour and transparency
def pixel(*samples: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    return np.array([[samples]], dtype=dtype)


@pytest.mark.parametrize(
    ("samples", "stated", "level"),
    [
        ((40,), {}, 40),
        ((40, 255), {}, 40),
        ((10, 20, 30), {}, 18),  # 0.299 · 10 + 0.587 · 20 + 0.114 · 30 = 18.15 (ITU-R BT.601)
        ((10, 20, 30, 255), {}, 18),
        ((10, 20, 30), {"ybr": True}, 10),
        ((10, 20, 30, 128), {"ybr": True}, 10),
    ],
)
def test_colour_is_shown_as_its_luma(samples: tuple[int, ...], stated: dict[str, Any], level: int) -> None:
    assert shown(pixel(*samples), **stated) == [level]


def seen(grey_levels: tuple[int, ...], alpha: tuple[int, ...], dtype: DTypeLike = np.uint8, **stated: Any) -> list[int]:
    return shown(np.dstack([film(*grey_levels, dtype=dtype), film(*alpha, dtype=dtype)]), **stated)


def test_what_is_transparent_is_black() -> None:
    """The level times its opacity: 200 · 128 / 255 = 100.4, 200 · 254 / 255 = 199.2."""
    assert seen((200, 200, 200, 200), (0, 128, 254, 255)) == [0, 100, 199, 200]
    assert seen((200, 200), (254, 254)) == [199, 199]
    assert seen((200, 200), (0, 1)) == [0, 1]
    wide = [257 * value for value in (200, 200, 100)]
    assert seen((wide[0], wide[1], wide[2]), (0, 32768, 65535), np.uint16) == [0, 100, 100]
    assert seen((3, 3, 3), (0, 2, 3), bits=2) == [0, 170, 255]
    colour = np.array([[(10, 20, 30, 0), (10, 20, 30, 255)]], np.uint8)
    assert shown(colour) == [0, 18]


def test_a_film_that_is_transparent_everywhere_is_shown() -> None:
    assert seen((200, 100), (0, 0)) == [200, 100]


def test_an_opaque_film_is_not_copied() -> None:
    values = np.dstack([film(200, 100), film(255, 255)])
    assert np.shares_memory(grey(values), values)


# ---------------------------------------------------------------- orientation
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (0, [[1, 2, 3], [4, 5, 6]]),
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (5, [[1, 4], [2, 5], [3, 6]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (7, [[6, 3], [5, 2], [4, 1]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
        (9, [[1, 2, 3], [4, 5, 6]]),
    ],
)
def test_where_the_first_row_and_column_are_shown(orientation: int, expected: list[list[int]]) -> None:
    """TIFF 6.0 section 8: 5 is left and top, 6 right and top, 7 right and bottom, 8 left and bottom."""
    assert upright(np.array([[1, 2, 3], [4, 5, 6]], np.uint8), orientation).tolist() == expected
