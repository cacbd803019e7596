"""Onsets and offsets of P, QRS and T on the representative beat, global over the leads.

Every boundary is found on one curve, the spatial velocity: the root mean square of the slope over the independent
leads. A wave starts where the first lead starts to change and ends where the last one becomes flat; the standards call
this the global interval.

References
----------
CSE Working Party, Recommendations for measurement standards in quantitative electrocardiography, Eur Heart J
1985;6:815: earliest onset to latest offset over simultaneous leads. IEC 60601-2-25:2011, 201.12.1.101 and its annex of
definitions: the same for electrocardiographs, with the tolerances (P, PR, QRS: mean error 10 ms; QT: 25 ms).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import signal

from data_specs.ecg.filters import Signal, median, percentiles
from data_specs.ecg.recording import Recording
from inference.ecg.beats import (
    AFTER,
    BEFORE,
    FS_HZ,
    INDEPENDENT,
    Beats,
    RepresentativeBeat,
    calm_leads,
    find_beats,
    representative_beat,
    smooth,
)

QRS_ONSET_SHARE, QRS_OFFSET_SHARE = 0.05, 0.045
P_ONSET_SHARE, P_OFFSET_SHARE = 0.15, 0.15
T_OFFSET_SHARE = 0.15
"""Shares of a wave's largest spatial velocity below which it counts as flat. Chosen on recordings that contain the
global measurements of their machine (GE MUSE, GE CardioSoft, Philips, SCP-ECG, DICOM, aECG)."""

MAX_PR_S = 0.42
"""Longest time before the QRS in which a P wave is searched."""

MAX_RESTLESSNESS = 0.06
"""Spatial velocity between waves over that of the QRS; above this limit no boundary of the QRS can be found."""

QRS_MS = (50.0, 240.0)
"""Limits; a duration outside them is taken for a failure of the method."""

MAX_P_RISE_S = 0.12
"""Longest time from the onset to the peak of a P wave; even a whole P wave is prolonged from 0.12 s on."""

_E = np.asarray(INDEPENDENT)


@dataclass(frozen=True, slots=True)
class Marks:
    """Samples on the representative beat (500 Hz); ``None`` where a wave was not found or its boundary not clear.

    Parameters
    ----------
    restlessness
        Spatial velocity between waves over that of the QRS: 0 where the signal is flat between waves.
    p_consistency
        Median correlation of the P waves of single beats with the median P wave: near 1 in sinus rhythm, near 0 where
        P waves have no fixed distance from the QRS.
    p_amplitude_mv, t_amplitude_mv
        Root mean square over the independent leads at the peak.
    """

    qrs_onset: int | None
    qrs_offset: int | None
    restlessness: float
    t_peak: int | None = None
    t_offset: int | None = None
    t_amplitude_mv: float = 0.0
    p_onset: int | None = None
    p_peak: int | None = None
    p_offset: int | None = None
    p_amplitude_mv: float = 0.0
    p_consistency: float = 0.0

    @property
    def qrs_ms(self) -> float | None:
        """QRS duration; ``None`` where the QRS is not clear."""
        if self.qrs_onset is None or self.qrs_offset is None or self.restlessness > MAX_RESTLESSNESS:
            return None
        duration = (self.qrs_offset - self.qrs_onset) * 1000.0 / FS_HZ
        return duration if QRS_MS[0] <= duration <= QRS_MS[1] else None


@dataclass(frozen=True, slots=True)
class Examined:
    """What gate and measurement both need, computed once; ``None`` where there is no beat."""

    beats: Beats
    beat: RepresentativeBeat | None
    marks: Marks | None


def examine(recording: Recording) -> Examined:
    """Find the beats of a recording, the representative beat and its boundaries."""
    beats = find_beats(recording)
    if not beats.dominant.any():
        return Examined(beats, None, None)
    beat = representative_beat(beats)
    return Examined(beats, beat, delineate(beat))


def delineate(beat: RepresentativeBeat) -> Marks:
    """Find the global boundaries of a representative beat."""
    leads = beat.samples[_E]
    calm = calm_leads(smooth(leads, 5))
    leads = leads[calm]
    onset, offset, restlessness = _qrs(leads)
    if onset is None or offset is None:
        return Marks(None, None, restlessness)
    t = _t_wave(leads, onset, offset, beat.rr_s, next_p=None)
    t_end = (t[1] or t[0] + int(0.06 * FS_HZ)) if t else offset + int(0.1 * FS_HZ)
    p = _p_wave(leads, onset, previous_t=t_end - int(beat.rr_s * FS_HZ))
    if p and t and t[0] > onset + beat.rr_s * FS_HZ - (onset - p[1]) - 20:
        t = _t_wave(leads, onset, offset, beat.rr_s, next_p=p[1])  # the wave that was taken for T is the next P
    return Marks(
        onset,
        offset,
        restlessness,
        t_peak=t[0] if t else None,
        t_offset=t[1] if t else None,
        t_amplitude_mv=t[2] if t else 0.0,
        p_onset=p[0] if p else None,
        p_peak=p[1] if p else None,
        p_offset=p[2] if p else None,
        p_amplitude_mv=p[3] if p else 0.0,
        p_consistency=_consistency(beat.single_beats[:, calm], p[0], p[2]) if p and p[0] is not None else 0.0,
    )


def _velocity(leads: Signal) -> Signal:
    """Spatial velocity, mV/s: root mean square over leads of the slope over 8 ms."""
    slope = np.zeros_like(leads)
    slope[:, 2:-2] = (leads[:, 4:] - leads[:, :-4]) * (FS_HZ / 4)
    return np.asarray(np.sqrt((slope**2).mean(axis=0)))


def _first_rest(velocity: Signal, start: int, threshold: float, hold: int) -> int | None:
    """First index from ``start`` on after which the velocity stays below ``threshold`` for ``hold`` samples."""
    below = velocity[start:] < threshold
    run = np.convolve(below, np.ones(hold), mode="valid") == hold
    return start + int(np.argmax(run)) if run.any() else None


def _last_rest(velocity: Signal, start: int, threshold: float, hold: int) -> int | None:
    """As :func:`_first_rest`, towards earlier samples."""
    mirrored = _first_rest(velocity[::-1], len(velocity) - 1 - start, threshold, hold)
    return None if mirrored is None else len(velocity) - 1 - mirrored


def _qrs(leads: Signal) -> tuple[int | None, int | None, float]:
    velocity = _velocity(smooth(leads, 5))
    near = slice(BEFORE - 35, BEFORE + 45)
    held = float(np.sort(velocity[near])[-int(0.03 * FS_HZ)])  # for 30 ms, which no pacing spike lasts
    top = min(float(velocity[near].max()), 1.6 * held)
    steepest = near.start + int(np.argmax(smooth(np.minimum(velocity, top), 11)[near]))
    rest = float(percentiles(velocity[BEFORE - 200 : BEFORE + 250], [15])[0])
    onset = _last_rest(velocity, steepest, rest + QRS_ONSET_SHARE * (top - rest), hold=6)
    st_segment = float(velocity[steepest + 30 : steepest + 90].min())  # not flat in bundle branch block
    offset = _first_rest(velocity, steepest, max(rest + QRS_OFFSET_SHARE * (top - rest), 1.25 * st_segment), hold=6)
    if onset is not None and onset < BEFORE - int(0.3 * FS_HZ):
        onset = None  # more than 300 ms before the beat: not its onset
    return onset, offset, rest / max(top, 1e-9)


def _t_wave(
    leads: Signal, onset: int, offset: int, rr_s: float, next_p: int | None
) -> tuple[int, int | None, float] | None:
    """Peak, offset and amplitude of the T wave."""
    curve = smooth(smooth(leads, 9), 9)
    height = np.sqrt(((curve - curve[:, onset - 8 : onset - 1].mean(axis=1, keepdims=True)) ** 2).mean(axis=0))
    velocity = _velocity(curve)
    first = offset + 20
    last = onset + min(0.62 * np.sqrt(rr_s) * FS_HZ, 0.9 * rr_s * FS_HZ - 20)
    if next_p is not None:
        last = min(last, next_p + rr_s * FS_HZ - 25)
    last = int(min(last, BEFORE + AFTER - 10))
    if last - first < 30:
        return None
    peaks, found = signal.find_peaks(height[first:last], prominence=0.01)
    if not len(peaks):
        return None
    peak = first + int(peaks[np.argmax(found["prominences"])])
    valley = peak + int(np.argmin(height[peak:last]))
    if valley - peak < 8:
        return None
    steepest = peak + int(np.argmin(np.gradient(height[peak : valley + 1])))
    rest = float(percentiles(velocity[BEFORE - 200 :], [10])[0])
    threshold = rest + T_OFFSET_SHARE * (velocity[steepest] - rest)
    end = _first_rest(velocity[:last], steepest, threshold, hold=8)
    return peak, end, float(height[peak])


def _p_wave(leads: Signal, onset: int, previous_t: int) -> tuple[int | None, int, int, float] | None:
    """Onset, peak, offset and amplitude of the P wave between the end of the last T and the QRS."""
    first = max(previous_t, onset - int(MAX_PR_S * FS_HZ), 12)
    if onset - first < 30:
        return None
    held = leads.copy()
    held[:, onset:] = held[:, onset - 6 : onset].mean(axis=1, keepdims=True)
    held[:, :first] = held[:, first : first + 4].mean(axis=1, keepdims=True)
    curve = smooth(smooth(held, 9), 9)
    height = np.sqrt(((curve - smooth(curve, 81)) ** 2).mean(axis=0))
    peaks, found = signal.find_peaks(height[first : onset - 12], prominence=0.003)
    if not len(peaks):
        return None
    prominence = found["prominences"]
    peak = first + int(peaks[prominence >= 0.5 * prominence.max()][-1])
    velocity = _velocity(curve)
    rest = float(percentiles(velocity[first:onset], [10])[0])
    rise = max(first, peak - 35)
    steepest = rise + int(np.argmax(velocity[rise : peak + 1]))
    for share in (P_ONSET_SHARE, 2 * P_ONSET_SHARE):
        threshold = rest + share * (velocity[steepest] - rest)
        start = _last_rest(velocity[first:], steepest - first, threshold, hold=8)
        if start is not None and first + start >= max(peak - int(MAX_P_RISE_S * FS_HZ), previous_t + 12):
            break  # neither too long nor merged with the end of the last T wave
    else:
        start = None
    fall = peak + int(np.argmax(velocity[peak : min(onset, peak + 35)]))
    end = _first_rest(velocity, fall, rest + P_OFFSET_SHARE * (velocity[fall] - rest), hold=4)
    return None if start is None else first + start, peak, min(onset, end or onset), float(height[peak])


def _consistency(single_beats: Signal, start: int, end: int) -> float:
    """Median correlation of the detrended segments ``[start, end]`` of single beats with their median."""
    segments = smooth(single_beats[:, :, start : end + 1], 9)[..., ::3]
    ramp = np.linspace(-1.0, 1.0, segments.shape[-1])
    segments = segments - segments.mean(axis=-1, keepdims=True)
    segments = segments - (segments @ ramp)[..., None] * ramp / (ramp @ ramp)
    flat = segments.reshape(len(segments), -1)
    middle = median(flat.T)
    norms = np.linalg.norm(flat, axis=1) * np.linalg.norm(middle)
    return float(median(flat @ middle / np.maximum(norms, 1e-12)))
