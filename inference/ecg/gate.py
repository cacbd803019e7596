"""Quality gate for recordings: whether the samples are an ECG that may be assessed, and with which reserve.

A network gives an answer for any input. Signals without heartbeats, in a wrong unit or from exchanged electrodes are
therefore refused here, with the reason.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.filters import Signal, median, percentiles
from data_specs.ecg.recording import LEADS, SHORT_S, Recording, format_seconds
from data_specs.problems import Problem, Severity
from inference.ecg.beats import BEFORE, FS_HZ, INDEPENDENT, Beats, RepresentativeBeat
from inference.ecg.delineate import Examined, examine
from inference.ecg.limb_leads import electrodes_exchanged, laws_broken, normalised

WARN_MISSING, MAX_MISSING = 0.01, 0.2
"""Shares of missing samples in leads that have any sample; a lead without any counts as flat."""

FLAT_MV = 0.02
"""Peak to peak below which a lead counts as flat: 0.2 mm on paper, a fifth of what is called isoelectric.
Real leads of the development recordings have at least 0.05 mV."""

FLAT_SECONDS = 4.0
"""A lead that keeps one value for this long is flat too: no interval between beats is as long above 15/min."""

MAX_FLAT_PRECORDIAL = 2
"""With up to two flat precordial leads an ECG is assessed with reserve; with three, R progression cannot be read.

A flat limb lead is always refused: I, II and III share three electrodes, so no limb lead is reliable then. A flat limb
lead is typical of a limb cable exchanged with the neutral one (Batchvarov et al., Europace 2007;9:1081).
"""

MIN_QRS_MV, MAX_QRS_MV = 0.1, 8.0
"""QRS peak to peak: in the largest lead at least, in the median independent lead at most.

Low voltage means less than 0.5 mV in the limb and 1 mV in the precordial leads (Surawicz et al., AHA/ACCF/HRS part III,
Circulation 2009;119:e235); the development recordings have 0.87 to 6.6 mV in the largest lead, 0.43 to 3.3 in the
median one. Samples in the wrong unit are off by a hundred times or more.
"""

MIN_BEATS, MIN_BEATS_SHORT = 3, 2
"""Beats in a recording of 8 s or more, and in a shorter one (5 s or more): about 20/min."""

MIN_CONTRAST, MIN_DOMINANT_SHARE, MIN_LIKENESS = 1.5, 0.4, 0.8
"""Least contrast of the detection signal, share of dominant beats, and median likeness to them. Development recordings,
with ventricular tachycardia and atrial fibrillation: at least 1.8, 0.58 and 0.89."""

MAX_TWO_LEVELS = 0.9
"""Share of time within a tenth of the range from either extreme; a lead with more is a rectangular pulse. An ECG is
less than 2 % of the time near the peak of its QRS."""

MAX_ONE_SOURCE, MAX_ONE_SOURCE_WITHOUT_QRS = 0.999, 0.98
"""Largest share of a beat's power in one waveform that all leads have in common. In real recordings (development set)
3 % or more are in other waveforms, because the heart is a source with extension; in a patient simulator's, 0.4 %."""

NOISY_MV, NOISY_SHARE = 0.15, 0.25
"""Deviation of the single beats from the median beat (robust standard deviation), absolute and relative to QRS."""

CLIPPED_SECONDS, CLIPPED_BEATS = 0.01, 3
"""A lead is clipped where it stays at its highest or lowest value for 10 ms in at least three places."""

MAX_IDENTICAL = 0.005
"""Two independent leads whose difference, as a share of the larger (root mean squares), is less are one lead."""


def gate(recording: Recording, examined: Examined | None = None) -> tuple[list[Problem], bool]:
    """Problems of a recording and whether it is accepted, that is, free of problems of severity ``reject``.

    Parameters
    ----------
    examined
        The result of :func:`inference.ecg.delineate.examine` for this recording, where it is already there.
    """
    examined = examined or examine(recording)
    problems = [*_short(recording), *_missing(recording)]
    flat = _flat(recording, examined.beats)
    problems += _flat_problems(flat, examined.beats)
    if not any(p.severity == "reject" for p in problems):
        problems += _content(recording, examined, flat)
    if examined.spikes_s:
        problems.append(Problem("paced", "warn"))
    return problems, all(p.severity != "reject" for p in problems)


def _short(recording: Recording) -> list[Problem]:
    if recording.duration_s >= SHORT_S:
        return []
    return [Problem("short", "warn", format_seconds(recording.duration_s), format_seconds(SHORT_S))]


def _missing(recording: Recording) -> list[Problem]:
    missing = ~np.isfinite(recording.samples)
    missing = missing[~missing.all(axis=1)]
    share = float(missing.mean()) if missing.size else 0.0
    if share <= WARN_MISSING:
        return []
    if share <= MAX_MISSING:
        return [Problem("samples_missing", "warn", _percent(share), _percent(WARN_MISSING))]
    return [Problem("samples_missing", "reject", _percent(share), _percent(MAX_MISSING))]


def _flat(recording: Recording, beats: Beats) -> NDArray[np.bool_]:
    """``(12,) bool``: the lead is constant, missing altogether, or holds one value for seconds."""
    samples = recording.samples
    low, high = percentiles(beats.filtered[:, ::4], [0.5, 99.5])  # at 125 Hz
    flat = (high - low < FLAT_MV) | ~np.isfinite(samples).any(axis=1)
    hold = int(FLAT_SECONDS * recording.fs_hz)
    changes = samples[:, 1:] != samples[:, :-1]  # a missing sample (NaN) counts as a change
    half = hold // 2  # a lead that is constant for ``hold`` samples has a whole block of this length without a change
    n_blocks = changes.shape[1] // half
    blocks = changes[:, : n_blocks * half].reshape(len(LEADS), n_blocks, half)
    for i in np.flatnonzero(~blocks.any(axis=2).all(axis=1)):
        turns = np.flatnonzero(np.concatenate([[True], changes[i], [True]]))
        flat[i] |= bool(np.diff(turns).max() >= hold)
    return np.asarray(flat)


def _flat_problems(flat: NDArray[np.bool_], beats: Beats) -> list[Problem]:
    if not flat.any():
        return []
    largest = float(np.ptp(beats.filtered, axis=1).max())
    if 1e-6 < largest < MIN_QRS_MV:  # all leads tiny: the unit is wrong, not an electrode
        return [Problem("amplitude_implausible", "reject", _mv(largest), f"≥ {_mv(MIN_QRS_MV)}")]
    limb, precordial = flat[:3].any(), int(flat[6:].sum())
    refused = bool(limb or precordial > MAX_FLAT_PRECORDIAL)
    return [Problem("lead_flat", "reject" if refused else "warn", _names(flat), f"≥ {_mv(FLAT_MV)}")]


def _content(recording: Recording, examined: Examined, flat: NDArray[np.bool_]) -> list[Problem]:
    beats, beat, marks = examined.beats, examined.beat, examined.marks
    usable = [i for i in INDEPENDENT if not flat[i]]
    problem = _no_heartbeat(recording, examined, usable)
    if problem or beat is None or marks is None:
        return [problem] if problem else []
    qrs = beat.samples[:, BEFORE - 60 : BEFORE + 60]
    height = np.ptp(qrs, axis=1)
    typical = float(median(height[usable]))
    limb = laws_broken(beats.filtered, flat) or normalised(recording.samples, usable)
    too_high = typical > MAX_QRS_MV and limb is None  # with gains that disagree, voltage says nothing
    if height.max() < MIN_QRS_MV or too_high:
        found = height.max() if height.max() < MIN_QRS_MV else typical
        limits = f"{MIN_QRS_MV:g}–{_mv(MAX_QRS_MV)}"
        return [Problem("amplitude_implausible", "reject", _mv(float(found)), limits)]
    reversed_ = limb is not None and limb.severity == "reject"
    checks = (
        _clipped(recording, flat),
        limb,
        _identical(beats.filtered, usable),
        electrodes_exchanged(beat, marks) if not reversed_ and not flat[LEADS.index("V6")] else None,
        _noisy(beat, height, flat),
    )
    return [problem for problem in checks if problem]


def _no_heartbeat(recording: Recording, examined: Examined, usable: list[int]) -> Problem | None:
    beats = examined.beats
    duration_s = beats.filtered.shape[1] / FS_HZ
    min_beats = MIN_BEATS if duration_s >= SHORT_S else MIN_BEATS_SHORT
    expected = f"≥ {min_beats} QRS"
    if len(beats.at) < min_beats or beats.contrast < MIN_CONTRAST:
        return Problem("no_heartbeat", "reject", f"{len(beats.at)} QRS / {duration_s:.0f} s", expected)
    share = float(beats.dominant.mean())
    if share < MIN_DOMINANT_SHARE or float(median(beats.likeness)) < MIN_LIKENESS:
        return Problem("no_heartbeat", "reject", f"{beats.dominant.sum()} QRS / {duration_s:.0f} s", expected)
    two_levels = median(_two_levels(recording.samples[usable, ::4])) > MAX_TWO_LEVELS
    one_source = _one_source(examined, usable)
    if one_source and not two_levels and examined.marks is not None and examined.marks.qrs_ms is not None:
        # There are beats, but all leads have one shape: the test signal of a simulator, or one cable for all leads.
        return Problem("leads_identical", "reject", " ∝ ".join(LEADS[i] for i in usable), str(len(INDEPENDENT)))
    if two_levels or one_source:
        return Problem("no_heartbeat", "reject", "0 QRS", expected)
    return None


def _one_source(examined: Examined, usable: list[int]) -> bool:
    """Whether every lead is a multiple of one signal, such as mains hum or a signal generator."""
    beat, marks = examined.beat, examined.marks
    if beat is None or marks is None:
        return False
    leads = beat.samples[usable] - beat.samples[usable].mean(axis=1, keepdims=True)
    power = np.linalg.eigvalsh(leads @ leads.T)
    limit = MAX_ONE_SOURCE_WITHOUT_QRS if marks.qrs_ms is None else MAX_ONE_SOURCE
    return bool(power[-1] > limit * power.sum())


def _two_levels(leads: NDArray[np.float32]) -> Signal:
    """``(n_leads,)``: share of time near either extreme, 0 for a lead that is hardly ever near one of them."""
    if np.isfinite(leads).all():
        low, high = percentiles(leads, [0.5, 99.5])
    else:
        low, high = np.nanpercentile(leads, [0.5, 99.5], axis=1)
    near = 0.1 * (high - low)
    at_low = (leads < (low + near)[:, None]).mean(axis=1)
    at_high = (leads > (high - near)[:, None]).mean(axis=1)
    return np.where(np.minimum(at_low, at_high) > 0.1, at_low + at_high, 0.0)


def _clipped(recording: Recording, flat: NDArray[np.bool_]) -> Problem | None:
    """Leads cut off at the range of the converter; refused where half of the independent leads are."""
    hold = max(3, round(CLIPPED_SECONDS * recording.fs_hz))
    samples = recording.samples
    clipped = np.zeros(len(LEADS), dtype=bool)
    for limits in (np.fmin.reduce(samples, axis=1), np.fmax.reduce(samples, axis=1)):
        at_limit = samples == limits[:, None]
        often = np.count_nonzero(at_limit, axis=1) >= hold * CLIPPED_BEATS  # rules out most leads quickly
        for i in np.flatnonzero(often & ~flat):
            edges = np.flatnonzero(np.diff(at_limit[i].astype(np.int8), prepend=0, append=0))
            clipped[i] |= bool(((edges[1::2] - edges[::2]) >= hold).sum() >= CLIPPED_BEATS)
    if not clipped.any():
        return None
    severity: Severity = "reject" if clipped[list(INDEPENDENT)].sum() >= len(INDEPENDENT) / 2 else "warn"
    largest = float(np.nanmax(np.abs(samples[clipped])))
    return Problem("amplitude_implausible", severity, _names(clipped), f"≤ {_mv(largest)}")


def _identical(filtered: Signal, usable: list[int]) -> Problem | None:
    """Two independent leads with the same samples: one of them was not recorded."""
    products = filtered @ filtered.T
    power = np.diagonal(products)
    difference = power[:, None] + power - 2 * products
    same = difference < MAX_IDENTICAL**2 * np.maximum(power[:, None], power)
    pairs = [f"{LEADS[i]} = {LEADS[j]}" for i, j in combinations(usable, 2) if same[i, j]]
    if not pairs:
        return None
    return Problem("leads_identical", "reject" if len(pairs) > 1 else "warn", "; ".join(pairs), f"{len(INDEPENDENT)}")


def _noisy(beat: RepresentativeBeat, height: Signal, flat: NDArray[np.bool_]) -> Problem | None:
    apart = beat.single_beats - beat.samples[list(INDEPENDENT)]
    np.abs(apart, out=apart)
    deviation = median(apart.transpose(1, 0, 2).reshape(len(INDEPENDENT), -1)) * 1.4826
    noisy = np.zeros(len(LEADS), dtype=bool)
    noisy[list(INDEPENDENT)] = (deviation > NOISY_MV) | (deviation > NOISY_SHARE * height[list(INDEPENDENT)])
    noisy &= ~flat
    return Problem("noisy", "warn", _names(noisy), f"≤ {_mv(NOISY_MV)}") if noisy.any() else None


def _names(leads: NDArray[np.bool_]) -> str:
    return ", ".join(LEADS[i] for i in np.flatnonzero(leads))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _mv(value: float) -> str:
    return f"{value:.3g} mV"
