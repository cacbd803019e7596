"""The P wave: each window and limit from both sides, counted in samples, and the likeness of P waves."""

from __future__ import annotations

import numpy as np
import pytest

from inference.ecg.p_wave import consistency


def test_p_waves_are_alike_by_their_shape_alone() -> None:
    """Neither height nor baseline nor a drift counts; one in three the other way round leaves the median at 1."""
    wave = np.zeros(200)
    wave[60:101] = np.hanning(41)
    drift = np.linspace(-1, 1, 200)
    alike = [wave, 2 * wave + 0.5, wave + 0.3 * drift]
    assert consistency(np.stack(alike)[:, None], 60, 100) == pytest.approx(1)
    assert consistency(np.stack([wave, wave, -wave])[:, None], 60, 100) == pytest.approx(1)
    assert consistency(np.stack([wave, -wave, -wave, -wave])[:, None], 60, 100) == pytest.approx(1)


def test_a_p_wave_in_half_of_the_beats_is_not_consistent() -> None:
    wave = np.zeros(200)
    wave[60:101] = np.hanning(41)
    assert consistency(np.stack([wave, wave, -wave, -wave])[:, None], 60, 100) == pytest.approx(0, abs=1e-6)
