"""MATLAB files: the ``ECG`` struct of the China Physiological Signal Challenge 2018, and matrices.

This reader knows level 4 and 5 files and the few element types that ECGs use. ``scipy.io.loadmat`` is not used: it
allocates as much memory as a header states, and inflates without a limit.

Decisions:

* The struct ``ECG`` with the fields ``sex``, ``age``, ``data`` is a published format: twelve rows in the order
  :data:`data_specs.ecg.recording.LEADS` at 500 Hz. Neither its publication nor the file gives the unit of ``data``:
  ``unit_unknown`` unless the context states it.
* A matrix ``val`` (PhysioNet) has its rate and its lead order in a ``.hea`` file. Without that file it is refused with
  ``sampling_rate``: the data sets that use it have 257, 500 and 1000 Hz.

References
----------
MathWorks, MAT-File Format (level 4 and level 5 formats).
Liu F. et al., An open access database for evaluating the algorithms of electrocardiogram rhythm and morphology
abnormality detection, J Med Imaging Health Inform 2018;8:1368 (12 leads, 500 Hz, 6 to 60 s).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.header import check_duration, check_rate, millivolts_per, recording
from data_specs.ecg.recording import LEADS, Recording, VoltageUnit
from data_specs.person import read_age, read_binary_sex
from data_specs.problems import Refused
from data_specs.reading import require_memory
from data_specs.subject import Subject

MAX_INFLATED_BYTES = 64 << 20
MAX_RATIO = 1032
"""Of what deflate can inflate to (https://zlib.net/zlib_tech.html, maximum compression factor)."""
MAX_ELEMENTS, MAX_FIELDS = 20_000, 1000
"""Elements of a file, each variable and field has four to six; variables of level 4, and fields of a struct."""
CPSC2018_FS_HZ = 500.0

Value = NDArray[np.number] | str | dict[str, "Value"]

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED, _UTF8, _UTF16, _UTF32 = 14, 15, 16, 17, 18
_STRUCT_CLASS, _CHAR_CLASS, _NUMERIC_CLASSES = 2, 4, range(6, 16)
_MAX_DEPTH = 4


def read(content: bytes, *, ecg_unit: VoltageUnit | None) -> Recording:
    """A MATLAB file that is a recording without a header file.

    Raises
    ------
    Refused
        ``unsupported_format`` (level 7.3, which is HDF5, or no ECG in the file), ``unreadable``, ``truncated``,
        ``sampling_rate`` (a matrix ``val``), ``unit_unknown``.
    """
    found = variables(content)
    ecg = found.get("ECG")
    if isinstance(ecg, dict) and isinstance(data := ecg.get("data"), np.ndarray):
        if data.ndim != 2 or data.shape[0] != len(LEADS):
            raise Refused("lead_missing", found="×".join(map(str, data.shape)), expected=", ".join(LEADS))
        check_duration(data.shape[1], CPSC2018_FS_HZ)
        factor = millivolts_per(None, ecg_unit)
        values = [(lead.astype(np.float64) * factor).astype(np.float32) for lead in data]
        years = ecg.get("age")
        subject = Subject(
            stated_years=read_age(years.reshape(-1)[0], "y") if isinstance(years, np.ndarray) and years.size else None,
            sex=read_binary_sex(ecg.get("sex"), "words"),
        )
        return recording(dict(zip(LEADS, values, strict=True)), fs_hz=CPSC2018_FS_HZ, format="mat", subject=subject)
    if any(isinstance(value, np.ndarray) and value.ndim == 2 and value.size >= 800 for value in found.values()):
        check_rate(0.0)
    raise Refused("unsupported_format", found="MAT", expected="ECG.data, val + .hea")


def matrix(content: bytes, name: str) -> NDArray[np.number]:
    """The variable ``name``, as stored.

    Raises
    ------
    Refused
        ``unreadable`` where the file has no such matrix.
    """
    value = variables(content).get(name)
    if not isinstance(value, np.ndarray):
        raise Refused("unreadable", found="MAT", expected=name)
    return value


def variables(content: bytes) -> dict[str, Value]:
    """Numeric, text and 1×1 struct variables of a level 4 or level 5 file.

    Raises
    ------
    Refused
        ``unsupported_format``, ``unreadable``, ``truncated``
    """
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise Refused("unsupported_format", found="MAT 7.3 (HDF5)", expected="MAT 5")
    try:
        if content.startswith(b"MATLAB 5.0"):
            return _level5(content)
        return _level4(content)
    except (struct.error, ValueError, TypeError, IndexError, OverflowError, zlib.error, UnicodeError) as error:
        raise Refused("unreadable", found="MAT", expected="MAT 5") from error


def is_mat(content: bytes) -> bool:
    return content.startswith(b"MATLAB") or is_level4(content)


def is_mat5(content: bytes) -> bool:
    """Whether a file is of level 5, or of level 7.3, which is HDF5."""
    return content.startswith((b"MATLAB 5.0", b"MATLAB 7.3", b"\x89HDF"))


def is_level4(content: bytes, at: int = 0) -> bool:
    """Whether the 20 bytes at ``at`` are a level 4 header: type below 5000, small name, a size that fits the file."""
    if len(content) < at + 24:
        return False
    kind, rows, columns, imaginary, name_length = struct.unpack_from("<5i", content, at)
    precision = _LEVEL4.get(kind // 10 % 10)
    if not (0 <= kind < 60 and kind % 10 == 0 and precision and imaginary in (0, 1) and 1 < name_length <= 64):
        return False
    return rows > 0 and columns > 0 and content[at + 20 : at + 20 + name_length].rstrip(b"\0").isalnum()


_LEVEL4 = {0: "<f8", 1: "<f4", 2: "<i4", 3: "<i2", 4: "<u2", 5: "u1"}


def _level4(content: bytes) -> dict[str, Value]:
    found: dict[str, Value] = {}
    at = n = 0
    while at + 20 <= len(content):
        n += 1
        if not is_level4(content, at) or n > MAX_FIELDS:
            raise Refused("unreadable", found="MAT", expected="MAT 5")
        kind, rows, columns, imaginary, name_length = struct.unpack_from("<5i", content, at)
        dtype = np.dtype(_LEVEL4[kind // 10])
        start = at + 20 + name_length
        size = rows * columns * dtype.itemsize
        if start + size > len(content):
            raise Refused("truncated", found=f"{len(content)} B", expected=f"{start + size} B")
        name = content[at + 20 : start].rstrip(b"\0").decode("latin-1")
        found[name] = np.frombuffer(content, dtype, rows * columns, start).reshape(rows, columns, order="F")
        at = start + size * (1 + imaginary)
    return found


def _level5(content: bytes) -> dict[str, Value]:
    if len(content) < 136:
        raise Refused("truncated", found=f"{len(content)} B", expected="≥ 136 B")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise Refused("unreadable", found="MAT", expected="MAT 5")
    found: dict[str, Value] = {}
    budget = MAX_INFLATED_BYTES
    left = iter(range(MAX_ELEMENTS))
    for kind, data in _elements(memoryview(content)[128:], order, left, padded_matrix=True):
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            require_memory(2 * min(budget, MAX_RATIO * len(data)))  # in pieces, and joined
            plain = inflater.decompress(data, budget)
            budget -= len(plain)
            if inflater.unconsumed_tail or budget <= 0:
                raise Refused("unreadable", found=f"> {MAX_INFLATED_BYTES >> 20} MB", expected="MAT 5")
            if not inflater.eof:
                raise Refused("truncated", found=f"{len(content)} B", expected="MAT 5")
            inner = list(_elements(memoryview(plain), order, left))
        else:
            inner = [(kind, data)]
        for inner_kind, inner_data in inner:
            if inner_kind == _MATRIX:
                name, value = _matrix(inner_data, order, left, _MAX_DEPTH)
                if name and value is not None:
                    found[name] = value
    return found


def _elements(
    data: memoryview, order: str, left: Iterator[int], padded_matrix: bool = False
) -> Iterator[tuple[int, memoryview]]:
    """Tagged elements one after the other: 8-byte tag or 4-byte small tag, data padded to 8 bytes.

    ``left`` has an entry for each element that the file may still have.
    """
    at = 0
    while at + 8 <= len(data):
        if next(left, None) is None:
            raise Refused("unreadable", found=f"MAT > {MAX_ELEMENTS}", expected="MAT 5")
        first, size = struct.unpack_from(order + "II", data, at)
        if first >> 16:  # small element: size and type share the first word, up to four bytes of data follow
            kind, size, start, step = first & 0xFFFF, first >> 16, at + 4, 8
            if size > 4:
                raise ValueError("small element of more than four bytes")
        else:
            kind, start = first, at + 8
            step = 8 + (size if kind == _COMPRESSED and padded_matrix else -(-size // 8) * 8)
        if start + size > len(data):
            raise Refused("truncated", found=f"{len(data)} B", expected=f"{start + size} B")
        yield kind, data[start : start + size]
        at += step


def _matrix(data: memoryview, order: str, left: Iterator[int], depth: int) -> tuple[str, Value | None]:
    """Name and value of one miMATRIX; ``None`` for classes that no ECG uses (cells, objects, sparse)."""
    parts = _elements(data, order, left)
    flags = next(parts, None)
    dimensions, label = next(parts, None), next(parts, None)
    if flags is None or dimensions is None or label is None or depth == 0:
        raise ValueError("incomplete matrix")
    array_class = struct.unpack_from(order + "I", flags[1])[0] & 0xFF
    shape = np.frombuffer(dimensions[1], order + "i4").tolist()
    name = bytes(label[1]).decode("latin-1")
    if array_class == _STRUCT_CLASS:
        return name, _struct(list(parts), order, shape, left, depth)
    body = next(parts, None)
    if body is None:
        return name, None
    if array_class == _CHAR_CLASS:
        return name, _text(*body, order)
    if array_class not in _NUMERIC_CLASSES or body[0] not in _NUMBERS:
        return name, None
    values = np.frombuffer(body[1], np.dtype(order + _NUMBERS[body[0]]))
    return name, values.reshape(shape, order="F")


def _struct(
    parts: list[tuple[int, memoryview]], order: str, shape: list[int], left: Iterator[int], depth: int
) -> dict[str, Value] | None:
    if shape != [1, 1] or len(parts) < 2:
        return None
    length = struct.unpack_from(order + "i", parts[0][1])[0]
    names = bytes(parts[1][1])
    if not 1 <= length <= 64 or len(names) > length * MAX_FIELDS:
        raise ValueError("field name length")
    fields = [names[at : at + length].split(b"\0")[0].decode("latin-1") for at in range(0, len(names), length)]
    values = (_matrix(data, order, left, depth - 1)[1] for kind, data in parts[2:] if kind == _MATRIX)
    return {field: value for field, value in zip(fields, values, strict=False) if value is not None}


def _text(kind: int, data: memoryview, order: str) -> str:
    codec = {_UTF16: "utf-16", _UTF32: "utf-32", 4: "utf-16"}.get(kind)
    if codec is None:
        return bytes(data).decode("utf-8", "replace")
    return bytes(data).decode(codec + ("-le" if order == "<" else "-be"), "replace")
