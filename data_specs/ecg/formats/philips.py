"""Philips Sierra ECG XML (PageWriter, TraceMaster, HeartStart), versions 1.03 and 1.04, XLI compressed or plain.

XLI data have one chunk per lead: size (32 bit), a start value, then LZW codes of ten bits, first bit highest. They
unpack to all high bytes, then all low bytes, of second differences with an offset of 64. III, aVR, aVL and aVF are
stored as differences from the values that follow from I and II.

References
----------
Philips Medical Systems, ECG XML schema 1.03 and 1.04 (``restingecgdata``, resolution in µV per count,
``durationperchannel`` in ms); Watford C., Sierra ECG Tools, documentation of XLI,
https://github.com/sixlettervariables/sierra-ecg-tools
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.formats.xml import decoded, number, text
from data_specs.ecg.header import check_duration, check_rate, recording, require_leads
from data_specs.ecg.recording import LEADS, Recording, VoltageUnit
from data_specs.person import ecg_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Refused
from data_specs.subject import Subject

TYPES = ("SierraECG", "PhilipsECG")
VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")

_CODE_BITS = 10
_LAST_CODE = (1 << _CODE_BITS) - 2


def read(root: Element, *, ecg_unit: VoltageUnit | None) -> Recording:
    """The parsed waveforms of a ``restingecgdata`` document. ``ecg_unit`` is not needed: counts are stated in µV.

    Raises
    ------
    Refused
        ``unsupported_format`` (type, version, encoding, compression), ``unit_unknown``, ``truncated``, and what
        :func:`data_specs.ecg.header.recording` refuses.
    """
    kind, version = text(root, "documentinfo/documenttype"), text(root, "documentinfo/documentversion")
    if kind not in TYPES or version not in VERSIONS:
        found = "".join(c for c in f"{kind} {version}" if c.isalnum() or c in " .")[:32]
        raise Refused("unsupported_format", found=found, expected=", ".join(f"{TYPES[0]} {v}" for v in VERSIONS))
    waves, signal = root.find("waveforms/parsedwaveforms"), root.find("dataacquisition/signalcharacteristics")
    if waves is None:
        require_leads([])
        raise Refused("lead_missing", expected=", ".join(LEADS))
    labels = _labels(waves, signal)
    require_leads(labels)
    fs_hz = check_rate(number(waves.get("samplespersecond") or text(signal, "samplingrate")))
    n_samples = _n_samples(waves, fs_hz)
    check_duration(n_samples, fs_hz)
    counts = _counts(waves, labels, n_samples)
    resolution = number(waves.get("resolution") or text(signal, "resolution") or text(signal, "signalresolution"))
    if not resolution > 0:
        raise Refused("unit_unknown", found="resolution", expected="uV")
    offset = number(waves.get("signaloffset") or text(signal, "signaloffset") or "0")
    leads = {label: ((values - offset) * (resolution * 1e-3)).astype(np.float32) for label, values in counts.items()}
    return recording(leads, fs_hz=fs_hz, format="philips", subject=_subject(root))


def _labels(waves: Element, signal: Element | None) -> list[str]:
    """Lead labels; version 1.03 has none and stores a standard acquisition in the order of :data:`LEADS`."""
    if stated := (waves.get("leadlabels") or "").split():
        return stated
    kind = text(signal, "acquisitiontype") or text(signal, "leadset")
    count = number(text(signal, "numberchannelsallocated"))
    return list(LEADS) if kind in {"STD-12", "10-WIRE"} and count >= len(LEADS) else []


def _n_samples(waves: Element, fs_hz: float) -> int:
    milliseconds = number(waves.get("durationperchannel", ""))
    if not milliseconds > 0:
        raise Refused("unreadable", found="durationperchannel", expected="ms")
    return round(milliseconds * fs_hz / 1000) if milliseconds < 1e9 else 0


def _counts(waves: Element, labels: list[str], n_samples: int) -> dict[str, NDArray[np.int64]]:
    if waves.get("dataencoding", "Base64") != "Base64":
        raise Refused("unsupported_format", found="dataencoding", expected="Base64")
    data = decoded(text(waves))
    compressed = waves.get("compressflag", "True") != "False"
    method = (
        (waves.get("compressmethod") or waves.get("compression") or "Uncompressed") if compressed else "Uncompressed"
    )
    if method == "XLI":
        return _limb_leads_restored(dict(zip(labels, _xli(data, len(labels), n_samples), strict=True)))
    if method not in {"Uncompressed", "None"}:
        raise Refused("unsupported_format", found="compression", expected="XLI")
    need = len(labels) * n_samples * 2
    if len(data) < need:
        raise Refused("truncated", found=f"{len(data)} B", expected=f"{need} B")
    plain = np.frombuffer(data, "<i2", len(labels) * n_samples).reshape(len(labels), n_samples).astype(np.int64)
    return dict(zip(labels, plain, strict=True))


def _limb_leads_restored(counts: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Limb leads from their stored differences; halves are rounded down, as the encoder does."""
    if not {"I", "II", "III", "aVR", "aVL", "aVF"} <= counts.keys():
        return counts
    one, two = counts["I"], counts["II"]
    three = two - one - counts["III"]
    return counts | {
        "III": three,
        "aVR": -((one + two) // 2) - counts["aVR"],
        "aVL": (one - three) // 2 - counts["aVL"],
        "aVF": (two + three) // 2 - counts["aVF"],
    }


def _xli(data: bytes, n_leads: int, n_samples: int) -> list[NDArray[np.int64]]:
    leads: list[NDArray[np.int64]] = []
    at = 0
    while len(leads) < n_leads:
        if at + 8 > len(data):
            raise Refused("truncated", found=f"XLI {len(leads)}", expected=f"XLI {n_leads}")
        size = int.from_bytes(data[at : at + 4], "little")
        start = int.from_bytes(data[at + 6 : at + 8], "little", signed=True)
        if at + 8 + size > len(data):
            raise Refused("truncated", found=f"{len(data)} B", expected=f"{at + 8 + size} B")
        unpacked = _lzw(data[at + 8 : at + 8 + size], 2 * n_samples + 64)
        half = (len(unpacked) + 1) // 2
        if half < n_samples:
            raise Refused("truncated", found=half, expected=n_samples)
        padded = np.frombuffer(unpacked + b"\0" * (len(unpacked) % 2), np.uint8).astype(np.uint16)
        leads.append(_summed((padded[:half] << 8 | padded[half:]).astype(np.int16).astype(np.int64), start)[:n_samples])
        at += 8 + size
    return leads


def _summed(deltas: NDArray[np.int64], start: int) -> NDArray[np.int64]:
    """Samples from second differences: x[n] = 2x[n-1] - x[n-2] - e[n-1], e = delta - 64, e[1] = ``start``."""
    if deltas.size < 3:
        return deltas
    errors = np.concatenate([[start], deltas[2:-1] - 64])
    slopes = (deltas[1] - deltas[0]) - np.concatenate([[0], np.cumsum(errors)])
    wide: NDArray[np.int64] = deltas[0] + np.concatenate([[0], np.cumsum(slopes)])
    return ((wide + 32768) & 0xFFFF) - 32768


def _lzw(data: bytes, limit: int) -> bytes:
    """Unpack up to ``limit`` bytes of fixed ten-bit codes, first bit highest.

    The dictionary stops growing when it is full; a code above the last one ends the stream.
    """
    strings = [bytes([k]) for k in range(256)]
    unpacked = bytearray()
    previous = b""
    bits = held = 0
    for byte in data:
        bits, held = bits << 8 | byte, held + 8
        if held < _CODE_BITS:
            continue
        held -= _CODE_BITS
        code, bits = bits >> held, bits & (1 << held) - 1
        if code > _LAST_CODE:
            break
        if code < len(strings):
            entry = strings[code]
        elif previous:
            entry = previous + previous[:1]
        else:
            raise Refused("unreadable", found="LZW", expected="XLI")
        if previous and len(strings) <= _LAST_CODE:
            strings.append(previous + entry[:1])
        unpacked += entry
        previous = entry
        if len(unpacked) > limit:
            break
    return bytes(unpacked)


def _subject(root: Element) -> Subject:
    person, acquired = root.find("patient/generalpatientdata"), root.find("dataacquisition")
    recorded_on = ecg_day(acquired.get("date")) if acquired is not None else None
    stated, born = read_age(text(person, "age/years"), "y"), ecg_day(text(person, "age/dateofbirth"))
    return Subject(
        stated_years=stated,
        born=born,
        sex=read_binary_sex(text(person, "sex"), "words"),
        person_id=read_identifier(text(person, "patientid")),
        recorded_on=recorded_on,
    )
