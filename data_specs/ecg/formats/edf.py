"""EDF, EDF+ and BDF recordings.

Samples are scaled to physical values as the header states. Of an ``EDF Annotations`` signal only the onsets of a
discontinuous file's records are read.

References
----------
Kemp B. et al., Electroencephalogr Clin Neurophysiol 1992;82:391 (EDF). Kemp B., Olivan J., Clin Neurophysiol
2003;114:1755 (EDF+). https://www.edfplus.info/specs/ ; BioSemi BDF: the same with 24-bit samples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

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
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.numbers import number
from data_specs.person import calendar_day, ecg_day, read_binary_sex, read_identifier
from data_specs.problems import Refused
from data_specs.subject import Subject

_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Widths of label, transducer, dimension, physical min and max, digital min and max, prefilter, samples, reserved."""


MAX_RECORDS_WITH_ONSET = 36_000
"""Data records of a discontinuous file, each of which states its onset: ten a second for an hour."""


@dataclass(frozen=True, slots=True)
class _Channel:
    label: str
    dimension: str
    physical: tuple[float, float]
    digital: tuple[int, int]
    samples: int
    first: int
    """Samples per data record, and the place of the first one in it."""


def is_edf(content: bytes) -> bool:
    return content[:8] == b"0       " or content[:8] == b"\xffBIOSEMI"


def read(content: bytes, *, ecg_unit: VoltageUnit | None) -> Recording:
    """Twelve leads of an EDF, EDF+C or BDF file.

    Raises
    ------
    Refused
        ``unreadable``, ``truncated``, ``unsupported_format`` (EDF+D with gaps), and what
        :func:`data_specs.ecg.header.recording` refuses.
    """
    try:
        return _read(content, ecg_unit)
    except (ValueError, OverflowError, IndexError) as error:
        raise Refused("unreadable", found="EDF", expected="EDF, EDF+") from error


def _read(content: bytes, ecg_unit: VoltageUnit | None) -> Recording:
    if len(content) < 256:
        raise Refused("truncated", found=f"{len(content)} B", expected="≥ 256 B")
    head = content[:256].decode("latin-1")
    n_channels, n_records, record_s = int(head[252:256]), int(head[236:244]), float(head[244:252])
    if not 1 <= n_channels <= 512:
        raise Refused("unreadable", found=f"EDF {n_channels}", expected="EDF 1-512")
    start = 256 * (n_channels + 1)
    if len(content) < start:
        raise Refused("truncated", found=f"{len(content)} B", expected=f"{start} B")
    channels = _channels(content[256:start].decode("latin-1"), n_channels)
    width = 3 if content[:1] == b"\xff" else 2
    per_record = sum(channel.samples for channel in channels)
    have = (len(content) - start) // (per_record * width) if per_record else 0
    n_records = have if n_records < 0 else n_records
    require_leads(channel.label for channel in channels)
    if have < n_records:
        raise Refused("truncated", found=f"{have} × {record_s:g} s", expected=f"{n_records} × {record_s:g} s")
    leads = [channel for channel in channels if is_lead(channel.label)]
    counts = {channel.samples for channel in leads}
    if len(counts) > 1:
        found = ", ".join(f"{count / record_s:g} Hz" for count in sorted(counts)) if record_s > 0 else "? Hz"
        raise Refused("sampling_rate", found=found, expected="12 × 1 Hz")
    fs_hz = check_rate(counts.pop() / record_s if record_s > 0 else 0.0)
    check_duration(n_records * leads[0].samples, fs_hz)
    raw = np.frombuffer(content, np.uint8, n_records * per_record * width, start).reshape(n_records, -1)
    if head[192:197] == "EDF+D":
        _require_no_gap(raw, channels, record_s)
    samples: dict[str, NDArray[np.floating]] = {}
    for channel in leads:
        part = raw[:, channel.first * width : (channel.first + channel.samples) * width]
        samples.setdefault(channel.label, _millivolts(_counts(part, width), channel, ecg_unit))
    return recording(samples, fs_hz=fs_hz, format="edf", subject=_subject(head))


def _channels(text: str, n: int) -> list[_Channel]:
    columns: list[list[str]] = []
    at = 0
    for width in _FIELDS:
        columns.append([text[at + k * width : at + (k + 1) * width].strip() for k in range(n)])
        at += width * n
    channels: list[_Channel] = []
    first = 0
    for label, _, dimension, low, high, digital_low, digital_high, _, samples, _ in zip(*columns, strict=True):
        if int(samples) < 0:
            raise ValueError("negative number of samples")
        physical, digital = (_number(low), _number(high)), (int(_number(digital_low)), int(_number(digital_high)))
        channels.append(_Channel(label, dimension, physical, digital, int(samples), first))
        first += int(samples)
    return channels


def _number(text: str) -> float:
    return number(text, "EDF")


def _counts(part: NDArray[np.uint8], width: int) -> NDArray[np.integer]:
    flat = np.ascontiguousarray(part).reshape(-1)
    if width == 2:
        return flat.view("<i2")
    b = flat.reshape(-1, 3).astype(np.int32)
    return ((b[:, 0] | b[:, 1] << 8 | b[:, 2] << 16) ^ (1 << 23)) - (1 << 23)


def _millivolts(counts: NDArray[np.integer], channel: _Channel, ecg_unit: VoltageUnit | None) -> NDArray[np.floating]:
    (low, high), (digital_low, digital_high) = channel.physical, channel.digital
    values = counts.astype(np.float64)  # floats, because the subtraction would overflow 16 bits
    if digital_low >= digital_high or low == high:  # uncalibrated, as EDF writes it
        return (values * millivolts_per(None, ecg_unit)).astype(np.float32)
    gain = (high - low) / (digital_high - digital_low)
    return (((values - digital_low) * gain + low) * millivolts_per(channel.dimension, ecg_unit)).astype(np.float32)


def _require_no_gap(raw: NDArray[np.uint8], channels: list[_Channel], record_s: float) -> None:
    """Refuse an EDF+D file with gaps between records, whose onsets are at the start of the annotation signal."""
    marks = next((channel for channel in channels if channel.label == "EDF Annotations"), None)
    if marks is None:
        raise Refused("unreadable", found="EDF+D", expected="EDF+C")
    if len(raw) > MAX_RECORDS_WITH_ONSET:
        raise Refused("unsupported_format", found=f"EDF+D {len(raw)}", expected="EDF+C")
    onsets = []
    for row in raw[:, marks.first * 2 : (marks.first + marks.samples) * 2]:
        onset = re.match(rb"([+-]\d+(?:\.\d*)?)\x14", row.tobytes())
        onsets.append(float(onset[1]) if onset else np.nan)
    if not np.allclose(np.diff(onsets), record_s, atol=1e-3):
        raise Refused("unsupported_format", found="EDF+D", expected="EDF+C")


def _subject(head: str) -> Subject:
    """EDF+ local identifications: ``code sex birthdate name`` and ``Startdate dd-MMM-yyyy``; else the start date."""
    patient, session = head[8:88].split(), head[88:168].split()
    has_day = len(session) > 1 and session[0] == "Startdate"
    recorded_on = ecg_day(session[1], "dmy") if has_day else _start(head[168:176])
    if not head.startswith("0") or head[192:196] != "EDF+" or len(patient) < 3:
        return Subject(recorded_on=recorded_on)
    return Subject(
        born=ecg_day(patient[2], "dmy"),
        sex=read_binary_sex(patient[1], "words"),
        person_id=read_identifier(patient[0]),
        recorded_on=recorded_on,
    )


def _start(text: str) -> date | None:
    """``dd.mm.yy``; 85 to 99 are of the twentieth century."""
    found = re.match(r"(\d\d)\.(\d\d)\.(\d\d)", text)
    if found is None:
        return None
    year = int(found[3])
    return calendar_day(year + (1900 if year >= 85 else 2000), found[2], found[1])
