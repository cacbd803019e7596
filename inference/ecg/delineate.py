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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from data_specs.ecg.filters import Signal, median, percentiles
from data_specs.ecg.recording import Recording
from inference.ecg.beats import (
    AFTER,
    BEFORE,
    FS_HZ,
    INDEPENDENT,
    MAX_SECONDS,
    Beats,
    RepresentativeBeat,
    calm_leads,
    cut_windows,
    find_beats,
    representative_beat,
    smooth,
)
from inference.ecg.pacing import find_spikes, gaps, without_spikes

QRS_ONSET_SHARE, QRS_OFFSET_SHARE = 0.05, 0.045
P_OFFSET_SHARE, T_OFFSET_SHARE = 0.15, 0.15
P_ONSET_SHARES, P_HEIGHT_SHARE = (0.15, 0.3), 0.15
"""Shares of a wave's largest spatial velocity, and of the height of P, below which it counts as flat. Chosen on
recordings that contain the global measurements of their machine (GE MUSE, Philips, SCP-ECG, DICOM, aECG)."""

MAX_PR_S = 0.42
"""Longest time before the QRS in which a P wave is searched."""

MAX_RESTLESSNESS = 0.06
"""Spatial velocity between waves over that of the QRS; above this limit no boundary of the QRS can be found."""

QRS_MS = (50.0, 240.0)
"""Limits; a duration outside them is taken for a failure of the method."""

AGREE_S = 0.016
"""Two ways to find the onset of P agree if they are at most this far apart. With the P waves of 88 real recordings
moved 60 to 220 ms towards the T wave (440), 16 of 320 that are given are more than 20 ms off. One way alone, on 90
(450): 47 of 340."""

MAX_P_RISE_S = 0.12
"""Longest time from the onset to the peak of a P wave; even a whole P wave is prolonged from 0.12 s on."""

_E = np.asarray(INDEPENDENT)
_AFTER_SPIKE = 50  # samples in which the decay of a spike is not told from the start of a P wave (100 ms)
_SPREAD = 4  # samples by which smoothing and slope carry a gap to its neighbours


@dataclass(frozen=True, slots=True)
class Marks:
    """Samples on the representative beat (500 Hz); ``None`` where a wave was not found or its boundary not clear.

    Parameters
    ----------
    restlessness
        Spatial velocity between waves over that of the QRS: 0 where the signal is flat between waves.
    qrs_onset_hidden
        The QRS begins in the gap of a pacing spike: neither its duration nor PR and QT are known.
    p_consistency
        Median correlation of the P waves of single beats with the median P wave: near 1 in sinus rhythm, near 0 where
        P waves have no fixed distance from the QRS.
    p_amplitude_mv, t_amplitude_mv
        Root mean square over the independent leads at the peak.
    """

    qrs_onset: int | None
    qrs_offset: int | None
    restlessness: float
    qrs_onset_hidden: bool = False
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
    """What gate and measurement both need, computed once; ``None`` where there is no beat.

    Parameters
    ----------
    spikes_s
        Times of pacing spikes, s.
    """

    beats: Beats
    beat: RepresentativeBeat | None
    marks: Marks | None
    spikes_s: tuple[float, ...]


def examine(recording: Recording) -> Examined:
    """Find the pacing spikes and the beats of a recording, the representative beat and its boundaries."""
    start = replace(recording, samples=recording.samples[:, : int(MAX_SECONDS * recording.fs_hz)])
    spikes_s = find_spikes(start)
    beats = find_beats(without_spikes(start, spikes_s))
    if not beats.dominant.any():
        return Examined(beats, None, None, spikes_s)
    beat = representative_beat(beats)
    return Examined(beats, beat, delineate(beat, _hidden(beats, spikes_s)), spikes_s)


def _hidden(beats: Beats, spikes_s: Sequence[float]) -> NDArray[np.bool_]:
    """``(BEFORE + AFTER,) bool``: samples of the representative beat at which most of the beats have a spike's gap."""
    in_gap = np.zeros((1, beats.filtered.shape[1]))
    for first, last in gaps(spikes_s, FS_HZ):
        in_gap[0, max(first - _SPREAD, 0) : last + _SPREAD + 1] = 1.0
    return np.asarray(cut_windows(in_gap, beats.at[beats.dominant], BEFORE, AFTER)[:, 0].mean(axis=0) > 0.5)


def delineate(beat: RepresentativeBeat, hidden: NDArray[np.bool_]) -> Marks:
    """Find the global boundaries of a representative beat; none of them in its ``hidden`` samples."""
    leads = beat.samples[_E]
    calm = calm_leads(smooth(leads, 5))
    leads = leads[calm]
    onset, offset, restlessness = _qrs(leads, hidden)
    if onset is None or offset is None:
        return Marks(None, None, restlessness)
    t = _t_wave(leads, onset, offset, beat.rr_s, next_p=None)
    t_end = (t[1] or t[0] + int(0.06 * FS_HZ)) if t else offset + int(0.1 * FS_HZ)
    p = _p_wave(leads, onset, previous_t=t_end - int(beat.rr_s * FS_HZ))
    if p and p[0] is not None and hidden[max(p[0] - _AFTER_SPIKE, 0) : p[0] + _SPREAD].any():
        p = (None, *p[1:])
    if p and t and t[0] > onset + beat.rr_s * FS_HZ - (onset - p[1]) - 20:
        t = _t_wave(leads, onset, offset, beat.rr_s, next_p=p[1])  # the wave that was taken for T is the next P
    return Marks(
        onset,
        offset,
        restlessness,
        qrs_onset_hidden=bool(hidden[onset - 2 : onset + 2].any()),
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


def _qrs(leads: Signal, hidden: NDArray[np.bool_]) -> tuple[int | None, int | None, float]:
    velocity = np.where(hidden, 0.0, _velocity(smooth(leads, 5)))
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
    start = _p_onset(curve, velocity, rest, peak, first, onset, earliest=previous_t + 12)
    fall = peak + int(np.argmax(velocity[peak : min(onset, peak + 35)]))
    end = _first_rest(velocity, fall, rest + P_OFFSET_SHARE * (velocity[fall] - rest), hold=4)
    return start, peak, min(onset, end or onset), float(height[peak])


def _p_onset(
    curve: Signal, velocity: Signal, rest: float, peak: int, first: int, onset: int, earliest: int
) -> int | None:
    """Onset of the P wave whose peak is known; ``None`` where two of three ways do not find it at nearly one place.

    Two shares of the wave's steepest slope, and a share of its height over a line from the calmest place before it to
    the PR segment. A T or U wave that has not ended moves each of them, and not alike.
    """
    rise = max(first, peak - 35)
    steepest = rise + int(np.argmax(velocity[rise : peak + 1]))
    found = []
    for share in P_ONSET_SHARES:
        rested = _last_rest(velocity[first:], steepest - first, rest + share * (velocity[steepest] - rest), hold=8)
        found.append(None if rested is None else first + rested)
    start, stop = max(first, peak - 75), max(first + 1, peak - 20)
    calm = start + int(np.argmin(smooth(velocity, 9)[start:stop]))
    line = np.linspace(curve[:, calm], curve[:, onset - 5], onset - 4 - calm, axis=1)
    height = np.sqrt(((curve[:, calm : onset - 4] - line) ** 2).mean(axis=0))
    top = peak - calm
    low = np.flatnonzero(height[: max(1, top)] < P_HEIGHT_SHARE * height[max(0, top - 8) : top + 9].max())
    found.append(calm + int(low[-1]) + 1 if len(low) else None)
    earliest = max(earliest, peak - int(MAX_P_RISE_S * FS_HZ))  # neither too long nor merged with the last T wave
    possible = sorted(place for place in found if place is not None and place >= earliest)
    apart, place = min(((b - a, a) for a, b in pairwise(possible)), default=(AGREE_S * FS_HZ + 1, None))
    return place if apart <= AGREE_S * FS_HZ else None


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
