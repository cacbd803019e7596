"""Where the numbers of a file are: lengths, counts, offsets and sizes, which a damaged or hostile file states wrongly.

References
----------
DICOM PS3.5 section 7.1 (elements), PNG third edition section 5.3 (chunks), TIFF 6.0 section 2 (directories), ITU-T T.81
annex B (marker segments), PKWARE APPNOTE 4.3 (zip headers).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_PLACES = 4000
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length has four bytes (PS3.5, table 7.1-1)."""
ITEM_GROUP = 0xFFFE
UNDEFINED = 0xFFFFFFFF
DEFLATED_OR_BIG = (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2\0")
META_BYTES = 430
"""Where the file meta information ends in files whose data set is not read here."""
PIXEL_DATA = 0x7FE00010
NUMBER = re.compile(rb"\d[\d.]*")


class Place(NamedTuple):
    """A number in a file: its first byte, how many bytes it has, and their order."""

    at: int
    size: int
    order: str = "<"


def places_of(content: bytes) -> tuple[Place, ...]:
    """The numbers of a file, none where its format is not known here."""
    finders: tuple[tuple[bytes, int, Callable[[bytes], Iterator[Place]]], ...] = (
        (b"DICM", 128, _dicom),
        (b"\x89PNG", 0, _png),
        (b"\xff\xd8", 0, _jpeg),
        (b"II", 0, _tiff),
        (b"MM", 0, _tiff),
        (b"PK\3\4", 0, _zip),
    )
    for signature, at, find in finders:
        if content[at : at + len(signature)] == signature:
            found = []
            try:
                for place in find(content):
                    found.append(place)
                    if len(found) == MAX_PLACES:
                        break
            except (struct.error, IndexError):  # the file is damaged from here on
                pass
            return tuple(each for each in found if each.at + each.size <= len(content))
    return ()


def numbers_of(content: bytes) -> tuple[tuple[int, int], ...]:
    """Beginning and end of the numbers of a text; none where the file is not a text."""
    if b"\0" in content[:4000]:
        return ()
    return tuple(found.span() for found, _ in zip(NUMBER.finditer(content), range(MAX_PLACES), strict=False))


def _dicom(content: bytes) -> Iterator[Place]:
    """Tags, VRs and lengths of all elements, those of sequences included, and numbers of up to four bytes."""
    end = META_BYTES if any(uid in content[:1000] for uid in DEFLATED_OR_BIG) else len(content)
    at = 132
    while at + 8 <= end:
        group, element, length = struct.unpack_from("<HHL", content, at)
        yield Place(at, 2)
        yield Place(at + 2, 2)
        vr = content[at + 4 : at + 6]
        if group == ITEM_GROUP or not vr.isalpha():  # items have no VR, nor has implicit little endian
            yield Place(at + 4, 4)
            inside = group == ITEM_GROUP and element == 0xE000
            at += 8
        elif vr in LONG_VRS:
            (length,) = struct.unpack_from("<L", content, at + 8)
            yield Place(at + 4, 2)
            yield Place(at + 8, 4)
            inside = vr == b"SQ"
            at += 12
        else:
            (length,) = struct.unpack_from("<H", content, at + 6)
            yield Place(at + 4, 2)
            yield Place(at + 6, 2)
            inside = False
            at += 8
        if length in (2, 4) and not inside:
            yield Place(at, length)
        is_pixels = group << 16 | element == PIXEL_DATA
        if not inside and length != UNDEFINED and not is_pixels:
            at += length
        elif is_pixels and length != UNDEFINED:
            return


def _png(content: bytes) -> Iterator[Place]:
    at = 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">L", content, at)
        yield Place(at, 4, ">")
        yield Place(at + 4, 4, ">")
        for k in range(0, min(length, 16), 4):
            yield Place(at + 8 + k, 4, ">")
        at += 12 + length


def _jpeg(content: bytes) -> Iterator[Place]:
    at = 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, at + 2)
        for k in range(min(length, 20)):
            yield Place(at + 2 + k, 1)
        yield Place(at + 2, 2, ">")
        at += 2 + length


def _tiff(content: bytes) -> Iterator[Place]:
    order = "<" if content[:2] == b"II" else ">"
    yield Place(4, 4, order)
    (at,) = struct.unpack_from(f"{order}L", content, 4)
    while at:
        (count,) = struct.unpack_from(f"{order}H", content, at)
        yield Place(at, 2, order)
        for k in range(min(count, 60)):
            entry = at + 2 + 12 * k
            yield from (Place(entry, 2, order), Place(entry + 2, 2, order))
            yield from (Place(entry + 4, 4, order), Place(entry + 8, 4, order))
        (following,) = struct.unpack_from(f"{order}L", content, at + 2 + 12 * count)
        at = following if following > at else 0


def _zip(content: bytes) -> Iterator[Place]:
    for signature, sizes in (
        (b"PK\3\4", (2, 2, 2, 2, 2, 4, 4, 4, 2, 2)),
        (b"PK\1\2", (2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4)),
        (b"PK\5\6", (2, 2, 2, 2, 4, 4, 2)),
    ):
        at = content.find(signature)
        while at >= 0:
            place = at + 4
            for size in sizes:
                yield Place(place, size)
                place += size
            at = content.find(signature, at + 4)
