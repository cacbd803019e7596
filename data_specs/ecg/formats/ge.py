"""GE MUSE ``RestingECG`` and GE CardioSoft ``CardiologyXML``.

MUSE stores eight leads as Base64 of 16-bit little-endian counts; III, aVR, aVL and aVF follow from I and II.
CardioSoft writes twelve leads as text. In both, the rhythm strip is read, not the median beat.

References
----------
GE Healthcare, MUSE Cardiology Information System, XML developer's and ODBC reference guide (``restecg.dtd``):
``Waveform``/``LeadData``, ``LeadAmplitudeUnitsPerBit``, ``LeadAmplitudeUnits``, ``SampleBase`` × 10^``SampleExponent``.
GE Healthcare, CARDIOSOFT/CS-3 XML export (``CardiologyXML``): ``StripData``, ``Resolution units="uVperLsb"``.
"""

from __future__ import annotations

import re
from datetime import date
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.formats.xml import decoded, number, numbers, text
from data_specs.ecg.header import (
    MAX_SAMPLES,
    check_duration,
    check_rate,
    millivolts_per,
    recording,
    require_leads,
)
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.person import calendar_day, ecg_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Refused
from data_specs.subject import Subject


def read_muse(root: Element, *, ecg_unit: VoltageUnit | None) -> Recording:
    """The ``Rhythm`` waveform of a MUSE document.

    Raises
    ------
    Refused
        ``lead_missing`` (also where there is no rhythm), ``truncated``, ``unit_unknown``, and what
        :func:`data_specs.ecg.header.recording` refuses.
    """
    rhythms = [w for w in root.findall("Waveform") if text(w, "WaveformType").lower() == "rhythm"]
    rhythm = max(rhythms, key=lambda w: len(w.findall("LeadData")), default=None)
    by_label = {text(lead, "LeadID"): lead for lead in rhythm.findall("LeadData")} if rhythm is not None else {}
    require_leads(by_label)
    base, exponent = number(text(rhythm, "SampleBase")), number(text(rhythm, "SampleExponent") or "0")
    fs_hz = check_rate(base * 10.0**exponent if abs(exponent) < 9 else 0.0)
    leads = {label: _muse_lead(lead, fs_hz, ecg_unit) for label, lead in by_label.items()}
    return recording(leads, fs_hz=fs_hz, format="muse", subject=_muse_subject(root))


def _muse_lead(lead: Element, fs_hz: float, ecg_unit: VoltageUnit | None) -> NDArray[np.floating]:
    size = text(lead, "LeadSampleSize") or "2"
    if size != "2":
        raise Refused("unsupported_format", found=f"MUSE {8 * number(size):g} bit", expected="MUSE 16 bit")
    raw = decoded(text(lead, "WaveFormData"))
    counts = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2")
    stated = number(text(lead, "LeadSampleCountTotal"))
    if counts.size < stated:
        raise Refused("truncated", found=counts.size, expected=f"{stated:g}")
    if np.isfinite(stated):
        counts = counts[: max(0, int(stated))]
    check_duration(counts.size, fs_hz)
    per_bit = number(text(lead, "LeadAmplitudeUnitsPerBit"))
    factor = millivolts_per(text(lead, "LeadAmplitudeUnits"), ecg_unit)
    if not per_bit > 0:
        raise Refused("unit_unknown", found="LeadAmplitudeUnitsPerBit", expected="uV")
    return (counts * (per_bit * factor)).astype(np.float32)


def _muse_subject(root: Element) -> Subject:
    person = root.find("PatientDemographics")
    recorded_on = ecg_day(text(root, "TestDemographics/AcquisitionDate"), "mdy")
    years = read_age(text(person, "PatientAge"), text(person, "AgeUnits") or "y")
    born = ecg_day(text(person, "DateofBirth"), "mdy")
    return Subject(
        stated_years=years,
        born=born,
        sex=read_binary_sex(text(person, "Gender"), "words"),
        person_id=read_identifier(text(person, "PatientID")),
        recorded_on=recorded_on,
    )


def read_cardiosoft(root: Element, *, ecg_unit: VoltageUnit | None) -> Recording:
    """The ``StripData`` with the most leads.

    Raises
    ------
    Refused
        as :func:`read_muse`
    """
    strips = list(root.iter("StripData"))
    strip = max(strips, key=lambda s: len(s.findall("WaveformData")), default=None)
    by_label = {wave.get("lead", ""): wave for wave in strip.findall("WaveformData")} if strip is not None else {}
    require_leads(by_label)
    if strip is None:
        raise Refused("lead_missing", expected="StripData")
    fs_hz = check_rate(number(text(strip, "SampleRate")))
    scale = _per_bit(strip.find("Resolution"), ecg_unit)
    stated = number(text(strip, "ChannelSampleCountTotal"))
    leads: dict[str, NDArray[np.floating]] = {}
    for label, wave in by_label.items():
        counts = numbers(text(wave), MAX_SAMPLES)
        if counts.size < stated:
            raise Refused("truncated", found=counts.size, expected=f"{stated:g}")
        check_duration(counts.size, fs_hz)
        leads[label] = (counts * scale).astype(np.float32)
    return recording(leads, fs_hz=fs_hz, format="cardiosoft", subject=_cardiosoft_subject(root))


def _per_bit(resolution: Element | None, ecg_unit: VoltageUnit | None) -> float:
    """Millivolts per count, from ``<Resolution units="uVperLsb">5</Resolution>``."""
    units = resolution.get("units", "") if resolution is not None else ""
    named = re.fullmatch(r"([uµnm]?V)perLsb", units.strip(), re.IGNORECASE)
    factor = millivolts_per(named[1] if named else units, ecg_unit)
    per_bit = number(text(resolution))
    if not per_bit > 0:
        raise Refused("unit_unknown", found="Resolution", expected="uVperLsb")
    return per_bit * factor


def _cardiosoft_subject(root: Element) -> Subject:
    person, years = root.find("PatientInfo"), root.find("PatientInfo/Age")
    recorded_on = _calendar(root.find("ObservationDateTime"))
    stated = read_age(text(years), years.get("units") or "y") if years is not None else None
    born = _calendar(person.find("BirthDateTime")) if person is not None else None
    return Subject(
        stated_years=stated,
        born=born,
        sex=read_binary_sex(text(person, "Gender"), "words"),
        person_id=read_identifier(text(person, "PID")),
        recorded_on=recorded_on,
    )


def _calendar(element: Element | None) -> date | None:
    return calendar_day(*(text(element, part) for part in ("Year", "Month", "Day")))
