"""Onset, peak and offset of the P wave on the representative beat, and how alike the P waves of single beats are.

Of three ways to find the onset two have to agree: a T or U wave that has not ended moves each of them, and not alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import signal

from data_specs.ecg.filters import Signal, median
from inference.ecg.beats import FS_HZ, smooth
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

ONSET_SHARES, OFFSET_SHARE, HEIGHT_SHARE = (0.15, 0.3), 0.15, 0.15
"""Shares of the largest spatial velocity of P, and of its height, below which it counts as flat. Chosen on recordings
that contain the global measurements of their machine (GE MUSE, Philips, SCP-ECG, DICOM, aECG)."""

MAX_PR_S = 0.42
"""Longest time before the QRS in which a P wave is searched."""

AGREE = 8
"""Two ways to find the onset agree if they are at most this many samples (16 ms) apart. With the P waves of 88 real
recordings moved 60 to 220 ms towards the T wave (440), 16 of 320 that are given are more than 20 ms off. One way alone,
on 90 (450): 47 of 340."""

MAX_P_RISE_S = 0.12
"""Longest time from the onset to the peak of a P wave; even a whole P wave is prolonged from 0.12 s on."""

_HALF = 35  # samples (70 ms): longest time between the peak and its steepest slope


def p_wave(leads: Signal, onset: int, previous_t: int) -> Wave:
    """The P wave between the end of the last T and the QRS."""
    first = _p_first(onset, previous_t)
    if onset - first < LEAST:
        return Wave()
    curve = _without_neighbours(leads, first, onset)
    height = _over_surroundings(curve)
    peak = _p_peak(height, first, onset)
    if peak is None:
        return Wave()
    velocity = spatial_velocity(curve)
    rest = rest_of(velocity[first:onset])
    places = [
        *_steep_from(velocity, rest, first, peak),
        _high_from(curve, _calmest(velocity, first, peak), peak, onset),
    ]
    return Wave(
        peak, _agreed(places, _earliest(previous_t, peak)), _p_offset(velocity, rest, peak, onset), float(height[peak])
    )


def _p_first(onset: int, previous_t: int) -> int:
    """First sample in which a P wave is searched."""
    return max(previous_t, onset - int(MAX_PR_S * FS_HZ), 12)


def _without_neighbours(leads: Signal, first: int, onset: int) -> Signal:
    """Smoothed leads from ``first`` to the QRS, continued on both sides as they begin and end."""
    held = leads.copy()
    held[:, onset:] = held[:, onset - 6 : onset].mean(axis=1, keepdims=True)
    held[:, :first] = held[:, first : first + 4].mean(axis=1, keepdims=True)
    return smooth_wave(held)


def _over_surroundings(curve: Signal) -> Signal:
    """Height over the mean of 162 ms around."""
    return rms(curve - smooth(curve, 81))


def _p_peak(height: Signal, first: int, onset: int) -> int | None:
    """The last peak that stands out at least half as much as the most prominent one."""
    peaks, found = signal.find_peaks(height[first : onset - 12], prominence=0.003)
    if not len(peaks):
        return None
    prominence = found["prominences"]
    return first + int(peaks[prominence >= 0.5 * prominence.max()].max())


def _steep_from(velocity: Signal, rest: float, first: int, peak: int) -> list[int | None]:
    """Onset of the P wave by each of two shares of its steepest slope."""
    rise = max(first, peak - _HALF)
    steepest = rise + int(np.argmax(velocity[rise : peak + 1]))
    before = velocity.copy()
    before[:first] = np.inf
    return [last_rest(before, steepest, flat_below(rest, share, velocity[steepest]), hold=8) for share in ONSET_SHARES]


def _calmest(velocity: Signal, first: int, peak: int) -> int:
    """The calmest place 40 to 150 ms before the peak of P."""
    start = max(first, peak - 75)
    return start + int(np.argmin(smooth(velocity, 9)[start : max(first + 1, peak - 20)]))


def _high_from(curve: Signal, calm: int, peak: int, onset: int) -> int | None:
    """Onset of the P wave by a share of its height over a line from a calm place to the PR segment."""
    end = onset - 5
    line = np.linspace(curve[:, calm], curve[:, end], end - calm + 1, axis=1)
    height = rms(curve[:, calm : end + 1] - line)
    top = peak - calm
    low = last_rest(height, top - 1, HEIGHT_SHARE * height[max(0, top - 8) : top + 9].max(), hold=1)
    return None if low is None else calm + low + 1


def _earliest(previous_t: int, peak: int) -> int:
    """First possible onset: a wave is neither merged with the last T wave nor too long."""
    return max(previous_t + 12, peak - int(MAX_P_RISE_S * FS_HZ))


def _agreed(places: Sequence[int | None], earliest: int) -> int | None:
    """The earlier of the two places that are nearest to each other; ``None`` where no two are near."""
    possible = sorted(place for place in places if place is not None and place >= earliest)
    near = [(b - a, a) for a, b in pairwise(possible) if b - a <= AGREE]
    return min(near)[1] if near else None


def _p_offset(velocity: Signal, rest: float, peak: int, onset: int) -> int:
    fall = peak + int(np.argmax(velocity[peak : min(onset, peak + _HALF)]))
    end = first_rest(velocity, fall, flat_below(rest, OFFSET_SHARE, velocity[fall]), hold=4)
    return min(onset, end or onset)


def consistency(single_beats: Signal, start: int | None, end: int | None) -> float:
    """Median correlation of the detrended segments ``[start, end]`` of single beats with their median; else 0."""
    if start is None or end is None:
        return 0.0
    segments = smooth(single_beats[:, :, start : end + 1], 9)[..., ::3]
    ramp = np.linspace(-1.0, 1.0, segments.shape[-1])
    segments = segments - segments.mean(axis=-1, keepdims=True)
    segments = segments - (segments @ ramp)[..., None] * ramp / (ramp @ ramp)
    flat = segments.reshape(len(segments), -1)
    middle = median(flat.T)
    norms = np.linalg.norm(flat, axis=1) * np.linalg.norm(middle)
    return float(median(flat @ middle / np.maximum(norms, np.finfo(np.float64).tiny)))
