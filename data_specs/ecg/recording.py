"""A twelve-lead ECG recording in millivolts, its standard leads, and its form for the network.

Training and serving call the same :func:`conform`, after the same :func:`data_specs.ecg.files.read_recording`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.filters import fill_gaps, resample, zero_phase
from data_specs.person import BinarySex
from data_specs.problems import Problem
from data_specs.reading import refuse_to_assess

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The standard twelve leads in the order of ISO/IEEE 11073-10102 and of PTB-XL."""

MIN_FS_HZ, MAX_FS_HZ = 100.0, 1000.0
MIN_DURATION_S = 5.0
"""Shorter ones are refused: on crops of 5 s the network ranks as on 10 s (the bundle's card has the figures), and 60
beats a minute still give five beats."""
SHORT_S = 8.0
"""Shorter ones are read with a reserve (``short``). A resting ECG has 10 s (Kligfield et al., Circulation
2007;115:1306); some tele-ECG systems store 7 to 8 s (Ribeiro et al., Nat Commun 2020;11:1760: 7 to 10 s)."""

LONG_S = 120.0

CONTINUE_S = 0.5
"""Stretch over which a place is looked for where a short recording may go on. Of 0.5, 1, 1.5 and 2 s, and whole beats
found otherwise, none did better on validation recordings."""

BAND_HZ = (0.5, 40.0)
"""Band of the shipped cardiac networks, Hz."""
FILTER_HZ = 500.0
"""Rate at which a recording is filtered, whatever its own and the network's."""

VoltageUnit = Literal["uV", "mV"]
Normalisation = Literal["lead", "recording", "none"]
"""``lead``: each lead to mean 0 and deviation 1; ``recording``: all leads together; ``none``: millivolts."""
Filling = Literal["continue", "zeros"]
"""What a recording shorter than the network's window goes on with: beats of its own, or zeros on both sides."""


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


def format_seconds(duration_s: float) -> str:
    """A duration for a message, cut to hundredths: 4.998 s is shown as 4.99 s, as 5 s may be the bound it misses."""
    return f"{math.floor(duration_s * 100 + 1e-6) / 100:g} s"


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
        refuse_to_assess("lead_missing", ", ".join(n for n in LEADS if n in have), ", ".join(missing))
    absent = np.full_like(next(iter(have.values()), np.empty(0, np.float32)), np.nan)
    return np.stack([np.asarray(have.get(name, absent), dtype=np.float32) for name in LEADS])


def conform(
    recording: Recording,
    *,
    fs_hz: int,
    n_samples: int,
    max_windows: int = 6,
    band_hz: tuple[float, float] | None = BAND_HZ,
    normalisation: Normalisation = "lead",
    filling: Filling = "continue",
) -> NDArray[np.float32]:
    """Windows of a recording, filtered, normalised and resampled as the network was trained.

    By default as the shipped cardiac networks were: zero-phase Butterworth band-pass of order 4, 0.5 to 40 Hz, at
    500 Hz; z-score per lead over the recording; polyphase resampling to ``fs_hz``. The same steps, in the same order,
    made the training set (Wagner et al., Sci Data 2020;7:154, in the 100 Hz form described in the bundle's card).
    Imported networks state other steps in their bundle's input.

    Parameters
    ----------
    recording
        Checked recording; gaps of NaN are interpolated linearly.
    fs_hz, n_samples
        Rate and length of the network's input.
    max_windows
        A longer recording gives up to this many windows, evenly spread.
    band_hz
        Pass band; ``None``: no filter.
    normalisation
        After the filter.
    filling
        Of a recording that is shorter than the window (:func:`continued`, :func:`amid_zeros`).

    Returns
    -------
    ``(n_windows, 12, n_samples) float32``, unitless (standard deviations), or mV where ``normalisation`` is ``none``
    """
    # a long recording lead by lead: all leads together would take ten times its own memory
    at_once = len(LEADS) if recording.duration_s <= LONG_S else 1
    leads = [recording.samples[first : first + at_once] for first in range(0, len(LEADS), at_once)]
    each_lead = normalisation == "lead"
    samples = np.concatenate([_filtered(part, recording.fs_hz, fs_hz, band_hz, each_lead) for part in leads])
    if normalisation == "recording":
        samples = ((samples - samples.mean()) / (samples.std() or 1.0)).astype(np.float32)
    if samples.shape[1] < n_samples:
        zeros = filling == "zeros"
        overlap = round(CONTINUE_S * fs_hz)
        samples = amid_zeros(samples, n_samples) if zeros else continued(samples, n_samples, overlap=overlap)
    starts = window_starts(samples.shape[1], n_samples, max_windows)
    return np.stack([samples[:, start : start + n_samples] for start in starts])


def continued(samples: NDArray[np.float32], n_samples: int, *, overlap: int) -> NDArray[np.float32]:
    """A short recording, continued to ``n_samples`` by repeating its end from where its last stretch fits best.

    The stretch of ``overlap`` samples in the first half of the recording that is nearest to its last one, over all
    leads, is looked for; what follows it follows the end. So beats go on in step, and nothing but the recording's own
    beats is in the window. With zeros instead, a network that looks at the mean over time sees a rarer and flatter
    heart: on crops of 5 s of validation recordings the logit of atrial fibrillation rose by 2.2, here by 0.1.

    Parameters
    ----------
    samples
        ``(12, n) float32``, ``n`` < ``n_samples``.
    """
    n_have = samples.shape[1]
    first_half = samples[:, : max(n_have // 2, overlap)]
    if n_have <= 2 * overlap:
        period = n_have
    else:
        stretches = np.lib.stride_tricks.sliding_window_view(first_half, overlap, axis=1)
        apart = np.square(stretches - samples[:, None, n_have - overlap :]).sum(axis=(0, 2))
        period = n_have - (int(apart.argmin()) + overlap)
    index = np.arange(n_samples)
    after = index >= n_have
    index[after] = n_have - period + (index[after] - n_have) % period
    return samples[:, index]


def amid_zeros(samples: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
    """A short recording ``(12, n)`` in the middle of ``n_samples``, zeros before and after it.

    References
    ----------
    Ribeiro et al., Nat Commun 2020;11:1760: recordings of 7 to 10 s, filled with zeros to 4,096 samples.
    """
    before = zeros_before(samples.shape[1], n_samples)
    return np.pad(samples, ((0, 0), (before, n_samples - samples.shape[1] - before)))


def zeros_before(n_have: int, n_samples: int) -> int:
    """How many zeros :func:`amid_zeros` puts before a recording."""
    return max(0, n_samples - n_have) // 2


def _filtered(
    leads: NDArray[np.float32], from_hz: float, to_hz: int, band_hz: tuple[float, float] | None, each_lead: bool
) -> NDArray[np.float32]:
    samples, rate_hz = fill_gaps(leads), from_hz
    if band_hz is not None:
        samples, rate_hz = zero_phase(resample(samples, from_hz, FILTER_HZ), 4, band_hz, FILTER_HZ), FILTER_HZ
    if each_lead:
        samples -= samples.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.einsum("ij,ij->i", samples, samples) / samples.shape[1])[:, None]
        samples /= np.where(deviation > 0, deviation, 1.0)
    return resample(samples, rate_hz, float(to_hz)).astype(np.float32)


def window_starts(n_have: int, n_samples: int, max_windows: int) -> list[int]:
    """First sample of each window of ``n_samples`` in ``n_have``; a shorter recording has one window."""
    if n_have <= n_samples:
        return [0]
    n_windows = min(max_windows, n_have // n_samples)
    return [round(start) for start in np.linspace(0, n_have - n_samples, n_windows)]
