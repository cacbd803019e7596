"""SCP-ECG records: rhythm data of section 6, raw or Huffman coded, as differences, with reference beats taken out.

Decisions:

* A lead that starts at sample 0 instead of 1 has one sample fewer.
* Section 6 gives each lead's length in 16 bits. Writers of longer recordings store only 65534 bytes: these are read,
  with the reserve ``truncated``.
* Bimodal compression (rhythm data at a lower rate outside the QRS zones) is refused as ``unsupported_format``: there
  was no real file of that kind to test a reader with.

References
----------
EN 1064:2005+A1:2007 / ISO 11073-91064:2009: 5.2 (record and section layout), 5.4 (section 1), 5.5 and Annex C
(section 2, Huffman tables), 5.6 (section 3, leads), 5.7 (section 4, QRS locations), 5.8 (section 5, reference beats),
5.9 (section 6, rhythm data).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.formats.scp_huffman import huffman_decode, huffman_tables
from data_specs.ecg.header import (
    MDC_LEADS,
    MDC_MINUS_AVR,
    check_duration,
    check_rate,
    recording,
    require_leads,
)
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.person import calendar_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Problem, Refused
from data_specs.subject import Subject

_SECTION_HEADER = 16
_OVERFLOWN = 65534
MAX_BEATS_PER_S, MAX_BEAT_S = 10, 5
MAX_SUBJECT_BYTES = 256 << 10
"""Of section 1 so much is read. Texts have at most 80 bytes."""


@dataclass(frozen=True, slots=True)
class _Lead:
    label: str
    start: int
    n_samples: int


@dataclass(frozen=True, slots=True)
class _Coded:
    """Header of section 5 or 6 and each lead's bytes."""

    nanovolts: int
    interval_us: int
    differences: int
    bimodal: bool
    leads: tuple[bytes, ...]


def is_scp(content: bytes) -> bool:
    if content[16:22] == b"SCPECG":
        return True
    return len(content) > 32 and content[8:10] == b"\0\0" and int.from_bytes(content[2:6], "little") == len(content)


def read(content: bytes, *, ecg_unit: VoltageUnit | None) -> Recording:
    """Twelve leads of an SCP-ECG record. ``ecg_unit`` is not needed: the format always states unit and rate.

    Raises
    ------
    Refused
        ``unreadable``, ``truncated``, ``unsupported_format``, and what :func:`data_specs.ecg.header.recording` refuses.
    """
    try:
        return _read(content)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise Refused("unreadable", found="SCP-ECG", expected="EN 1064") from error


def _read(content: bytes) -> Recording:
    stated = int.from_bytes(content[2:6], "little")
    if stated > len(content):
        raise Refused("truncated", found=f"{len(content)} B", expected=f"{stated} B")
    sections = _sections(content)
    leads, subtracted = _leads(_required(sections, 3))
    require_leads(lead.label for lead in leads)
    rhythm = _coded(_required(sections, 6), len(leads))
    if rhythm.bimodal and subtracted:
        raise Refused("unsupported_format", found="SCP-ECG bimodal", expected="SCP-ECG")
    fs_hz = check_rate(_rate(rhythm.interval_us))
    wanted = list({lead.label: k for k, lead in reversed(list(enumerate(leads))) if lead.label}.values())
    wanted.sort()
    for k in wanted:
        check_duration(leads[k].n_samples, fs_hz)
    decoded = _decoded(rhythm, leads, wanted, sections.get(2))
    leads, problems = _overflown(leads, wanted, decoded, raw=2 not in sections)
    if subtracted:
        _add_reference_beats(decoded, leads, rhythm, sections)
    first = max(leads[k].start for k in wanted)
    last = min(leads[k].start + leads[k].n_samples for k in wanted)
    samples: dict[str, NDArray[np.floating]] = {}
    for k in wanted:
        values = decoded[k][first - leads[k].start : max(first, last) - leads[k].start] * (rhythm.nanovolts * 1e-6)
        samples[leads[k].label] = values.astype(np.float32)
    subject = _subject(sections.get(1, b"")[:MAX_SUBJECT_BYTES])
    return recording(samples, fs_hz=fs_hz, format="scp", subject=subject, problems=problems)


def _rate(interval_us: int) -> float:
    """Hz from whole microseconds; a whole number of hertz where the interval is its rounding (1667 us is 600 Hz)."""
    if interval_us == 0:
        return 0.0
    whole = round(1e6 / interval_us)
    return float(whole) if whole and abs(1e6 / whole - interval_us) < 1 else 1e6 / interval_us


# ---------------------------------------------------------------- sections


def _sections(content: bytes) -> dict[int, bytes]:
    """Bodies by section number, from the pointers of section 0 (id, length, index from 1)."""
    length = struct.unpack_from("<I", content, 10)[0]
    if not 16 + 10 <= length <= 10_000:
        raise ValueError("length of section 0")
    places: dict[int, tuple[int, int]] = {}
    for at in range(6 + _SECTION_HEADER, 6 + length - 9, 10):
        number, size, index = struct.unpack_from("<HII", content, at)
        if number in {1, 2, 3, 4, 5, 6} and size > _SECTION_HEADER and index > 0:
            if index - 1 + size > len(content):
                raise Refused("truncated", found=f"{len(content)} B", expected=f"{index - 1 + size} B")
            places[number] = (index - 1 + _SECTION_HEADER, index - 1 + size)
    return {number: content[start:end] for number, (start, end) in places.items()}


def _required(sections: dict[int, bytes], number: int) -> bytes:
    if number not in sections:
        have = ", ".join(map(str, sorted(sections)))
        raise Refused("unreadable", found=f"SCP-ECG {have}", expected=f"SCP-ECG {number}")
    return sections[number]


def _leads(body: bytes) -> tuple[list[_Lead], bool]:
    """Leads of section 3 and whether reference beats were subtracted; a lead that is not standard has no label."""
    count, flags = body[0], body[1]
    if len(body) < 2 + 9 * count:
        raise Refused("truncated", found=f"{len(body)} B", expected=f"{2 + 9 * count} B")
    leads = []
    for k in range(count):
        start, end, code = struct.unpack_from("<IIB", body, 2 + 9 * k)
        label = "-aVR" if code == MDC_MINUS_AVR else MDC_LEADS.get(code, "")
        leads.append(_Lead(label, start, end - start + (1 if start else 0)))
    return leads, bool(flags & 1)


def _coded(body: bytes, count: int) -> _Coded:
    nanovolts, interval_us, differences, bimodal = struct.unpack_from("<HHBB", body)
    lengths = struct.unpack_from(f"<{count}H", body, 6)
    if differences > 2 or nanovolts == 0:
        raise ValueError("encoding of the samples")
    at, leads = 6 + 2 * count, []
    for length in lengths:
        leads.append(body[at : at + length])
        at += length
    if at > len(body):
        raise Refused("truncated", found=f"{len(body)} B", expected=f"{at} B")
    return _Coded(nanovolts, interval_us, differences, bimodal == 1, tuple(leads))


def _decoded(
    coded: _Coded, leads: list[_Lead], wanted: list[int], tables: bytes | None
) -> dict[int, NDArray[np.int64]]:
    """Counts per wanted lead, differences summed up."""
    huffman = huffman_tables(tables) if tables is not None else None
    decoded = {}
    for k in wanted:
        data = coded.leads[k]
        if huffman is None:
            values = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int64)[: leads[k].n_samples]
        else:
            values = huffman_decode(data, leads[k].n_samples, huffman)
        decoded[k] = _summed(values, coded.differences)
    return decoded


def _summed(values: NDArray[np.int64], differences: int) -> NDArray[np.int64]:
    """Undo first or second differences; the first one or two samples are stored as they are (5.9.4).

    Encoders count in 16 bits, so the sums wrap.
    """
    if differences == 1:
        values = np.cumsum(values)
    elif differences == 2 and values.size > 2:
        slopes = np.concatenate([values[1:2] - values[:1], values[2:]])
        values = values[0] + np.concatenate([[0], np.cumsum(np.cumsum(slopes))])
    return ((values + 32768) & 0xFFFF) - 32768


def _overflown(
    leads: list[_Lead], wanted: list[int], decoded: dict[int, NDArray[np.int64]], *, raw: bool
) -> tuple[list[_Lead], tuple[Problem, ...]]:
    """Leads with the lengths that were decoded; shorter ones are refused unless the 16-bit length overflowed."""
    have = min(values.size for values in decoded.values())
    stated = max(leads[k].n_samples for k in wanted)
    if all(decoded[k].size >= leads[k].n_samples for k in wanted):
        return leads, ()
    if not raw or any(values.size * 2 != _OVERFLOWN for values in decoded.values()):
        raise Refused("truncated", found=have, expected=stated)
    short = [_Lead(lead.label, lead.start, min(lead.n_samples, have)) for lead in leads]
    return short, (Problem("truncated", "warn", str(have), str(stated)),)


def _add_reference_beats(
    decoded: dict[int, NDArray[np.int64]], leads: list[_Lead], rhythm: _Coded, sections: dict[int, bytes]
) -> None:
    """Add beat type 0 of section 5, in place, at every QRS of section 4 where it was subtracted (5.7.4)."""
    body = _required(sections, 4)
    _, fiducial, count = struct.unpack_from("<HHH", body)
    beats = _coded(_required(sections, 5), len(leads))
    if beats.interval_us != rhythm.interval_us:
        raise Refused(
            "unsupported_format", found=f"SCP-ECG {beats.interval_us} us", expected=f"{rhythm.interval_us} us"
        )
    if len(body) < 6 + 14 * count:
        raise Refused("truncated", found=f"{len(body)} B", expected=f"{6 + 14 * count} B")
    longest = max(values.size for values in decoded.values())
    if count > MAX_BEATS_PER_S * longest * beats.interval_us / 1e6:
        raise Refused("unreadable", found=f"SCP-ECG QRS {count}", expected=f"≤ {MAX_BEATS_PER_S} /s")
    length = struct.unpack_from("<H", body)[0] * 1000 // beats.interval_us
    _check_beats(body, count, length, longest, rhythm.interval_us)
    every = [_Lead(lead.label, 1, length) for lead in leads]
    reference = _decoded(beats, every, list(decoded), sections.get(2))
    for n in range(count):
        kind, begin, centre, end = struct.unpack_from("<HIII", body, 6 + 14 * n)
        if kind != 0:
            continue
        for k, values in decoded.items():
            at = np.arange(max(begin, 1), min(end, values.size) + 1)
            source = at - centre + fiducial - 1
            inside = (source >= 0) & (source < reference[k].size)
            beat = np.rint(reference[k][source[inside]] * (beats.nanovolts / rhythm.nanovolts)).astype(np.int64)
            values[at[inside] - 1] += beat


def _check_beats(body: bytes, count: int, length: int, longest: int, interval_us: int) -> None:
    """Refuse a reference beat of seconds, and zones that overlap: each beat's zone is a part of the recording.

    Raises
    ------
    Refused
        ``unreadable``
    """
    zones = (struct.unpack_from("<HIII", body, 6 + 14 * n)[1::2] for n in range(count))
    covered = sum(max(0, min(end, longest) - max(begin, 1) + 1) for begin, end in zones)
    if length * interval_us > MAX_BEAT_S * 1_000_000 or covered > 2 * longest:
        found = f"SCP-ECG QRS {length * interval_us / 1e6:g} s, {covered}"
        raise Refused("unreadable", found=found, expected=f"≤ {MAX_BEAT_S} s, ≤ {longest}")


# ---------------------------------------------------------------- section 1

_AGE_UNITS = {1: "y", 2: "m", 3: "w", 4: "d", 5: "h"}


def _subject(body: bytes) -> Subject:
    """Tags 2 (identifier), 4 (age), 5 (birth), 8 (sex) and 25 (day of acquisition)."""
    tags: dict[int, bytes] = {}
    at = 0
    while at + 3 <= len(body) and body[at] != 255:
        size = int.from_bytes(body[at + 1 : at + 3], "little")
        tags.setdefault(body[at], body[at + 3 : at + 3 + size])
        at += 3 + size
    recorded_on, born = (
        calendar_day(int.from_bytes(raw[:2], "little"), raw[2], raw[3]) if len(raw := tags.get(tag, b"")) >= 4 else None
        for tag in (25, 5)
    )
    stated = tags.get(4, b"")
    number = int.from_bytes(stated[:2], "little")  # 0: not known
    years = read_age(number, _AGE_UNITS.get(stated[2], "")) if number and len(stated) >= 3 else None
    return Subject(
        stated_years=years,
        born=born,
        sex=read_binary_sex(int.from_bytes(tags.get(8, b"")[:1]), "scp"),
        person_id=read_identifier(tags.get(2, b"").split(b"\0")[0].decode("latin-1")),
        recorded_on=recorded_on,
    )
