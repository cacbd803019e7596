"""From stored values to the film as it is shown: the DICOM greyscale pipeline as one look-up table.

A stored value has at most 16 bits. So the whole pipeline (unused bits, sign, Modality LUT, VOI LUT or window, polarity,
padding) is computed once for each possible value, and each pixel is looked up.

References
----------
DICOM PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (Photometric Interpretation), C.7.5.1.1.2 (Pixel
Padding); PS3.4 N.2 (the order of the transformations).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_specs.cxr.image import strips
from data_specs.cxr.pixels import Array, Frame, Stored
from data_specs.dicom.header import Header
from data_specs.problems import Problem, Refused

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Counts = NDArray[np.intp]

DISPLAY_PERCENTILES = (0.5, 99.5)
"""Where a film of more than 8 bits has no usable window, these percentiles become black and white: values beyond them
are lead markers, broken pixels and the direct beam."""

MIN_SHARE_WITHIN = 0.10
"""A window that shows less than this share of the film as grey, and the rest pure black or white, is not used."""

MIN_LEVELS_USED = 24
"""A window that shows the middle 98 % of the film in fewer of the 256 grey levels is not used."""

LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in luma (ITU-R BT.601-7 section 2.5.1), as in the Y of YBR_FULL (PS3.3 C.7.6.3.1.2)."""

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
LUMA_FIRST = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422")
COLOUR = ("RGB", "YBR_ICT", "YBR_RCT", *LUMA_FIRST)
"""Photometric interpretations of colour; JPEG 2000 decoders give red, green and blue for ICT and RCT."""


def displayed(
    header: Header, frame: Frame, stored: Stored, between: tuple[float, float] | None = None
) -> tuple[NDArray[np.uint8], tuple[Problem, ...]]:
    """The film as it is to be looked at.

    Parameters
    ----------
    header, frame
        As the file states them.
    stored
        Decoded values.
    between
        Percentiles of a grey film's values, from dark to bright, that become black and white in place of what the file
        asks for.

    Returns
    -------
    ``(rows, columns) uint8``, higher is brighter, and problems of severity ``warn``

    Raises
    ------
    Refused
        ``unreadable``: a PhotometricInterpretation that is not read; a look-up table, slope, intercept or window that
        the file has and that cannot be read.
    """
    if frame.samples == 3 and frame.photometric in COLOUR:
        return _luma(stored.values, frame), ()
    if frame.samples == 1 and frame.photometric == "PALETTE COLOR":
        return _through_palette(header, frame, stored), ()
    if frame.samples == 1 and frame.photometric in MONOCHROME:
        table, problems = _greyscale_table(header, frame, stored, between)
        return looked_up(table, stored.values), problems
    raise Refused("unreadable", f"PhotometricInterpretation {frame.photometric or '—'}", ", ".join(MONOCHROME))


def looked_up(table: NDArray[Any], values: Array) -> NDArray[Any]:
    """Each value's entry in a table of all values; NumPy makes 64-bit indices of them, so it is done in strips."""
    found = np.empty(values.shape, table.dtype)
    for rows in strips(values):
        np.take(table, values[rows], out=found[rows], mode="clip")
    return found


def luma(red: Any, green: Any, blue: Any) -> Floats:
    """Luma of three planes, in their own range."""
    return np.asarray(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)


def luma_plane(colour: Array) -> Array:
    """Luma of ``(rows, columns, 3 or more)`` samples, as ``(rows, columns)`` of the same type."""
    parts = [colour[rows] for rows in strips(colour)]
    if all(np.array_equal(part[..., 0], part[..., c]) for part in parts for c in (1, 2)):
        return colour[..., 0]
    grey = np.empty(colour.shape[:2], colour.dtype)
    for rows in strips(colour):
        part = colour[rows].astype(np.float32)
        grey[rows] = np.rint(luma(part[..., 0], part[..., 1], part[..., 2]))
    return grey


def _luma(values: Array, frame: Frame) -> NDArray[np.uint8]:
    """Colour frame (a secondary capture) to grey; VOI LUTs do not apply to colour (PS3.3 C.11.2)."""
    top = 2**frame.bits_stored - 1
    if values.ndim == 3:  # otherwise the decoder gave the luma plane only
        values = values[..., 0] if frame.photometric in LUMA_FIRST else luma_plane(values)
    if top == 255 and values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    patterns = np.arange(256**values.dtype.itemsize)
    return looked_up(np.clip(np.rint(patterns * (255 / top)), 0, 255).astype(np.uint8), values)


def _through_palette(header: Header, frame: Frame, stored: Stored) -> NDArray[np.uint8]:
    """Palette colour to grey (PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6)."""
    codes = _codes(frame, stored)
    planes = []
    for colour in ("Red", "Green", "Blue"):
        descriptor = header.numbers(f"{colour}PaletteColorLookupTableDescriptor")
        data = header.values.get(f"{colour}PaletteColorLookupTableData")
        plane = _look_up(codes, descriptor, data, header)
        if plane is None:
            raise Refused("unreadable", f"{colour}PaletteColorLookupTable —", "PS3.3 C.7.6.3.1.5")
        planes.append(plane)
    return looked_up(np.rint(luma(*planes) * 255).astype(np.uint8), stored.values)


def _greyscale_table(
    header: Header, frame: Frame, stored: Stored, between: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], tuple[Problem, ...]]:
    """Grey level of each possible bit pattern: ``(256,)`` or ``(65536,) uint8``."""
    codes = _codes(frame, stored)
    counts = _counts(stored.values, codes.size)
    padding = _padding(header, frame, codes)
    counts[padding] = 0
    values = _modality_values(header, codes)
    shown = _values_of_interest(header, values)
    problems: tuple[Problem, ...] = ()
    if shown is not None and not _is_believable(shown, values, counts):
        problems = (Problem("window_implausible", "warn", _stated_window(header), f"≥ {MIN_LEVELS_USED} / 256"),)
        shown = None
    if between is not None:
        shown = _between(values, counts, between, bright_is_low=frame.photometric == "MONOCHROME1")
    elif shown is None:
        shown = _full_range(values, counts, frame, guessed=bool(problems))
    if frame.photometric == "MONOCHROME1":
        # PresentationLUTShape is not read: it is INVERSE exactly where this is MONOCHROME1 (PS3.3 C.8.11.3.1.2)
        shown = 1 - shown
    shown = np.where(padding, 0.0, shown)
    return np.rint(shown * 255).astype(np.uint8), problems


def _codes(frame: Frame, stored: Stored) -> Codes:
    """The stored value that each bit pattern means (PS3.5 section 8.1.1).

    Where the decoder gave whole cells, the bits below the value (HighBit) are left out; where it gave the value alone,
    as encoders of fewer bits than the cell do, there are none. The sign is at the highest bit of the value.
    """
    size = 256 if stored.values.dtype.itemsize == 1 else 65536
    span = 2**frame.bits_stored
    below = frame.high_bit + 1 - frame.bits_stored if stored.precision > frame.high_bit else 0
    meant: Codes = (np.arange(size, dtype=np.int64) & (2**stored.precision - 1)) >> below
    n_bits = stored.precision - below
    if stored.exact:
        n_bits = min(n_bits, frame.bits_stored)
        meant &= span - 1
        return _with_sign_at(n_bits, meant) if frame.signed else meant
    if not stored.signed:
        return np.asarray(np.minimum(meant, span - 1))
    if stored.values.max() < 2 ** (stored.precision - 1):
        # the encoder did not extend the sign to the whole cell, or no value is negative
        n_bits = min(n_bits, frame.bits_stored)
        meant &= 2**n_bits - 1
    low, high = (-span // 2, span // 2 - 1) if frame.signed else (0, span - 1)
    return np.clip(_with_sign_at(n_bits, meant), low, high)


def _with_sign_at(n_bits: int, patterns: Codes) -> Codes:
    return np.asarray(np.where(patterns >= 2 ** (n_bits - 1), patterns - 2**n_bits, patterns))


def _counts(values: Array, size: int) -> Counts:
    """How often each pattern occurs, on a grid of at most a million pixels."""
    return np.bincount(on_a_grid(values).ravel(), minlength=size)


def on_a_grid(values: Array) -> Array:
    """At most a million pixels of a film, every one of a small film: enough for its percentiles."""
    step = int(np.ceil(np.sqrt(values.size / 1e6)))
    return values[::step, ::step]


def _padding(header: Header, frame: Frame, codes: Codes) -> NDArray[np.bool_]:
    """Which patterns are padding: PixelPaddingValue, or up to PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2)."""
    value = header.integer("PixelPaddingValue")
    if value is None:
        return np.zeros(codes.size, dtype=bool)
    limit = header.integer("PixelPaddingRangeLimit")
    ends = [_with_sign(n, frame) for n in (value, value if limit is None else limit)]
    return (codes >= min(ends)) & (codes <= max(ends))


def _with_sign(value: int, frame: Frame) -> int:
    """A 16-bit value with the sign that PixelRepresentation states; implicit VR does not say whether it is US or SS."""
    value &= 0xFFFF
    return value - 0x10000 if frame.signed and value >= 0x8000 else value


def _modality_values(header: Header, codes: Codes) -> Floats:
    """Stored values through the Modality LUT, or RescaleSlope and RescaleIntercept (PS3.3 C.11.1)."""
    for item in header.items("ModalityLUTSequence")[:1]:
        values = _look_up(codes, _descriptor(header, item), item.get("LUTData"), header, normalised=False)
        if values is None:
            raise Refused("unreadable", "ModalityLUTSequence", "PS3.3 C.11.1.1")
        return values
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if slope == 0:
        raise Refused("unreadable", "RescaleSlope 0", "RescaleSlope 0.5")
    return np.asarray(codes * (1.0 if slope is None else slope) + (intercept or 0.0), dtype=np.float64)


def _values_of_interest(header: Header, values: Floats) -> Floats | None:
    """Values through the first VOI LUT, else the first window, as 0 to 1; ``None`` where the file has neither."""
    for item in header.items("VOILUTSequence")[:1]:
        shown = _look_up(values, _descriptor(header, item), item.get("LUTData"), header)
        if shown is None:
            raise Refused("unreadable", "VOILUTSequence", "PS3.3 C.11.2.1.1")
        return shown
    center, width = header.number("WindowCenter"), header.number("WindowWidth")
    if center is None or width is None:
        return None
    return window(values, center, width, header.text("VOILUTFunction").upper())


def _stated_window(header: Header) -> str:
    if header.items("VOILUTSequence"):
        return "VOILUTSequence"
    return f"WindowCenter {header.number('WindowCenter'):g}; WindowWidth {header.number('WindowWidth'):g}"


def window(values: Floats, center: float, width: float, function: str) -> Floats:
    """VOI window as 0 to 1 (PS3.3 C.11.2.1.2 and C.11.2.1.3); all zero for a width that ``function`` does not allow.

    Parameters
    ----------
    values
        Output of the Modality LUT.
    center, width
        WindowCenter and WindowWidth, in the unit of ``values``.
    function
        VOILUTFunction: ``LINEAR`` (also where empty or unknown), ``LINEAR_EXACT`` or ``SIGMOID``.
    """
    if width <= 0 or (width < 1 and function not in ("LINEAR_EXACT", "SIGMOID")):
        return np.zeros_like(values)
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500))))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _descriptor(header: Header, item: dict[str, Any]) -> tuple[float, ...]:
    part = Header(header.transfer_syntax, item, header.little_endian, None)
    return part.numbers("LUTDescriptor")


def _look_up(
    values: NDArray[Any], descriptor: tuple[float, ...], data: Any, header: Header, *, normalised: bool = True
) -> Floats | None:
    """Values through a look-up table (PS3.3 C.11.1.1, C.11.2.1.1), as 0 to 1 where ``normalised``.

    ``None`` where descriptor and data do not make a table. Values before the first entry get the first, values after
    the last entry get the last. Two 8-bit entries may share a word. Some writers state 16 bits for entries of 12: a
    stated depth that the data exceeds, or of which it uses less than a quarter, is replaced by that of the data.
    """
    if len(descriptor) != 3 or data is None:
        return None
    count = int(descriptor[0]) & 0xFFFF or 65536
    first = int(descriptor[1])
    if first >= 0x8000 and values.min() < 0:
        first -= 0x10000
    bits = int(descriptor[2])
    if isinstance(data, bytes) and count <= len(data) < 2 * count:
        entries = np.frombuffer(data, np.uint8).astype(np.uint16)
    else:
        entries = header.words(data)
        if entries.size < count:
            entries = entries.astype("<u2").view(np.uint8).astype(np.uint16)
    if entries.size < count:
        return None
    entries = entries[:count]
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    found = entries[index].astype(np.float64)
    if not normalised:
        return np.asarray(found)
    top = int(entries.max())
    if not 8 <= bits <= 16 or top >= 2**bits or top < 2 ** (bits - 2):
        bits = max(1, top.bit_length())
    return np.asarray(found / (2**bits - 1))


def _is_believable(shown: Floats, values: Floats, counts: Counts) -> bool:
    """Whether a window shows the film: enough of it as grey, over enough grey levels."""
    low, high = _percentiles(values, counts, 1, 99)
    if low == high:  # only padding, or only one value: no window can show more
        return True
    within = counts[(shown > 0) & (shown < 1)].sum() / counts.sum()
    dark, bright = _percentiles(shown * 255, counts, 1, 99)
    return bool(within >= MIN_SHARE_WITHIN and bright - dark >= MIN_LEVELS_USED)


def _full_range(values: Floats, counts: Counts, frame: Frame, *, guessed: bool) -> Floats:
    """Values as 0 to 1 where the file has no usable window: 8 bits as they are, more than 8 by percentiles."""
    if frame.bits_stored <= 8 and not guessed:
        low, high = float(values.min()), float(values.max())
    else:
        low, high = _percentiles(values, counts, *DISPLAY_PERCENTILES)
    return stretched(values, low, high)


def _between(values: Floats, counts: Counts, between: tuple[float, float], *, bright_is_low: bool) -> Floats:
    """Values as 0 to 1 between two percentiles. The two outermost values, of border and direct beam, do not count."""
    low, high = (100 - between[1], 100 - between[0]) if bright_is_low else between
    counts = counts.copy()
    if between != (0.0, 100.0):
        present = np.flatnonzero(counts)
        ends = present[[np.argmin(values[present]), np.argmax(values[present])]] if present.size > 2 else present[:0]
        counts[ends] = 0
    return stretched(values, *_percentiles(values, counts, low, high))


def stretched(values: Floats, low: float, high: float) -> Floats:
    """``low`` to 0 and ``high`` to 1, clipped; all zero where they are the same."""
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values, dtype=np.float64)


def _percentiles(values: Floats, counts: Counts, low: float, high: float) -> tuple[float, float]:
    """Percentiles of a film from how often each bit pattern occurs; ``values`` need not rise with the pattern."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(counts[order])
    at = np.searchsorted(cumulated, np.array([low, high]) / 100 * cumulated[-1], side="left")
    darkest, brightest = values[order[at]]
    return float(darkest), float(brightest)
