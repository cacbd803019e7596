"""Header of a JPEG or JPEG 2000 codestream, read before a decoder allocates memory for it.

Decoders fill the missing part of a truncated codestream with grey and report nothing, so its end is checked here too.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from data_specs.problems import Refused

MAX_SCANS = 64
"""Scans of one JPEG: encoders write up to about 20 for a progressive image, and decoding takes one pass for each."""

MAX_SEGMENTS = 10_000
"""Marker segments before the first scan: 255 parts of a colour profile are the most that a format asks for."""

_FILL = re.compile(rb"\xff+")


@dataclass(frozen=True, slots=True)
class Codestream:
    """Shape and kind of a compressed image.

    Parameters
    ----------
    rows, columns, samples
        Shape of the image; ``samples`` is the number of its components.
    precision
        Bits of one sample.
    lossless
        Whether decoding gives back the encoded values.
    says_colours, is_ybr, is_inverted
        JPEG only: whether a JFIF or Adobe marker or the names of its components state the colour space; whether
        decoders take it for YCbCr; whether it is Adobe's inverted CMYK.
    orientation
        Exif orientation, 1 where it is not stated.
    signed, levels
        JPEG 2000 only: whether its values have a sign; how often the image can be halved while it is decoded, 0 where
        that is not sure.
    working_bytes
        Memory that a decoder takes beside the decoded samples. libjpeg keeps all coefficients, of two bytes each, where
        it needs several scans. OpenJPEG keeps samples of four bytes, those of a tile once more where there are
        several, and a copy of the codestream (measured: libjpeg-turbo 3.1 takes 2.0 B, OpenJPEG 2.5 4.0 B a sample).
    """

    rows: int
    columns: int
    samples: int
    precision: int
    lossless: bool
    says_colours: bool = False
    is_ybr: bool = False
    is_inverted: bool = False
    orientation: int = 1
    signed: bool = False
    levels: int = 0
    working_bytes: int = 0


def jpeg_codestream(data: bytes) -> Codestream:
    """Header of a JPEG (ITU-T T.81 Annex B) or JPEG-LS (T.87 Annex C) codestream.

    Raises
    ------
    Refused
        ``unreadable``: no frame header, or a damaged one, or too many scans. ``truncated``: no EOI marker at the end.
    """
    frame: tuple[int, int, int, int, int, bytes] | None = None
    jfif, adobe, orientation, at = False, None, 1, 2
    for marker, segment, end in _segments(data):
        at = end
        if _is_frame(marker) and len(segment) >= 6:
            precision, rows, columns, samples = struct.unpack_from(">BHHB", segment)
            frame = (marker, precision, rows, columns, samples, segment[6::3][:samples])
        elif marker == 0xE0 and segment.startswith(b"JFIF"):
            jfif = True
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = exif_orientation(segment[6:])
        elif marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
    if frame is None or 0 in frame[2:5]:
        raise Refused("unreadable", "JPEG: SOF —", "JPEG")
    scans = data.count(b"\xff\xda", at)
    if scans > MAX_SCANS:
        raise Refused("unreadable", f"JPEG: {scans} SOS", f"{MAX_SCANS}")
    if data.find(b"\xff\xd9", at) < 0:
        raise Refused("truncated", f"JPEG: {len(data)} B", "EOI")
    marker, precision, rows, columns, samples, names = frame
    named_rgb = names.upper() == b"RGB"
    return Codestream(
        rows=rows,
        columns=columns,
        samples=samples,
        precision=precision,
        lossless=marker in (0xC3, 0xC7, 0xCB, 0xCF, 0xF7),
        says_colours=jfif or adobe is not None or named_rgb,
        is_ybr=samples == 3 and (jfif or adobe == 1 or (adobe is None and not named_rgb)),
        is_inverted=samples == 4 and adobe is not None,
        orientation=orientation,
        working_bytes=2 * samples * rows * columns if scans > 1 or marker in PROGRESSIVE else 0,
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and end of each marker segment before the first scan (ITU-T T.81 section B.1.1).

    Raises
    ------
    Refused
        ``unreadable``: no marker where one has to be, or too many segments.
    """
    at = 2
    for _ in range(MAX_SEGMENTS if data.startswith(b"\xff\xd8") else 0):
        if at + 4 > len(data):
            return
        fill = _FILL.match(data, at)  # any number of fill bytes may stand before a marker
        if fill is None:
            raise Refused("unreadable", f"0x{data[at]:02X}", "0xFF")
        at = fill.end() - 1
        marker = data[at + 1] if at + 4 <= len(data) else 0xD9
        if marker in (0xDA, 0xD9):
            return
        if marker in (0x01, *range(0xD0, 0xD8)):  # stands alone
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        yield marker, data[at + 4 : end], end
        at = end
    if at > 2:
        raise Refused("unreadable", f"JPEG > {MAX_SEGMENTS}", "JPEG")


PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
"""SOF markers of progressive processes (ITU-T T.81, table B.1)."""


def _is_frame(marker: int) -> bool:
    """SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS."""
    return (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7


def exif_orientation(tiff: bytes) -> int:
    """Orientation (tag 0x0112) of the first directory of an Exif block; 1 where it is absent or damaged.

    References
    ----------
    CIPA DC-008 (Exif 2.32) section 4.6.4; TIFF 6.0 section 2.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (directory,) = struct.unpack_from(f"{order}L", tiff, 4)
    if directory + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHLH", tiff, entry)
        if (tag, kind) == (0x0112, 3) and 1 <= value <= 8:
            return int(value)
    return 1


def jpeg_2000_codestream(data: bytes) -> Codestream:
    """Header of a JPEG 2000 codestream (ITU-T T.800 Annex A), bare or in a JP2 file.

    Raises
    ------
    Refused
        ``unreadable``: no SIZ marker segment. ``truncated``: a tile-part is longer than what is left of the data.
    """
    start = data.find(b"\xff\x4f\xff\x51", 0, 65536)
    if start < 0 or len(data) < start + 42:
        raise Refused("unreadable", "JPEG 2000: SIZ —", "JPEG 2000")
    width, height, left, top = struct.unpack_from(">LLLL", data, start + 8)
    tile_width, tile_height = struct.unpack_from(">LL", data, start + 24)
    (samples, depth) = struct.unpack_from(">HB", data, start + 40)
    at, lossless, levels = start + 2, True, 0
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFF90:
            break
        if marker == 0xFF52 and at + 14 <= len(data):
            # SPcod: decomposition levels (table A.15); the wavelet transform, 1 for the reversible 5-3 filter (A.20)
            levels, lossless = data[at + 9], data[at + 13] == 1
        at += 2 + max(2, length)
    _check_tile_parts(data, at)
    pixels = max(0, height - top) * max(0, width - left)
    one_tile = tile_width >= width and tile_height >= height
    kept = pixels + (0 if one_tile else min(pixels, tile_width * tile_height))
    return Codestream(
        rows=height - top,
        columns=width - left,
        samples=samples,
        precision=(depth & 0x7F) + 1,
        lossless=lossless,
        signed=bool(depth & 0x80),
        levels=levels if (left, top) == (0, 0) else 0,
        working_bytes=4 * samples * kept + len(data),
    )


def _check_tile_parts(data: bytes, at: int) -> None:
    """Walk the tile-parts by their lengths (Psot, table A.5); one of length zero runs to the end of the data."""
    seen = 0
    while at + 12 <= len(data) and data[at : at + 2] == b"\xff\x90":
        (length,) = struct.unpack_from(">L", data, at + 6)
        seen += 1
        if length == 0:
            if b"\xff\xd9" not in data[-16:]:
                raise Refused("truncated", f"JPEG 2000: {len(data)} B", "EOC")
            return
        if length < 14 or at + length > len(data):
            raise Refused("truncated", f"JPEG 2000: {len(data)} B", f"{at + length} B")
        at += length
    if not seen:
        raise Refused("truncated", f"JPEG 2000: {len(data)} B", "SOT")
