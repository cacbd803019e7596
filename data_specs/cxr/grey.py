"""Decoded samples of a raster file to a film: grey of 8 bits, upright."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_specs.cxr.display import DISPLAY_PERCENTILES, looked_up, luma_plane, on_a_grid, stretched
from data_specs.cxr.image import MAX_PIXELS, MIN_SHORT_SIDE_PX, strips
from data_specs.problems import Refused
from data_specs.reading import refuse_to_assess, require_memory

Array = NDArray[Any]


def check_size(rows: int, columns: int) -> None:
    """Refuse a film by the size that its header states.

    Raises
    ------
    Refused
        ``too_large``, ``too_small``
    """
    if rows * columns > MAX_PIXELS:
        raise Refused("too_large", f"{columns} × {rows} px", f"{MAX_PIXELS // 10**6} Mpx")
    if min(rows, columns) < MIN_SHORT_SIDE_PX:
        refuse_to_assess("too_small", f"{columns} × {rows} px", f"{MIN_SHORT_SIDE_PX} px")


def decoded_bytes(rows: int, columns: int, samples: int, sample_bytes: int) -> int:
    """What the decoded samples and :func:`grey` of them take: the samples, their luma, the film, its opacity."""
    luma = sample_bytes if samples > 2 else 0
    return rows * columns * (samples * sample_bytes + luma + 1)


def grey(values: Array, bits: int | None = None, ybr: bool = False) -> NDArray[np.uint8]:
    """Decoded samples to 8-bit grey.

    Parameters
    ----------
    values
        ``(rows, columns)`` or ``(rows, columns, samples)``: grey, grey and alpha, RGB, or RGB and alpha.
    bits
        Depth of the samples where it is not that of their type.
    ybr
        Whether three samples are Y, Cb, Cr.

    Raises
    ------
    Refused
        ``unsupported_format``: samples that are no integers of 8 or 16 bits.
    """
    depth = bits or 8 * values.dtype.itemsize
    if values.dtype.kind not in "ui" or values.dtype.itemsize > 2:
        raise Refused("unsupported_format", str(values.dtype), "uint8, uint16")
    if values.ndim == 2:
        return _eight_bits(values, depth)
    samples = values.shape[2]
    shown = _eight_bits(values[..., 0] if samples <= 2 or ybr else luma_plane(values), depth)
    return _on_black(shown, values[..., samples - 1], depth) if samples in (2, 4) and not ybr else shown


def _on_black(shown: NDArray[np.uint8], alpha: Array, depth: int) -> NDArray[np.uint8]:
    """The film with its transparent parts black; as it is where all of it is opaque, or all transparent."""
    opaque = 2**depth - 1
    if alpha.min() >= opaque or alpha.max() <= 0:
        return shown
    faded = np.empty(shown.shape, np.uint8)
    for rows in strips(shown):
        faded[rows] = np.rint(shown[rows] * (alpha[rows].astype(np.float32) / np.float32(opaque)))
    return faded


def _eight_bits(plane: Array, depth: int) -> NDArray[np.uint8]:
    """Integers of ``depth`` bits to 8, by a table of all values."""
    size = 256**plane.dtype.itemsize
    unsigned = plane.view(f"u{plane.dtype.itemsize}")
    if depth < 8:
        scaled = np.clip(np.rint(np.arange(size) * (255 / (2**depth - 1))), 0, 255)
        return looked_up(scaled.astype(np.uint8), unsigned)
    if plane.dtype == np.uint8:
        return plane
    if plane.dtype.kind == "u" and depth == 16:
        for widened in (257, 256):  # the byte written twice, or followed by zeros
            if all(not (plane[rows] % np.uint16(widened)).any() for rows in strips(plane)):
                return looked_up((np.arange(size) // widened).astype(np.uint8), plane)
    low, high = np.percentile(on_a_grid(plane), DISPLAY_PERCENTILES, method="nearest")
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    patterns = np.arange(size).astype(unsigned.dtype).view(plane.dtype).astype(np.float64)
    shown = np.rint(stretched(patterns, float(low), float(high)) * 255).astype(np.uint8)
    return looked_up(shown, unsigned)


def spread(film: NDArray[np.uint8], between: tuple[float, float]) -> NDArray[np.uint8]:
    """A film of 8 bits with its grey levels spread between two percentiles of its values; pure black and white are not
    counted."""
    counts = np.bincount(on_a_grid(film).ravel(), minlength=256)
    if between != (0.0, 100.0) and counts[1:255].any():
        counts[[0, 255]] = 0
    low, high = np.percentile(np.repeat(np.arange(256), counts), between)
    table = np.rint(stretched(np.arange(256.0), float(low), float(high)) * 255).astype(np.uint8)
    require_memory(2 * film.size)
    return looked_up(table, film)


def upright(values: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rows from top to bottom, columns from left to right, as Orientation asks (TIFF 6.0 section 8, Exif)."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return values[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
