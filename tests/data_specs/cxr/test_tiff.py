"""TIFF: LZW by libtiff, in every layout, and what a directory may hold."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from data_specs.cxr.files import read_image
from data_specs.problems import Refused
from tests.conftest import ROOT
from tests.data_specs.cxr.test_raster import tiff
from tests.data_specs.cxr_made import phantom
from tests.data_specs.hostile_made import tiff_of

EIGHT, SIXTEEN = phantom(8, 301, 257).astype(np.uint8), phantom(16, 301, 257)
COLOUR = np.stack([EIGHT, EIGHT // 2, 255 - EIGHT], axis=-1)
COLOUR_16 = np.stack([SIXTEEN, SIXTEEN // 2, 65535 - SIXTEEN], axis=-1)
COLOURS = np.random.default_rng(7).integers(0, 65535, (3, 256)).astype(np.uint16)

CRASHES = {
    # 9-bit codes: 256 (clear), then 264, which names no entry of an empty table, then 258
    "a code after a clear code": b"\x80\x42\x20\x40",
    "the same further on": b"\x80\x10\x60\x10\x88\x08\x10\x10",
    "nothing": b"\x80",
    "no clear code": b"\x20\x50",
}


SCRIPT = """
import sys
from data_specs.cxr.files import read_image
from data_specs.problems import Refused
try:
    read_image(sys.stdin.buffer.read())
except Refused as refused:
    print(refused.problem.code)
"""


def of(values: np.ndarray[Any, Any], **options: Any) -> np.ndarray[Any, Any]:
    return read_image(tiff(values, **options)).pixels


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"rowsperstrip": 7},
        {"rowsperstrip": 10, "predictor": 2},
        {"tile": (64, 48)},
        {"tile": (32, 32), "predictor": 2, "byteorder": ">"},
        {"bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (EIGHT, {}),
        (EIGHT, {"photometric": "miniswhite"}),
        (SIXTEEN, {}),
        (COLOUR, {"photometric": "rgb"}),
        (COLOUR_16, {"photometric": "rgb"}),
        (np.moveaxis(COLOUR, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.dstack([COLOUR, EIGHT]), {"photometric": "rgb", "extrasamples": ("unassalpha",)}),
        (EIGHT, {"photometric": "palette", "colormap": COLOURS}),
    ],
    ids=["grey", "white is zero", "16 bit", "rgb", "rgb 16 bit", "planes", "alpha", "palette"],
)
def test_lzw_is_the_same_film_as_uncompressed(
    values: np.ndarray[Any, Any], kind: dict[str, Any], layout: dict[str, Any]
) -> None:
    plain = {key: value for key, value in layout.items() if key != "predictor"}
    np.testing.assert_array_equal(of(values, compression="lzw", **kind, **layout), of(values, **kind, **plain))


def refusal_in_another_process(content: bytes) -> tuple[int, bytes]:
    """Exit status, and the refusal's code."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT], input=content, cwd=ROOT, capture_output=True, check=False)
    return ended.returncode, ended.stdout.strip()


@pytest.mark.parametrize("name", CRASHES)
def test_a_damaged_lzw_strip_does_not_end_the_process(name: str) -> None:
    content = tiff_of(300, 300, (259, 3, 1, 5), data=CRASHES[name])
    assert refusal_in_another_process(content) == (0, b"unreadable")


@pytest.mark.parametrize("name", ["crash.tif", "minimal.tif"])
def test_files_that_ended_the_process(name: str) -> None:
    path = ROOT.parent / "shared" / "cases" / "hostile" / "03-tiff-segv" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert refusal_in_another_process(path.read_bytes()) == (0, b"unreadable")


@pytest.mark.parametrize("samples", [5, 20, 200])
def test_more_than_four_samples_a_pixel_are_no_film(samples: int) -> None:
    with pytest.raises(Refused) as refused:
        read_image(tiff(np.zeros((300, 300, samples), np.uint8), photometric="minisblack", planarconfig="contig"))
    assert refused.value.problem.code == "unsupported_format"


def test_a_palette_of_another_length_is_unreadable() -> None:
    content = tiff(EIGHT, photometric="palette", colormap=COLOURS)
    with pytest.raises(Refused) as refused:
        read_image(
            content.replace((320).to_bytes(2, "little") + b"\3\0\0\3", (320).to_bytes(2, "little") + b"\3\0\0\1")
        )
    assert refused.value.problem.code == "unreadable"


def test_signed_bytes_keep_their_shape() -> None:
    values = (EIGHT.astype(np.int16) - 128).astype(np.int8)
    assert of(values, photometric="minisblack").shape == values.shape
