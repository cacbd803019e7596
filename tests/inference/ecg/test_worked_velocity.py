"""The curve on which boundaries of waves are found, and where it rests."""

from __future__ import annotations

import numpy as np
import pytest

from inference.ecg.velocity import Wave, first_rest, flat_below, last_rest, rest_of, smooth_wave, spatial_velocity


def test_velocity_is_the_root_mean_square_of_the_slopes_in_mv_per_s() -> None:
    """Leads that rise by 3 and fall by 4 mV/s: the root of (9 + 16) / 2. The slope is taken over 8 ms, centred."""
    t = np.arange(20) / 500
    assert spatial_velocity(np.stack([3 * t, -4 * t]))[2:-2] == pytest.approx(np.sqrt(12.5))
    assert spatial_velocity(np.stack([3 * t, -4 * t]))[[0, 1, -2, -1]].tolist() == [0, 0, 0, 0]
    step = np.zeros((1, 20))
    step[:, 10:] = 0.8
    assert np.flatnonzero(spatial_velocity(step)).tolist() == [8, 9, 10, 11]  # within two samples of the step
    assert spatial_velocity(step)[8:12] == pytest.approx(0.8 / 0.008)


def test_waves_are_smoothed_over_eighteen_ms_twice() -> None:
    impulse = np.zeros((1, 30))
    impulse[0, 15] = 81.0
    assert smooth_wave(impulse)[0] == pytest.approx([*[0] * 7, *range(1, 10), *range(8, 0, -1), *[0] * 6])


def test_rest_is_the_tenth_percentile() -> None:
    assert rest_of(np.arange(100.0, -1, -1)) == 10
    assert rest_of(np.arange(100.0, -1, -1), 15) == 15


def test_a_wave_is_flat_below_a_share_of_the_way_from_rest_to_its_steepest_slope() -> None:
    assert flat_below(1.0, 0.25, 9.0) == 3


def test_rest_is_the_first_sample_of_a_whole_stretch_below_the_threshold() -> None:
    velocity = np.array([0, 0, 0, 9, 9, 0, 0, 9, 1, 0, 0, 9, 0], dtype=float)
    assert first_rest(velocity, 3, 1.0, hold=2) == 5
    assert first_rest(velocity, 3, 1.1, hold=3) == 8
    assert first_rest(velocity, 3, 1.0, hold=3) is None  # at the threshold is not below it
    assert last_rest(velocity, 7, 1.0, hold=2) == 6
    assert last_rest(velocity, 5, 1.0, hold=2) == 2  # the sample after the start does not count
    assert last_rest(velocity, 7, 1.0, hold=3) == 2
    assert last_rest(velocity, 2, 1.0, hold=3) == 2
    assert last_rest(velocity, 7, 1.0, hold=4) is None


def test_a_wave_that_is_not_found_has_no_height() -> None:
    assert Wave().amplitude_mv == 0
