"""CSV with a header row of lead names.

The header may carry units (``I (mV)``), as may a row under it or a comment; the rate comes from a time column that
names its unit (``time_ms``, ``t (s)``) or from a comment or a row before the header (``# fs=500``,
``Sampling rate;500 Hz``). Nothing is guessed.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.header import (
    check_duration,
    check_rate,
    is_lead,
    millivolts_per,
    recording,
    require_leads,
)
from data_specs.ecg.recording import LEADS, MIN_DURATION_S, Recording, VoltageUnit, format_seconds
from data_specs.person import ecg_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Refused
from data_specs.reading import require_memory
from data_specs.subject import Subject

_DELIMITERS = (";", "\t", ",")
_COMMENT = ("#", "%", "//")
_MAX_ROWS_BEFORE_HEADER, _MAX_HEADER, _MAX_CELL, _MAX_COLUMNS = 60, 4000, 48, 256
MAX_ROWS, _ROWS_AT_ONCE = 2_000_000, 50_000
_COPIES, _ROW_BYTES = 3, 64 + 4 * 12 + 8
"""The text is in memory as a whole and in lines, of which Python's take about 60 bytes more; the table has single
precision for twelve leads, and double for the time."""

_UNIT = r"(?:n|u|µ|μ|m)?V|(?:nano|micro|milli)?volts?"
_UNIT_AT_END = re.compile(rf"(?<![A-Za-z])({_UNIT})\s*[\])]?$", re.IGNORECASE)
_TIME = re.compile(
    r"(?:time|t|zeit|temps)?[\s_/]*(?:[\[(]\s*)?(s|sec|secs|seconds|ms|msec|us|µs)\s*[\])]?", re.IGNORECASE
)
_SECONDS = {"s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6, "µs": 1e-6}
_RATE_KEYS = {
    "fs", "fshz", "rate", "samplerate", "samplingrate", "samplingfrequency", "samplefrequency", "frequency",
    "samplesperseconds", "samplespersecond", "sampleratehz", "samplingratehz", "samplingfrequencyhz",
}  # fmt: skip
_UNIT_KEYS = {"unit", "units", "ecgunit", "amplitudeunit", "amplitudeunits", "voltageunit"}


@dataclass(slots=True)
class _Header:
    """The columns that are read, and what the file states outside the table."""

    delimiter: str = ","
    leads: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Column to (lead name, unit or empty)."""
    time: tuple[int, float] | None = None
    """Column and seconds per unit."""
    stated: dict[str, str] = field(default_factory=dict)


_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")


def is_text(content: bytes) -> bool:
    """Whether a file begins like a text: without control characters but blanks, or with a UTF-16 byte order mark."""
    start = content[:2048]
    return bool(start) and (start.startswith((b"\xff\xfe", b"\xfe\xff")) or not _CONTROL.search(start))


def read(content: bytes, *, ecg_unit: VoltageUnit | None) -> Recording:
    """One CSV file with a header.

    Raises
    ------
    Refused
        ``lead_missing`` (also without a header), ``sampling_rate``, ``unit_unknown``, ``truncated`` (a last row that
        is cut off), ``unreadable`` (a cell that is not a number), and what
        :func:`data_specs.ecg.header.recording` refuses.
    """
    header, leads, seconds = _read_table(content)
    fs_hz = check_rate(_rate(header, seconds))
    check_duration(len(leads), fs_hz)
    by_label: dict[str, NDArray[np.floating]] = {}
    common = next((header.stated[key] for key in header.stated if key in _UNIT_KEYS), "")
    for column, (name, unit) in enumerate(header.leads.values()):
        by_label.setdefault(name, leads[:, column] * np.float32(millivolts_per(unit or common, ecg_unit)))
    return recording(by_label, fs_hz=fs_hz, format="csv", subject=_subject(header.stated))


def _read_table(content: bytes) -> tuple[_Header, NDArray[np.float32], NDArray[np.float64]]:
    """Header, ``(n_rows, n_leads)`` samples in the file's unit, and the time column, empty where there is none."""
    require_memory(_COPIES * len(content))
    text = _decoded(content).replace("\r\n", "\n").replace("\r", "\n")
    n_rows = text.count("\n")
    if n_rows > MAX_ROWS:
        raise Refused("unreadable", found=f"CSV {n_rows}", expected=f"≤ {MAX_ROWS}")
    require_memory(_COPIES * len(content) + n_rows * _ROW_BYTES)
    header, body = _header(text.split("\n"))
    require_leads(name for name, _ in header.leads.values())
    return header, *_table(body, header)


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _header(lines: list[str]) -> tuple[_Header, list[str]]:
    """The header row is the first one that names two standard leads; a row of units may follow it."""
    stated: dict[str, str] = {}
    for n, line in enumerate(lines[:_MAX_ROWS_BEFORE_HEADER]):
        if len(line) > _MAX_HEADER:
            continue
        bare = line.strip().lstrip("#%/ ")
        for delimiter in _DELIMITERS:
            if bare.count(delimiter) > _MAX_COLUMNS:
                continue
            cells = _cells(bare, delimiter)
            columns = {k: _column(cell) for k, cell in enumerate(cells)}
            leads = {k: found for k, found in columns.items() if is_lead(found[0])}
            if len(leads) >= 2:
                header = _Header(delimiter, leads, _time(cells), stated)
                return header, _units_row(header, lines[n + 1 :])
        stated |= _statement(bare)
    raise Refused("lead_missing", expected=", ".join(LEADS))


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip("\"'").strip() for cell in line.split(delimiter)]


def _column(cell: str) -> tuple[str, str]:
    """Lead name and unit of a header cell: ``I (mV)``, ``V1[uV]``, ``aVR_mV`` or ``II``."""
    cell = cell.rstrip()
    found = _UNIT_AT_END.search(cell) if len(cell) <= _MAX_CELL else None
    name = cell[: found.start()].rstrip(" \t_/[(") if found else ""
    return (name.strip(), found[1]) if found and name.strip() else (cell, "")


def _time(cells: list[str]) -> tuple[int, float] | None:
    for k, cell in enumerate(cells):
        if len(cell) <= _MAX_CELL and (found := _TIME.fullmatch(cell)):
            return k, _SECONDS[found[1].lower()]
    return None


def _statement(line: str) -> dict[str, str]:
    """``fs=500``, ``unit: mV``, ``Sampling rate;500`` — one or several, separated by commas or semicolons."""
    stated = {}
    last = max(line.rfind("="), line.rfind(":")) + 1  # a separator after it is part of the last value
    *parts, rest = re.split(r"[,;\t]", line[:last])
    for part in [*parts, rest + line[last:]]:
        found = re.match(r"\s*\"?([A-Za-z][\w .()/-]{0,40}+)\"?\s*[=:,;\t]\s*(\S.*)", part)
        if found:
            key = re.sub(r"[^a-z]", "", found[1].lower())
            stated[key] = found[2].strip().strip("\"',; \t")
    return stated


def _units_row(header: _Header, body: list[str]) -> list[str]:
    cells = _cells(body[0], header.delimiter) if body else []
    units = {k: cells[k] for k in header.leads if k < len(cells)}
    named = {k: unit.strip("[]() ") for k, unit in units.items()}
    if not named or not all(re.fullmatch(_UNIT, unit, re.IGNORECASE) for unit in named.values()):
        return body
    header.leads = {k: (name, unit or named.get(k, "")) for k, (name, unit) in header.leads.items()}
    return body[1:]


def _table(body: list[str], header: _Header) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Samples and times of the columns that are read; empty cells are NaN."""
    rows = [line for line in body if line.strip() and not line.lstrip().startswith(_COMMENT)]
    if not rows:
        raise Refused("too_short", found="0 s", expected=format_seconds(MIN_DURATION_S))
    first, last = rows[0].count(header.delimiter), rows[-1].count(header.delimiter)
    if last < first:
        raise Refused("truncated", found=last + 1, expected=first + 1)
    columns = [*header.leads] + ([header.time[0]] if header.time else [])
    leads = np.empty((len(rows), len(header.leads)), np.float32)
    seconds = np.empty(len(rows) if header.time else 0)
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        part = _numbers(rows[at : at + _ROWS_AT_ONCE], header.delimiter, columns)
        leads[at : at + len(part)] = part[:, : len(header.leads)]
        if header.time:
            seconds[at : at + len(part)] = part[:, -1] * header.time[1]
    return leads, seconds


def _numbers(rows: list[str], delimiter: str, columns: list[int]) -> NDArray[np.float64]:
    """``(n_rows, n_columns)``; empty cells are looked for only where numpy's reader fails, blank ones only then.

    Raises
    ------
    Refused
        ``unreadable``: a cell is no number, or is not there.
    """
    if delimiter != ",":
        rows = [row.replace(",", ".") for row in rows]
    for n_try in range(3):
        if n_try == 1:
            rows = _nan_in_empty(rows, delimiter)
        elif n_try == 2:
            rows = _nan_in_blank(rows, delimiter)
        with suppress(ValueError):
            values: NDArray[np.float64] = np.loadtxt(
                iter(rows), dtype=np.float64, comments=None, delimiter=delimiter, usecols=columns, ndmin=2
            )
            if len(values) == len(rows):
                return values
    raise Refused("unreadable", found="CSV", expected="0-9")


def _nan_in_empty(rows: list[str], delimiter: str) -> list[str]:
    """Rows without quotation marks, ``nan`` in their empty cells."""
    joined = "\n".join(rows).replace('"', "")
    for _ in range(2):  # every second one at a time
        joined = joined.replace(2 * delimiter, f"{delimiter}nan{delimiter}")
    joined = f"\n{joined}\n".replace(f"\n{delimiter}", f"\nnan{delimiter}").replace(
        f"{delimiter}\n", f"{delimiter}nan\n"
    )
    return joined[1:-1].split("\n")


def _nan_in_blank(rows: list[str], delimiter: str) -> list[str]:
    """Rows with ``nan`` in their cells of blanks alone."""
    blank = re.compile(rf"(?m)(?:^|(?<={delimiter}))[^\S{delimiter}\n]+(?=$|{delimiter})")
    return blank.sub("nan", "\n".join(rows)).split("\n")


def _rate(header: _Header, seconds: NDArray[np.float64]) -> float:
    """As stated or from the time column; 0 where the file has neither.

    Raises
    ------
    Refused
        ``sampling_rate`` where the steps are uneven, or the two are different.
    """
    text = next((value for key, value in header.stated.items() if key in _RATE_KEYS), "")
    number = re.match(r"\d+(?:[.,]\d+)?(?=\s*(?:$|Hz|/s|sps|[,;\s]))", text, re.IGNORECASE)
    stated = float(number[0].replace(",", ".")) if number else 0.0
    if len(seconds) < 3:
        return stated
    step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    even = seconds[0] + step * np.arange(len(seconds))
    if not step > 0 or not np.abs(seconds - even).max() <= 0.6 * step:
        raise Refused("sampling_rate", found="Δt ≠", expected="Δt =")
    measured = round(1 / step, 2)
    if stated and abs(stated - measured) > 0.01 * stated:
        raise Refused("sampling_rate", found=f"{stated:g} Hz, {measured:g} Hz", expected="1 × Hz")
    return stated or measured


def _subject(stated: dict[str, str]) -> Subject:
    def first(*keys: str) -> str:
        return next((stated[key] for key in keys if key in stated), "")

    return Subject(
        stated_years=read_age(first("age", "ageyears"), "y"),
        sex=read_binary_sex(first("sex", "gender"), "words"),
        person_id=read_identifier(first("patientid", "personid", "id")),
        recorded_on=ecg_day(first("date", "recordedon", "recordingdate", "acquisitiondate"), "dmy"),
    )
