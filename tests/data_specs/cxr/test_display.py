"""From stored values to grey levels, step by step, against the formulas and the examples of the standard."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.cxr.display import _codes, displayed, looked_up, luma, luma_plane, window
from data_specs.cxr.image import strips
from data_specs.cxr.pixels import Frame, Stored
from data_specs.dicom.header import Header
from data_specs.problems import Problem, Refused

EXPLICIT = "1.2.840.10008.1.2.1"


def made(
    values: Any,
    *,
    bits: int = 12,
    high_bit: int | None = None,
    signed: bool = False,
    photometric: str = "MONOCHROME2",
    samples: int = 1,
    precision: int | None = None,
    exact: bool = True,
    signed_by_codec: bool | None = None,
) -> tuple[Frame, Stored]:
    """A film of one row, or as it is given."""
    array = np.asarray(values)
    array = array if array.dtype.kind == "u" else array.astype(np.uint8 if bits <= 8 else np.uint16)
    array = array if array.ndim > 1 else array[None]
    frame = Frame(
        rows=array.shape[0], columns=array.shape[1], samples=samples, bits_allocated=8 * array.dtype.itemsize,
        bits_stored=bits, high_bit=bits - 1 if high_bit is None else high_bit, signed=signed, photometric=photometric,
        planar=False,
    )  # fmt: skip
    signed = signed if signed_by_codec is None else signed_by_codec
    return frame, Stored(array, precision or 8 * array.dtype.itemsize, signed, exact)


LAYOUT = ("bits", "high_bit", "signed", "photometric", "samples", "precision", "exact", "signed_by_codec")


def shown(values: Any, **given: Any) -> tuple[NDArray[np.uint8], tuple[Problem, ...]]:
    """A film through the whole pipeline; ``given``: its layout, and elements of its header by keyword."""
    frame, stored = made(values, **{name: given.pop(name) for name in LAYOUT if name in given})
    pixels, problems = displayed(Header(EXPLICIT, given, True, None), frame, stored)
    assert (pixels.dtype, pixels.shape) == (np.uint8, stored.values.shape[:2])
    return pixels, problems


def grey(values: Any, **given: Any) -> list[Any]:
    """Grey levels of a film whose window is used."""
    pixels, problems = shown(values, **given)
    assert problems == ()
    return pixels[0].tolist() if len(pixels) == 1 else pixels.tolist()


def refused(*args: Any, **given: Any) -> Problem:
    with pytest.raises(Refused) as raised:
        shown(*args, **given)
    return raised.value.problem


def codes(patterns: list[int], beside: int = 0, **given: Any) -> list[int]:
    """The numbers that stored patterns mean, in a film that has ``beside`` too."""
    frame, stored = made([*patterns, beside], **given)
    return _codes(frame, stored)[patterns].tolist()


def through_modality(pattern: int, **header: Any) -> float:
    """The number of a pattern behind the Modality LUT: a film of one value is white where a window is below it."""
    low, high = -65536.0, 65536.0
    while high - low > 1:
        middle = math.floor((low + high) / 2)
        pixels, _ = shown([pattern] * 4, WindowCenter=middle + 1.0, WindowWidth=1.0, **header)
        low, high = (middle, high) if pixels[0, 0] else (low, middle)
    return high


# ---------------------------------------------------------------- what is read
def test_photometric_interpretations_that_are_not_read() -> None:
    for photometric, samples in (("RGB", 1), ("HSV", 3), ("MONOCHROME2", 3), ("PALETTE COLOR", 3), ("YBR_FULL", 1)):
        values = np.zeros((2, 2) if samples == 1 else (2, 2, 3), np.uint8)
        assert refused(values, bits=8, photometric=photometric, samples=samples) == Problem(
            "unreadable", "reject", f"PhotometricInterpretation {photometric}", "MONOCHROME1, MONOCHROME2"
        )
    assert refused([1, 2], photometric="").found == "PhotometricInterpretation —"


@pytest.mark.parametrize(("columns", "rows_at_once"), [(2**16, 4), (2**17, 2), (2**17 + 1, 1), (2**18, 1), (2**19, 1)])
def test_a_film_is_gone_through_in_strips(columns: int, rows_at_once: int) -> None:
    film = np.broadcast_to(np.uint8(0), (5, columns))
    assert [film[rows].shape[0] for rows in strips(film)] == ([rows_at_once] * 5)[: 5 // rows_at_once] + (
        [5 % rows_at_once] if 5 % rows_at_once else []
    )


def test_each_value_is_looked_up_and_one_beyond_the_table_is_the_last() -> None:
    table = np.array([7, 5, 3], np.uint16)
    found = looked_up(table, np.array([[0, 1], [2, 9]], np.uint8))
    assert (found.dtype, found.tolist()) == (np.uint16, [[7, 5], [3, 3]])
    wide = np.zeros((2, 2**18), np.uint8)
    wide[1, -1] = 2
    assert looked_up(table, wide)[1, -1] == 3


# ---------------------------------------------------------------- colour
def test_luma_is_that_of_bt_601() -> None:
    assert [float(luma(*plane)) for plane in np.eye(3)] == [0.299, 0.587, 0.114]
    assert float(luma(100, 200, 50)) == pytest.approx(153.0)


def test_a_grey_film_in_colour_stays_bit_for_bit_and_a_coloured_one_is_its_luma() -> None:
    same = np.repeat(np.array([[[200], [7]]], np.uint16), 3, axis=2)
    assert luma_plane(same).tolist() == [[200, 7]]
    for change, level in (((0, 0, 9), 1), ((0, 3, 0), 2), ((5, 0, 0), 1)):
        coloured = luma_plane(np.array([[change, (9, 9, 9)]], np.uint8))
        assert (coloured.dtype, coloured.tolist()) == (np.uint8, [[level, 9]])
    assert luma_plane(np.array([[(10, 20, 30)]], np.uint8)).tolist() == [[18]]
    assert luma_plane(np.array([[(10, 20, 30, 99)]], np.uint8)).tolist() == [[18]]
    wide = np.zeros((2, 2**18, 3), np.uint8)
    wide[1, -1] = (0, 0, 255)
    assert luma_plane(wide)[1, -1] == 29


@pytest.mark.parametrize(
    ("photometric", "level"),
    [
        ("RGB", 18),
        ("YBR_ICT", 18),
        ("YBR_RCT", 18),
        ("YBR_FULL", 10),
        ("YBR_FULL_422", 10),
        ("YBR_PARTIAL_420", 10),
        ("YBR_PARTIAL_422", 10),
    ],
)
def test_colour_is_its_luma_and_that_stands_first_in_ybr(photometric: str, level: int) -> None:
    """JPEG 2000 decoders give red, green and blue for ICT and RCT."""
    colour = np.array([[(10, 20, 30), (10, 20, 30)]], np.uint8)
    pixels, problems = shown(colour, bits=8, photometric=photometric, samples=3, WindowCenter=1, WindowWidth=1)
    assert (pixels.tolist(), problems) == ([[level, level]], ()), "a window does not apply to colour"
    assert pixels.flags.c_contiguous
    alone = np.array([[10, 20]], np.uint8)  # where the decoder gave the luma plane alone
    assert grey(alone, bits=8, photometric=photometric, samples=3) == [10, 20]


def test_colour_of_more_or_fewer_bits_is_scaled_to_eight() -> None:
    deep = np.repeat(np.array([[[0], [2048], [3000], [4095], [5000]]], np.uint16), 3, axis=2)
    assert grey(deep, bits=12, photometric="RGB", samples=3) == [0, 128, 187, 255, 255]
    assert grey(16 * deep, bits=16, photometric="RGB", samples=3)[:4] == [0, 128, 187, 255]
    flat = np.repeat(np.array([[[0], [64], [127]]], np.uint8), 3, axis=2)
    assert grey(flat, bits=7, photometric="RGB", samples=3) == [0, 129, 255]
    odd = np.repeat(np.array([[[0], [64], [255]]], np.uint16), 3, axis=2)
    assert grey(odd, bits=8, photometric="RGB", samples=3) == [0, 64, 255]


def palette(**changed: Any) -> dict[str, Any]:
    tables = {}
    for colour, scale in (("Red", 257), ("Green", 128), ("Blue", 64)):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = (256, 0, 16)
        tables[f"{colour}PaletteColorLookupTableData"] = (np.arange(256) * scale).astype("<u2").tobytes()
    return {key: value for key, value in (tables | changed).items() if value is not None}


def test_palette_colour_is_the_luma_of_its_tables() -> None:
    # Green uses half of its depth, blue a quarter: a depth of which a table uses less is replaced by that of its data.
    red, green, blue = 257 / 65535, 128 / 65535, 64 / 16383
    levels = [round(255 * i * (0.299 * red + 0.587 * green + 0.114 * blue)) for i in (0, 100, 255)]
    assert grey([0, 100, 255], bits=8, photometric="PALETTE COLOR", **palette()) == levels


@pytest.mark.parametrize("colour", ["Red", "Green", "Blue"])
@pytest.mark.parametrize("part", ["Descriptor", "Data"])
def test_a_palette_that_lacks_a_table_is_refused(colour: str, part: str) -> None:
    without = palette(**{f"{colour}PaletteColorLookupTable{part}": None})
    assert refused([0, 1], bits=8, photometric="PALETTE COLOR", **without) == Problem(
        "unreadable", "reject", f"{colour}PaletteColorLookupTable —", "PS3.3 C.7.6.3.1.5"
    )


# ---------------------------------------------------------------- stored values
@pytest.mark.parametrize("bits", [8, 9, 12, 15, 16])
def test_the_sign_is_at_the_highest_bit_of_the_value(bits: int) -> None:
    top = 2 ** (bits - 1)
    patterns, meant = [0, 1, top - 1, top, 2 * top - 1], [0, 1, top - 1, -top, -1]
    assert codes(patterns, bits=bits, signed=True) == meant
    assert codes(patterns, bits=bits) == patterns
    if 8 < bits < 16:  # unused bits above the value are left out
        assert codes([2 * top + 1, 2**15 + top], bits=bits, signed=True) == [1, -top]


def test_bits_below_the_value_are_left_out() -> None:
    assert codes([0x0010, 0x7FF0, 0x8000, 0xFFF7], bits=12, high_bit=15, signed=True) == [1, 2047, -2048, -1]
    assert codes([0x0010, 0x8000, 0xFFF7], bits=12, high_bit=15) == [1, 2048, 4095]
    assert codes([0x7FF7], bits=12, high_bit=14) == [4094]
    # A codec that gives the value alone has none below.
    assert codes([1, 0x7FF, 0x800, 0xFFF], bits=12, high_bit=15, precision=12, signed=True) == [1, 2047, -2048, -1]
    assert codes([1, 0x7FF, 0xFFF], bits=12, high_bit=12, precision=12) == [1, 0x7FF, 0xFFF]


def test_a_codec_of_fewer_bits_has_its_sign_at_its_own_highest() -> None:
    assert codes([1, 511, 512, 1023], bits=12, precision=10, signed=True) == [1, 511, -512, -1]


def test_values_of_a_lossy_codec_are_clipped_not_wrapped() -> None:
    lossy = {"exact": False, "signed_by_codec": False}
    assert codes([0, 1023, 1024, 4095], bits=10, precision=12, **lossy) == [0, 1023, 1023, 1023]
    # The processes of JPEG know no sign, whatever the header says.
    assert codes([0, 700, 1024], bits=10, precision=12, signed=True, **lossy) == [0, 700, 1023]


def test_the_sign_of_a_lossy_codec_is_that_of_the_cell_where_a_pattern_shows_it() -> None:
    lossy = {"exact": False, "signed": True, "bits": 12, "precision": 16}
    # -1, -3000 and 3000 in 16 bits; the last two are out of range and clipped.
    assert codes([0xFFFF, 0x10000 - 3000, 3000, 100], **lossy) == [-1, -2048, 2047, 100]
    # No pattern has the highest bit of the cell: the sign is at that of the value.
    assert codes([0x0FFF, 0x0800, 0x07FF, 5], **lossy) == [-1, -2048, 2047, 5]
    assert codes([0x7FFF], **lossy) == [-1], "masked to the value"
    assert codes([0x8000, 0x0FFF], **lossy) == [-2048, 2047], "the highest bit of the cell is the sign"
    # Bits below the value: the sign is still at the highest bit of the cell.
    assert codes([0xFFF0, 0x8000, 0x7FF0, 0x0010], **lossy, high_bit=15) == [-1, -2048, 2047, 1]
    # A codec with a sign of its own, of a film that has none.
    own = {"exact": False, "bits": 12, "precision": 16, "signed_by_codec": True}
    assert codes([0xFFFF, 5, 5000], **own) == [0, 5, 4095]


# ---------------------------------------------------------------- padding
FULL = {"WindowCenter": 2048, "WindowWidth": 4096}


@pytest.mark.parametrize(
    ("padding", "black"),
    [
        ({}, []),
        ({"PixelPaddingValue": 2000}, [2000]),
        ({"PixelPaddingValue": 1000, "PixelPaddingRangeLimit": 2000}, [1000, 1500, 2000]),
        ({"PixelPaddingValue": 2000, "PixelPaddingRangeLimit": 1000}, [1000, 1500, 2000]),
        ({"PixelPaddingRangeLimit": 2000}, []),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_in_every_polarity(padding: dict[str, int], black: list[int], photometric: str) -> None:
    values = [999, 1000, 1500, 2000, 2001]
    level = {v: round(v * 255 / 4095) for v in values}
    if photometric == "MONOCHROME1":
        level = {v: round((1 - v / 4095) * 255) for v in values}
    found = grey(values, photometric=photometric, **FULL, **padding)
    assert found == [0 if v in black else level[v] for v in values]


@pytest.mark.parametrize(
    ("stated", "pattern"),
    [(0x8000, 0x8000), (-32768, 0x8000), (0xFFFF, 0xFFFF), (-1, 0xFFFF), (0x7FFF, 0x7FFF), (0x10005, 5)],
)
def test_padding_has_the_sign_of_the_pixels_however_it_is_written(stated: int, pattern: int) -> None:
    """In implicit VR a value of -1 is written as 65535, and read so."""
    values = [0x8000, 0x8001, 0xFFFF, 0x7FFF, 5, 0]
    whole = {"WindowCenter": 0, "WindowWidth": 131072}
    found, _ = shown(values, bits=16, signed=True, PixelPaddingValue=stated, **whole)
    assert [v for v, level in zip(values, found[0], strict=True) if level == 0] == [pattern]
    unsigned, _ = shown(values, bits=16, PixelPaddingValue=stated, WindowCenter=-32768, WindowWidth=262144)
    assert [v for v, level in zip(values, unsigned[0], strict=True) if level == 0] == [pattern]


# ---------------------------------------------------------------- Modality LUT
def lut(first: int, entries: Any, bits: int = 16, count: int | None = None) -> tuple[dict[str, Any], ...]:
    data = np.asarray(entries)
    n = data.size if count is None else count
    return ({"LUTDescriptor": (n, first, bits), "LUTData": data.astype("<u2").tobytes()},)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 1000),
        ({"RescaleSlope": 2.0}, 2000),
        ({"RescaleIntercept": 24.0}, 1024),
        ({"RescaleSlope": 0.5, "RescaleIntercept": -100.0}, 400),
        ({"RescaleSlope": -1.0, "RescaleIntercept": 4095.0}, 3095),
        ({"ModalityLUTSequence": lut(0, 3 * np.arange(4096)), "RescaleSlope": 9.0}, 3000),
        ({"ModalityLUTSequence": lut(500, np.arange(1000) + 7)}, 507),
    ],
)
def test_a_stored_value_through_the_modality_lut(given: dict[str, Any], expected: float) -> None:
    assert through_modality(1000, **given) == expected


def test_the_entries_of_a_modality_lut_one_by_one() -> None:
    """The first value is written without a sign; a film with negative values has it in two's complement."""
    table = np.arange(3000) + 7
    signed = {"bits": 16, "signed": True}
    for first, pattern in ((0xFC18, -1000), (0x8000, -32768), (0x7FFF, 32767), (0xFFFF, -1)):
        assert through_modality(pattern & 0xFFFF, ModalityLUTSequence=lut(first, table), **signed) == 7
        if pattern < 32767:
            assert through_modality((pattern + 1) & 0xFFFF, ModalityLUTSequence=lut(first, table), **signed) == 8
    assert through_modality(0x8001, bits=16, ModalityLUTSequence=lut(0x8000, table)) == 8
    whole = lut(0, np.arange(65536), count=0)
    assert through_modality(65535, bits=16, ModalityLUTSequence=whole) == 65535


def test_a_modality_lut_that_is_none_is_refused() -> None:
    broken = lut(0, np.arange(10), count=4096)
    assert refused([1, 2], ModalityLUTSequence=broken) == Problem(
        "unreadable", "reject", "ModalityLUTSequence", "PS3.3 C.11.1.1"
    )
    assert refused([1, 2], RescaleSlope=0.0) == Problem("unreadable", "reject", "RescaleSlope 0", "RescaleSlope 0.5")


# ---------------------------------------------------------------- VOI
@pytest.mark.parametrize(
    ("center", "width", "function", "expected"),
    [
        # PS3.3 C.11.2.1.2.1, the four examples: at and beside the ends of the window.
        (2048, 4096, "LINEAR", {0: 0, 1: 1 / 4095, 2048: 2048 / 4095, 4095: 1, 4096: 1}),
        (2048, 1, "LINEAR", {2047: 0, 2047.5: 0, 2048: 1}),
        (0, 100, "LINEAR", {-50: 0, -49: 1 / 99, 49: 1, 50: 1}),
        (0, 1, "LINEAR", {-1: 0, -0.5: 0, 0: 1}),
        (100, 2, "LINEAR", {98: 0, 99: 0, 99.5: 0.5, 100: 1, 101: 1}),
        (100, 1.5, "LINEAR", {99.25: 0, 99.5: 0.5, 99.75: 1}),
        # C.11.2.1.3.2: the ends lie at half a width.
        (2048, 4096, "LINEAR_EXACT", {0: 0, 1: 1 / 4096, 2048: 0.5, 4096: 1, 5000: 1}),
        (0, 100, "LINEAR_EXACT", {-60: 0, -50: 0, 0: 0.5, 50: 1, 60: 1}),
        (0, 1, "LINEAR_EXACT", {-0.5: 0, 0: 0.5, 0.5: 1}),
        (0, 0.5, "LINEAR_EXACT", {-0.25: 0, 0: 0.5, 0.125: 0.75}),
        # C.11.2.1.3.1
        (100, 50, "SIGMOID", {100: 0.5, 125: 1 / (1 + math.exp(-2)), 50: 1 / (1 + math.exp(4)), 1e6: 1, -1e6: 0}),
        (0, 0.5, "SIGMOID", {0: 0.5, 0.25: 1 / (1 + math.exp(-2))}),
        # Anything else is LINEAR.
        (0, 100, "", {-50: 0, -49: 1 / 99, 49: 1}),
        (0, 100, "CURVE", {-49: 1 / 99}),
        # No width that the function allows: nothing is shown.
        (0, 0, "LINEAR", {-1: 0, 0: 0, 1: 0}),
        (0, -5, "SIGMOID", {-1: 0, 0: 0, 1: 0}),
        (0, 0, "LINEAR_EXACT", {-1: 0, 0: 0, 1: 0}),
        (0, 0.99, "LINEAR", {-1: 0, 0: 0, 1: 0}),
    ],
)
def test_a_window_at_its_ends(center: float, width: float, function: str, expected: dict[float, float]) -> None:
    found = window(np.array(list(expected), dtype=float), center, width, function)
    assert found.tolist() == pytest.approx(list(expected.values()), abs=1e-12)


def test_a_film_through_its_window_rounds_to_the_nearest_grey() -> None:
    values = [0, 100, 1023, 2047, 2048, 4095]
    assert grey(values, **FULL) == [round(v * 255 / 4095) for v in values]
    exact = grey(values, VOILUTFunction="linear_exact", **FULL)
    assert exact == [round(v * 255 / 4096) for v in values]
    assert grey(values, photometric="MONOCHROME1", **FULL) == [round((1 - v / 4095) * 255) for v in values]


def test_a_voi_lut_comes_before_a_window_and_its_ends_go_on() -> None:
    curve = np.round((np.arange(2000) / 1999) ** 2 * 65535)
    found = grey([0, 500, 1000, 2499, 3000], VOILUTSequence=lut(500, curve), WindowCenter=1.0, WindowWidth=1.0)
    assert found == [0, 0, round(curve[500] / 65535 * 255), 255, 255]


def test_a_voi_lut_that_is_none_is_refused() -> None:
    assert refused([1, 2], VOILUTSequence=lut(0, np.arange(10), count=4096)) == Problem(
        "unreadable", "reject", "VOILUTSequence", "PS3.3 C.11.2.1.1"
    )


@pytest.mark.parametrize(
    ("first", "signed", "offset"),
    [(0, False, 0), (1000, False, 1000), (0x8000, False, 0x8000), (0xFC18, True, -1000), (0x8000, True, -32768)],
)
def test_the_first_value_of_a_table_has_the_sign_of_the_film(first: int, signed: bool, offset: int) -> None:
    table = lut(first, np.round(np.linspace(0, 65535, 3001)))
    asked = [offset - 5, offset, offset + 1500, offset + 3000, offset + 3005]
    kept = [v for v in asked if (-32768 if signed else 0) <= v <= (32767 if signed else 65535)]
    patterns = [v & 0xFFFF for v in kept]
    found = grey(patterns, bits=16, signed=signed, VOILUTSequence=table)
    assert found == [round(255 * min(max(v - offset, 0), 3000) / 3000) for v in kept]


def test_a_film_that_begins_at_minus_one_has_a_first_value_of_minus_one() -> None:
    assert grey([0, 1, 2], RescaleIntercept=-1.0, VOILUTSequence=lut(0xFFFF, [0, 100, 255], 8)) == [0, 100, 255]


def test_a_table_of_no_stated_length_has_65536_entries() -> None:
    table = lut(0, np.arange(65536), count=0)
    assert grey([0, 32768, 65535], bits=16, VOILUTSequence=table) == [0, 128, 255]


def test_a_value_between_two_entries_takes_the_nearer_one() -> None:
    table = lut(0, np.arange(256) * 257)
    found = grey([0, 99, 101, 2000], RescaleSlope=0.1, VOILUTSequence=table)
    assert found == [0, 10, 10, 200]


@pytest.mark.parametrize(
    ("entries", "bits", "depth"),
    [
        ([0, 1000, 4095], 12, 12),
        ([0, 1000, 2000], 12, 12),
        ([0, 512, 1024], 12, 12),
        # Less than a quarter of what is stated: the depth of the data.
        ([0, 512, 1023], 12, 10),
        ([0, 1000, 4095], 16, 12),
        ([0, 1000, 16384], 16, 16),
        ([0, 1000, 16383], 16, 14),
        # More than is stated.
        ([0, 1000, 4096], 12, 13),
        ([0, 100, 255], 8, 8),
        ([0, 100, 256], 8, 9),
        # No depth at all.
        ([0, 100, 127], 7, 7),
        ([0, 1000, 4095], 17, 12),
        ([0, 1000, 4095], 0, 12),
        ([0, 20, 63], 7, 6),
        ([0, 1000, 40000], 17, 16),
    ],
)
def test_a_table_is_scaled_by_its_depth_or_by_that_of_its_data(entries: list[int], bits: int, depth: int) -> None:
    pixels, _ = shown([0, 1, 2, 2, 1, 0], VOILUTSequence=lut(0, entries, bits))
    assert pixels[0, :3].tolist() == [round(255 * entry / (2**depth - 1)) for entry in entries]


def test_a_table_of_zeros_shows_nothing() -> None:
    assert shown([0, 1, 2], VOILUTSequence=lut(0, [0, 0, 0], 8))[1] == implausible("VOILUTSequence")


def test_two_entries_of_eight_bits_may_share_a_word() -> None:
    entries = np.array([0, 50, 100, 255], np.uint8)
    as_bytes = ({"LUTDescriptor": (4, 0, 8), "LUTData": entries.tobytes()},)
    assert grey([0, 1, 2, 3], VOILUTSequence=as_bytes) == [0, 50, 100, 255]
    as_words = ({"LUTDescriptor": (4, 0, 8), "LUTData": tuple(entries.view("<u2").tolist())},)
    assert grey([0, 1, 2, 3], VOILUTSequence=as_words) == [0, 50, 100, 255]
    for length in (3, 4):
        odd = ({"LUTDescriptor": (3, 0, 8), "LUTData": entries[:length].tobytes()},)
        assert grey([0, 1, 2, 3], VOILUTSequence=odd) == [0, 50, 100, 100]
    words = ({"LUTDescriptor": (3, 0, 8), "LUTData": (0, 50, 100)},)
    assert grey([0, 1, 2], VOILUTSequence=words) == [0, 50, 100]
    too_few = ({"LUTDescriptor": (5, 0, 8), "LUTData": entries.tobytes()},)
    assert refused([0, 1], VOILUTSequence=too_few).found == "VOILUTSequence"
    for descriptor in ((), (4, 0), (4, 0, 8, 1)):
        broken = ({"LUTDescriptor": descriptor, "LUTData": entries.tobytes()},)
        assert refused([0, 1], VOILUTSequence=broken).found == "VOILUTSequence"
    assert refused([0, 1], VOILUTSequence=({"LUTDescriptor": (4, 0, 8)},)).found == "VOILUTSequence"


# ---------------------------------------------------------------- a window that shows nothing
def implausible(found: str) -> tuple[Problem, ...]:
    return (Problem("window_implausible", "warn", found, "≥ 24 / 256"),)


def test_a_window_has_to_show_a_tenth_of_the_film_as_grey() -> None:
    """Values from 0 to 999; a window of LINEAR_EXACT shows those within it, without its ends, as grey."""
    ramp = np.arange(1000)
    # from 100 to 201: 100 values lie between, a tenth.
    pixels, problems = shown(ramp, VOILUTFunction="LINEAR_EXACT", WindowCenter=150.5, WindowWidth=101.0)
    assert problems == ()
    assert pixels[0, [100, 201]].tolist() == [0, 255]
    pixels, problems = shown(ramp, VOILUTFunction="LINEAR_EXACT", WindowCenter=150.0, WindowWidth=100.0)
    assert problems == implausible("WindowCenter 150; WindowWidth 100")
    # The film's own range instead: its percentiles 0.5 and 99.5.
    assert pixels[0, [0, 4, 499, 994, 999]].tolist() == [0, 0, round(495 / 990 * 255), 255, 255]


def test_a_window_has_to_use_24_grey_levels_for_the_middle_of_the_film() -> None:
    """The middle 98 % of values from 0 to 999 are 9 to 989, 980 apart."""
    ramp = np.arange(1000)
    width = 980 / 24 * 255
    for factor, used in ((0.999, True), (1.001, False)):
        _, problems = shown(ramp, VOILUTFunction="LINEAR_EXACT", WindowCenter=500.0, WindowWidth=width * factor)
        assert (problems == ()) is used
    # Grey 100 for one half of the film, and 124 or 123 for the other.
    for bright, used in ((124, True), (123, False)):
        _, problems = shown(ramp, VOILUTSequence=lut(0, np.where(np.arange(4096) < 500, 100, bright), 8))
        assert (problems == ()) is used


def test_a_film_of_one_value_or_of_padding_alone_keeps_its_window() -> None:
    assert grey([500] * 9, WindowCenter=500.0, WindowWidth=10000.0) == [round((0.5 / 9999 + 0.5) * 255)] * 9
    assert grey([500] * 9, PixelPaddingValue=500, WindowCenter=5.0, WindowWidth=2.0) == [0] * 9


@pytest.mark.parametrize(("n_low", "n_high", "judged"), [(0, 5, False), (5, 0, False), (0, 15, True), (15, 0, True)])
def test_a_film_is_of_one_value_where_its_middle_98_percent_are(n_low: int, n_high: int, judged: bool) -> None:
    film = np.repeat([100, 500, 3000], [n_low, 1000 - n_low - n_high, n_high])
    _, problems = shown(film, WindowCenter=4000.0, WindowWidth=2.0)
    assert problems == (implausible("WindowCenter 4000; WindowWidth 2") if judged else ())


def test_a_voi_lut_that_shows_nothing_is_replaced_and_said() -> None:
    ramp = np.arange(1000)
    flat = lut(0, np.full(4096, 4000), 12)
    pixels, problems = shown(ramp, VOILUTSequence=flat)
    assert problems == implausible("VOILUTSequence")
    assert pixels[0, [4, 994]].tolist() == [0, 255]


# ---------------------------------------------------------------- without a window
def test_percentiles_become_black_and_white_where_more_than_8_bits_have_no_window() -> None:
    """Of a thousand values the fifth is the 0.5 % and the 995th the 99.5 % percentile."""
    ramp = np.arange(1000) * 2
    expected = [round(255 * min(max((v - 8) / 1980, 0), 1)) for v in range(0, 2000, 2)]
    assert grey(ramp) == expected
    assert grey(np.append(ramp, 4000), PixelPaddingValue=4000) == [*expected, 0]
    assert grey(np.arange(100, 301), bits=9)[:3] == [0, 0, 1]
    half_white = np.concatenate([np.arange(1000), [65535] * 1000])
    assert grey(half_white, bits=16)[999:1001] == [round(255 * (999 - 9) / (65535 - 9)), 255]
    for half in ({"WindowCenter": 1000.0}, {"WindowWidth": 100.0}):
        assert grey(ramp, **half) == expected, "a window has both"


def test_percentiles_are_those_of_the_values_not_of_the_patterns() -> None:
    ramp = np.arange(1000)
    falling = grey(ramp, RescaleSlope=-1.0)
    assert falling == [round(255 * min(max((995 - v) / 990, 0), 1)) for v in range(1000)]


def test_eight_bits_without_a_window_stay_as_they_are() -> None:
    assert grey([0, 7, 200, 255], bits=8) == [0, 7, 200, 255]
    assert grey(np.arange(50, 151), bits=8) == list(range(50, 151))
    assert grey([0, 7, 127], bits=7) == [0, round(7 * 255 / 127), 255]
    assert grey([0x80, 0xFF, 0, 0x7F], bits=8, signed=True) == [0, 127, 128, 255]
    replaced, problems = shown(np.arange(50, 150), bits=8, WindowCenter=5000.0, WindowWidth=2.0)
    assert problems == implausible("WindowCenter 5000; WindowWidth 2")
    assert (replaced[0, 0], replaced[0, -1]) == (0, 255), "a window that shows nothing says that the film has a range"


def test_a_film_of_one_value_without_a_window_is_black() -> None:
    assert grey([700] * 5) == [0] * 5
    assert grey([700] * 5, PixelPaddingValue=700) == [0] * 5


def test_a_large_film_is_counted_on_a_grid() -> None:
    """Of four million pixels every second row and column: what lies between sets no range."""
    film = np.full((2000, 2000), 1000, np.uint16)
    film[::2, ::4], film[1::2] = 3000, 0
    pixels, _ = shown(film)
    assert pixels[0, [0, 2]].tolist() == [255, 0]
    assert pixels[1, 0] == 0
    small = film[:1000, :1000]
    assert shown(small)[0][0, [0, 2]].tolist() == [255, 85], "of up to a million every pixel"
