"""A twelve-lead ECG recording in millivolts, its standard leads, and its form for the network.

Training and serving call the same :func:`conform`, after the same :func:`data_specs.ecg.files.read_recording`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.filters import fill_gaps, resample, zero_phase
from data_specs.person import BinarySex
from data_specs.problems import Problem, Refused

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The standard twelve leads in the order of ISO/IEEE 11073-10102 and of PTB-XL."""

MIN_FS_HZ, MAX_FS_HZ = 100.0, 1000.0
MIN_DURATION_S = 8.0

LONG_S = 120.0

VoltageUnit = Literal["uV", "mV"]


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording in millivolts.

    Parameters
    ----------
    samples
        ``(12, n_samples) float32, mV``, leads in the order of :data:`LEADS`; NaN where the file has no value.
    fs_hz
        Sampling rate of ``samples``.
    format
        The reader's short name of the format: ``wfdb``, ``dicom``, …
    age_years, sex, person_id, recorded_on
        As the file states them, ``None`` where it does not.
    problems
        Reserves with which it was read (severity ``warn``).
    """

    samples: NDArray[np.float32]
    fs_hz: float
    format: str
    age_years: float | None = None
    sex: BinarySex | None = None
    person_id: str | None = None
    recorded_on: date | None = None
    problems: tuple[Problem, ...] = field(default=())

    @property
    def duration_s(self) -> float:
        return float(self.samples.shape[1] / self.fs_hz)


def standard_leads(by_name: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Stack named leads in the standard order, deriving III, aVR, aVL, aVF from I and II where they are not stored.

    Parameters
    ----------
    by_name
        Lead name to ``(n_samples,) float32, mV``. Names are compared without case, blanks and a leading ``Lead``.

    Returns
    -------
    ``(12, n_samples) float32, mV``

    Raises
    ------
    Refused
        ``lead_missing``, with the leads that are neither stored nor derivable.

    References
    ----------
    Einthoven: III = II - I. Goldberger: aVR = -(I + II)/2, aVL = I - II/2, aVF = II - I/2
    (Kligfield et al., Circulation 2007;115:1306, 'derived leads').
    """
    canonical = {name.upper(): name for name in LEADS}
    have: dict[str, NDArray[np.float32]] = {}
    for raw_name, samples in by_name.items():
        key = raw_name.upper().removeprefix("LEAD").replace(" ", "").replace("_", "")
        if key in canonical and canonical[key] not in have:
            have[canonical[key]] = samples
    if "I" in have and "II" in have:
        one, two = have["I"], have["II"]
        half = np.float32(0.5)
        have.setdefault("III", two - one)
        have.setdefault("aVR", -half * (one + two))
        have.setdefault("aVL", one - half * two)
        have.setdefault("aVF", two - half * one)
    missing = [name for name in LEADS if name not in have]
    if missing:
        raise Refused("lead_missing", found=", ".join(n for n in LEADS if n in have), expected=", ".join(missing))
    return np.stack([np.asarray(have[name], dtype=np.float32) for name in LEADS])


def conform(recording: Recording, *, fs_hz: int, n_samples: int, max_windows: int = 6) -> NDArray[np.float32]:
    """Windows of a recording, filtered, normalised and resampled as the cardiac network was trained.

    Zero-phase Butterworth band-pass of order 4, 0.5 to 40 Hz, at 500 Hz; z-score per lead over the recording;
    polyphase resampling to ``fs_hz``. The same steps, in the same order, made the training set
    (Wagner et al., Sci Data 2020;7:154, in the 100 Hz form described in the bundle's card).

    Parameters
    ----------
    recording
        Checked recording; gaps of NaN are interpolated linearly.
    fs_hz, n_samples
        Rate and length of the network's input.
    max_windows
        A longer recording gives up to this many windows, evenly spread; a shorter one is padded with zeros.

    Returns
    -------
    ``(n_windows, 12, n_samples) float32``, unitless (standard deviations)
    """
    # a long recording lead by lead: all leads together would take ten times its own memory
    at_once = len(LEADS) if recording.duration_s <= LONG_S else 1
    leads = [recording.samples[first : first + at_once] for first in range(0, len(LEADS), at_once)]
    samples = np.concatenate([_normalised(part, recording.fs_hz, fs_hz) for part in leads])
    starts = window_starts(samples.shape[1], n_samples, max_windows)
    windows = np.zeros((len(starts), len(LEADS), n_samples), dtype=np.float32)
    for window, start in zip(windows, starts, strict=True):
        part = samples[:, max(start, 0) : start + n_samples]
        window[:, max(-start, 0) : max(-start, 0) + part.shape[1]] = part
    return windows


def _normalised(leads: NDArray[np.float32], from_hz: float, to_hz: int) -> NDArray[np.float32]:
    samples = resample(fill_gaps(leads), from_hz, 500.0)
    samples = zero_phase(samples, 4, (0.5, 40.0), 500.0)
    samples -= samples.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.einsum("ij,ij->i", samples, samples) / samples.shape[1])[:, None]
    samples /= np.where(deviation > 0, deviation, 1.0)
    return resample(samples, 500.0, float(to_hz)).astype(np.float32)


def window_starts(n_have: int, n_samples: int, max_windows: int) -> list[int]:
    """First sample of each window of ``n_samples`` in ``n_have``; negative where a short recording is centred."""
    if n_have < n_samples:
        return [-((n_samples - n_have) // 2)]
    n_windows = min(max_windows, n_have // n_samples)
    return [round(start) for start in np.linspace(0, n_have - n_samples, n_windows)]
