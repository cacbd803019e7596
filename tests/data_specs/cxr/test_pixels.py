"""From what each codec gives to the stored value: every transfer syntax, number of bits, sign and high bit."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from data_specs.cxr.display import _codes
from data_specs.cxr.pixels import frame_of, stored_values
from data_specs.dicom.header import read_header
from tests.data_specs.cxr_made import (
    BIG,
    DEFLATED,
    DEFLATED_FRAME,
    EXPLICIT,
    IMPLICIT,
    J2K,
    J2K_LOSSY,
    JPEG,
    JPEG_12,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    JPEG_LS_NEAR,
    RLE,
    UNCOMPRESSED,
    dicom,
    encoded,
    phantom,
    rle,
)

NATIVE = (EXPLICIT, IMPLICIT, BIG, DEFLATED, UNCOMPRESSED, DEFLATED_FRAME, RLE)
LOSSLESS, NEAR = (JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS, J2K), 2
LAYOUTS = [
    (bits, high, signed)
    for bits, signed in itertools.product(range(8, 17), (False, True))
    for high in sorted({bits - 1, 11, 15})
    if high >= bits - 1
]
"""BitsStored, HighBit, and whether PixelRepresentation is 1."""


def wanted(bits: int, *, signed: bool, rows: int = 96, columns: int = 80) -> NDArray[np.int64]:
    """Values of all the range, without its last hundredths: lossy codecs may leave it."""
    lowest = -(2 ** (bits - 1)) if signed else 0
    return phantom(bits, rows, columns).astype(np.int64) * 96 // 100 + 2**bits // 50 + lowest


def as_stored(content: bytes) -> NDArray[np.int64]:
    header = read_header(content)
    frame = frame_of(header)
    stored = stored_values(header, frame)
    return np.asarray(_codes(frame, stored)[stored.values])


def cells(values: NDArray[np.int64], bits: int, high: int) -> NDArray[Any]:
    """Values in two's complement, with the highest bit at ``high``, in the smallest cells."""
    kind = np.uint8 if high < 8 else np.uint16
    return ((values & (2**bits - 1)) << (high + 1 - bits)).astype(kind)


@pytest.mark.parametrize(("bits", "high", "signed"), LAYOUTS)
@pytest.mark.parametrize("syntax", NATIVE)
def test_without_a_codec(syntax: str, bits: int, high: int, signed: bool) -> None:
    values = wanted(bits, signed=signed)
    whole = cells(values, bits, high)
    codestream = rle(whole) if syntax == RLE else None
    content = dicom(whole, syntax, bits=bits, signed=signed, codestream=codestream, HighBit=high)
    np.testing.assert_array_equal(as_stored(content), values)


@pytest.mark.parametrize(("bits", "high", "signed"), LAYOUTS)
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_codestreams(syntax: str, bits: int, high: int, signed: bool) -> None:
    """Of whole cells, and of the value alone, where HighBit is not that of the codestream."""
    values = wanted(bits, signed=signed)
    whole = cells(values, bits, high)
    codestream = encoded(whole, syntax, 8 * whole.dtype.itemsize)
    content = dicom(whole, syntax, bits=bits, signed=signed, codestream=codestream, HighBit=high)
    np.testing.assert_array_equal(as_stored(content), values)
    codestream = encoded(cells(values, bits, bits - 1), syntax, bits)
    content = dicom(whole, syntax, bits=bits, signed=signed, codestream=codestream)
    np.testing.assert_array_equal(as_stored(content), values)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(8, 17))
def test_near_lossless_codestreams(bits: int, signed: bool, extended: bool) -> None:
    """With the sign in the value alone, or in the whole cell. Around zero an error of the codec may cost the sign."""
    values = wanted(bits, signed=signed)
    kind = np.uint8 if bits == 8 else np.uint16
    patterns = (values & (2 ** (8 * kind().itemsize if extended else bits) - 1)).astype(kind)
    content = dicom(patterns, JPEG_LS_NEAR, bits=bits, signed=signed, codestream=encoded(patterns, JPEG_LS_NEAR, bits))
    wrapped = signed & (np.abs(values) <= NEAR)
    assert np.abs(as_stored(content) - values)[~wrapped].max() <= NEAR


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_lossy_jpeg_2000(bits: int) -> None:
    values = wanted(bits, signed=False)
    content = dicom(cells(values, bits, bits - 1), J2K_LOSSY, bits=bits)
    assert np.abs(as_stored(content) - values).max() <= max(1, 2**bits / 100)


@pytest.mark.parametrize("syntax", [JPEG, JPEG_12])
@pytest.mark.parametrize("signed", [False, True])
def test_the_lossy_processes_of_jpeg_know_no_sign(syntax: str, signed: bool) -> None:
    """Files that state one have it from the film before it was compressed."""
    bits = 8 if syntax == JPEG else 12
    values = wanted(bits, signed=False, rows=256, columns=240)
    content = dicom(cells(values, bits, bits - 1), syntax, bits=bits, signed=signed)
    assert np.abs(as_stored(content) - values).max() <= 2**bits / 50


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("syntax", [J2K, J2K_LOSSY])
def test_jpeg_2000_with_a_sign_of_its_own(syntax: str, bits: int) -> None:
    values = wanted(bits, signed=True)
    codestream = encoded(values.astype(np.int8 if bits == 8 else np.int16), syntax, bits)
    content = dicom(cells(values, bits, bits - 1), syntax, bits=bits, signed=True, codestream=codestream)
    assert np.abs(as_stored(content) - values).max() <= (0 if syntax == J2K else 2**bits / 50)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, RLE])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 9, 12, 16])
def test_as_pydicom_reads_it(syntax: str, signed: bool, bits: int) -> None:
    content = dicom(cells(wanted(bits, signed=signed), bits, bits - 1), syntax, bits=bits, signed=signed)
    theirs = pydicom.dcmread(io.BytesIO(content)).pixel_array
    if signed:  # pydicom leaves the bits above the value as they are
        theirs = np.where(theirs >= 2 ** (bits - 1), theirs.astype(np.int64) - 2**bits, theirs)
    np.testing.assert_array_equal(as_stored(content), theirs)


DECODERS = [
    (RLE, "pydicom"),
    (JPEG_LOSSLESS, "gdcm"),
    (JPEG_LOSSLESS_SV1, "gdcm"),
    (JPEG_LS, "gdcm"),
    (JPEG_LS, "pyjpegls"),
    (JPEG_LS_NEAR, "gdcm"),
    (JPEG_LS_NEAR, "pyjpegls"),
    (J2K, "gdcm"),
    (J2K, "pillow"),
]
"""Decoders of others that pydicom can ask; serving uses none of them."""


@pytest.mark.parametrize(("bits", "high", "signed"), LAYOUTS)
@pytest.mark.parametrize(("syntax", "decoder"), DECODERS)
def test_as_other_decoders_read_it(syntax: str, decoder: str, bits: int, high: int, signed: bool) -> None:
    """They give the cells; the value in a cell is by PS3.5 section 8.1.1, its sign by PixelRepresentation."""
    if syntax == JPEG_LS_NEAR:  # its errors would be in bits that are not the value's
        high = bits - 1
    whole = cells(wanted(bits, signed=signed), bits, high)
    precision = bits if syntax == JPEG_LS_NEAR else 8 * whole.dtype.itemsize
    codestream = rle(whole) if syntax == RLE else encoded(whole, syntax, precision)
    content = dicom(whole, syntax, bits=bits, signed=signed, codestream=codestream, HighBit=high)
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.BitsStored, dataset.PixelRepresentation = dataset.BitsAllocated, 0
    dataset.HighBit = dataset.BitsAllocated - 1
    found, _ = get_decoder(UID(syntax)).as_array(dataset, raw=True, decoding_plugin=decoder)
    theirs = (found.astype(np.int64) >> (high + 1 - bits)) & (2**bits - 1)
    theirs = np.where(signed & (theirs >= 2 ** (bits - 1)), theirs - 2**bits, theirs)
    np.testing.assert_array_equal(as_stored(content), theirs)


def test_rle_that_gives_a_byte_more() -> None:
    """Each segment ends with a run that is one byte too long."""
    values = phantom(8).astype(np.uint8)
    values[-1, -4:] = values[-1, -1]
    content = dicom(values, RLE, bits=8)
    at = content.index(b"\xe0\x7f\x10\x00")
    run = content.rindex(bytes([257 - 4, values[-1, -1]]), at)
    longer = content[:run] + bytes([257 - 5, values[-1, -1]]) + content[run + 2 :]
    np.testing.assert_array_equal(as_stored(longer), values)
