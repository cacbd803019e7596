"""Reads a chest film from PNG, JPEG or TIFF: checks the header, decodes, turns the film upright, makes it grey."""

from __future__ import annotations

import logging
import struct

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from data_specs.cxr.codestream import Codestream, jpeg_codestream
from data_specs.cxr.grey import check_size, decoded_bytes, grey, upright
from data_specs.cxr.image import ChestImage, strips
from data_specs.problems import Refused
from data_specs.reading import require_memory

PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Samples a pixel of each colour type as they are decoded, a palette expanded (W3C PNG, table 11.1); a tRNS chunk adds
one to the first three."""

logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)  # its log lines quote the file, which may name the person


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
        ``multiframe``, ``too_large``, ``too_costly`` (from the header, before decoding), ``too_small``.
    """
    pixels = {"png": _png, "jpeg": _jpeg, "tiff": _tiff}[name](content)
    rows, columns = pixels.shape
    return ChestImage(np.ascontiguousarray(pixels), name, (rows, columns))


def _png(content: bytes) -> NDArray[np.uint8]:
    """PNG (W3C PNG, ISO/IEC 15948): the decoder expands palettes and depths under 8 bit."""
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise Refused("truncated", f"PNG: {len(content)} B", "IHDR")
    columns, rows, depth, colour = struct.unpack_from(">LLBB", content, 16)
    check_size(rows, columns)
    if b"acTL" in content[33:4096]:
        raise Refused("multiframe", "APNG", 1)
    if content.rfind(b"IEND") < 0:
        raise Refused("truncated", f"PNG: {len(content)} B", "IEND")
    if colour not in PNG_SAMPLES:
        raise Refused("unreadable", f"PNG: {colour}", ", ".join(map(str, PNG_SAMPLES)))
    samples = PNG_SAMPLES[colour] + (colour < 4 and b"tRNS" in content)
    require_memory(decoded_bytes(rows, columns, samples, 2 if depth == 16 else 1))
    return grey(imagecodecs.png_decode(content))


def _jpeg(content: bytes) -> NDArray[np.uint8]:
    stream = jpeg_codestream(content)
    check_size(stream.rows, stream.columns)
    return upright(_jpeg_grey(content, stream), stream.orientation)


def _jpeg_grey(content: bytes, stream: Codestream) -> NDArray[np.uint8]:
    """JPEG to grey: Y of YCbCr, luma of RGB, luma of CMYK (which Adobe writes inverted) printed on white paper."""
    out = "GRAYSCALE" if stream.is_ybr and not stream.lossless else None
    samples = 1 if out else stream.samples
    pixels = stream.rows * stream.columns
    decoded = decoded_bytes(stream.rows, stream.columns, samples, 1 if stream.precision <= 8 else 2)
    turned = pixels if stream.orientation > 1 else 0
    require_memory(decoded + max(stream.working_bytes, turned))
    values = imagecodecs.jpeg8_decode(content, outcolorspace=out)
    if values.ndim == 3 and values.shape[2] == 4:
        values = _printed(values, stream.is_inverted)
    return grey(values, bits=stream.precision)


def _printed(values: NDArray[np.uint8], is_inverted: bool) -> NDArray[np.uint8]:
    """CMYK to RGB, in place."""
    for rows in strips(values):
        light = values[rows] if is_inverted else 255 - values[rows]
        values[rows, :, :3] = (light[..., :3].astype(np.uint16) * light[..., 3:] + 127) // 255
    return values[..., :3]


def _tiff(content: bytes) -> NDArray[np.uint8]:
    from data_specs.cxr.tiff import read_tiff  # noqa: PLC0415  rare, and tifffile is slow to load

    return read_tiff(content)
