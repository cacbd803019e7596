"""Arithmetic on leads that conforming, measuring and gating share: gaps, filters, resampling, order statistics.

Every posted recording comes through here, so what is the same for all of them (coefficients, steady states, taps) is
computed once, and the order statistics take the way through numpy that is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import signal

Signal = NDArray[np.float64]


def fill_gaps(samples: NDArray[np.float32]) -> Signal:
    """Bridge NaN samples of each lead linearly; a lead with no value at all becomes zero."""
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
    ratio = _ratio(from_hz, to_hz)
    if ratio == 1:
        return samples
    if ratio.numerator == 1:
        return _decimate(samples, ratio.denominator)
    return np.asarray(signal.resample_poly(samples, ratio.numerator, ratio.denominator, axis=-1, padtype="line"))


@lru_cache(maxsize=64)
def _ratio(from_hz: float, to_hz: float) -> Fraction:
    return Fraction(to_hz / from_hz).limit_denominator(500)


def _decimate(samples: Signal, down: int) -> Signal:
    """What ``resample_poly(samples, 1, down, padtype="line")`` computes, as one product for every 20 values."""
    taps = _decimation(down)
    n_samples, half = samples.shape[1], 10 * down
    n_values = -(-n_samples // down)
    n_products = -(-n_values // _VALUES)
    slope = (samples[:, -1:] - samples[:, :1]) / (n_samples - 1)
    n_after = n_products * _VALUES * down + half - n_samples  # the line from first to last sample goes on at the ends
    before, after = slope * np.arange(-half, 0), slope * np.arange(1, n_after + 1)
    extended = np.concatenate([samples[:, :1] + before, samples, samples[:, -1:] + after], axis=1)
    reach = sliding_window_view(extended, len(taps), axis=1)[:, :: _VALUES * down]
    values = [np.ascontiguousarray(lead) @ taps for lead in reach]  # by lead: the reaches of an hour of all are 340 MB
    return np.stack(values).reshape(len(samples), -1)[:, :n_values]


_VALUES = 20


@cache
def _decimation(down: int) -> Signal:
    """``(samples in reach, 20)``: the low-pass that ``resample_poly`` designs, moved on by ``down`` in each column."""
    low_pass = signal.firwin(20 * down + 1, 1.0 / down, window=("kaiser", 5.0))
    taps = np.zeros(((_VALUES - 1) * down + len(low_pass), _VALUES))
    for value in range(_VALUES):
        taps[value * down : value * down + len(low_pass), value] = low_pass
    return taps


# ---------------------------------------------------------------- filter forward and backward

_BLOCK, _ROWS = 64, 16
"""Samples that are filtered as one row of a matrix, and rows of one matrix product: few enough multiplications that
OpenBLAS does not start threads of its own, which take four times the processor time here."""


@dataclass(frozen=True, slots=True)
class _Filter:
    """A recursive filter over a block of samples at once, forward and then backward.

    A block's output is linear in its samples and in the filter's states (two per section) on entering the block from
    the left, forward, and from the right, backward. ``m`` is the number of states.

    Parameters
    ----------
    of_samples
        ``(block, block)``: from samples to output.
    gained
        ``(block, 2 m)``: from samples to states on leaving, forward to the right and backward to the left.
    of_states
        ``(2 m, block)``: from the states on entering, forward and backward, to output.
    turned
        ``(m, m)``: from states on entering, forward, to those on leaving to the left, backward.
    onward
        ``(m, m)``: from states on entering to those on leaving, where the samples are zero.
    last_of_samples, last_of_states
        ``(block,)``, ``(m,)``: to the last sample of the forward output.
    steady
        ``(m,)``: states after an endless row of ones.
    edge
        Samples of odd extension at an end.
    """

    of_samples: Signal
    gained: Signal
    of_states: Signal
    turned: Signal
    onward: Signal
    last_of_samples: Signal
    last_of_states: Signal
    steady: Signal
    edge: int


def zero_phase(samples: Signal, order: int, band_hz: float | tuple[float, float], fs_hz: float) -> Signal:
    """Butterworth filter forward and backward along the last axis: a high-pass from one frequency, a band-pass of two.

    What :func:`scipy.signal.sosfiltfilt` computes, with its odd extension at the ends, to 1e-10 and in half the time:
    most of the work is a product of matrices.

    Parameters
    ----------
    samples
        ``(n_leads, n_samples) float64``, of more samples than the extension (27 for order 4).
    """
    filter_ = _butterworth(order, band_hz, fs_hz)
    edge = filter_.edge
    n_leads, n_samples = samples.shape
    first, last = samples[:, :1], samples[:, -1:]
    before, after = 2 * first - samples[:, edge:0:-1], 2 * last - samples[:, -2 : -edge - 2 : -1]
    # An endless row of the first value is what the steady state stands for, so more of them change nothing.
    more = np.repeat(before[:, :1], -(n_samples + 2 * edge) % (_BLOCK * _ROWS), axis=1)
    blocks = np.concatenate([more, before, samples, after], axis=1).reshape(n_leads, -1, _BLOCK)

    to_right, to_left = np.split(_product(blocks, filter_.gained), 2, axis=2)
    start = filter_.steady * before[:, :1]
    forward = _states(np.concatenate([start[:, None], to_right[:, :-1]], axis=1), filter_.onward)
    last = blocks[:, -1] @ filter_.last_of_samples + forward[:, -1] @ filter_.last_of_states
    start = filter_.steady * last[:, None]
    to_left = to_left + forward @ filter_.turned
    backward = _states(np.concatenate([start[:, None], to_left[:, :0:-1]], axis=1), filter_.onward)[:, ::-1]
    filtered = _product(blocks, filter_.of_samples)
    filtered += _product(np.concatenate([forward, backward], axis=2), filter_.of_states)
    return filtered.reshape(n_leads, -1)[:, more.shape[1] + edge : -edge]


def _product(blocks: Signal, matrix: Signal) -> Signal:
    """``blocks @ matrix`` in products of ``_ROWS`` rows."""
    rows = blocks.reshape(-1, _ROWS, blocks.shape[-1])
    return np.asarray((rows @ matrix).reshape(*blocks.shape[:-1], -1))


def _states(gained: Signal, onward: Signal) -> Signal:
    """States on entering each block, from what each block before it adds: ``s[k] = s[k - 1] @ onward + gained[k]``.

    By doubling: after each step the sum reaches twice as far back.
    """
    reach = 1
    while reach < gained.shape[1]:
        gained[:, reach:] += gained[:, :-reach] @ onward
        onward = onward @ onward
        reach *= 2
    return gained


@cache
def _butterworth(order: int, band_hz: float | tuple[float, float], fs_hz: float) -> _Filter:
    """The matrices, from scipy's own answers to single samples and to single states."""
    if isinstance(band_hz, tuple):
        sos = signal.butter(order, band_hz, btype="bandpass", fs=fs_hz, output="sos")
    else:
        sos = signal.butter(order, band_hz, btype="highpass", fs=fs_hz, output="sos")
    n_sections, m = len(sos), 2 * len(sos)
    nothing, each_state = np.zeros((n_sections, _BLOCK, 2)), np.eye(m).reshape(m, n_sections, 2).transpose(1, 0, 2)
    sample_out, sample_left = signal.sosfilt(sos, np.eye(_BLOCK), zi=nothing)
    state_out, state_left = signal.sosfilt(sos, np.zeros((m, _BLOCK)), zi=each_state)
    sample_state, onward = (left.transpose(1, 0, 2).reshape(-1, m) for left in (sample_left, state_left))
    back, back_state = sample_out[::-1, ::-1], sample_state[::-1]  # the same, of a block that is entered from the right
    return _Filter(
        of_samples=sample_out @ back,
        gained=np.hstack([sample_state, sample_out @ back_state]),
        of_states=np.vstack([state_out @ back, state_out[:, ::-1]]),
        turned=state_out @ back_state,
        onward=onward,
        last_of_samples=sample_out[:, -1],
        last_of_states=state_out[:, -1],
        steady=signal.sosfilt_zi(sos).reshape(m),
        edge=3 * (m + 1),
    )


# ---------------------------------------------------------------- order statistics


def median(samples: NDArray[np.floating] | NDArray[np.integer]) -> Signal:
    """:func:`numpy.median` over the last axis, of finite values: numpy selects one rank several times faster than the
    two or three at once that its own median asks for.
    """
    half = samples.shape[-1] // 2
    parted = np.partition(samples, half, axis=-1)
    upper = parted[..., half]
    return np.asarray(upper if samples.shape[-1] % 2 else (parted[..., :half].max(axis=-1) + upper) / 2)


def percentiles(samples: NDArray[np.floating], wanted: Sequence[float]) -> list[Signal]:
    """:func:`numpy.percentile` over the last axis, of finite values; for several ranks a whole sort is fastest."""
    ordered = np.sort(samples, axis=-1)
    found = []
    for percent in wanted:
        below, rest = divmod(percent / 100 * (samples.shape[-1] - 1), 1.0)
        low, high = ordered[..., int(below)], ordered[..., min(int(below) + 1, samples.shape[-1] - 1)]
        share = np.float64(rest)  # as numpy does, the result is double where the samples are single
        found.append(low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share))
    return found
