"""Heartbeats of a recording: where they are, which of them look alike, and the one beat that represents them.

The steps are those of electrocardiographs: beats are found on one signal made from all leads, aligned and grouped by
shape over all leads together, and the dominant group gives one median beat per lead on a common time axis. Its noise is
lower by the square root of the number of beats; onsets and offsets are found on it (:mod:`inference.ecg.delineate`).

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
"""The eight leads that are measured; the other four are computed from I and II."""

MAX_SECONDS = 60.0
"""Of a longer recording only the first minute is measured, which limits the computing time for one file."""

BASELINE_HZ = 0.5
"""Zero-phase high-pass. Kligfield 2007 allows 0.67 Hz where the filter has no phase distortion."""

REFRACTORY_S = 0.2
"""Shortest time between two ventricular activations (300/min)."""

MIN_ALIKE = 0.85
"""Least correlation of two beats of one shape, over all independent leads and 240 ms around the QRS."""

MAX_NOISE_RATIO = 4.0
"""A lead with more noise (median curvature) than this times the median lead is not used to align and delineate."""

BLUNT = 0.25
"""Curvature relative to the neighbouring QRS below which a deflection is a T or a P wave. Development recordings: the
tallest T waves reach 0.20, ventricular ectopic beats start at 0.32."""

BEFORE, AFTER = 250, 400
"""Samples of the representative beat before and after its fiducial point (500 ms and 800 ms)."""

_HALF, _LAG = 60, 24  # samples: half of the window in which beats are compared (120 ms), largest shift (48 ms)
_EDGE = 30  # samples: a beat within 60 ms of an end of the recording is incomplete and cannot be aligned


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
        Typical height of a beat in the detection signal over the median of that signal: 1 for steady noise.
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
    single_beats
        ``(n_used, 8, BEFORE + AFTER) float64, mV``: the beats whose median it is, independent leads only.
    rr_s
        Median interval between successive beats of the dominant shape (of all beats where there are none).
    """

    samples: Signal
    single_beats: Signal
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
    at, likeness = _without_double_detections(at, likeness)
    return Beats(at, likeness >= MIN_ALIKE, likeness, contrast, filtered)


def representative_beat(beats: Beats) -> RepresentativeBeat:
    """Median of the dominant beats, without premature and incomplete ones where enough others remain.

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
    single = cut_windows(beats.filtered, at[use], BEFORE, AFTER)
    return RepresentativeBeat(median(single.transpose(1, 2, 0)), single[:, INDEPENDENT], typical)


def prepare(recording: Recording) -> Signal:
    """``(12, n_samples) float64, mV`` at 500 Hz: gaps bridged, baseline removed."""
    samples = resample(first_minute(recording), recording.fs_hz, FS_HZ)
    samples = samples - median(samples[:, ::10])[:, None]
    return zero_phase(samples, 2, BASELINE_HZ, FS_HZ)


def first_minute(recording: Recording) -> Signal:
    """``(12, n_samples) float64, mV`` as recorded, with gaps bridged; at most the first minute."""
    samples = recording.samples[:, : int(MAX_SECONDS * recording.fs_hz)]
    finite = np.isfinite(samples)
    return fill_gaps(samples if finite.all() else np.where(finite, samples, np.float32(np.nan)))


def smooth(samples: Signal, n: int) -> Signal:
    """Centred moving average of ``n`` (odd) samples along the last axis, edges held."""
    return np.asarray(ndimage.uniform_filter1d(samples, n, axis=-1, mode="nearest"))


def calm_leads(leads: Signal) -> NDArray[np.bool_]:
    """``(n_leads,) bool``: the lead has a signal, and not several times the noise of the others."""
    middle = leads[:, 1:-1:3]
    noise = median(np.abs((leads[:, 2::3] - middle) - (middle - leads[:, :-2:3])))
    has_signal = noise > 1e-9
    if not has_signal.any():
        return np.ones(len(leads), dtype=bool)
    return np.asarray(has_signal & (noise <= MAX_NOISE_RATIO * median(noise[has_signal])))


def _activity(filtered: Signal) -> Signal:
    """Detection signal at 250 Hz: slope over 20 ms, divided by the lead's own steepest slopes, averaged over leads.

    The division keeps a lead with a loose electrode from dominating the others. A difference over 20 ms is zero at 50
    Hz and its harmonics, so mains hum has no slope.
    """
    leads = filtered[list(INDEPENDENT)]
    n = leads.shape[1] // 2 * 2
    leads = (leads[:, 0:n:2] + leads[:, 1:n:2]) / 2
    slope = np.zeros_like(leads)
    np.abs(leads[:, 5:] - leads[:, :-5], out=slope[:, 2:-3])
    (steep,) = percentiles(slope[:, ::2], [98])
    has_signal = steep > 1e-3
    if not has_signal.any():
        return np.zeros(n // 2)
    return smooth(np.mean(slope[has_signal] / steep[has_signal, None], axis=0), 21)


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
    """Leave out T waves (within 0.5 s after a QRS) and P waves (within 0.25 s before it), which are less sharp.

    Sharpness is the curvature over 20 ms: even a T wave half as steep as the QRS is several times less curved.
    """
    if len(at) < 2:
        return at
    around = cut_windows(leads, at, 30, 30)
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


def cut_windows(samples: Signal, at: NDArray[np.int64], before: int, after: int) -> Signal:
    """``(n_beats, n_leads, before + after)`` windows about ``at``; beyond the ends the last sample is held."""
    n_samples, width = samples.shape[1], before + after
    taken = np.empty((len(at), len(samples), width))
    for window, start in zip(taken, (at - before).tolist(), strict=True):
        first, last = max(-start, 0), min(n_samples - start, width)
        window[:, first:last] = samples[:, start + first : start + last]
        window[:, :first] = samples[:, :1]
        window[:, last:] = samples[:, -1:]
    return taken


def _shape(windows: Signal) -> Signal:
    """Each beat as one unit vector over its leads, mean per lead removed: a product of two is their correlation."""
    flat = (windows - windows.mean(axis=-1, keepdims=True)).reshape(len(windows), -1)
    return np.asarray(flat / np.maximum(np.sqrt(np.einsum("ij,ij->i", flat, flat)), 1e-12)[:, None])


def _group(leads: Signal, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], Signal]:
    """Fiducial points of the beats, aligned with the dominant shape, and their correlation with it."""
    windows = cut_windows(leads, at, _HALF, _HALF)
    template = windows[_seed(_shape(windows), 0.8)]
    for _ in range(2):
        at = at + _lags(cut_windows(leads, at, _HALF + _LAG, _HALF + _LAG), template)
        windows = cut_windows(leads, at, _HALF, _HALF)
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
    n = windows.shape[-1]  # longer than the template by twice the largest shift, so that no shift wraps around
    beat = np.fft.rfft(windows)  # with its mean, which has no effect: the template's mean is zero
    fit = np.fft.irfft((beat * np.fft.rfft(template - template.mean(axis=-1, keepdims=True), n).conj()).sum(axis=1), n)
    return np.asarray(fit[:, : 2 * _LAG + 1].argmax(axis=1) - _LAG, dtype=np.int64)


def _without_double_detections(at: NDArray[np.int64], likeness: Signal) -> tuple[NDArray[np.int64], Signal]:
    """Leave out what is within 300 ms of a dominant beat and has another shape: a T wave or an artefact."""
    keep = np.ones(len(at), dtype=bool)
    near = np.diff(at) < 0.3 * FS_HZ
    unlike = likeness < 0.5
    keep[1:] &= ~(near & unlike[1:] & ~unlike[:-1])
    keep[:-1] &= ~(near & unlike[:-1] & ~unlike[1:])
    return at[keep], likeness[keep]
