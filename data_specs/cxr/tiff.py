"""Reads a chest film from TIFF 6.0 or BigTIFF: one page of 8 or 16 bit integers.

The directories are checked before tifffile parses them, and what the page states before anything is decoded.
"""

from __future__ import annotations

import io
import itertools
import logging
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from data_specs.cxr.codestream import jpeg_codestream
from data_specs.cxr.display import looked_up, luma_plane
from data_specs.cxr.grey import check_size, decoded_bytes, grey, upright
from data_specs.problems import Refused
from data_specs.reading import require_memory

Array = NDArray[Any]

LZW, JPEG = 5, 7
COMPRESSIONS = {1: "none", LZW: "LZW", JPEG: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
"""TIFF compressions that are read (TIFF 6.0 section 2 and Technical Note 2): those that cannot fill more memory than a
strip needs, or whose header is checked first."""

MAX_PAGES, MAX_TAGS = 16, 512
"""Directories, of which one is the film and others may be reduced copies, and entries of one. Baseline TIFF has 30."""
MAX_TAG_BYTES = 1 << 20
"""Values of a directory that are loaded: 16,000 strips take 256 kB."""
MAX_SAMPLES = 4
"""Red, green, blue and alpha."""
LZW_BATCH_BYTES = 4 << 20

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its log lines quote the file, which may name the person


def read_tiff(content: bytes) -> NDArray[np.uint8]:
    """The film, ``(rows, columns) uint8``, upright.

    Raises
    ------
    Refused
        ``unreadable``, ``truncated``, ``unsupported_format``, ``multiframe``, ``too_large``, ``too_small``,
        ``too_costly``.
    """
    page = _page(content)
    check_size(page.imagelength, page.imagewidth)
    segments = _checked_segments(page, content)
    _check_cost(page, segments)
    is_lzw = int(page.compression) == LZW
    values = _lzw_decoded(page, segments) if is_lzw else page.asarray(maxworkers=1)
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag is not None else 1
    photometric, bits = int(page.photometric), int(page.bitspersample)
    if photometric == 2 and page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    values = values.reshape(page.imagelength, page.imagewidth, -1)
    if values.shape[2] == 1:
        values = values[..., 0]
    if photometric == 3:
        values, bits = looked_up(_palette(page, bits), values), 16
    shown = grey(values, bits=bits, ybr=photometric == 6)
    if photometric == 0:  # white is zero
        np.subtract(255, shown, out=shown if shown.flags.writeable else None)
    return upright(shown, orientation)


def _page(content: bytes) -> Any:
    """The one page that is no reduced copy of another and no mask."""
    _check_directories(content)
    try:
        file = tifffile.TiffFile(io.BytesIO(content))
        pages = [page.aspage() for page in itertools.islice(file.pages, MAX_PAGES)]
    except (tifffile.TiffFileError, struct.error, EOFError, IndexError) as error:
        raise Refused("unreadable", f"TIFF: {type(error).__name__}", "TIFF 6.0") from error
    # NewSubfileType bit 0: a reduced version of another page; bit 2: a mask (TIFF 6.0 section 8)
    whole = [page for page in pages if not int(page.subfiletype or 0) & 0b101]
    if len(whole) != 1:
        raise Refused("multiframe" if whole else "unreadable", len(whole), 1)
    return whole[0]


def _check_directories(content: bytes) -> None:
    """Refuse more or larger directories than a film's file has (TIFF 6.0 section 2; BigTIFF: version 43)."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2:4] in (b"\x2b\x00", b"\x00\x2b")
    count_of, entry_of, offset_of = (f"{order}{f}" for f in (("Q", "HHQ", "Q") if is_big else ("H", "HHL", "L")))
    try:
        (at,) = struct.unpack_from(offset_of, content, 8 if is_big else 4)
        for _ in range(MAX_PAGES):
            (n_entries,) = struct.unpack_from(count_of, content, at)
            if n_entries > MAX_TAGS:
                raise Refused("unreadable", f"TIFF: {n_entries}", f"≤ {MAX_TAGS}")
            first, size = at + struct.calcsize(count_of), 20 if is_big else 12
            loaded = 0
            for n in range(n_entries):
                code, kind, count = struct.unpack_from(entry_of, content, first + n * size)
                if code in tifffile.TIFF.TAG_LOAD:
                    loaded += count * struct.calcsize("<" + tifffile.TIFF.DATA_FORMATS.get(kind, "0s"))
            if loaded > MAX_TAG_BYTES:
                raise Refused("unreadable", f"TIFF: {loaded} B", f"≤ {MAX_TAG_BYTES} B")
            (at,) = struct.unpack_from(offset_of, content, first + n_entries * size)
            if at == 0:
                return
    except struct.error as error:
        raise Refused("truncated", f"TIFF: {len(content)} B", "IFD") from error
    raise Refused("multiframe", f"≥ {MAX_PAGES}", 1)


def _checked_segments(page: Any, content: bytes) -> list[memoryview]:
    """The strips or tiles of a page that holds a grey or colour picture of integers.

    Raises
    ------
    Refused
        ``unsupported_format``, ``truncated`` (a strip lies beyond the end of the file) or ``unreadable`` (the strips do
        not fit what the page states, or overlap).
    """
    if page.dtype is None or page.dtype.kind not in "ui" or page.dtype.itemsize > 2 or int(page.bitspersample) < 2:
        raise Refused("unsupported_format", f"TIFF: {page.dtype}, {page.bitspersample} bit", "uint8, uint16")
    if int(page.compression) not in COMPRESSIONS:
        accepted = ", ".join(sorted(set(COMPRESSIONS.values())))
        raise Refused("unsupported_format", f"TIFF: compression {int(page.compression)}", accepted)
    if int(page.photometric) not in (0, 1, 2, 3, 6) or page.imagedepth != 1:
        raise Refused("unsupported_format", f"TIFF: photometric {int(page.photometric)}", "0, 1, 2, 3, 6")
    if page.samplesperpixel > MAX_SAMPLES:
        raise Refused("unsupported_format", f"TIFF: {page.samplesperpixel} × SamplesPerPixel", f"≤ {MAX_SAMPLES}")
    wanted = page.imagelength * page.imagewidth * page.samplesperpixel
    if page.size != wanted or max(page.chunks) > 2 * max(page.shape) + 4096:
        raise Refused("unreadable", f"TIFF: {page.size}", f"{wanted}")
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    end = max((offset + count for offset, count in places), default=0)
    if not 0 < end <= len(content):
        raise Refused("truncated", f"{len(content)} B", f"{end} B")
    n_segments = int(np.prod(page.chunked))
    most = MAX_SAMPLES * page.imagelength + wanted // 1024  # strips of one row, tiles of 32 × 32
    if len(places) > n_segments or n_segments > most or sum(count for _, count in places) > 2 * len(content):
        raise Refused("unreadable", f"TIFF: {n_segments}", f"≤ {most}")
    view = memoryview(content)
    return [view[offset : offset + count] for offset, count in places]


def _check_cost(page: Any, segments: Sequence[memoryview]) -> None:
    """Count the film, and the largest segment on its way: compressed, decoded, and again without its predictor."""
    segment = int(np.prod(page.chunks)) * page.dtype.itemsize
    working = 2 * segment + max(map(len, segments))
    if int(page.compression) == LZW:  # the picture in Pillow, its bytes, and then the samples
        working = 2 * max(segment, LZW_BATCH_BYTES) + working
    elif int(page.compression) == JPEG:
        for data in segments:
            stream = jpeg_codestream(bytes(data))
            if stream.rows * stream.columns > 2 * int(np.prod(page.chunks[:2])):
                raise Refused("unreadable", f"TIFF: {stream.columns} × {stream.rows} px", f"{page.chunks}")
            working = max(working, 2 * segment + stream.working_bytes)
    samples = 3 if int(page.photometric) == 3 else page.samplesperpixel
    decoded = decoded_bytes(page.imagelength, page.imagewidth, samples, page.dtype.itemsize)
    if page.is_contiguous:
        working = 0  # read at once
    require_memory(decoded + working)


def _palette(page: Any, bits: int) -> Array:
    """Grey of each colour of the palette, of 16 bits (TIFF 6.0 section 5)."""
    colours = np.asarray(page.colormap)
    if colours.shape != (3, 2**bits):
        raise Refused("unreadable", f"TIFF: ColorMap {colours.shape}", f"(3, {2**bits})")
    return np.asarray(luma_plane(colours.T[None])[0])


# ---------------------------------------------------------------- LZW


def _lzw_decoded(page: Any, segments: Sequence[memoryview]) -> Array:
    """Samples of a page that is compressed by LZW.

    libtiff decodes the strips and tiles: imagecodecs 2026.3.6 takes any code after a clear code for a literal, reads
    memory at random, and the process dies. The rest (predictor, packed bits, byte order) is left to tifffile.
    """
    fill_order = int(page.fillorder)
    page.compression, page.fillorder = tifffile.COMPRESSION.NONE, tifffile.FILLORDER.MSB2LSB
    out = np.zeros(page.shaped, page.dtype)
    row_bytes = -(-page.chunks[1] * (page.samplesperpixel if page.planarconfig == 1 else 1) * page.bitspersample // 8)
    rows = [_rows_of(page, index) for index in range(len(segments))]
    start = 0
    while start < len(segments):
        n_bytes = rows[start] * row_bytes
        most = start + max(1, LZW_BATCH_BYTES // n_bytes)
        end = next((k for k in range(start, min(most, len(rows))) if rows[k] != rows[start]), min(most, len(rows)))
        decoded = _lzw(segments[start:end], n_bytes, fill_order)
        for k in range(start, end):
            part = decoded[(k - start) * n_bytes : (k - start + 1) * n_bytes]
            values, (sample, _, top, left, _), _ = page.decode(part, k)
            place = out[sample, 0, top : top + values.shape[1], left : left + values.shape[2]]
            place[:] = values[0, : place.shape[0], : place.shape[1]]
        start = end
    return out


def _rows_of(page: Any, index: int) -> int:
    """Rows of a strip or tile; the last strip of each plane is shorter."""
    if page.is_tiled:
        return int(page.tilelength)
    in_plane = -(-page.imagelength // page.rowsperstrip)
    return int(min(page.rowsperstrip, page.imagelength - index % in_plane * page.rowsperstrip))


def _lzw(segments: Sequence[memoryview], n_bytes: int, fill_order: int) -> bytes:
    """Segments of ``n_bytes`` each, decoded: to libtiff they are the strips of a grey picture, one a row."""
    n, data = len(segments), b"".join(segments)
    starts = list(itertools.accumulate((len(segment) for segment in segments[:-1]), initial=8))
    offsets = 8 + len(data)
    tags = (
        *((256, 1, n_bytes), (257, 1, n), (258, 1, 8), (259, 1, LZW), (262, 1, 1), (266, 1, fill_order)),
        *((273, n, offsets if n > 1 else starts[0]), (277, 1, 1), (278, 1, 1)),
        (279, n, offsets + 4 * n if n > 1 else len(data)),
    )
    directory = b"".join(struct.pack("<HHLL", code, 4, count, value) for code, count, value in tags)
    file = io.BytesIO()
    file.write(struct.pack("<2sHL", b"II", 42, offsets + 8 * n))
    file.write(data)
    file.write(struct.pack(f"<{2 * n}L", *starts, *map(len, segments)))
    file.write(struct.pack("<H", len(tags)) + directory + bytes(4))
    file.seek(0)
    with TiffImageFile(file) as picture:
        return picture.tobytes()
