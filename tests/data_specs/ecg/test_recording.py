"""The form of a recording for the network, where it is shorter than the network's window."""

from __future__ import annotations

import numpy as np
import pytest

from data_specs.ecg.recording import Recording, conform, continued, format_seconds, window_starts
from tests.data_specs.ecg_made import FS, counts, millivolts


def short(seconds: float) -> Recording:
    return Recording(millivolts(counts(seconds=seconds)).astype(np.float32), FS, "made")


def peaks(lead: np.ndarray) -> np.ndarray:
    """Places of the beats, which are 0.8 s apart in the recordings that are made here."""
    high = lead > 0.6 * lead.max()
    return np.flatnonzero(high[1:] & ~high[:-1])


@pytest.mark.parametrize("seconds", [5.0, 5.5, 6.1, 7.3, 9.9])
def test_a_short_recording_goes_on_with_beats_in_step(seconds: float) -> None:
    (window,) = conform(short(seconds), fs_hz=100, n_samples=1000)
    assert window.shape == (12, 1000)
    rr = np.diff(peaks(window[1]))
    assert np.abs(rr - 80).max() <= 2
    assert not (window == 0).all(axis=0).any()


def test_what_was_recorded_stays_at_the_start_as_it_is() -> None:
    whole = np.random.default_rng(0).normal(size=(12, 700)).astype(np.float32)
    window = continued(whole, 1000, overlap=50)
    np.testing.assert_array_equal(window[:, :700], whole)
    for column in window[:, 700:].T:
        assert (column == whole.T).all(axis=1).any()  # nothing but what was recorded


def test_a_recording_hardly_longer_than_the_stretch_is_repeated() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.testing.assert_array_equal(continued(whole, 5, overlap=1), whole[:, [0, 1, 0, 1, 0]])


def test_the_network_sees_the_same_of_a_recording_and_of_its_first_half() -> None:
    """The mean power of a lead in the window is that of its beats, not less by what is missing."""
    (whole,), (half,) = (conform(short(seconds), fs_hz=100, n_samples=1000) for seconds in (10.0, 5.0))
    power = (half**2).mean(axis=1) / (whole**2).mean(axis=1)
    np.testing.assert_allclose(power, 1.0, atol=0.1)


def test_windows_start_within_the_recording() -> None:
    assert window_starts(500, 1000, 6) == [0]
    assert window_starts(1000, 1000, 6) == [0]
    assert window_starts(3000, 1000, 6) == [0, 1000, 2000]
    assert window_starts(90000, 1000, 2) == [0, 89000]


@pytest.mark.parametrize(("seconds", "shown"), [(4.999, "4.99 s"), (5.0, "5 s"), (7.3, "7.3 s"), (8.2, "8.2 s")])
def test_a_duration_is_cut_and_not_rounded(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown
