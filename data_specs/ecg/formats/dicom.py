"""DICOM waveforms: 12-lead ECG, General ECG and Ambulatory ECG objects.

References
----------
DICOM PS3.3 C.10.9 (Waveform module), A.34.3-A.34.5 (the IODs); PS3.16 CID 3001 and CID 3003 (lead codes: MDC, before
2010 SCPECG ``5.6.3-9-n``); PS3.16 CID 3082 and UCUM for Channel Sensitivity Units.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_specs.dicom.uids import identifier_problems
from data_specs.ecg.header import (
    MDC_LEADS,
    MDC_MINUS_AVR,
    check_duration,
    check_rate,
    is_lead,
    millivolts_per,
    recording,
    require_leads,
)
from data_specs.ecg.recording import MIN_DURATION_S, Recording, VoltageUnit
from data_specs.person import dicom_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Refused
from data_specs.reading import refusals_only, require_memory
from data_specs.subject import Subject

if TYPE_CHECKING:
    from pydicom import Dataset

    from data_specs.dicom.header import Reads

MAX_INFLATED_BYTES = 128 << 20
_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
"""WaveformSampleInterpretation, PS3.3 C.10.9.1.5; MB and AB (µ-law and A-law) are for sound."""


def read(content: bytes, *, ecg_unit: VoltageUnit | None) -> Recording:
    """The rhythm of a DICOM waveform object.

    Of several multiplex groups, the rhythm of 5 s or more is read, never the median beat, together with all groups of
    its rate, start and length: leads may be spread over simultaneous groups.

    Raises
    ------
    Refused
        ``unsupported_format`` (no waveform, or a coding that is not for ECGs), ``unreadable``, ``truncated``,
        ``unit_unknown``, and what :func:`data_specs.ecg.header.recording` refuses.
    """
    from data_specs.dicom.header import Reads, quiet_pydicom  # noqa: PLC0415  heavy, and not every visit holds DICOM

    require_memory(2 * len(content))  # the sequence of waveforms, and the samples in it
    with quiet_pydicom(), refusals_only("DICOM", "PS3.3 C.10.9"):
        reads = Reads()
        return _read(_dataset(content, reads), reads, ecg_unit)


def _dataset(content: bytes, reads: Reads) -> Dataset:
    import pydicom  # noqa: PLC0415

    from data_specs.dicom.header import DEFLATED, BoundedBytes, inflated  # noqa: PLC0415

    if DEFLATED.encode() not in content[132:2048]:
        return pydicom.dcmread(BoundedBytes(content, reads))
    start = 144 + int.from_bytes(
        content[140:144], "little"
    )  # group length of the meta information (PS3.10 section 7.1)
    data = inflated(content, start, MAX_INFLATED_BYTES)
    return pydicom.filereader.read_dataset(BoundedBytes(data, reads), is_implicit_VR=False, is_little_endian=True)


def _items(dataset: Dataset, keyword: str, reads: Reads) -> list[Dataset]:
    """Items of a sequence. pydicom parses those of a stated length when they are asked for, without a limit."""
    from pydicom.dataelem import RawDataElement  # noqa: PLC0415
    from pydicom.filereader import read_sequence  # noqa: PLC0415

    from data_specs.dicom.header import BoundedBytes  # noqa: PLC0415

    if keyword not in dataset:
        return []
    element = dataset.get_item(keyword)
    if not isinstance(element, RawDataElement):
        return list(element.value or [])
    implicit = element.is_implicit_VR or element.VR == "UN"  # UN is in implicit VR (PS3.5 section 6.2.2)
    content = element.value or b""
    return list(
        read_sequence(BoundedBytes(content, reads), implicit, element.is_little_endian, len(content), "iso8859")
    )


def _read(dataset: Dataset, reads: Reads, ecg_unit: VoltageUnit | None) -> Recording:
    from data_specs.dicom.header import identifiers  # noqa: PLC0415  heavy, and not every visit holds DICOM

    groups = _items(dataset, "WaveformSequence", reads)
    if not groups:
        kind = re.sub(r"[^A-Z]", "", str(dataset.get("Modality", "")))[:16]
        raise Refused("unsupported_format", found=f"DICOM {kind}".strip(), expected="DICOM ECG")
    channels = [_items(group, "ChannelDefinitionSequence", reads) for group in groups]
    labels = [[_label(channel, reads) for channel in of_group] for of_group in channels]
    rhythm = _rhythm(groups, labels)
    require_leads(label for k in rhythm for label in labels[k] if label)
    fs_hz = check_rate(_fs_hz(groups[rhythm[0]]))
    check_duration(int(groups[rhythm[0]].NumberOfWaveformSamples), fs_hz)
    leads: dict[str, NDArray[np.floating]] = {}
    for k in rhythm:
        counts, padding = _counts(groups[k], len(labels[k]), bool(dataset.original_encoding[1]))
        for column, (label, channel) in enumerate(zip(labels[k], channels[k], strict=True)):
            if label and label not in leads:
                units = _items(channel, "ChannelSensitivityUnitsSequence", reads)
                values = _millivolts(counts[:, column], channel, units, ecg_unit)
                if padding is not None:
                    values[counts[:, column] == padding] = np.nan
                leads[label] = values
    problems = identifier_problems(identifiers(dataset))
    return recording(leads, fs_hz=fs_hz, format="dicom", subject=_subject(dataset), problems=problems)


# ---------------------------------------------------------------- multiplex groups


def _fs_hz(group: Dataset) -> float:
    return _decimal(group, "SamplingFrequency") or 0.0


def _decimal(dataset: Dataset, keyword: str) -> float | None:
    from data_specs.dicom.header import decimal  # noqa: PLC0415  heavy, and not every visit holds DICOM

    return decimal(dataset, keyword)


def _rhythm(groups: list[Dataset], labels: list[list[str]]) -> list[int]:
    """Groups that together are the rhythm: the best one, and those of its rate, start and number of samples."""

    def timing(k: int) -> tuple[float, float, int]:
        group = groups[k]
        return _fs_hz(group), _decimal(group, "MultiplexGroupTimeOffset") or 0.0, int(group.NumberOfWaveformSamples)

    def preference(k: int) -> tuple[bool, bool, bool, int, float]:
        fs_hz, _, n_samples = timing(k)
        seconds = n_samples / fs_hz if fs_hz > 0 else 0.0
        median = "MEDIAN" in str(groups[k].get("MultiplexGroupLabel", "")).upper()
        derived = str(groups[k].get("WaveformOriginality", "")).upper() == "DERIVED"
        return not median, seconds >= MIN_DURATION_S, not derived, sum(map(bool, labels[k])), seconds

    best = max(range(len(groups)), key=preference)
    return [best, *(k for k in range(len(groups)) if k != best and timing(k) == timing(best))]


def _label(channel: Dataset, reads: Reads) -> str:
    """Standard lead name of a channel; empty for a channel that is not a standard lead."""
    for source in _items(channel, "ChannelSourceSequence", reads):
        value = str(source.get("CodeValue", "")).strip()
        number = re.fullmatch(r"(?:2:|5\.6\.3-9-)(\d{1,6})", value)
        if number:
            code = int(number[1])
            return "-aVR" if code == MDC_MINUS_AVR else MDC_LEADS.get(code, "")
        for text in (value, str(source.get("CodeMeaning", ""))):
            if is_lead(text):
                return text
    label = str(channel.get("ChannelLabel", ""))
    return label if is_lead(label) else ""


def _counts(group: Dataset, n_channels: int, little_endian: bool) -> tuple[NDArray[np.number], Any]:
    """``(n_samples, n_channels)`` counts, and the value that means 'no sample', or ``None``."""
    code = _TYPES.get(str(group.WaveformSampleInterpretation))
    if code is None or n_channels != int(group.NumberOfWaveformChannels):
        found = f"DICOM {group.WaveformSampleInterpretation} {group.NumberOfWaveformChannels}"
        raise Refused("unsupported_format", found=found[:32], expected=", ".join(_TYPES))
    dtype = np.dtype(code).newbyteorder("<" if little_endian else ">")
    if int(group.WaveformBitsAllocated) != dtype.itemsize * 8:
        found = f"{group.WaveformSampleInterpretation} {group.WaveformBitsAllocated} bit"
        raise Refused("unreadable", found=found[:32], expected=f"{dtype.itemsize * 8} bit")
    data, n_samples = bytes(group.WaveformData), int(group.NumberOfWaveformSamples)
    need = n_samples * n_channels * dtype.itemsize
    if len(data) < need:
        raise Refused("truncated", found=f"{len(data)} B", expected=f"{need} B")
    counts = np.frombuffer(data, dtype, n_samples * n_channels).reshape(n_samples, n_channels)
    padding = group.get("WaveformPaddingValue")
    if isinstance(padding, bytes):
        padding = np.frombuffer(padding, dtype, 1)[0] if len(padding) >= dtype.itemsize else None
    return counts, padding


def _millivolts(
    counts: NDArray[np.number], channel: Dataset, units: list[Dataset], ecg_unit: VoltageUnit | None
) -> NDArray[np.floating]:
    """Sample × sensitivity × correction + baseline (PS3.3 C.10.9.1.4.2)."""
    sensitivity = _decimal(channel, "ChannelSensitivity")
    if sensitivity is None:
        return (counts.astype(np.float64) * millivolts_per(None, ecg_unit)).astype(np.float32)
    factor = millivolts_per(str(units[0].get("CodeValue", "")) if units else "", ecg_unit)
    correction = _decimal(channel, "ChannelSensitivityCorrectionFactor")
    baseline = _decimal(channel, "ChannelBaseline") or 0.0
    scale = sensitivity * (1.0 if correction is None else correction)
    return ((counts.astype(np.float64) * scale + baseline) * factor).astype(np.float32)


def _subject(dataset: Dataset) -> Subject:
    times = [dataset.get(k) for k in ("AcquisitionDateTime", "AcquisitionDate", "ContentDate", "StudyDate")]
    recorded_on = next((found for found in (dicom_day(str(time or "")) for time in times) if found), None)
    born = dicom_day(str(dataset.get("PatientBirthDate") or ""))
    return Subject(
        stated_years=read_age(dataset.get("PatientAge"), unit=""),
        born=born,
        sex=read_binary_sex(dataset.get("PatientSex"), "dicom"),
        person_id=read_identifier(str(dataset.get("PatientID") or "")),
        recorded_on=recorded_on,
    )
