"""WFDB records: ``.hea`` with its signal files, in every storage format, from bytes in memory.

``wfdb.rdrecord`` is not used: it opens the paths and URLs that a header names, raises on some real headers (a date
where the standard has the time), and allocates the sizes that a header states. The tests compare this reader with files
that the wfdb library writes.

Decisions:

* Gain stated, unit omitted: millivolts, as header(5) defines (so in the PTB records).
* Gain omitted or 0: uncalibrated after header(5), so ``unit_unknown``; where the context states the unit, one count is
  one such unit.
* Rate omitted: 250 Hz, as header(5) defines.
* A stated checksum has to be that of the samples, so that a header with the signals of another person is refused,
  ``checksum_mismatch``. 0 counts as not stated: writers that compute no checksum write it.

References
----------
WFDB Applications Guide, header(5) and signal(5), https://physionet.org/physiotools/wag/
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.formats.mat import is_mat5, matrix
from data_specs.ecg.formats.wfdb_storage import INVALID, decode
from data_specs.ecg.header import (
    check_duration,
    check_rate,
    is_lead,
    millivolts_per,
    recording,
    require_leads,
)
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.numbers import number
from data_specs.person import ecg_day, read_age, read_binary_sex
from data_specs.problems import Refused
from data_specs.reading import refusals_only, require_memory
from data_specs.subject import Subject

MAX_SIGNALS, MAX_FILES, MAX_SEGMENTS = 256, 32, 512
"""Signals and signal files of a record, and its segments, which are files of one zip."""
MAX_HEADER_BYTES = 1_000_000
DEFAULT_FS_HZ = 250.0

Find = Callable[[str], bytes | None]
"""Content of the posted file that a header names, by base name; ``None`` where it was not posted."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal line. ``gain`` 0: uncalibrated. ``unit`` ``None``: the header omits it."""

    file: str
    storage: int
    samples_per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    unit: str | None
    first: int
    checksum: int
    label: str


@dataclass(frozen=True, slots=True)
class Header:
    """``segments`` (record name, frames) of a multi-segment record, else ``signals``; 0 frames: not stated."""

    fs_hz: float
    n_frames: int
    signals: tuple[Signal, ...]
    segments: tuple[tuple[str, int], ...]
    subject: Subject


def is_header(content: bytes) -> bool:
    """Whether a file of any name is a header: some programs lose its extension, which is all that marks one."""
    if len(content) > MAX_HEADER_BYTES or not _RECORD_LINE.match(content):
        return False
    try:
        with refusals_only("WFDB"):
            parsed = parse_header(content)
    except Refused:
        return False
    return bool(parsed.signals or parsed.segments)


_RECORD_LINE = re.compile(rb"(?:\s*#[^\n]*\n)*\s*\S{1,200}[ \t]+\d{1,6}[ \t]+\d")
"""Comments, then the name of the record, the number of signals, and a frequency."""


def named_files(header: bytes) -> set[str]:
    """Base names, in lower case, of the signal files or segment headers that a header needs; empty where unreadable."""
    try:
        with refusals_only("WFDB"):
            parsed = parse_header(header)
    except Refused:
        return set()
    names = {signal.file.lower() for signal in parsed.signals}
    names |= {f"{name}.hea".lower() for name, _ in parsed.segments}
    return names - {"~", "-", "~.hea"}


def read(header: bytes, find: Find, *, ecg_unit: VoltageUnit | None) -> Recording:
    """One record from its header and a look-up for the files that it names.

    Raises
    ------
    Refused
        ``unreadable`` (the header, or a named file that was not posted), ``truncated``, ``unsupported_format``, and
        what :func:`data_specs.ecg.header.recording` refuses.
    """
    parsed = parse_header(header)
    leads = _segmented(parsed, find, ecg_unit) if parsed.segments else _signals(parsed, find, ecg_unit)
    spf = parsed.signals[0].samples_per_frame if parsed.signals else 1
    return recording(leads, fs_hz=parsed.fs_hz * spf, format="wfdb", subject=parsed.subject)


# ---------------------------------------------------------------- the header


def parse_header(content: bytes) -> Header:
    """Header of a single- or multi-segment record.

    Raises
    ------
    Refused
        ``unreadable``
    """
    lines = [
        line.strip() for line in content[:MAX_HEADER_BYTES].decode("utf-8", "replace").lstrip("\ufeff").splitlines()
    ]
    rows = [line for line in lines if line and not line.startswith("#")]
    comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
    fields = rows[0].split(maxsplit=8) if rows else []
    if len(fields) < 2 or not re.fullmatch(r"\d{1,6}", fields[1]):
        raise Refused("unreadable", found=".hea", expected="WFDB")
    of_segments = re.search(r"/(\d{1,6})\Z", fields[0])  # the name before it may have folders, which are not used
    n_segments, n_signals = int(of_segments[1]) if of_segments else 0, int(fields[1])
    # the frequency may be followed by that of a counter: 500/25(0)
    fs_hz = number(fields[2].partition("/")[0], ".hea fs") if len(fields) > 2 else DEFAULT_FS_HZ
    n_frames = int(fields[3]) if len(fields) > 3 and fields[3].isdecimal() and len(fields[3]) < 12 else 0
    # The standard order is time, then date; the CinC 2020/2021 sets write '12-May-2020 12:33:59'.
    recorded_on = next((found for found in (ecg_day(field, "dmy") for field in fields[2:]) if found), None)
    wanted = n_segments or n_signals
    if not 0 < wanted <= (MAX_SEGMENTS if n_segments else MAX_SIGNALS):
        raise Refused("unreadable", found=f"{wanted}", expected=f"1-{MAX_SIGNALS}")
    if len(rows) - 1 < wanted:
        raise Refused("truncated", found=f".hea {len(rows) - 1}", expected=f".hea {wanted}")
    body = rows[1 : 1 + wanted]
    return Header(
        fs_hz=fs_hz,
        n_frames=n_frames,
        signals=() if n_segments else tuple(_signal(line, k) for k, line in enumerate(body)),
        segments=tuple(_segment(line) for line in body) if n_segments else (),
        subject=_subject(comments, recorded_on),
    )


_FORMAT = re.compile(r"(\d{1,4})(?:x(\d{1,6}))?(?::(\d{1,9}))?(?:\+(\d{1,9}))?")
_GAIN = re.compile(
    r"([-+]?(?:\d{1,20}(?:[.,]\d{0,20})?|[.,]\d{1,20})(?:[eE][-+]?\d{1,3})?)(?:\(([-+]?\d{1,12})\))?(?:/(\S+))?"
)
_INTEGER = re.compile(r"[-+]?\d{1,10}")


def _signal(line: str, position: int) -> Signal:
    fields = line.split(maxsplit=8)
    storage = _FORMAT.fullmatch(fields[1]) if len(fields) > 1 else None
    gain = _GAIN.fullmatch(fields[2]) if len(fields) > 2 else _GAIN.fullmatch("0")
    if storage is None or gain is None:
        raise Refused("unreadable", found=f".hea {position + 1}", expected="WFDB")
    stated = [_integer(field, position) for field in fields[3:7]]
    _, zero, first, checksum = stated + [0] * (4 - len(stated))  # the first is the resolution of the converter
    return Signal(
        file=fields[0].replace("\\", "/").rsplit("/", 1)[-1],
        storage=int(storage[1]),
        samples_per_frame=max(1, int(storage[2] or 1)),
        skew=int(storage[3] or 0),
        offset=int(storage[4] or 0),
        gain=number(gain[1], ".hea gain"),
        baseline=int(gain[2]) if gain[2] else zero,
        unit=gain[3],
        first=first,
        checksum=checksum,
        label=fields[8] if len(fields) > 8 else f"signal {position}",
    )


def _integer(field: str, position: int) -> int:
    if not _INTEGER.fullmatch(field):
        raise Refused("unreadable", found=f".hea {position + 1}", expected="WFDB")
    return int(field)


def _segment(line: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) < 2 or not fields[1].isdecimal() or len(fields[1]) > 12:
        raise Refused("unreadable", found=".hea", expected="WFDB")
    return fields[0].replace("\\", "/").rsplit("/", 1)[-1], int(fields[1])


def _subject(comments: list[str], recorded_on: date | None) -> Subject:
    """Age and sex from the comment lines that PhysioNet's sets write: ``Age: 74``, ``<age>: 74 <sex>: F``."""
    text = "\n".join(comments)
    years = re.search(r"(?im)(?:^|<|\b)age>?\s*[:=]\s*([\d.]+(?:\s*(?:years?|months?|weeks?|days?|[ymwd])\b)?)", text)
    stated = re.search(r"(?im)(?:^|<|\b)(?:sex|gender)>?\s*[:=]\s*([a-z]+)", text)
    return Subject(
        stated_years=read_age(years[1], "y") if years else None,
        sex=read_binary_sex(stated[1], "words") if stated else None,
        recorded_on=recorded_on,
    )


# ---------------------------------------------------------------- signals


def _signals(header: Header, find: Find, ecg_unit: VoltageUnit | None) -> dict[str, NDArray[np.floating]]:
    """Samples of every signal that is a standard lead, in mV."""
    require_leads(signal.label for signal in header.signals)
    if header.n_frames and header.fs_hz > 0:
        check_duration(header.n_frames, header.fs_hz)
    return _read_signals(header, find, ecg_unit)


def _read_signals(
    header: Header, find: Find, ecg_unit: VoltageUnit | None, *, in_segment: bool = False
) -> dict[str, NDArray[np.floating]]:
    leads: dict[str, NDArray[np.floating]] = {}
    spf = header.signals[0].samples_per_frame
    by_file: dict[str, list[Signal]] = {}
    for signal in header.signals:
        by_file.setdefault(signal.file, []).append(signal)
    with_leads = [file for file, signals in by_file.items() if any(is_lead(signal.label) for signal in signals)]
    if len(with_leads) > MAX_FILES:
        raise Refused("unreadable", found=f".hea {len(with_leads)}", expected=f".hea ≤ {MAX_FILES}")
    for file in with_leads:
        members = by_file[file]
        if file == "~":
            continue
        content = find(file)
        if content is None:
            raise Refused("unreadable", found=".hea", expected=f".hea + {_suffix(file)}")
        if is_mat5(content) and (in_segment or len(with_leads) > 1):  # it can only be inflated as a whole
            raise Refused("unsupported_format", found=f"WFDB MAT × {len(with_leads)}", expected="WFDB MAT × 1")
        frames = _frames(content, members, header.n_frames)
        column = 0
        for signal in members:
            counts = frames[:, column : column + signal.samples_per_frame].reshape(-1)
            column += signal.samples_per_frame
            _check_sum(counts, signal)
            if not is_lead(signal.label) or signal.label in leads:
                continue
            if signal.samples_per_frame != spf:
                found = f"{header.fs_hz * signal.samples_per_frame:g} Hz, {header.fs_hz * spf:g} Hz"
                raise Refused("sampling_rate", found=found, expected="12 × 1 Hz")
            leads[signal.label] = _millivolts(counts, signal, ecg_unit)
    return leads


def _check_sum(counts: NDArray[np.integer], signal: Signal) -> None:
    """Compare the samples with the 16-bit checksum of the header, where it states one."""
    found = int(counts.sum(dtype=np.int64))
    if signal.checksum and (found - signal.checksum) % 65536:
        raise Refused("checksum_mismatch", found % 65536, signal.checksum % 65536)


def _suffix(file: str) -> str:
    """Extension of a named file; the name itself may identify a person."""
    return f".{file.rsplit('.', 1)[-1][:8]}" if "." in file else ".dat"


def _millivolts(counts: NDArray[np.integer], signal: Signal, ecg_unit: VoltageUnit | None) -> NDArray[np.floating]:
    """(counts - baseline) / gain in mV, the format's invalid-sample value as NaN, skew undone."""
    if signal.gain == 0:
        scale = millivolts_per(None, ecg_unit)
        values = counts.astype(np.float64) * scale
    else:
        scale = 1.0 if signal.unit is None else millivolts_per(signal.unit, ecg_unit)
        values = (counts.astype(np.float64) - signal.baseline) * (scale / signal.gain)
    if signal.storage in INVALID:
        invalid = counts == INVALID[signal.storage]
        if invalid.any():
            values[invalid] = np.nan
    if signal.skew:
        skew = min(signal.skew, values.size)
        values = np.concatenate([values[skew:], np.full(skew, np.nan)])
    return values.astype(np.float32)


def _segmented(header: Header, find: Find, ecg_unit: VoltageUnit | None) -> dict[str, NDArray[np.floating]]:
    """Segments one after the other; a null segment (``~``) or a lead that a segment lacks leaves a gap of NaN."""
    total = sum(n for _, n in header.segments)
    check_duration(total, check_rate(header.fs_hz))
    joined: dict[str, NDArray[np.floating]] = {}
    read: dict[str, dict[str, NDArray[np.floating]]] = {}
    start = 0
    for name, n_frames in header.segments:
        if name != "~" and n_frames:
            if name not in read:
                read[name] = _segment_signals(header, name, n_frames, find, ecg_unit)
            for label, values in read[name].items():
                lead = joined.setdefault(label, np.full(total, np.nan, np.float32))
                if values.size < n_frames:
                    raise Refused("truncated", found=values.size, expected=n_frames)
                lead[start : start + n_frames] = values[:n_frames]
        start += n_frames
    return joined


def _segment_signals(
    header: Header, name: str, n_frames: int, find: Find, ecg_unit: VoltageUnit | None
) -> dict[str, NDArray[np.floating]]:
    """Leads of one segment, of which no more is decoded than the record needs.

    References
    ----------
    header(5), segment specification lines: the number of samples has to be that of the segment's own header.
    """
    content = find(f"{name}.hea")
    if content is None:
        raise Refused("unreadable", found=".hea", expected=f".hea × {len(header.segments)}")
    segment = parse_header(content)
    if segment.segments or any(signal.samples_per_frame != 1 for signal in segment.signals):
        raise Refused("unsupported_format", found="WFDB", expected="WFDB 1 × 1")
    if segment.n_frames > n_frames:
        raise Refused("unreadable", found=f".hea {segment.n_frames}", expected=f".hea {n_frames}")
    return _read_signals(
        Header(segment.fs_hz, n_frames, segment.signals, (), segment.subject), find, ecg_unit, in_segment=True
    )


def _frames(content: bytes, signals: list[Signal], n_frames: int) -> NDArray[np.integer]:
    """``(n_frames, samples per frame)`` counts of one signal file.

    Raises
    ------
    Refused
        ``truncated`` where the file holds fewer frames than the header says, ``unsupported_format``.
    """
    storage, width = signals[0].storage, sum(signal.samples_per_frame for signal in signals)
    flat: NDArray[np.integer]
    if is_mat5(content):
        counts = _integers(matrix(content, "val"))
        flat = counts.T.reshape(-1) if counts.ndim == 2 and counts.shape[0] == width else counts.reshape(-1)
    else:
        flat = decode(content, storage, offset=signals[0].offset, width=width, n_samples=n_frames * width)
    have = flat.size // width
    if have == 0 or have < n_frames:
        raise Refused("truncated", found=have, expected=n_frames or 1)
    frames = flat[: (n_frames or have) * width].reshape(-1, width)
    if storage == 8:  # first differences, from the header's initial value
        column = 0
        frames = frames.astype(np.int64)
        for signal in signals:
            part = frames[:, column : column + signal.samples_per_frame]
            part[:] = (np.cumsum(part.reshape(-1)) + signal.first).reshape(part.shape)
            column += signal.samples_per_frame
    return frames


def _integers(values: NDArray[np.number]) -> NDArray[np.integer]:
    """Counts from a MATLAB file, which may store them as floating point numbers.

    Raises
    ------
    Refused
        ``unreadable`` where they are not whole numbers.
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:  # as PhysioNet's sets are stored
        return values.astype(np.dtype(f"{values.dtype.kind}{values.dtype.itemsize}"), copy=False)
    require_memory(4 * 8 * values.size)  # as doubles, without NaN, rounded, and as integers
    real = np.nan_to_num(np.real(values).astype(np.float64), nan=-32768.0)
    if not (np.abs(real) < 2**31).all() or not (real == np.rint(real)).all():
        raise Refused("unreadable", found="MAT val", expected="int16")
    return real.astype(np.int64)
