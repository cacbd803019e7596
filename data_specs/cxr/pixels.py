"""Decodes DICOM pixel data to stored values, by a table of transfer syntaxes and their decoders.

The codecs of imagecodecs are called directly: pydicom's own decoding warns for the whole process and logs a traceback
for each failure.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from data_specs.cxr.codestream import Codestream, jpeg_2000_codestream, jpeg_codestream
from data_specs.cxr.image import MAX_PIXELS
from data_specs.dicom.header import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE, Header
from data_specs.problems import Refused
from data_specs.reading import require_memory

Array = NDArray[Any]
"""``uint8`` or ``uint16``."""

Buffer = bytes | memoryview

RLE_SURPLUS = 128
"""Bytes that a segment may give beyond its pixels, and that are left out: some encoders fill up their last run."""

MAX_FRAGMENTS = 50_000
"""Items of one frame: writers that cut a frame at all cut it at some kilobytes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The one frame of a film, as its header describes it.

    Parameters
    ----------
    rows, columns, samples
        Shape; ``samples`` is 1 or 3.
    bits_allocated, bits_stored, high_bit, signed
        Layout of one stored value (PS3.5 section 8.1.1).
    photometric
        PhotometricInterpretation, upper case.
    planar
        Whether the samples of a native colour frame lie in planes.
    """

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """Decoded values: ``(rows, columns)`` or ``(rows, columns, 3)``, bit patterns as unsigned integers.

    Parameters
    ----------
    precision
        How many of the lowest bits the decoder gives a meaning: those of the codestream, else BitsAllocated.
    signed
        Whether the patterns are signed numbers of two's complement.
    exact
        False after a lossy codec: its values may be greater than BitsStored allows, and are then clipped.
    """

    values: Array
    precision: int
    signed: bool
    exact: bool = True


def frame_of(header: Header) -> Frame:
    """Shape and layout of the frame.

    Raises
    ------
    Refused
        ``unreadable``: an element that the layout needs is missing, or a projection film cannot have its value
        (PS3.3 C.7.6.3). ``too_large``: the header states more than :data:`data_specs.cxr.image.MAX_PIXELS`.
    """
    rows, columns = (_required(header, keyword, range(1, 65536)) for keyword in ("Rows", "Columns"))
    if rows * columns > MAX_PIXELS:
        raise Refused("too_large", f"{columns} × {rows} px", f"{MAX_PIXELS // 10**6} Mpx")
    allocated = _required(header, "BitsAllocated", (8, 16))
    stored = _required(header, "BitsStored", range(1, allocated + 1))
    high = header.integer("HighBit")
    samples = header.integer("SamplesPerPixel")
    if samples not in (1, 3, None):
        raise Refused("unreadable", f"SamplesPerPixel {samples}", "1, 3")
    representation = header.integer("PixelRepresentation")
    if representation not in (0, 1, None):
        raise Refused("unreadable", f"PixelRepresentation {representation}", "0, 1")
    return Frame(
        rows=rows,
        columns=columns,
        samples=samples or 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high if high is not None and stored - 1 <= high < allocated else stored - 1,
        signed=representation == 1,
        photometric=header.text("PhotometricInterpretation").upper(),
        planar=header.integer("PlanarConfiguration") == 1,
    )


def _required(header: Header, keyword: str, accepted: range | tuple[int, ...]) -> int:
    value = header.integer(keyword)
    if value is None or value not in accepted:
        expected = f"{accepted[0]}–{accepted[-1]}" if isinstance(accepted, range) else ", ".join(map(str, accepted))
        raise Refused("unreadable", f"{keyword} {'—' if value is None else value}", f"{keyword} {expected}")
    return value


def stored_values(header: Header, frame: Frame, least_px: int | None = None) -> Stored:
    """Decode the pixel data.

    Parameters
    ----------
    least_px
        Where a codec can leave out the finest levels, the shorter side need be no longer than this; ``None``: in full.

    Raises
    ------
    Refused
        ``unsupported_transfer_syntax``, ``truncated`` (less data than the frame needs), ``unreadable`` (the codestream
        is damaged, or is of another shape than the header says), ``too_costly`` (before it is decoded).
    """
    decode = DECODERS.get(header.transfer_syntax)
    if decode is None:
        raise Refused("unsupported_transfer_syntax", header.transfer_syntax, "1.2.840.10008.1.2.1")
    if decode is _jpeg_2000:
        return _jpeg_2000(header, frame, least_px)
    return decode(header, frame)


def _require_memory(frame: Frame, data: bytes = b"", *, decoded: int = 0, working: int = 0) -> None:
    """Count what decoding and displaying a frame take, before any of it is allocated.

    Parameters
    ----------
    data
        The compressed frame, copied from the file.
    decoded
        Bytes of the decoded samples; 0 where they are viewed in the file.
    working
        What the decoder takes beside them, until they are decoded.
    """
    pixels = frame.rows * frame.columns
    luma = pixels * (frame.bits_allocated // 8) if frame.samples == 3 else 0
    require_memory(len(data) + decoded + max(working, pixels + luma))


def _n_bytes(frame: Frame) -> int:
    return frame.rows * frame.columns * frame.samples * (frame.bits_allocated // 8)


def _native(header: Header, frame: Frame) -> Stored:
    """Uncompressed values (PS3.5 section 8.1, Annex A.1 to A.3), viewed in place."""
    pixels = header.pixels
    assert pixels is not None  # noqa: S101 (the reader refuses a file without pixel data first)
    if pixels.length is None:
        raise Refused("unreadable", "PixelData 0xFFFFFFFF", header.transfer_syntax)
    swapped_bytes = header.transfer_syntax == EXPLICIT_BIG and pixels.vr == "OW" and frame.bits_allocated == 8
    _require_memory(frame, decoded=2 * _n_bytes(frame) if swapped_bytes else 0)
    values = _unpacked(
        memoryview(pixels.source)[pixels.offset : pixels.offset + pixels.length], header, frame, swapped_bytes
    )
    return Stored(values, frame.bits_allocated, frame.signed)


def _unpacked(data: Buffer, header: Header, frame: Frame, swapped_bytes: bool = False) -> Array:
    half_chroma = frame.photometric == "YBR_FULL_422"  # two luma to each pair of chroma samples, C.7.6.3.1.2
    count = frame.rows * frame.columns * (2 if half_chroma else frame.samples)
    needed = count * frame.bits_allocated // 8
    if len(data) < needed:
        raise Refused("truncated", f"{len(data)} B", f"{needed} B")
    kind = np.dtype(np.uint8) if frame.bits_allocated == 8 else np.dtype("<u2" if header.little_endian else ">u2")
    if swapped_bytes:
        data = np.frombuffer(data, np.uint16, (needed + 1) // 2).byteswap().tobytes()
    flat = np.frombuffer(data, kind, count)
    if half_chroma:
        return flat.reshape(-1, 4)[:, :2].reshape(frame.rows, frame.columns)
    if frame.samples == 1:
        return flat.reshape(frame.rows, frame.columns)
    if frame.planar:
        return flat.reshape(3, frame.rows, frame.columns).transpose(1, 2, 0)
    return flat.reshape(frame.rows, frame.columns, 3)


def _fragments(header: Header) -> bytes:
    """Bytes of the frame: its fragments joined, without the basic offset table (PS3.5 section A.4).

    Raises
    ------
    Refused
        ``truncated``: an item states more bytes than the file has left. ``unreadable``: an item is missing, or the
        pixel data is not encapsulated.
    """
    pixels = header.pixels
    assert pixels is not None  # noqa: S101 (the reader refuses a file without pixel data first)
    view = memoryview(pixels.source)
    if pixels.length is not None:
        raise Refused("unreadable", f"PixelData {pixels.length} B", header.transfer_syntax)
    fragments: list[memoryview] = []
    at = pixels.offset
    while at + 8 <= len(view):
        group, element, length = struct.unpack_from("<HHL", view, at)
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000) or length == 0xFFFFFFFF:
            raise Refused("unreadable", f"({group:04X},{element:04X})", "(FFFE,E000)")
        if at + 8 + length > len(view):
            raise Refused("truncated", f"{len(view) - at - 8} B", f"{length} B")
        fragments.append(view[at + 8 : at + 8 + length])
        if len(fragments) > MAX_FRAGMENTS:
            raise Refused("unreadable", f"(FFFE,E000) > {MAX_FRAGMENTS}", "(FFFE,E000)")
        at += 8 + length
    frame = fragments[1:]  # the first item is the offset table, empty or not
    if not frame:
        raise Refused("truncated", f"{len(view)} B", "(FFFE,E000)")
    require_memory(sum(map(len, frame)))
    return b"".join(frame)


def _encapsulated_native(header: Header, frame: Frame) -> Stored:
    data = _fragments(header)
    _require_memory(frame, data)
    return Stored(_unpacked(data, header, frame), frame.bits_allocated, frame.signed)


def _deflated_frame(header: Header, frame: Frame) -> Stored:
    """Deflated Image Frame Compression (PS3.5 section A.4.13), inflated to no more than the frame needs."""
    data, needed = _fragments(header), _n_bytes(frame)
    _require_memory(frame, data, decoded=needed, working=needed)  # zlib joins its pieces at the end
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, needed)
    return Stored(_unpacked(inflated, header, frame), frame.bits_allocated, frame.signed)


def _rle(header: Header, frame: Frame) -> Stored:
    """RLE Lossless (PS3.5 Annex G): one segment for each byte of each sample, samples in planes."""
    kind = np.dtype(np.uint8) if frame.bits_allocated == 8 else np.dtype("<u2")
    n_pixels = frame.rows * frame.columns
    data = _fragments(header)
    _require_memory(frame, data, decoded=_n_bytes(frame), working=len(data) + n_pixels + RLE_SURPLUS)
    planes = np.empty((frame.samples, n_pixels, kind.itemsize), np.uint8)
    segments = _rle_segments(data, frame.samples * kind.itemsize)
    for number, segment in enumerate(segments):
        plane = imagecodecs.packbits_decode(segment, out=n_pixels + RLE_SURPLUS)
        if len(plane) < n_pixels:
            raise Refused("truncated", f"{len(plane)} B", f"{n_pixels} B")
        sample, byte = divmod(number, kind.itemsize)
        planes[sample, :, kind.itemsize - 1 - byte] = np.frombuffer(
            plane, np.uint8, n_pixels
        )  # the highest comes first
    values = planes.reshape(frame.samples, -1).view(kind).reshape(frame.samples, frame.rows, frame.columns)
    return Stored(values.transpose(1, 2, 0) if frame.samples == 3 else values[0], frame.bits_allocated, frame.signed)


def _rle_segments(data: bytes, n: int) -> list[bytes]:
    """The ``n`` segments of a frame, by the offsets in its header (PS3.5 section G.5)."""
    stated, *offsets = struct.unpack("<16L", data[:64].ljust(64, b"\0"))
    if stated != n:
        raise Refused("unreadable", f"RLE {stated}", f"RLE {n}")
    ends = [*offsets[1:n], len(data)]
    if any(not 64 <= start <= end <= len(data) for start, end in zip(offsets[:n], ends, strict=True)):
        raise Refused("unreadable", "RLE", "PS3.5 G.5")
    return [data[start:end] for start, end in zip(offsets[:n], ends, strict=True)]


def _jpeg(header: Header, frame: Frame) -> Stored:
    """JPEG by libjpeg-turbo: baseline, extended (8 and 12 bit), progressive and lossless (2 to 16 bit)."""
    data = _fragments(header)
    stream = jpeg_codestream(data)
    _check_shape(stream, frame)
    space, out = None, None
    if frame.samples == 3:
        # A codestream without JFIF or Adobe marker does not state its colours; the header does.
        space = "RGB" if frame.photometric == "RGB" and not stream.says_colours else None
        out = "GRAYSCALE" if space is None and stream.is_ybr and not stream.lossless else None
    _require_memory(frame, data, decoded=_n_bytes(frame), working=stream.working_bytes)
    values = imagecodecs.jpeg8_decode(data, colorspace=space, outcolorspace=out)
    signed = frame.signed and stream.lossless  # the samples of the lossy processes have no sign (T.81 section A.3.1)
    return Stored(_checked(values, frame, grey=out is not None), stream.precision, signed, exact=stream.lossless)


def _jpeg_ls(header: Header, frame: Frame) -> Stored:
    """JPEG-LS (ITU-T T.87) by CharLS; near-lossless where NEAR is not zero."""
    data = _fragments(header)
    stream = jpeg_codestream(data)
    _check_shape(stream, frame)
    _require_memory(frame, data, decoded=_n_bytes(frame))
    values = imagecodecs.jpegls_decode(data)
    exact = header.transfer_syntax == "1.2.840.10008.1.2.4.80"
    return Stored(_checked(values, frame), stream.precision, frame.signed, exact)


def _jpeg_2000(header: Header, frame: Frame, least_px: int | None = None) -> Stored:
    """JPEG 2000 (ITU-T T.800) and HTJ2K (T.814) by OpenJPEG, without the finest levels where they are not needed.

    OpenJPH decodes HTJ2K in half the time, but through imagecodecs it accepts damaged data: it prints its error and
    raises none, and the pixels that it did not decode hold whatever was in memory.
    """
    data = _fragments(header)
    stream = jpeg_2000_codestream(data)
    _check_shape(stream, frame)
    _require_memory(frame, data, decoded=_n_bytes(frame), working=stream.working_bytes)
    if (halvings := _halvings(stream, least_px)) and (smaller := _halved(data, stream, halvings)) is not None:
        return Stored(smaller, stream.precision, frame.signed or stream.signed, stream.lossless)
    values = imagecodecs.jpeg2k_decode(data, planar=False)
    signed = frame.signed or values.dtype.kind == "i"
    unsigned = values.view(np.uint8 if values.dtype.itemsize == 1 else np.uint16)
    return Stored(_checked(unsigned, frame), stream.precision, signed, stream.lossless)


def _halvings(stream: Codestream, least_px: int | None) -> int:
    """How often a grey image can be halved with its shorter side still ``least_px`` long.

    Pillow rounds half up what JPEG 2000 rounds up: a side that the two round differently is halved less often.
    """
    sides = stream.rows, stream.columns
    if least_px is None or stream.samples > 1:
        return 0
    possible = (
        n
        for n in range(stream.levels, 0, -1)
        if min(sides) >= least_px << n and all(-(-side >> n) == side + (1 << n - 1) >> n for side in sides)
    )
    return next(possible, 0)


def _halved(data: bytes, stream: Codestream, halvings: int) -> Array | None:
    """The image at a lower resolution as bit patterns; ``None`` where it is not decoded so, and is to be in full.

    Pillow shifts the values to the top of 8 or 16 bits, and adds half of their range to signed ones.
    """
    image = Image.open(io.BytesIO(data), formats=("JPEG2000",))
    assert isinstance(image, Jpeg2KImageFile)  # noqa: S101  the one format that was asked for
    image.reduce = halvings
    try:
        image.load()
    except OSError:
        return None
    bits = 8 if stream.precision <= 8 else 16
    values = np.asarray(image) >> (bits - stream.precision)
    if stream.signed:
        values = (values - values.dtype.type(1 << stream.precision - 1)) & values.dtype.type(2**bits - 1)
    return values


def _check_shape(stream: Codestream, frame: Frame) -> None:
    """Refuse a codestream of another shape than the header states, before memory is allocated for it."""
    found = (stream.columns, stream.rows, stream.samples)
    if found != (frame.columns, frame.rows, frame.samples) or stream.precision > frame.bits_allocated:
        expected = f"{frame.columns} × {frame.rows} px × {frame.samples}, {frame.bits_allocated} bit"
        raise Refused("unreadable", "{} × {} px × {}, {} bit".format(*found, stream.precision), expected)


def _checked(values: Array, frame: Frame, grey: bool = False) -> Array:
    shape = (frame.rows, frame.columns) if frame.samples == 1 or grey else (frame.rows, frame.columns, 3)
    if values.shape != shape or values.dtype.kind != "u" or values.dtype.itemsize > 2:
        raise Refused("unreadable", f"{values.shape} {values.dtype}", f"{shape}")
    return values


DECODERS: dict[str, Callable[[Header, Frame], Stored]] = {
    IMPLICIT_LITTLE: _native,
    "1.2.840.10008.1.2.1": _native,
    EXPLICIT_BIG: _native,
    DEFLATED: _native,
    "1.2.840.10008.1.2.1.98": _encapsulated_native,
    "1.2.840.10008.1.2.8.1": _deflated_frame,
    "1.2.840.10008.1.2.5": _rle,
    "1.2.840.10008.1.2.4.50": _jpeg,
    "1.2.840.10008.1.2.4.51": _jpeg,
    "1.2.840.10008.1.2.4.53": _jpeg,
    "1.2.840.10008.1.2.4.55": _jpeg,
    "1.2.840.10008.1.2.4.57": _jpeg,
    "1.2.840.10008.1.2.4.70": _jpeg,
    "1.2.840.10008.1.2.4.80": _jpeg_ls,
    "1.2.840.10008.1.2.4.81": _jpeg_ls,
    "1.2.840.10008.1.2.4.90": _jpeg_2000,
    "1.2.840.10008.1.2.4.91": _jpeg_2000,
    "1.2.840.10008.1.2.4.92": _jpeg_2000,
    "1.2.840.10008.1.2.4.93": _jpeg_2000,
    "1.2.840.10008.1.2.4.201": _jpeg_2000,
    "1.2.840.10008.1.2.4.202": _jpeg_2000,
    "1.2.840.10008.1.2.4.203": _jpeg_2000,
}
"""Transfer syntax (PS3.6 table A-1) to decoder. 53 and 55 are the retired progressive JPEG processes; video and JPIP
syntaxes are never films."""
