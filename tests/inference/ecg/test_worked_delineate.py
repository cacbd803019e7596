"""Boundaries of waves: the limits of a QRS, the curve on which boundaries are found, and where it rests."""

from __future__ import annotations

import pytest

from inference.ecg.delineate import Marks


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
