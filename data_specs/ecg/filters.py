"""Filters, resampling, gaps and order statistics of leads, for the network's input, the measurement and the gate.

Every posted recording needs them. Filter coefficients are therefore computed once, and the order statistics use the
fastest functions of numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]


def fill_gaps(samples: NDArray[np.float32]) -> Signal:
    """Interpolate NaN samples of each lead linearly; a lead without any value becomes zero."""
    filled = samples.astype(np.float64)
    gaps = np.isnan(filled)
    for i in np.flatnonzero(gaps.any(axis=1)):
        lead, gap = filled[i], gaps[i]
        lead[gap] = 0.0 if gap.all() else np.interp(np.flatnonzero(gap), np.flatnonzero(~gap), lead[~gap])
    return filled


def resample(samples: Signal, from_hz: float, to_hz: float) -> Signal:
    """Polyphase resampling along the last axis, by the nearest ratio of numbers up to 500 (an odd rate such as
    333.33 Hz would otherwise need a filter of a million taps; the error is under 0.1 % of the rate).
    """
    from scipy import signal  # noqa: PLC0415  half a second to load, needed for recordings only

    ratio = _ratio(from_hz, to_hz)
    if ratio == 1:
        return samples
    up, down = ratio.numerator, ratio.denominator
    taps = _low_pass(max(up, down))
    return np.asarray(signal.resample_poly(samples, up, down, axis=-1, padtype="line", window=taps))  # type: ignore[call-overload]  # the stubs have no taps


@lru_cache(maxsize=64)
def _ratio(from_hz: float, to_hz: float) -> Fraction:
    return Fraction(to_hz / from_hz).limit_denominator(500)


@lru_cache(maxsize=64)
def _low_pass(rate: int) -> Signal:
    """The filter that ``resample_poly`` would compute at every call."""
    from scipy import signal  # noqa: PLC0415

    return np.asarray(signal.firwin(20 * rate + 1, 1.0 / rate, window=("kaiser", 5.0)))


def zero_phase(samples: Signal, order: int, band_hz: float | tuple[float, float], fs_hz: float) -> Signal:
    """Butterworth filter forward and backward along the last axis: a high-pass from one frequency, a band-pass of two.

    Parameters
    ----------
    samples
        ``(n_leads, n_samples) float64``, of more samples than the odd extension at its ends (27 for order 4).
    """
    from scipy import signal  # noqa: PLC0415

    return np.asarray(signal.sosfiltfilt(_butterworth(order, band_hz, fs_hz), samples, axis=-1))


@cache
def _butterworth(order: int, band_hz: float | tuple[float, float], fs_hz: float) -> Signal:
    """Second-order sections; computing them takes as long as filtering ten seconds."""
    from scipy import signal  # noqa: PLC0415

    if isinstance(band_hz, tuple):
        return np.asarray(signal.butter(order, band_hz, btype="bandpass", fs=fs_hz, output="sos"))
    return np.asarray(signal.butter(order, band_hz, btype="highpass", fs=fs_hz, output="sos"))


def highest_around(samples: Signal, width: int) -> Signal:
    """The highest of ``width`` (odd) samples around each along the last axis, mirrored at the ends.

    As SciPy's ``maximum_filter1d``, three to six times as fast for the widths of waves: a window is two of half its
    width.
    """
    return _around(samples, width, np.maximum)


def lowest_around(samples: Signal, width: int) -> Signal:
    """As :func:`highest_around`, the lowest."""
    return _around(samples, width, np.minimum)


def _around(samples: Signal, width: int, of: np.ufunc) -> Signal:
    n, span = samples.shape[-1], 1
    ends = [(0, 0)] * (samples.ndim - 1) + [(width // 2, width // 2)]
    found = np.pad(samples, ends, mode="symmetric")
    while 2 * span <= width:
        found = of(found[..., :-span], found[..., span:])
        span *= 2
    return np.asarray(of(found[..., :n], found[..., width - span : width - span + n]))


def median(samples: NDArray[np.floating] | NDArray[np.integer]) -> Signal:
    """:func:`numpy.median` over the last axis, of finite values.

    Faster, because it selects one rank where numpy's own median selects two or three.
    """
    half = samples.shape[-1] // 2
    parted = np.partition(samples, half, axis=-1)
    upper = parted[..., half]
    return np.asarray(upper if samples.shape[-1] % 2 else (parted[..., :half].max(axis=-1) + upper) / 2)


def percentiles(samples: NDArray[np.floating], wanted: Sequence[float]) -> list[Signal]:
    """:func:`numpy.percentile` over the last axis, of finite values; sorting is fastest where there are several."""
    ordered = np.sort(samples, axis=-1)
    found = []
    for percent in wanted:
        below, rest = divmod(percent / 100 * (samples.shape[-1] - 1), 1.0)
        low, high = ordered[..., int(below)], ordered[..., min(int(below) + 1, samples.shape[-1] - 1)]
        share = np.float64(rest)  # as in numpy: a float64 result of float32 samples
        found.append(low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share))
    return found
