"""Boundaries of waves: the limits of a QRS, the curve on which boundaries are found, and where it rests."""

from __future__ import annotations

import numpy as np
import pytest

from inference.ecg.delineate import Marks, _consistency, _first_rest, _last_rest, _velocity


@pytest.mark.parametrize(("samples", "qrs_ms"), [(24, None), (25, 50), (46, 92), (120, 240), (121, None)])
def test_limits_of_the_qrs(samples: int, qrs_ms: float | None) -> None:
    assert Marks(240, 240 + samples, 0.01).qrs_ms == qrs_ms


@pytest.mark.parametrize(("restlessness", "qrs_ms"), [(0.06, 100), (0.0601, None)])
def test_a_signal_that_does_not_rest_has_no_qrs_duration(restlessness: float, qrs_ms: float | None) -> None:
    assert Marks(240, 290, restlessness).qrs_ms == qrs_ms


@pytest.mark.parametrize(("onset", "offset"), [(None, 290), (240, None), (None, None)])
def test_a_qrs_with_one_boundary_has_no_duration(onset: int | None, offset: int | None) -> None:
    assert Marks(onset, offset, 0.01).qrs_ms is None


def test_what_is_not_found_is_absent() -> None:
    none = Marks(240, 290, 0.01)
    assert (none.p_onset, none.p_peak, none.p_offset, none.t_peak, none.t_offset) == (None,) * 5
    assert (none.p_amplitude_mv, none.p_consistency, none.t_amplitude_mv, none.qrs_onset_hidden) == (0, 0, 0, False)


def test_velocity_is_the_root_mean_square_of_the_slopes_in_mv_per_s() -> None:
    """Leads that rise by 3 and fall by 4 mV/s: the root of (9 + 16) / 2. The slope is taken over 8 ms, centred."""
    t = np.arange(20) / 500
    assert _velocity(np.stack([3 * t, -4 * t]))[2:-2] == pytest.approx(np.sqrt(12.5))
    assert _velocity(np.stack([3 * t, -4 * t]))[[0, 1, -2, -1]].tolist() == [0, 0, 0, 0]
    step = np.zeros((1, 20))
    step[:, 10:] = 0.8
    assert np.flatnonzero(_velocity(step)).tolist() == [8, 9, 10, 11]  # within two samples of the step
    assert _velocity(step)[8:12] == pytest.approx(0.8 / 0.008)


def test_rest_is_the_first_sample_of_a_whole_stretch_below_the_threshold() -> None:
    velocity = np.array([0, 0, 0, 9, 9, 0, 0, 9, 1, 0, 0, 9, 0], dtype=float)
    assert _first_rest(velocity, 3, 1.0, hold=2) == 5
    assert _first_rest(velocity, 3, 1.1, hold=3) == 8
    assert _first_rest(velocity, 3, 1.0, hold=3) is None  # at the threshold is not below it
    assert _last_rest(velocity, 7, 1.0, hold=2) == 6
    assert _last_rest(velocity, 7, 1.0, hold=3) == 2
    assert _last_rest(velocity, 2, 1.0, hold=3) == 2
    assert _last_rest(velocity, 7, 1.0, hold=4) is None


def test_p_waves_are_alike_by_their_shape_alone() -> None:
    """Neither height nor baseline nor a drift counts; one in three the other way round leaves the median at 1."""
    wave = np.zeros(200)
    wave[60:101] = np.hanning(41)
    drift = np.linspace(-1, 1, 200)
    alike = [wave, 2 * wave + 0.5, wave + 0.3 * drift]
    assert _consistency(np.stack(alike)[:, None], 60, 100) == pytest.approx(1)
    assert _consistency(np.stack([wave, wave, -wave])[:, None], 60, 100) == pytest.approx(1)
    assert _consistency(np.stack([wave, -wave, -wave, -wave])[:, None], 60, 100) == pytest.approx(1)


def test_a_p_wave_in_half_of_the_beats_is_not_consistent() -> None:
    wave = np.zeros(200)
    wave[60:101] = np.hanning(41)
    assert _consistency(np.stack([wave, wave, -wave, -wave])[:, None], 60, 100) == pytest.approx(0, abs=1e-6)
