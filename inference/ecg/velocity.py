"""The curve on which boundaries of waves are found, and where it rests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_specs.ecg.filters import Signal, percentiles
from inference.ecg.beats import FS_HZ, smooth

LEAST = 30
"""Shortest stretch, in samples (60 ms), in which a P or a T wave is searched."""


@dataclass(frozen=True, slots=True)
class Wave:
    """A P or a T wave on the representative beat; without a peak there is none."""

    peak: int | None = None
    onset: int | None = None
    offset: int | None = None
    amplitude_mv: float = 0.0


def smooth_wave(leads: Signal) -> Signal:
    """Leads without what is shorter than a P or a T wave: twice the moving average of 18 ms."""
    return smooth(smooth(leads, 9), 9)


def rms(leads: Signal) -> Signal:
    """Root mean square over leads."""
    return np.asarray(np.sqrt((leads**2).mean(axis=0)))


def spatial_velocity(leads: Signal) -> Signal:
    """Spatial velocity, mV/s: root mean square over leads of the slope over 8 ms."""
    slope = np.zeros_like(leads)
    slope[:, 2:-2] = (leads[:, 4:] - leads[:, :-4]) * (FS_HZ / 4)
    return rms(slope)


def rest_of(velocity: Signal, percent: float = 10) -> float:
    """Velocity between waves: a low percentile of it."""
    (rest,) = percentiles(velocity, [percent])
    return float(rest)


def first_rest(velocity: Signal, start: int, threshold: float, hold: int) -> int | None:
    """First index from ``start`` on after which the velocity stays below ``threshold`` for ``hold`` samples."""
    below = velocity[start:] < threshold
    run = np.convolve(below, np.ones(hold), mode="valid") == hold
    return start + int(np.argmax(run)) if run.any() else None


def last_rest(velocity: Signal, start: int, threshold: float, hold: int) -> int | None:
    """As :func:`first_rest`, towards earlier samples."""
    mirrored = first_rest(velocity[::-1], len(velocity) - 1 - start, threshold, hold)
    return None if mirrored is None else len(velocity) - 1 - mirrored


def flat_below(rest: float, share: float, top: float) -> float:
    """Velocity below which a wave counts as flat: a share of the way from rest to its steepest slope."""
    return rest + share * (top - rest)
