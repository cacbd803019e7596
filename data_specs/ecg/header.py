"""The header of a recording in any format: unit, sampling rate, leads, person, day.

Every reader ends in :func:`recording`, so that the same checks hold for all formats and refuse with the same codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.recording import (
    LEADS,
    MAX_FS_HZ,
    MIN_DURATION_S,
    MIN_FS_HZ,
    Recording,
    VoltageUnit,
    format_seconds,
    standard_leads,
)
from data_specs.problems import Problem, Refused
from data_specs.reading import refuse_to_assess, require_memory
from data_specs.subject import Subject

MAX_DURATION_S = 3600.0
"""Longer ones are Holter recordings, which a network for resting ECGs cannot assess."""
MAX_SAMPLES = int(MAX_DURATION_S * MAX_FS_HZ)
"""Of one lead."""
SAMPLE_BYTES = 2 * 12 * 4 + 2 * 8 + 2 * 12 * 2
"""Taken for each sample of twelve leads: the leads in single precision, once by themselves and once together; one lead
in double precision, twice, while it is scaled; the file's own counts of 16 bits, twice (measured: 140 to 170)."""

_MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3, "microvolt": 1e-3, "millivolt": 1.0, "volt": 1e3}
_MILLIVOLTS |= {"nanovolt": 1e-6, "microvolts": 1e-3, "millivolts": 1.0, "volts": 1e3, "nanovolts": 1e-6}

MDC_LEADS = {1: "I", 2: "II", **{n + 2: f"V{n}" for n in range(1, 7)}, 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
"""Lead numbers of SCP-ECG (EN 1064, table of lead identification, section 5.6.3), the same in ISO/IEEE 11073-10101
(``2:n``) and in DICOM PS3.16 CID 3001. The other numbers are leads outside the standard twelve."""
MDC_MINUS_AVR = 65

_ALIASES = {"DI": "I", "DII": "II", "DIII": "III", "D1": "I", "D2": "II", "D3": "III"}
_ALIASES |= {f"C{n}": f"V{n}" for n in range(1, 7)}
"""D1-D3 is French and Spanish usage; C1-C6 are the chest electrodes of IEC 60601-2-25, table 201.102."""

MAX_LABEL = 64

MIN_PADDING_S = 0.2
"""No lead of a recording changes for as long as this, but where it was filled up: samples of a heart have noise."""

PULSE_WITHIN_S = 2.0
"""How far from either end of a recording a calibration pulse is looked for."""
MIN_PULSE_MV, MIN_PULSE_S, MAX_PULSE_SPREAD_MV = 0.5, 0.1, 0.2
"""In a pulse a lead is at least this high, for this long, and no lead differs from another by more than this. A usual
pulse has 1 mV and 200 ms; the lower limits allow for filters."""
PULSE_EDGE_S, MAX_FLAT_SPREAD_MV = 0.02, 0.03
"""The length of a pulse's edge, and how much leads may differ on the flat line next to it; both are cut off too."""


def millivolts_per(unit: str | None, ecg_unit: VoltageUnit | None) -> float:
    """Factor from one unit of a file's samples to millivolts.

    Parameters
    ----------
    unit
        As the file writes it, in any case (``uV``, ``µV``, ``MICROVOLTS``, ``mV``, ``V``); empty where it states none.
    ecg_unit
        As the visit's context states it, for files that state none.

    Raises
    ------
    Refused
        ``unit_unknown`` where neither names a unit of voltage.
    """
    name = (unit or "").strip().lower().replace("µ", "u").replace("μ", "u").replace("mcv", "uv")
    if name in _MILLIVOLTS:
        return _MILLIVOLTS[name]
    if ecg_unit is not None:
        return _MILLIVOLTS[ecg_unit.lower()]
    refuse_to_assess("unit_unknown", _quotable(unit), "uV, mV")
    return 1.0  # to be looked at: its shape is that of any unit


def lead_name(label: str) -> str:
    """A lead's usual name from a file's label: ``EKG aVR`` and ``MDC_ECG_LEAD_AVR`` give ``AVR``, ``DII`` gives ``II``.

    The label of any other lead is returned in capitals; a leading minus sign stays.
    """
    name = label.strip().upper()
    if name in _STANDARD or len(name) > MAX_LABEL:  # so in most files; no lead has so long a name
        return name
    name = re.sub(r"^(MDC_ECG_LEAD_|MDC_ECG_|ECG|EKG)[\s_:-]*(?=\S)", "", name)
    name = re.sub(r"^(LEAD|DERIVATION|ABL\.?)[\s_:]*(?=\S)", "", name)
    name = re.sub(r"\((EINTHOVEN|GOLDBERGER|WILSON)\)$", "", name).strip()
    sign, bare = ("-", name[1:].strip()) if name.startswith("-") else ("", name)
    return sign + _ALIASES.get(bare, bare)


_STANDARD = {name.upper(): name for name in LEADS}


def named_leads(by_label: Mapping[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
    """The standard leads among a file's channels, by standard name; a channel without any value counts as absent."""
    leads: dict[str, NDArray[np.floating]] = {}
    for label, samples in by_label.items():
        name = lead_name(label)
        standard = _STANDARD.get(name.removeprefix("-"))
        if standard and standard not in leads and (samples.size == 0 or not np.isnan(samples).all()):
            leads[standard] = -samples if name.startswith("-") else samples
    return leads


def is_lead(label: str) -> bool:
    """Whether a label is that of a standard lead."""
    return lead_name(label).removeprefix("-") in _STANDARD


def require_leads(labels: Iterable[str]) -> None:
    """Refuse a file whose labels cannot give the standard twelve leads, before its samples are decoded.

    Raises
    ------
    Refused
        ``lead_missing``
    """
    standard_leads({name: np.empty(0, np.float32) for name in named_leads({label: np.empty(0) for label in labels})})


def check_rate(fs_hz: float) -> float:
    """The rate, rounded to 0.001 Hz, because some files store a rounded interval.

    Raises
    ------
    Refused
        ``sampling_rate`` outside 100 to 1000 Hz, or where the file states none (0 or NaN).
    """
    expected = f"{MIN_FS_HZ:.0f}-{MAX_FS_HZ:.0f} Hz"
    if not np.isfinite(fs_hz) or fs_hz <= 0:
        raise Refused("sampling_rate", found="? Hz", expected=expected)
    fs_hz = round(float(fs_hz), 3)
    if not MIN_FS_HZ <= fs_hz <= MAX_FS_HZ:
        refuse_to_assess("sampling_rate", f"{fs_hz:g} Hz", expected)
    return fs_hz


def check_duration(n_samples: int, fs_hz: float) -> None:
    """Refuse a recording that is too short or too long, before its samples are decoded.

    Raises
    ------
    Refused
        ``too_short`` under 5 s, ``too_long`` over an hour, ``too_costly``.
    """
    duration_s = n_samples / fs_hz
    if duration_s < MIN_DURATION_S:
        refuse_to_assess("too_short", format_seconds(duration_s), format_seconds(MIN_DURATION_S))
    if duration_s > MAX_DURATION_S:
        refuse_to_assess("too_long", f"{duration_s:.0f} s", format_seconds(MAX_DURATION_S))
    require_memory(n_samples * SAMPLE_BYTES)


def recording(
    by_label: Mapping[str, NDArray[np.floating]],
    *,
    fs_hz: float,
    format: str,
    subject: Subject,
    problems: tuple[Problem, ...] = (),
) -> Recording:
    """The checked recording.

    Parameters
    ----------
    by_label
        A file's own channel labels to ``(n_samples,)`` floats in mV, all of one length; NaN where it has no value.
        Readers give single precision, so that a long recording is not kept twice as large.

    Raises
    ------
    Refused
        ``lead_missing``, ``sampling_rate``, ``too_short``, ``too_long``, or ``amplitude_implausible`` for values that
        single precision cannot hold.
    """
    leads = named_leads(by_label)
    require_leads(leads)
    if not leads:  # not even to be looked at
        raise Refused("lead_missing", expected=", ".join(LEADS))
    fs_hz = check_rate(fs_hz)
    lengths = {samples.size for samples in leads.values()}
    if len(lengths) > 1:
        raise Refused("truncated", found=min(lengths), expected=max(lengths))
    largest = max(float(np.fmax.reduce(np.abs(samples), initial=0.0)) for samples in leads.values())
    if not largest < 1e6:
        raise Refused("amplitude_implausible", found=f"{largest:.0e} mV", expected="0.05-10 mV")
    leads = without_calibration_pulse(without_padding(leads, fs_hz), fs_hz)
    check_duration(_length(leads), fs_hz)
    if not _length(leads):
        raise Refused("too_short", found="0 s", expected=format_seconds(MIN_DURATION_S))
    samples = standard_leads({name: values.astype(np.float32, copy=False) for name, values in leads.items()})
    return Recording(
        samples=samples,
        fs_hz=fs_hz,
        format=format,
        age_years=subject.age_years,
        sex=subject.sex,
        person_id=subject.person_id,
        recorded_on=subject.recorded_on,
        problems=(*subject.problems, *problems),
    )


def _length(leads: Mapping[str, NDArray[np.floating]]) -> int:
    return next(iter(leads.values())).size


def without_padding(leads: dict[str, NDArray[np.floating]], fs_hz: float) -> dict[str, NDArray[np.floating]]:
    """Cut off what fills a recording up to a fixed length: a value in each lead, or none, from an end inwards.

    Archives for training networks store recordings of 7 to 10 s with zeros at both ends (Ribeiro et al., Nat Commun
    2020;11:1760). A recording in which no lead ever changes is left as it is: its leads are flat.
    """
    n = _length(leads)
    first = _padding(leads, fs_hz)
    last = _padding({name: values[::-1] for name, values in leads.items()}, fs_hz)
    return {name: values[first : n - last] for name, values in leads.items()} if 0 < first + last < n else leads


def _padding(leads: Mapping[str, NDArray[np.floating]], fs_hz: float) -> int:
    """Number of samples, from the first on, in which no lead changes; 0 where that is shorter than any padding."""
    n_min = max(2, round(MIN_PADDING_S * fs_hz))
    if any(_constant(values[:n_min]) < n_min for values in leads.values()):
        return 0  # nearly every recording
    return min(_constant(values) for values in leads.values())


def _constant(values: NDArray[np.floating]) -> int:
    """Number of samples before the first that differs from the first one of all; a gap (NaN) is equal to a gap."""
    same = np.isnan(values) if values.size and np.isnan(values[0]) else values == values[:1]
    return values.size if same.all() else int(same.argmin())


def without_calibration_pulse(leads: dict[str, NDArray[np.floating]], fs_hz: float) -> dict[str, NDArray[np.floating]]:
    """Cut off the calibration pulse that some machines put into the first or the last two seconds.

    Philips PageWriters record 10 s and append a second in which all leads are 0 mV, then 1 mV, then 0 mV together. No
    heart does that: where I and II are equal, III is 0.
    """
    n, n_end = _length(leads), int(PULSE_WITHIN_S * fs_hz)
    first = _samples_to_cut([values[:n_end] for values in leads.values()], fs_hz)
    last = _samples_to_cut([values[::-1][:n_end] for values in leads.values()], fs_hz)
    return {name: values[first : n - last] for name, values in leads.items()} if first or last else leads


def _samples_to_cut(leads: list[NDArray[np.floating]], fs_hz: float) -> int:
    """Number of samples up to the end of the last pulse and of the flat line after it; 0 without a pulse.

    Parameters
    ----------
    leads
        Each ``(n_samples,)`` floats in mV, from an end of the recording inwards.
    """
    spread = np.ptp(np.stack(leads), axis=0)
    together = (spread < MAX_PULSE_SPREAD_MV) & (np.abs(leads[0]) > MIN_PULSE_MV)
    if np.count_nonzero(together) < MIN_PULSE_S * fs_hz:
        return 0  # nearly every recording
    stretches = np.flatnonzero(np.diff(together, prepend=False, append=False)).reshape(-1, 2)
    pulses = stretches[np.diff(stretches, axis=1)[:, 0] >= MIN_PULSE_S * fs_hz]
    if not len(pulses):
        return 0
    end = int(pulses[-1, 1]) + round(PULSE_EDGE_S * fs_hz)
    signal = np.flatnonzero(~(spread[end:] <= MAX_FLAT_SPREAD_MV))  # not '>', so that a gap (NaN) is kept
    return end + int(signal[0]) if signal.size else len(spread)


def _quotable(text: str | None) -> str:
    """A unit as the file wrote it, short and printable enough for a message."""
    return "".join(c for c in (text or "") if c.isalnum() or c in "µ/%^-")[:12]
