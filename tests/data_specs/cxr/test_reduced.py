"""JPEG 2000 at a lower resolution: the same values, no smaller than asked for, and in full where it cannot be."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.cxr import pixels
from data_specs.cxr.codestream import jpeg_2000_codestream
from data_specs.cxr.files import read_image
from data_specs.problems import Refused
from inference.cxr.reading import read_film
from inference.render.reading import film_size
from tests.data_specs.cxr_made import EXPLICIT, HTJ2K, J2K, J2K_LOSSY, dicom, encoded, full_window, phantom


def means_of(values: NDArray[Any], times: int) -> NDArray[np.float64]:
    rows, columns = (side // times * times for side in values.shape)
    blocks = values[:rows, :columns].reshape(rows // times, times, columns // times, times)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float64)


@pytest.mark.parametrize("bits", [6, 8, 9, 12, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_pillow_gives_the_values_that_imagecodecs_gives(bits: int, signed: bool) -> None:
    values = phantom(bits, 300, 260)
    if signed:
        kind = np.int8 if bits <= 8 else np.int16
        content = (values.astype(np.int32) - (1 << bits - 1)).astype(kind)
    else:
        content = values.astype(np.uint8 if bits <= 8 else np.uint16)
    data = encoded(content, J2K, bits)
    stream = jpeg_2000_codestream(data)
    assert (stream.signed, stream.precision, stream.levels) == (signed, bits, 5)
    whole = imagecodecs.jpeg2k_decode(data)
    found = pixels._halved(data, stream, 0)
    assert found is not None
    np.testing.assert_array_equal(found, whole.view(found.dtype))


@pytest.mark.parametrize("syntax", [J2K, J2K_LOSSY, HTJ2K])
@pytest.mark.parametrize(
    ("rows", "columns", "least_px", "read"),
    [
        (2048, 1800, None, (2048, 1800)),
        (2048, 1800, 1801, (2048, 1800)),
        (2048, 1800, 900, (1024, 900)),
        (2048, 1800, 448, (512, 450)),
        (1801, 1900, 448, (901, 950)),  # 1801 / 4 is rounded differently by the two
        (1803, 1900, 448, (451, 475)),
    ],
)
def test_a_film_is_read_no_larger_than_needed(
    syntax: str, rows: int, columns: int, least_px: int | None, read: tuple[int, int]
) -> None:
    values = phantom(12, rows, columns)
    film = read_image(dicom(values, syntax, bits=12, PixelSpacing=[0.2, 0.2], **full_window(12)), least_px=least_px)
    assert (film.pixels.shape, film.recorded_px, film.pixel_mm) == (read, (rows, columns), (0.2, 0.2))
    times = round(rows / read[0])
    expected = means_of(read_image(dicom(values, EXPLICIT, bits=12, **full_window(12))).pixels, times)
    found = film.pixels[: expected.shape[0], : expected.shape[1]]
    assert np.abs(found - expected).mean() < 1.5
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_what_cannot_be_halved_is_read_in_full() -> None:
    flat = imagecodecs.jpeg2k_encode(phantom(12, 900, 900), codecformat="j2k", bitspersample=12, resolutions=1)
    assert jpeg_2000_codestream(flat).levels == 0
    file = dicom(phantom(12, 900, 900), J2K, codestream=flat, bits=12, **full_window(12))
    assert read_image(file, least_px=300).pixels.shape == (900, 900)
    colour = np.dstack([phantom(8, 900, 900).astype(np.uint8)] * 3)
    stream = jpeg_2000_codestream(imagecodecs.jpeg2k_encode(colour, codecformat="j2k"))
    assert pixels._halvings(stream, 300) == 0


def test_a_decoder_that_fails_leaves_it_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise OSError("broken data stream")

    monkeypatch.setattr(pixels.Jpeg2KImageFile, "load", broken)
    assert read_image(dicom(phantom(12, 900, 900), J2K, **full_window(12)), least_px=300).pixels.shape == (900, 900)


@pytest.mark.parametrize("syntax", [J2K, HTJ2K])
def test_a_truncated_film_is_refused_as_in_full(syntax: str) -> None:
    codestream = encoded(phantom(12, 900, 900), syntax, 12)
    cut = dicom(phantom(12, 900, 900), syntax, codestream=codestream[: len(codestream) // 2], **full_window(12))
    for least_px in (None, 300):
        with pytest.raises(Refused) as refused:
            read_image(cut, least_px=least_px)
        assert refused.value.problem.code == "truncated"


def test_the_size_of_a_film_is_that_which_was_recorded() -> None:
    found = film_size([dicom(phantom(12, 1801, 1900), J2K, PixelSpacing=[0.2, 0.2], **full_window(12))]).document
    assert (found.rows, found.columns, found.pixel_mm) == (1801, 1900, (0.2, 0.2))


@pytest.mark.parametrize("syntax", [J2K, J2K_LOSSY, HTJ2K, EXPLICIT])
@pytest.mark.parametrize(("rows", "columns"), [(2048, 1800), (1801, 1900), (1803, 2601)])
def test_a_film_read_at_a_lower_resolution_lies_where_it_lay(syntax: str, rows: int, columns: int) -> None:
    """To the networks it is the same film: no edge of it moves by a twentieth of a pixel of theirs."""
    down, right = np.mgrid[:rows, :columns] / np.array([[[rows]], [[columns]]])
    spot = 3800 * np.exp(-((down - 0.4) ** 2 + (right - 0.6) ** 2) / 0.01)
    noise = np.random.default_rng(1).normal(0, 40, spot.shape)
    file = dicom(np.clip(spot + noise + 100, 0, 4095).astype(np.uint16), syntax, bits=12, **full_window(12))
    whole, (small,) = read_film([file], (336,)).arrays[0], read_film([file], (336,), 448).arrays
    assert np.abs(small.astype(float) - whole).mean() < 0.6
    np.testing.assert_allclose(middle_of(small[0, 0]), middle_of(whole[0, 0]), atol=0.05)


def middle_of(film: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Row and column of the middle of what is brighter than half."""
    return np.argwhere(film > 128).mean(axis=0)
