"""Damages files: at random, and where their format has its numbers. The same random source gives the same damage."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.places import Place, numbers_of, places_of

MAX_BYTES = 600_000
HEAD_BYTES = 1500
"""The beginning of a file has most of what its reader believes."""
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (
    *(b"0", b"-1", b"1", b"1e308", b"-1e-308", b"1e999", b"nan", b"inf", b"-inf", b"", b"9" * 400, b"0x10", b"1,5"),
    *(
        b"4294967296",
        b"2147483648",
        b"18446744073709551616",
        b"0.0000000001",
        b"1.",
        b"\xd9\xa3",
        b"1_000",
        b"00",
        b"+7",
    ),
)
LINES = (
    *(b"," * 5000, b";" * 5000, b"\t" * 5000, b" " * 5000, b"\n" * 5000, b"1" * 5000, b"(" * 3000, b"a" * 5000),
    *(b"<a>" * 3000, b"</a>" * 100, b"<a b='" + b"c" * 5000 + b"'/>", b"<![CDATA[", b"<!-- ", b"&lt;" * 2000),
    *(
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b"&b;",
        b"&#0;",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"#" * 4000,
    ),
    *(b"\r", b'"' * 4001, b"'", b"\\", b"%s%n", b"1/1/1/1/1", b"1+1:1(1)/1", b"\x1b" * 50, b"=" * 200, b"-" * 5000),
)
CODES = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"DS", b"US", b"PN", b"AT", b"FD", b"\0\0", b"  ")
"""VRs of DICOM, those that are read in different ways."""


@dataclass(frozen=True)
class Material:
    """A file that is damaged again and again, with the places of its numbers."""

    content: bytes
    places: tuple[Place, ...] = field(default=())
    numbers: tuple[tuple[int, int], ...] = field(default=())

    @classmethod
    def of(cls, content: bytes) -> Material:
        return cls(content, places_of(content), numbers_of(content))


def mutated(material: Material, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """The file with one to three damages.

    Parameters
    ----------
    others
        Files of which parts may be put into this one.
    """
    content = bytearray(material.content)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if material.places and chance.random() < 0.5:
            _set_place(content, material.places[int(chance.random() * len(material.places))], chance)
        elif material.numbers and chance.random() < 0.7:
            _change_text(content, material.numbers, chance)
        else:
            content = _ANY[int(chance.random() * len(_ANY))](content, chance, others)
    if content.startswith(b"\x89PNG") and chance.random() < 0.9:
        _mend_checksums(content)
    return bytes(content[:MAX_BYTES])


# ---------------------------------------------------------------- by the format
def _set_place(content: bytearray, place: Place, chance: random.Random) -> None:
    if place.at + place.size > len(content):
        return
    if place.size == 2 and chance.random() < 0.2:
        content[place.at : place.at + 2] = CODES[int(chance.random() * len(CODES))]
        return
    now = int.from_bytes(content[place.at : place.at + place.size], "little" if place.order == "<" else "big")
    near = (now + 1, now - 1, now * 2, now // 2, now ^ 1 << int(chance.random() * 8 * place.size), len(content))
    values = EXTREMES if chance.random() < 0.6 else near
    value = values[int(chance.random() * len(values))] % (1 << 8 * place.size)
    code = {1: "B", 2: "H", 4: "L"}[place.size]
    struct.pack_into(place.order + code, content, place.at, value)


def _change_text(content: bytearray, numbers: Sequence[tuple[int, int]], chance: random.Random) -> None:
    begin, end = numbers[int(chance.random() * min(len(numbers), 40 if chance.random() < 0.5 else len(numbers)))]
    if chance.random() < 0.6:
        content[begin:end] = NUMBERS[int(chance.random() * len(NUMBERS))]
    else:
        content[begin:begin] = LINES[int(chance.random() * len(LINES))]


def _mend_checksums(content: bytearray) -> None:
    """Right checksums of a PNG's first chunks, so that what stands in them is read."""
    at = 8
    for _ in range(4):
        if at + 12 > len(content):
            return
        length = int.from_bytes(content[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(content):
            return
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


# ---------------------------------------------------------------- at random
def _somewhere(content: bytearray, chance: random.Random) -> int:
    """A place in the file, most often near its beginning."""
    among = min(len(content), HEAD_BYTES) if chance.random() < 0.6 else len(content)
    return int(chance.random() * among)


def _flip(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    for _ in range(chance.choice((1, 2, 5, 20)) if content else 0):
        content[_somewhere(content, chance)] ^= 1 << int(chance.random() * 8)
    return content


def _set(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    for _ in range(chance.choice((1, 2, 5, 20)) if content else 0):
        content[_somewhere(content, chance)] = chance.choice((0, 0xFF, 0x7F, 0x80, int(chance.random() * 256)))
    return content


def _set_number(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    place = Place(_somewhere(content, chance), chance.choice((2, 4)), chance.choice("<>"))
    _set_place(content, place, chance)
    return content


def _cut(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    return content[: int(chance.random() * len(content))]


def _remove(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    at = _somewhere(content, chance)
    del content[at : at + chance.choice((1, 2, 16, 200, 5000))]
    return content


def _repeat(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    at, n = _somewhere(content, chance), chance.choice((1, 4, 64, 2000))
    content[at:at] = content[at : at + n] * chance.choice((1, 2, 30))
    return content


def _insert(content: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    at = _somewhere(content, chance)
    content[at:at] = LINES[int(chance.random() * len(LINES))] if chance.random() < 0.3 else chance.randbytes(8)
    return content


def _splice(content: bytearray, chance: random.Random, others: Sequence[bytes]) -> bytearray:
    other = others[int(chance.random() * len(others))] if others else b""
    at, n = int(chance.random() * (len(other) + 1)), chance.choice((16, 300, 4000, 100_000))
    piece = other[at : at + n]
    to = _somewhere(content, chance)
    content[to : to + (len(piece) if chance.random() < 0.5 else 0)] = piece
    return content


_ANY: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], bytearray], ...] = (
    *(_flip, _flip, _set, _set, _set_number, _set_number, _cut, _remove, _repeat, _insert, _splice),
)
