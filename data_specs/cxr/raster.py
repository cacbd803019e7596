"""Reads a chest film from PNG, JPEG or TIFF: checks the header, decodes, turns the film upright, makes it grey."""

from __future__ import annotations

import io
import itertools
import logging
import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from data_specs.cxr.codestream import Codestream, jpeg_codestream
from data_specs.cxr.display import DISPLAY_PERCENTILES, luma_plane, stretched
from data_specs.cxr.image import MAX_PIXELS, MIN_SHORT_SIDE_PX, ChestImage
from data_specs.problems import Refused

Array = NDArray[Any]

TIFF_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
"""TIFF compressions that are read (TIFF 6.0 section 2 and Technical Note 2): those that cannot fill more memory than a
strip needs, or whose header is checked first."""

MAX_PAGES_READ = 16
"""Enough to see that a TIFF has more than one page."""

for _decoder in ("tifffile", "imagecodecs"):  # their log lines quote the file, which may name the person
    logging.getLogger(_decoder).setLevel(logging.CRITICAL)


def read_raster(content: bytes, name: str) -> ChestImage:
    """Read a chest film from a raster file.

    8-bit grey stays as it is, and so do 16 bits that were made from 8. Other films of more than 8 bits are brought to 8
    by the percentiles of :data:`data_specs.cxr.display.DISPLAY_PERCENTILES`: such a file seldom uses its whole range
    and does not state how it is to be shown.

    Parameters
    ----------
    content
        The whole file.
    name
        ``png``, ``jpeg`` or ``tiff``.

    Raises
    ------
    Refused
        ``unreadable``, ``truncated``, ``unsupported_format`` (a kind of TIFF or of sample that no film has),
        ``multiframe``, ``too_large`` (from the header, before decoding), ``too_small``.
    """
    pixels = {"png": _png, "jpeg": _jpeg, "tiff": _tiff}[name](content)
    return ChestImage(pixels=np.ascontiguousarray(pixels), format=name)


def _check_size(rows: int, columns: int) -> None:
    if rows * columns > MAX_PIXELS:
        raise Refused("too_large", f"{columns} × {rows} px", f"{MAX_PIXELS // 10**6} Mpx")
    if min(rows, columns) < MIN_SHORT_SIDE_PX:
        raise Refused("too_small", f"{columns} × {rows} px", f"{MIN_SHORT_SIDE_PX} px")


def _png(content: bytes) -> NDArray[np.uint8]:
    """PNG (W3C PNG, ISO/IEC 15948): the decoder expands palettes and depths under 8 bit."""
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise Refused("truncated", f"PNG: {len(content)} B", "IHDR")
    columns, rows = struct.unpack_from(">LL", content, 16)
    _check_size(rows, columns)
    if b"acTL" in content[33:4096]:
        raise Refused("multiframe", "APNG", 1)
    if content.rfind(b"IEND") < 0:
        raise Refused("truncated", f"PNG: {len(content)} B", "IEND")
    return _grey(imagecodecs.png_decode(content))


def _jpeg(content: bytes) -> NDArray[np.uint8]:
    stream = jpeg_codestream(content)
    _check_size(stream.rows, stream.columns)
    return _upright(_jpeg_grey(content, stream), stream.orientation)


def _jpeg_grey(content: bytes, stream: Codestream) -> NDArray[np.uint8]:
    """JPEG to grey: Y of YCbCr, luma of RGB, luma of CMYK (which Adobe writes inverted) printed on white paper."""
    out = "GRAYSCALE" if stream.is_ybr and not stream.lossless else None
    values = imagecodecs.jpeg8_decode(content, outcolorspace=out)
    if values.ndim == 3 and values.shape[2] == 4:
        ink = values if stream.is_inverted else 255 - values
        values = ((ink[..., :3].astype(np.uint16) * ink[..., 3:] + 127) // 255).astype(np.uint8)
    return _grey(values, bits=stream.precision)


def _tiff(content: bytes) -> NDArray[np.uint8]:
    """TIFF 6.0 and BigTIFF: one page, 8 or 16 bit integers."""
    import tifffile  # noqa: PLC0415 (rare)

    try:
        file = tifffile.TiffFile(io.BytesIO(content))
        pages = [page.aspage() for page in itertools.islice(file.pages, MAX_PAGES_READ)]
    except (tifffile.TiffFileError, struct.error, EOFError, IndexError) as error:
        raise Refused("unreadable", f"TIFF: {type(error).__name__}", "TIFF 6.0") from error
    # NewSubfileType bit 0: a reduced version of another page; bit 2: a mask (TIFF 6.0 section 8)
    whole = [page for page in pages if not int(page.subfiletype or 0) & 0b101]
    if len(whole) != 1:
        raise Refused("multiframe" if whole else "unreadable", len(whole), 1)
    page = whole[0]
    _check_size(page.imagelength, page.imagewidth)
    _check_tiff_kind(page, content)
    values = page.asarray(maxworkers=1)
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag is not None else 1
    photometric = int(page.photometric)
    if photometric == 3:  # palette
        values = np.moveaxis(np.asarray(page.colormap)[:, values], 0, -1)
    elif photometric == 2 and page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    bits = int(page.bitspersample)
    grey = _grey(values[..., 0] if values.shape[2] == 1 else values, bits=bits, ybr=photometric == 6)
    return _upright(255 - grey if photometric == 0 else grey, orientation)


def _check_tiff_kind(page: Any, content: bytes) -> None:
    """Refuse what is no grey or colour picture of integers, and strips that do not fit what the page states.

    Raises
    ------
    Refused
        ``unsupported_format``, ``truncated`` (a strip lies beyond the end of the file) or ``unreadable``.
    """
    if page.dtype is None or page.dtype.kind not in "ui" or page.dtype.itemsize > 2 or int(page.bitspersample) < 2:
        raise Refused("unsupported_format", f"TIFF: {page.dtype}, {page.bitspersample} bit", "uint8, uint16")
    if int(page.compression) not in TIFF_COMPRESSIONS:
        accepted = ", ".join(sorted(set(TIFF_COMPRESSIONS.values())))
        raise Refused("unsupported_format", f"TIFF: compression {int(page.compression)}", accepted)
    if int(page.photometric) not in (0, 1, 2, 3, 6) or page.imagedepth != 1:
        raise Refused("unsupported_format", f"TIFF: photometric {int(page.photometric)}", "0, 1, 2, 3, 6")
    wanted = page.imagelength * page.imagewidth * page.samplesperpixel
    if page.size != wanted or max(page.chunks) > 2 * max(page.shape) + 4096:
        raise Refused("unreadable", f"TIFF: {page.size}", f"{wanted}")
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > len(content):
        raise Refused("truncated", f"{len(content)} B", f"{max(ends, default=0)} B")
    if int(page.compression) == 7:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            stream = jpeg_codestream(content[offset : offset + count])
            if stream.rows * stream.columns > 2 * int(np.prod(page.chunks[:2])):
                raise Refused("unreadable", f"TIFF: {stream.columns} × {stream.rows} px", f"{page.chunks}")


def _grey(values: Array, bits: int | None = None, ybr: bool = False) -> NDArray[np.uint8]:
    """Decoded samples to 8-bit grey.

    Parameters
    ----------
    values
        ``(rows, columns)`` or ``(rows, columns, samples)``: grey, grey and alpha, RGB, or RGB and alpha.
    bits
        Depth of the samples where it is not that of their type.
    ybr
        Whether three samples are Y, Cb, Cr.
    """
    depth = bits or 8 * values.dtype.itemsize
    if values.dtype.kind not in "ui" or values.dtype.itemsize > 2:
        raise Refused("unsupported_format", str(values.dtype), "uint8, uint16")
    if values.ndim == 2:
        return _eight_bits(values, depth)
    samples = values.shape[2]
    plane = values[..., 0] if samples <= 2 or ybr else luma_plane(values)
    grey = _eight_bits(plane, depth)
    if samples in (2, 4) and not ybr:
        opacity = values[..., samples - 1].astype(np.float32) / np.float32(2**depth - 1)
        if opacity.min() < 1 and opacity.max() > 0:  # transparent parts are shown black
            grey = np.rint(grey * opacity).astype(np.uint8)
    return grey


def _eight_bits(plane: Array, depth: int) -> NDArray[np.uint8]:
    if depth < 8:
        return np.asarray(np.rint(plane * (255 / (2**depth - 1))).astype(np.uint8))
    if plane.dtype == np.uint8:
        return plane
    if plane.dtype.kind == "u":
        for widened in (257, 256):  # the byte written twice, or followed by zeros
            narrow = plane // np.uint16(widened)
            if np.array_equal(narrow * np.uint16(widened), plane):
                return np.asarray(narrow.astype(np.uint8))
    step = max(1, int(np.sqrt(plane.size / 1e6)))
    low, high = np.percentile(plane[::step, ::step], DISPLAY_PERCENTILES, method="nearest")
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    patterns = np.arange(65536).astype(plane.dtype).astype(np.float64)
    grey = np.rint(stretched(patterns, float(low), float(high)) * 255).astype(np.uint8)
    return np.asarray(grey.take(plane.view(np.uint16)))


def _upright(values: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rows from top to bottom, columns from left to right, as Orientation asks (TIFF 6.0 section 8, Exif)."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return values[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
