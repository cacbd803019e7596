"""Heartbeats of a recording: where they are, which of them look alike, and the one beat that represents them.

The order of work is that of the electrocardiographs themselves: beats are found on one signal made from all leads,
aligned and grouped by shape over all leads together, and the dominant group gives one median beat per lead on a common
time axis. Onsets and offsets are then looked for once, on a beat whose noise is down by the root of the number of beats
(:mod:`inference.ecg.delineate`).

References
----------
Kligfield et al., Recommendations for the standardization and interpretation of the electrocardiogram, part I,
Circulation 2007;115:1306: simultaneous leads, template beats by averaging or median, global intervals from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from data_specs.ecg.filters import Signal, fill_gaps, median, percentiles, resample, zero_phase
from data_specs.ecg.recording import LEADS, Recording

FS_HZ = 500.0
"""Working rate. Kligfield 2007: 500 samples/s is the least for interval measurement; slower files are interpolated."""

INDEPENDENT = tuple(LEADS.index(name) for name in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))
"""The eight leads that carry all information; the other four are linear combinations of I and II."""

MAX_SECONDS = 60.0
"""A longer recording is measured over its first minute, which bounds the time that one file may take."""

BASELINE_HZ = 0.5
"""Zero-phase high-pass. Kligfield 2007 allows 0.67 Hz where the filter has no phase distortion."""

REFRACTORY_S = 0.2
"""No two ventricular activations are nearer to each other (300/min)."""

MIN_ALIKE = 0.85
"""Correlation over all independent leads, 240 ms about the QRS, from which beats count as of one shape."""

MAX_NOISE_RATIO = 4.0
"""Noise (median curvature) over that of the median lead, from which a lead is left out of alignment and delineation."""

BLUNT = 0.25
"""Curvature relative to the neighbouring QRS below which a deflection is a T or a P wave. Development recordings: the
tallest T waves reach 0.20, ventricular ectopic beats start at 0.32."""

BEFORE, AFTER = 250, 400
"""Samples of the representative beat before and after its fiducial point (500 ms and 800 ms)."""

_HALF, _LAG = 60, 24  # samples: half the window of comparison (120 ms), largest shift in alignment (48 ms)
_EDGE = 30  # samples: a beat within 60 ms of an end is cut, and so has no shape to be aligned by


@dataclass(frozen=True, slots=True)
class Beats:
    """Beats of one recording.

    Parameters
    ----------
    at
        ``(n_beats,) int``, fiducial points in samples of :attr:`filtered` (500 Hz).
    dominant
        ``(n_beats,) bool``: the beat is of the most frequent shape.
    likeness
        ``(n_beats,) float``: correlation with the dominant shape.
    contrast
        Height of the typical beat in the detection signal over that signal's median: 1 for a steady noise or hum.
    filtered
        ``(12, n_samples) float64, mV`` at 500 Hz, baseline removed.
    """

    at: NDArray[np.int64]
    dominant: NDArray[np.bool_]
    likeness: Signal
    contrast: float
    filtered: Signal

    @property
    def rr_s(self) -> Signal:
        """``(n_beats - 1,)`` intervals between successive beats, s."""
        return np.diff(self.at) / FS_HZ


@dataclass(frozen=True, slots=True)
class RepresentativeBeat:
    """Median beat over all leads.

    Parameters
    ----------
    samples
        ``(12, BEFORE + AFTER) float64, mV``; the fiducial point stands at index ``BEFORE``.
    each
        ``(n_used, 8, BEFORE + AFTER) float64, mV``: the beats that it was made from, independent leads only.
    rr_s
        Median interval between successive beats of the dominant shape (of all beats where there are none).
    """

    samples: Signal
    each: Signal
    rr_s: float


def find_beats(recording: Recording) -> Beats:
    """Detect the beats of a recording and group them by shape."""
    filtered = prepare(recording)
    leads = smooth(filtered[list(INDEPENDENT)], 5)
    at, contrast = _detect(filtered)
    at = at[(at >= _EDGE) & (at < leads.shape[1] - _EDGE)]
    calm = leads[calm_leads(leads)]
    at = _ventricular(calm, at)
    if len(at) < 2:
        return Beats(at, np.ones(len(at), dtype=bool), np.ones(len(at)), contrast, filtered)
    at, likeness = _group(calm, at)
    at, likeness = _without_echoes(at, likeness)
    return Beats(at, likeness >= MIN_ALIKE, likeness, contrast, filtered)


def representative_beat(beats: Beats) -> RepresentativeBeat:
    """Median of the dominant beats, leaving out premature ones and those cut by the ends where enough others remain.

    Raises
    ------
    ValueError
        There is no beat.
    """
    if not beats.dominant.any():
        raise ValueError("a representative beat needs at least one beat")
    at, dominant = beats.at, beats.dominant
    rr = beats.rr_s
    among_dominant = rr[dominant[1:] & dominant[:-1]]
    typical = float(median(among_dominant if len(among_dominant) else rr)) if len(rr) else 1.0
    whole = (at >= BEFORE) & (at + AFTER <= beats.filtered.shape[1])
    on_time = np.concatenate([[True], rr > 0.85 * typical]) & np.concatenate([[True], dominant[:-1]])
    for use in (dominant & whole & on_time, dominant & whole, dominant):
        if use.sum() >= max(3, 0.4 * dominant.sum()):
            break
    each = _windows(beats.filtered, at[use], BEFORE, AFTER)
    return RepresentativeBeat(median(each.transpose(1, 2, 0)), each[:, INDEPENDENT], typical)


def prepare(recording: Recording) -> Signal:
    """``(12, n_samples) float64, mV`` at 500 Hz: gaps bridged, baseline removed."""
    first_minute = recording.samples[:, : int(MAX_SECONDS * recording.fs_hz)]
    finite = np.isfinite(first_minute)
    if not finite.all():
        first_minute = np.where(finite, first_minute, np.float32(np.nan))
    samples = resample(fill_gaps(first_minute), recording.fs_hz, FS_HZ)
    samples = samples - median(samples[:, ::10])[:, None]
    return zero_phase(samples, 2, BASELINE_HZ, FS_HZ)


def smooth(samples: Signal, n: int) -> Signal:
    """Centred moving average of ``n`` (odd) samples along the last axis, edges held."""
    return np.asarray(ndimage.uniform_filter1d(samples, n, axis=-1, mode="nearest"))


def calm_leads(leads: Signal) -> NDArray[np.bool_]:
    """``(n_leads,) bool``: neither dead nor several times noisier than the others, which would blur all of them."""
    middle = leads[:, 1:-1:3]
    noise = median(np.abs((leads[:, 2::3] - middle) - (middle - leads[:, :-2:3])))
    alive = noise > 1e-9
    if not alive.any():
        return np.ones(len(leads), dtype=bool)
    return np.asarray(alive & (noise <= MAX_NOISE_RATIO * median(noise[alive])))


def _activity(filtered: Signal) -> Signal:
    """Detection signal at 250 Hz: slope over 20 ms, each lead in units of its own steep parts, averaged over leads.

    The scale per lead keeps one lead with a loose electrode from drowning the others; a difference over 20 ms is zero
    at 50 Hz and its harmonics.
    """
    leads = filtered[list(INDEPENDENT)]
    n = leads.shape[1] // 2 * 2
    leads = (leads[:, 0:n:2] + leads[:, 1:n:2]) / 2
    slope = np.zeros_like(leads)
    np.abs(leads[:, 5:] - leads[:, :-5], out=slope[:, 2:-3])
    (steep,) = percentiles(slope[:, ::2], [98])
    alive = steep > 1e-3
    if not alive.any():
        return np.zeros(n // 2)
    return smooth(np.mean(slope[alive] / steep[alive, None], axis=0), 21)


def _detect(filtered: Signal) -> tuple[NDArray[np.int64], float]:
    """Candidate beats (samples at 500 Hz) and the contrast of the detection signal."""
    activity = _activity(filtered)
    candidates, _ = signal.find_peaks(activity, distance=int(REFRACTORY_S * FS_HZ / 2))
    if not len(candidates):
        return np.zeros(0, dtype=np.int64), 1.0
    parts = np.array_split(activity, max(1, round(len(activity) / 500)))
    typical, quiet = float(median(np.array([part.max() for part in parts]))), float(median(activity))
    height = activity[candidates]
    strong = candidates[height > quiet + 0.35 * (typical - quiet)]
    if len(strong) > 2:
        strong = _search_back(strong, candidates, height, quiet + 0.18 * (typical - quiet))
    return strong.astype(np.int64) * 2, typical / max(quiet, 1e-9)


def _ventricular(leads: Signal, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out what is blunter than its neighbour: T waves (within 0.5 s after) and P waves (within 0.25 s before).

    Sharpness is the curvature over 20 ms: a T wave as steep as half the QRS is still several times less curved.
    """
    if len(at) < 2:
        return at
    around = _windows(leads, at, 30, 30)
    curvature = around[..., 10:] - 2 * around[..., 5:-5] + around[..., :-10]
    sharpness = np.sqrt((curvature**2).mean(axis=1)).max(axis=-1)
    sharpness = np.minimum(sharpness, 2 * median(sharpness))
    keep = np.ones(len(at), dtype=bool)
    last = 0
    for i in range(1, len(at)):
        if at[i] - at[last] < 0.5 * FS_HZ and sharpness[i] < BLUNT * sharpness[last]:
            keep[i] = False
        else:
            if at[i] - at[last] < 0.25 * FS_HZ and sharpness[last] < BLUNT * sharpness[i]:
                keep[last] = False
            last = i
    return at[keep]


def _search_back(
    strong: NDArray[np.int64], candidates: NDArray[np.int64], height: Signal, threshold: float
) -> NDArray[np.int64]:
    """Add the best weaker candidate in the middle of every gap of more than 1.6 typical intervals."""
    gaps = np.diff(strong)
    typical = median(gaps)
    found = list(strong)
    for left, gap in zip(strong[:-1][gaps > 1.6 * typical], gaps[gaps > 1.6 * typical], strict=True):
        inside = (candidates > left + 0.5 * typical) & (candidates < left + gap - 0.5 * typical) & (height > threshold)
        if inside.any():
            found.append(candidates[inside][np.argmax(height[inside])])
    return np.sort(np.asarray(found))


def _windows(samples: Signal, at: NDArray[np.int64], before: int, after: int) -> Signal:
    """``(n_beats, n_leads, before + after)`` windows about ``at``; beyond the ends the last sample is held."""
    n_samples, width = samples.shape[1], before + after
    windows = np.empty((len(at), len(samples), width))
    for window, start in zip(windows, (at - before).tolist(), strict=True):
        first, last = max(-start, 0), min(n_samples - start, width)
        window[:, first:last] = samples[:, start + first : start + last]
        window[:, :first] = samples[:, :1]
        window[:, last:] = samples[:, -1:]
    return windows


def _shape(windows: Signal) -> Signal:
    """Each beat as one unit vector over its leads, mean per lead removed, so that a product is a correlation."""
    flat = (windows - windows.mean(axis=-1, keepdims=True)).reshape(len(windows), -1)
    return np.asarray(flat / np.maximum(np.sqrt(np.einsum("ij,ij->i", flat, flat)), 1e-12)[:, None])


def _group(leads: Signal, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], Signal]:
    """Align the beats on the dominant shape; returns their fiducial points and their correlation with that shape."""
    windows = _windows(leads, at, _HALF, _HALF)
    template = windows[_seed(_shape(windows), 0.8)]
    for _ in range(2):
        at = at + _lags(_windows(leads, at, _HALF + _LAG, _HALF + _LAG), template)
        windows = _windows(leads, at, _HALF, _HALF)
        shape = _shape(windows)
        seed = _seed(shape, MIN_ALIKE)
        alike = shape @ shape[seed] >= MIN_ALIKE
        alike[seed] = True
        template = median(windows[alike].transpose(1, 2, 0))
    return at, shape @ _shape(template[None])[0]


def _seed(shape: Signal, alike: float) -> int:
    """Index of the beat that most others resemble."""
    correlation = shape @ shape.T
    return int(np.argmax((correlation >= alike).sum(axis=1) + 0.5 * correlation.mean(axis=1)))


def _lags(windows: Signal, template: Signal) -> NDArray[np.int64]:
    """Shift of each beat, in samples, at which it fits the template best, summed over leads."""
    n = windows.shape[-1]  # no shift of interest wraps around
    beat = np.fft.rfft(windows)  # the mean of the template is zero, so that of a window does not matter
    fit = np.fft.irfft((beat * np.fft.rfft(template - template.mean(axis=-1, keepdims=True), n).conj()).sum(axis=1), n)
    return np.asarray(fit[:, : 2 * _LAG + 1].argmax(axis=1) - _LAG, dtype=np.int64)


def _without_echoes(at: NDArray[np.int64], likeness: Signal) -> tuple[NDArray[np.int64], Signal]:
    """Drop what stands within 300 ms of a dominant beat and looks unlike it: a T wave, a spike, not a ventricle."""
    keep = np.ones(len(at), dtype=bool)
    near = np.diff(at) < 0.3 * FS_HZ
    unlike = likeness < 0.5
    keep[1:] &= ~(near & unlike[1:] & ~unlike[:-1])
    keep[:-1] &= ~(near & unlike[:-1] & ~unlike[1:])
    return at[keep], likeness[keep]
