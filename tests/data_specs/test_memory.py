"""Readers take no more memory than they count before they allocate it, in every format and transfer syntax."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from data_specs.cxr.files import read_image
from data_specs.problems import Refused
from tests.conftest import ROOT
from tests.data_specs import cxr_made as made
from tests.data_specs.cxr.test_raster import saved, tiff
from tests.data_specs.ecg_made import aecg, counts, csv, wfdb16
from tests.data_specs.ecg_made import dicom as ecg_dicom
from tests.data_specs.hostile_made import png, zipped

SIDE = 2000
TABLES = 24 << 20
"""Look-up tables, histograms and pieces of rows, which readers do not count, in bytes."""
HOSTILE = ROOT.parent / "shared" / "cases" / "hostile" / "04-small-films-large-memory"

GREY_16 = np.add.outer(np.arange(SIDE) * 9, np.arange(SIDE) * 13).astype(np.uint16)
GREY_8 = (GREY_16 >> 8).astype(np.uint8)
COLOUR = np.stack([GREY_8, GREY_8 // 2, 255 - GREY_8], axis=-1)
COLOUR_16 = np.stack([GREY_16, GREY_16 // 2, 65535 - GREY_16], axis=-1)


def rgb(syntax: str) -> bytes:
    return made.dicom(COLOUR, syntax, bits=8, PhotometricInterpretation="RGB")


def film(values: np.ndarray[Any, Any], syntax: str) -> bytes:
    return made.dicom(values, syntax, bits=8 * values.dtype.itemsize)


def coloured(values: np.ndarray[Any, Any], **options: Any) -> bytes:
    return tiff(values, photometric="rgb", **options)


def long() -> np.ndarray[Any, Any]:
    return counts(seconds=300.0)


FILES: dict[str, Callable[[], bytes]] = {
    **{f"dicom 16 bit {s}.film": partial(film, GREY_16, s) for s in (made.EXPLICIT, made.BIG, made.DEFLATED)},
    **{f"dicom 16 bit {s}.film": partial(film, GREY_16, s) for s in (made.UNCOMPRESSED, made.DEFLATED_FRAME, made.RLE)},
    **{f"dicom 16 bit {s}.film": partial(film, GREY_16, s) for s in (made.JPEG_LOSSLESS, made.JPEG_LS, made.J2K)},
    **{f"dicom 8 bit {s}.film": partial(film, GREY_8, s) for s in (made.EXPLICIT, made.BIG, made.RLE, made.JPEG)},
    **{f"dicom 8 bit {s}.film": partial(film, GREY_8, s) for s in (made.JPEG_LS, made.HTJ2K)},
    **{f"dicom rgb {s}.film": partial(rgb, s) for s in (made.EXPLICIT, made.RLE, made.JPEG_LS, made.J2K)},
    "png grey.film": lambda: imagecodecs.png_encode(GREY_8, level=1),
    "png grey 16.film": lambda: imagecodecs.png_encode(GREY_16, level=1),
    "png rgb.film": lambda: imagecodecs.png_encode(COLOUR, level=1),
    "png rgba 16.film": lambda: png(columns=SIDE, rows=SIDE, depth=16, colour=6),
    "png palette.film": lambda: saved(Image.fromarray(GREY_8).convert("P"), "PNG", compress_level=1),
    "jpeg grey.film": lambda: imagecodecs.jpeg8_encode(GREY_8),
    "jpeg progressive.film": lambda: saved(Image.fromarray(COLOUR), "JPEG", progressive=True, subsampling=0),
    "jpeg cmyk.film": lambda: saved(Image.fromarray(np.dstack([COLOUR, GREY_8]), "CMYK"), "JPEG"),
    "tiff grey 16.film": lambda: tiff(GREY_16),
    "tiff rgb 16.film": lambda: coloured(COLOUR_16),
    "tiff lzw grey 16.film": lambda: tiff(GREY_16, compression="lzw", rowsperstrip=16),
    "tiff lzw in one strip.film": lambda: tiff(GREY_16, compression="lzw", rowsperstrip=SIDE, predictor=2),
    "tiff deflate rgb 16.film": lambda: coloured(COLOUR_16, compression="zlib", rowsperstrip=SIDE, predictor=2),
    "tiff deflate grey.film": lambda: tiff(GREY_8, compression="zlib", rowsperstrip=16),
    "tiff jpeg rgb.film": lambda: coloured(COLOUR, compression="jpeg", rowsperstrip=256),
    "tiff packbits.film": lambda: tiff(GREY_8, compression="packbits", rowsperstrip=SIDE),
    "tiff palette.film": lambda: tiff(GREY_8, photometric="palette", colormap=GREY_16[:3, :256]),
    "long csv.csv": lambda: csv(long()),
    "long dcm.dcm": lambda: ecg_dicom(long()),
    "long xml.xml": lambda: aecg(long()),
    "long zip.zip": lambda: zipped(wfdb16(long())),
}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each file was found to take."""
    folder = tmp_path_factory.mktemp("files")
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    script = [sys.executable, "-W", "ignore", "-m", "tests.data_specs.peaks", *(str(folder / name) for name in FILES)]
    out = subprocess.run(script, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    return {line["name"]: line for line in lines}


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("name", [Path(name).stem for name in FILES])
def test_no_more_is_taken_than_is_counted(name: str, taken: dict[str, dict[str, Any]]) -> None:
    found = taken[name]
    assert found["result"] == "read"
    assert found["peak"] <= found["asked"] + TABLES, {k: v >> 20 for k, v in found.items() if isinstance(v, int)}
    assert found["asked"] <= 2 * found["peak"] + TABLES, {k: v >> 20 for k, v in found.items() if isinstance(v, int)}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("dcm_j2k_10k_16", "too_costly"),
        ("dcm_j2k_10k_rgb8", "too_costly"),
        ("tiff10k_spp20", "unsupported_format"),
        ("tiff2k_spp200", "unsupported_format"),
    ],
)
def test_small_files_that_took_gigabytes_are_refused(name: str, code: str) -> None:
    if not HOSTILE.is_dir():
        pytest.skip(f"{HOSTILE} is not there")
    with pytest.raises(Refused) as refused:
        read_image((HOSTILE / name).read_bytes())
    assert refused.value.problem.code == code


def test_a_png_that_took_a_gigabyte_is_refused() -> None:
    content = png(columns=7000, rows=7000, depth=16, colour=6)
    with pytest.raises(Refused) as refused:
        read_image(content)
    assert refused.value.problem.code == "too_costly"


def large_films() -> dict[str, Callable[[], bytes]]:
    """Films of 10,000 × 10,000 pixels, of one grey level so that they are quickly made."""
    return {
        "dicom 16": lambda: native(16),
        "png 8": lambda: png(columns=10_000, rows=10_000),
        "png 16": lambda: png(columns=10_000, rows=10_000, depth=16),
    }


def native(bits: int) -> bytes:
    header = made.dicom(None, Rows=10_000, Columns=10_000, BitsAllocated=bits, BitsStored=bits, SamplesPerPixel=1)
    n_bytes = 10**8 * bits // 8
    return header + b"\xe0\x7f\x10\0OW\0\0" + n_bytes.to_bytes(4, "little") + bytes(n_bytes)


@pytest.mark.parametrize("name", large_films())
def test_a_large_honest_film_stays_readable(name: str) -> None:
    assert read_image(large_films()[name]()).pixels.shape == (10_000, 10_000)
