"""HL7 annotated ECG: the rhythm series, never the representative beat nor other derived series.

References
----------
ANSI/HL7 V3 ECG, R1-2004, and Brown B., Badilini F., HL7 aECG Implementation Guide (2005): ``series`` of code RHYTHM,
``sequenceSet`` with one time sequence (GLIST_TS or GLIST_PQ, ``increment``) and one SLIST_PQ per lead:
value = origin + scale × digit. Lead codes: ISO/IEEE 11073-10102.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.formats.xml import attribute, number, numbers
from data_specs.ecg.header import (
    MAX_SAMPLES,
    check_duration,
    check_rate,
    is_lead,
    millivolts_per,
    named_leads,
    recording,
    require_leads,
)
from data_specs.ecg.recording import MIN_DURATION_S, Recording, VoltageUnit
from data_specs.person import ecg_day, read_age, read_binary_sex, read_identifier
from data_specs.problems import Refused
from data_specs.subject import Subject

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def read(root: Element, *, ecg_unit: VoltageUnit | None) -> Recording:
    """The rhythm of an ``AnnotatedECG``.

    Of several simultaneous sets of sequences, the one with most standard leads is read, among those of 5 s or more.

    Raises
    ------
    Refused
        ``lead_missing`` (also where there is no rhythm series), and what
        :func:`data_specs.ecg.header.recording` refuses.
    """
    series = [s for s in root.findall("component/series") if attribute(s, "code", "code") == "RHYTHM"]
    sets = [found for s in series for found in s.findall("component/sequenceSet")]
    if not sets:
        require_leads([])
    best = max(sets, key=_preference)
    by_label = _labelled(best)
    require_leads(by_label)
    fs_hz = check_rate(_rate(best))
    leads: dict[str, NDArray[np.floating]] = {}
    for label, value in by_label.items():
        if not is_lead(label):
            continue
        digits = numbers(value.findtext("digits") or "", MAX_SAMPLES)
        check_duration(digits.size, fs_hz)
        leads[label] = _millivolts(value, digits, ecg_unit)
    return recording(leads, fs_hz=fs_hz, format="aecg", subject=_subject(root, series))


def _labelled(sequences: Element) -> dict[str, Element]:
    """``value`` elements of the lead sequences by lead code."""
    found: dict[str, Element] = {}
    for sequence in sequences.findall("component/sequence"):
        code, value = attribute(sequence, "code", "code"), sequence.find("value")
        if not code.startswith("TIME_") and value is not None:
            found.setdefault(code, value)
    return found


def _preference(sequences: Element) -> tuple[bool, int, float]:
    by_label = _labelled(sequences)
    leads = named_leads({label: np.empty(0) for label in by_label})
    rate = _rate(sequences)
    first = next((value.findtext("digits") or "" for value in by_label.values()), "")
    seconds = len(first.split()) / rate if rate > 0 else 0.0
    return seconds >= MIN_DURATION_S, len(leads), seconds


def _rate(sequences: Element) -> float:
    """Samples per second from the increment of the time sequence; 0 where the file states none."""
    for sequence in sequences.findall("component/sequence"):
        if attribute(sequence, "code", "code").startswith("TIME_"):
            step = number(attribute(sequence, "value/increment", "value"))
            step *= _SECONDS.get(attribute(sequence, "value/increment", "unit"), float("nan"))
            return 1 / step if step > 0 else 0.0
    return 0.0


def _millivolts(value: Element, digits: NDArray[np.float64], ecg_unit: VoltageUnit | None) -> NDArray[np.float32]:
    scale = number(attribute(value, "scale", "value"))
    factor = millivolts_per(attribute(value, "scale", "unit"), ecg_unit)
    if not np.isfinite(scale) or scale == 0:
        raise Refused("unit_unknown", found="SLIST_PQ", expected="scale uV")
    origin = number(attribute(value, "origin", "value"))
    if np.isfinite(origin) and origin != 0:
        origin *= millivolts_per(attribute(value, "origin", "unit"), ecg_unit)
    else:
        origin = 0.0
    return (digits * (scale * factor) + origin).astype(np.float32)


def _subject(root: Element, series: list[Element]) -> Subject:
    stated = [root.find("effectiveTime"), *(s.find("effectiveTime") for s in series)]
    times = [attribute(time, part, "value") for time in stated for part in ("low", "center")]
    recorded_on = next((found for found in map(ecg_day, times) if found), None)
    subject = root.find(".//trialSubject")
    person = subject.find("subjectDemographicPerson") if subject is not None else None
    years = None
    for observation in root.iter("relatedObservation"):
        if attribute(observation, "code", "code") in {"21612-7", "30525-0"}:  # LOINC: age, reported and plain
            years = read_age(attribute(observation, "value", "value"), attribute(observation, "value", "unit") or "a")
    born = ecg_day(attribute(person, "birthTime", "value"))
    return Subject(
        stated_years=years,
        born=born,
        sex=read_binary_sex(attribute(person, "administrativeGenderCode", "code"), "words"),
        person_id=read_identifier(attribute(subject, "id", "extension")),
        recorded_on=recorded_on,
    )
