"""Huffman codes of SCP-ECG: the default table, tables of the file's own, and the bit stream.

References
----------
EN 1064:2005+A1:2007 / ISO 11073-91064:2009: 5.5 (section 2) and Annex C (default table, number 19999).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.problems import Refused

DEFAULT_TABLE = 19999


@dataclass(frozen=True, slots=True)
class _Code:
    """``extra`` bits after the prefix hold the value; where ``switch``, ``value`` is the table that comes next."""

    extra: int
    switch: bool
    value: int


HuffmanTable = tuple[tuple[int, ...], dict[str, _Code]]
"""Prefix lengths that occur, and codes by prefix."""


def _default_table() -> HuffmanTable:
    """Annex C: 0; then n ones, a zero and a sign for ±n up to 8; 8 and 16 plain bits after nine ones."""
    codes = {"0": _Code(0, False, 0), "1111111110": _Code(8, False, 0), "1111111111": _Code(16, False, 0)}
    for n in range(1, 9):
        codes["1" * n + "00"] = _Code(0, False, n)
        codes["1" * n + "01"] = _Code(0, False, -n)
    return _table(codes)


def _table(codes: dict[str, _Code]) -> HuffmanTable:
    return tuple(sorted({len(prefix) for prefix in codes})), codes


def huffman_tables(body: bytes) -> list[HuffmanTable]:
    """Section 2: tables of (prefix bits, all bits, mode, value, prefix with its first bit lowest)."""
    count = struct.unpack_from("<H", body)[0]
    if count == DEFAULT_TABLE:
        return [_default_table()]
    tables, at = [], 2
    for _ in range(count):
        size = struct.unpack_from("<H", body, at)[0]
        at += 2
        codes = {}
        for _ in range(size):
            bits, total, mode, value, stored = struct.unpack_from("<BBBhI", body, at)
            at += 9
            if not 1 <= bits <= 32 or not 0 <= total - bits <= 16:
                raise ValueError("length of a Huffman code")
            codes[f"{stored & ((1 << bits) - 1):0{bits}b}"[::-1]] = _Code(total - bits, mode == 0, value)
        tables.append(_table(codes))
    if not tables:
        raise ValueError("no Huffman table")
    return tables


def huffman_decode(data: bytes, count: int, tables: list[HuffmanTable]) -> NDArray[np.int64]:
    """Up to ``count`` values of a bit stream, first bit highest.

    Raises
    ------
    Refused
        ``truncated`` where the stream ends first, ``unreadable`` on a prefix of no code.
    """
    bits = f"{int.from_bytes(data, 'big'):0{len(data) * 8}b}" if data else ""
    lengths, codes = tables[0]
    values: list[int] = []
    at, end = 0, len(bits)
    while len(values) < count:
        code = None
        for length in lengths:
            code = codes.get(bits[at : at + length])
            if code is not None:
                break
        if code is None or at + length + code.extra > end:
            if at + lengths[-1] > end:
                raise Refused("truncated", found=len(values), expected=count)
            raise Refused("unreadable", found="Huffman", expected="EN 1064 5.5")
        at += length
        if code.switch:
            lengths, codes = tables[code.value - 1] if code.value > 0 else tables[len(tables)]
        elif code.extra:
            plain = int(bits[at : at + code.extra], 2)
            values.append(code.value + plain - (plain >> (code.extra - 1) << code.extra))
            at += code.extra
        else:
            values.append(code.value)
    return np.array(values, np.int64)
