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

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from data_specs.ecg.filters import Signal
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
from inference.ecg.p_wave import consistency, p_wave
from inference.ecg.pacing import find_spikes, gaps, without_spikes
from inference.ecg.velocity import (
    LEAST,
    Wave,
    first_rest,
    flat_below,
    last_rest,
    rest_of,
    rms,
    smooth_wave,
    spatial_velocity,
)

QRS_ONSET_SHARE, QRS_OFFSET_SHARE = 0.05, 0.045
T_OFFSET_SHARE = 0.15
"""Shares of a wave's largest spatial velocity below which it counts as flat. Chosen on recordings that contain the
global measurements of their machine (GE MUSE, Philips, SCP-ECG, DICOM, aECG)."""

MAX_RESTLESSNESS = 0.06
"""Spatial velocity between waves over that of the QRS; above this limit no boundary of the QRS can be found."""

QRS_MS = (50.0, 240.0)
"""Limits; a duration outside them is taken for a failure of the method."""

_E = np.asarray(INDEPENDENT)

# Samples of 2 ms.
_SPREAD = 4  # by which smoothing and slope carry a gap to its neighbours
_AFTER_SPIKE = 50  # in which the decay of a spike is not told from the start of a P wave
_NEAR = slice(BEFORE - 35, BEFORE + 45)  # where the QRS is steepest, about the mark of its beat


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
    in_gap = np.zeros(beats.filtered.shape[1])
    for first, last in gaps(spikes_s, FS_HZ):
        in_gap[max(first - _SPREAD, 0) : last + _SPREAD + 1] = 1.0
    return np.asarray(cut_windows(in_gap[None], beats.at[beats.dominant], BEFORE, AFTER).mean(axis=(0, 1)) > 0.5)


def delineate(beat: RepresentativeBeat, hidden: NDArray[np.bool_]) -> Marks:
    """Find the global boundaries of a representative beat; none of them in its ``hidden`` samples."""
    fine = smooth(beat.samples[_E], 5)
    calm = calm_leads(fine)
    onset, offset, restlessness = _qrs(np.where(hidden, 0.0, spatial_velocity(fine[calm])))
    if onset is None or offset is None:
        return Marks(None, None, restlessness)
    leads = beat.samples[_E][calm]
    t = _t_wave(leads, onset, *_t_window(onset, offset, beat.rr_s))
    p = p_wave(leads, onset, _end_of_t(t, offset) - int(beat.rr_s * FS_HZ))
    if p.onset is not None and hidden[max(p.onset - _AFTER_SPIKE, 0) : p.onset + _SPREAD].any():
        p = replace(p, onset=None)
    return Marks(
        onset,
        offset,
        restlessness,
        qrs_onset_hidden=bool(hidden[onset - 2 : onset + 1].any()),
        t_peak=t.peak,
        t_offset=t.offset,
        t_amplitude_mv=t.amplitude_mv,
        p_onset=p.onset,
        p_peak=p.peak,
        p_offset=p.offset,
        p_amplitude_mv=p.amplitude_mv,
        p_consistency=consistency(beat.single_beats[:, calm], p.onset, p.offset),
    )


def _qrs(velocity: Signal) -> tuple[int | None, int | None, float]:
    """Onset, offset and restlessness."""
    steepest, top = _steepest(velocity)
    rest = rest_of(velocity[BEFORE - 200 : BEFORE + 250], 15)
    st_segment = velocity[steepest + 30 : steepest + 90].min()  # 60 to 180 ms after; not flat in bundle branch block
    onset = last_rest(velocity, steepest, flat_below(rest, QRS_ONSET_SHARE, top), hold=6)
    offset = first_rest(velocity, steepest, max(flat_below(rest, QRS_OFFSET_SHARE, top), 1.25 * st_segment), hold=6)
    if onset is not None and onset < BEFORE - int(0.3 * FS_HZ):
        onset = None  # more than 300 ms before the beat: not its onset
    return onset, offset, rest / top if top else 0.0


def _steepest(velocity: Signal) -> tuple[int, float]:
    """Where the QRS is steepest, and how steep; a pacing spike, which lasts less than 30 ms, hardly counts."""
    held = np.sort(velocity[_NEAR])[-15]  # exceeded for 30 ms
    top = min(velocity[_NEAR].max(), 1.6 * held)
    return _NEAR.start + int(np.argmax(smooth(np.minimum(velocity, top), 11)[_NEAR])), float(top)


def _t_window(onset: int, offset: int, rr_s: float) -> tuple[int, int]:
    """First sample in which the T wave is searched, and the first after them.

    From 40 ms after the QRS to the longest QT: 620 ms at 60/min, by the root of RR, and 40 ms less than 90 % of RR.
    """
    longest_qt = min(0.62 * np.sqrt(rr_s) * FS_HZ, 0.9 * rr_s * FS_HZ - 20)
    return offset + 20, int(min(onset + longest_qt, BEFORE + AFTER - 10))


def _t_wave(leads: Signal, onset: int, first: int, last: int) -> Wave:
    """Peak, offset and amplitude of the T wave."""
    curve = smooth_wave(leads)
    return _t_boundaries(_above_pr(curve, onset), spatial_velocity(curve), first, last)


def _above_pr(curve: Signal, onset: int) -> Signal:
    """Height over the end of the PR segment, 16 to 2 ms before the QRS."""
    return rms(curve - curve[:, onset - 8 : onset - 1].mean(axis=1, keepdims=True))


def _t_boundaries(height: Signal, velocity: Signal, first: int, last: int) -> Wave:
    if last - first < LEAST:
        return Wave()
    peaks, found = signal.find_peaks(height[first:last], prominence=0.01)
    if not len(peaks):
        return Wave()
    peak = first + int(peaks[np.argmax(found["prominences"])])
    valley = peak + int(np.argmin(height[peak:last]))
    if valley - peak < 8:  # 16 ms: its end lies beyond the window
        return Wave()
    steepest = peak + int(np.argmin(np.gradient(height)[peak:valley]))
    rest = rest_of(velocity[BEFORE - 200 :])
    offset = first_rest(velocity[:last], steepest, flat_below(rest, T_OFFSET_SHARE, velocity[steepest]), hold=8)
    return Wave(peak, offset=offset, amplitude_mv=float(height[peak]))


def _end_of_t(t: Wave, offset: int) -> int:
    """Where P waves can begin: after T; 60 ms after its peak, or 100 ms after the QRS, where its end is not known."""
    return t.offset or (offset + 50 if t.peak is None else t.peak + 30)
