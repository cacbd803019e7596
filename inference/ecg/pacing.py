"""Spikes of a pacemaker: found in the samples as they were recorded, and taken for gaps: no wave is measured there.

A spike lasts a millisecond or less; the low-pass of an electrocardiograph makes a few samples of it. No wave of the
heart is as narrow. A spike also comes again and again: at one distance from the beats, or at one interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.filters import Signal, highest_around, lowest_around, median
from data_specs.ecg.recording import Recording
from inference.ecg.beats import FS_HZ, INDEPENDENT, find_beats, first_minute

MIN_FS_HZ = 250.0
"""At slower rates a spike is as wide as the tip of an R wave: it is not looked for."""

NARROW_S, WIDE_S = 0.008, 0.024
"""What is gone after an opening over the first is narrow. What is gone over the second as well, and not higher there,
stands alone: the tip of an R wave is three times as high over three times the width."""

MIN_HEIGHT_MV, MIN_HEIGHT_OVER_NOISE, MIN_ALONE = 0.04, 10.0, 0.85
"""Root mean square over the independent leads; over the median of the recording; height over 8 ms in that over 24 ms.
The one real paced recording at hand has at least 0.39 mV, 267 and 0.92 at its eight spikes; of 127 others, two have
three such places or more."""

APART_S = 0.02
"""Of places nearer to each other, the highest is the spike."""

MIN_SPIKES, SAME_PLACE_S, SAME_INTERVAL_S = 3, 0.006, 0.01
"""A pacemaker is there where at least this many spikes come at one place of the beat, or at one interval."""

MIN_ORDERLY = 0.6
"""Least share of the narrow places that are at one of two places of the beat (atrium, ventricle), or at one interval.
What a loose contact or a switch makes is narrow too, and comes at any time: in those two recordings none is orderly."""

GAP_BEFORE_S, GAP_AFTER_S = 0.006, 0.010
"""Samples that count as missing: the spike, the ringing of filters and the start of its decay."""


def find_spikes(recording: Recording) -> tuple[float, ...]:
    """Times of pacing spikes within the first minute, s; none in a recording of under 250 samples/s."""
    fs_hz = recording.fs_hz
    if fs_hz < MIN_FS_HZ:
        return ()
    leads = first_minute(recording)[list(INDEPENDENT)]
    narrow = _height(leads, NARROW_S, fs_hz)
    least = max(MIN_HEIGHT_MV, MIN_HEIGHT_OVER_NOISE * float(median(narrow)))
    if np.count_nonzero(narrow >= least) < MIN_SPIKES:
        return ()
    alone = narrow >= MIN_ALONE * _height(leads, WIDE_S, fs_hz)
    highest = narrow == highest_around(narrow, 2 * int(APART_S * fs_hz) + 1)
    at = np.flatnonzero((narrow >= least) & alone & highest)
    if len(at) < MIN_SPIKES:
        return ()
    narrow_at_s = at / fs_hz
    beats = find_beats(without_spikes(recording, narrow_at_s.tolist()))
    return tuple(narrow_at_s[_orderly(narrow_at_s, beats.at / FS_HZ)].tolist())


def without_spikes(recording: Recording, spikes_s: Sequence[float]) -> Recording:
    """The recording with a gap in place of each spike, in every lead."""
    if not spikes_s:
        return recording
    samples = recording.samples.copy()
    for first, last in gaps(spikes_s, recording.fs_hz):
        samples[:, first : last + 1] = np.nan
    return replace(recording, samples=samples)


def gaps(spikes_s: Sequence[float], fs_hz: float) -> list[tuple[int, int]]:
    """First and last sample of the gap of every spike, at a sampling rate."""
    return [(max(int((at - GAP_BEFORE_S) * fs_hz), 0), int(np.ceil((at + GAP_AFTER_S) * fs_hz))) for at in spikes_s]


def _height(leads: Signal, width_s: float, fs_hz: float) -> Signal:
    """``(n_samples,) mV``: root mean square over leads of what is narrower than ``width_s``."""
    width = 2 * int(np.ceil(width_s * fs_hz / 2)) + 1
    opened = highest_around(lowest_around(leads, width), width)
    closed = lowest_around(highest_around(leads, width), width)
    return np.asarray(np.sqrt((np.maximum(leads - opened, closed - leads) ** 2).mean(axis=0)))


def _orderly(at_s: Signal, beats_s: Signal) -> NDArray[np.bool_]:
    """Which of the narrow places come as a pacemaker's spikes do; none of them where the others are too many."""
    spikes = np.zeros(len(at_s), dtype=bool)
    following = np.searchsorted(beats_s + APART_S, at_s)  # a spike may stand a little behind its beat's mark
    to_beat = np.append(beats_s, np.inf)[following] - at_s
    for _ in range(2):  # the atrium's and the ventricle's
        same = _most_alike(to_beat, ~spikes, SAME_PLACE_S)
        if same.sum() >= MIN_SPIKES:
            spikes |= same
    same = _most_alike(np.diff(at_s), np.ones(len(at_s) - 1, dtype=bool), SAME_INTERVAL_S)
    if same.sum() >= MIN_SPIKES:
        spikes[1:] |= same
        spikes[:-1] |= same
    return spikes if spikes.mean() >= MIN_ORDERLY else np.zeros_like(spikes)


def _most_alike(values: Signal, among: NDArray[np.bool_], within: float) -> NDArray[np.bool_]:
    """The largest group of values that differ from one of them by at most ``within``."""
    rows = np.flatnonzero(among & np.isfinite(values))
    group = np.zeros(len(values), dtype=bool)
    if len(rows):
        near = np.abs(values[rows, None] - values[None, rows]) <= within
        group[rows[near[near.sum(axis=1).argmax()]]] = True
    return group
