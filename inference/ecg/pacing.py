"""Spikes of a pacemaker: found in the samples as they were recorded, and bridged, so that no wave is measured at them.

A spike lasts up to two milliseconds; the low-pass of an electrocardiograph makes a few samples of it. No wave of the
heart is as narrow. A spike also comes again and again: at one distance from the beats, or at one interval.

References
----------
Kligfield et al., Circulation 2007;115:1306, 'pacemaker spikes': 0.5 to 2 ms wide, lost or widened by the usual band.
IEC 60601-2-25:2011, 201.12.4.109: pulses of 2 to 250 mV and 0.1 to 2 ms have to be shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_specs.ecg.filters import Signal, median
from data_specs.ecg.recording import Recording
from inference.ecg.beats import FS_HZ, INDEPENDENT, find_beats, first_minute

MIN_FS_HZ = 250.0
"""At slower rates a spike is as wide as the tip of an R wave: it is not looked for."""

NARROW_S, WIDE_S = 0.008, 0.024
"""What is gone after an opening over the first is narrow. What is gone over the second as well, and not higher there,
stands alone: the tip of an R wave is three times as high over three times the width."""

MIN_HEIGHT_MV, MIN_HEIGHT_OVER_NOISE, MIN_ALONE = 0.04, 10.0, 0.85
"""Root mean square over the independent leads; over the median of the recording; height over 8 ms in that over 24 ms.
The real paced recording has at least 0.39 mV, 270 and 0.92. Of 127 others, 14 have three or more places of 0.03 mV."""

APART_S = 0.02
"""Two spikes are at least this far apart; the atrium's and the ventricle's are 80 ms or more."""

MIN_SPIKES, SAME_PLACE_S, SAME_INTERVAL_S = 3, 0.006, 0.01
"""A pacemaker is there where at least this many spikes come at one place of the beat, or at one interval."""

MIN_ORDERLY = 0.6
"""Least share of the narrow places that are at one of two places of the beat (atrium, ventricle), or at one interval.
What a loose contact or a switch makes is narrow too, and comes at any time: its share is at most 0.3."""

BRIDGED_BEFORE_S, BRIDGED_AFTER_S = 0.006, 0.010
"""Samples that are replaced by a straight line: the spike, the ringing of filters and the start of its decay."""

BEFORE_QRS_S = 0.12
"""A spike at most this long before the steepest part of a QRS started it; an earlier one started a P wave."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """Spikes in a recording, ``at`` in s; ``ventricular`` where they stand at the beginning of beats."""

    at: tuple[float, ...] = ()
    ventricular: bool = False


def find_spikes(recording: Recording) -> Pacing:
    """Pacing spikes within the first minute; none in a recording of under 250 samples/s."""
    fs_hz = recording.fs_hz
    if fs_hz < MIN_FS_HZ:
        return Pacing()
    leads = first_minute(recording)[list(INDEPENDENT)]
    narrow = _height(leads, NARROW_S, fs_hz)
    least = max(MIN_HEIGHT_MV, MIN_HEIGHT_OVER_NOISE * float(median(narrow)))
    if np.count_nonzero(narrow >= least) < MIN_SPIKES:
        return Pacing()
    alone = narrow >= MIN_ALONE * _height(leads, WIDE_S, fs_hz)
    highest = narrow == ndimage.maximum_filter1d(narrow, 2 * int(APART_S * fs_hz) + 1)
    at = np.flatnonzero((narrow >= least) & alone & highest)
    if len(at) < MIN_SPIKES:
        return Pacing()
    at_s = at / fs_hz
    beats = find_beats(without_spikes(recording, Pacing(tuple(at_s.tolist()))))
    return _orderly(at_s, beats.at / FS_HZ)


def without_spikes(recording: Recording, pacing: Pacing) -> Recording:
    """The recording with a straight line in place of each spike, in every lead."""
    if not pacing.at:
        return recording
    samples = recording.samples.copy()
    for first, last in bridged_spans(pacing, recording.fs_hz):
        left, right = max(first, 0), min(last, samples.shape[1] - 1)
        samples[:, left : right + 1] = np.linspace(samples[:, left], samples[:, right], right - left + 1, axis=1)
    return replace(recording, samples=samples)


def _height(leads: Signal, width_s: float, fs_hz: float) -> Signal:
    """``(n_samples,) mV``: root mean square over leads of what is narrower than ``width_s``."""
    width = 2 * int(np.ceil(width_s * fs_hz / 2)) + 1
    opened = ndimage.maximum_filter1d(ndimage.minimum_filter1d(leads, width), width)
    closed = ndimage.minimum_filter1d(ndimage.maximum_filter1d(leads, width), width)
    return np.asarray(np.sqrt((np.maximum(leads - opened, closed - leads) ** 2).mean(axis=0)))


def _orderly(at_s: Signal, beats_s: Signal) -> Pacing:
    """Those of the narrow places that come as a pacemaker's spikes do; none where the others are too many."""
    kept = np.zeros(len(at_s), dtype=bool)
    ventricular = False
    if len(beats_s):
        following = np.searchsorted(
            beats_s + 0.02, at_s
        )  # a spike may stand a little behind the point that marks its beat
        known = following < len(beats_s)
        to_beat = np.where(known, beats_s[np.minimum(following, len(beats_s) - 1)] - at_s, np.inf)
        left = known.copy()
        for _ in range(2):
            same = _most_alike(to_beat, left, SAME_PLACE_S)
            if same.sum() < MIN_SPIKES:
                break
            kept |= same
            ventricular |= bool(np.abs(to_beat[same]).mean() <= BEFORE_QRS_S)
            left &= ~same
    intervals = np.diff(at_s)
    same = _most_alike(intervals, np.ones(len(intervals), dtype=bool), SAME_INTERVAL_S)
    if same.sum() >= MIN_SPIKES:
        kept[1:] |= same
        kept[:-1] |= same
    if kept.sum() < MIN_ORDERLY * len(at_s):
        return Pacing()
    return Pacing(tuple(at_s.tolist()), ventricular)


def _most_alike(values: Signal, among: NDArray[np.bool_], within: float) -> NDArray[np.bool_]:
    """The largest group of values that differ from one of them by at most ``within``."""
    rows = np.flatnonzero(among & np.isfinite(values))
    group = np.zeros(len(values), dtype=bool)
    if len(rows):
        near = np.abs(values[rows, None] - values[None, rows]) <= within
        group[rows[near[near.sum(axis=1).argmax()]]] = True
    return group


def bridged_spans(pacing: Pacing, fs_hz: float) -> list[tuple[int, int]]:
    """First and last sample of every bridge at a sampling rate."""
    return [(int((at - BRIDGED_BEFORE_S) * fs_hz), int(np.ceil((at + BRIDGED_AFTER_S) * fs_hz))) for at in pacing.at]
