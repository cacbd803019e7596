"""What is narrow, what stands alone, what is orderly and what a spike hides: every limit from both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from data_specs.ecg.recording import LEADS, Recording
from inference.ecg.pacing import _orderly, find_spikes, gaps, without_spikes
from tests.inference.ecg.synthesis import ecg

EVERY_SECOND = np.arange(500, 10_000, 1000)
"""Samples at 1000/s."""

IRREGULAR_S = np.array([0.9, 1.65, 2.75, 3.4, 4.8, 5.65, 6.85, 8.15, 9.1])
"""Beats without two intervals alike."""


def pulses(
    *of: tuple[int, int, float], fs_hz: float = 1000.0, lead: str | None = None, background: float = 0.0
) -> Recording:
    """Flat but for pulses once a second; each starts at a sample, lasts some samples and adds a height in mV."""
    samples = np.zeros((12, round(10 * fs_hz)), np.float32)
    samples[:, 1::2] = background
    leads = slice(None) if lead is None else LEADS.index(lead)
    for second in range(10):
        for start, n_samples, height_mv in of:
            first = round((second + 0.5) * fs_hz) + start
            samples[leads, first : first + n_samples] += height_mv
    return Recording(samples, fs_hz, "made")


@pytest.mark.parametrize(("fs_hz", "n_found"), [(249.9, 0), (250.0, 10)])
def test_250_samples_a_second_are_searched(fs_hz: float, n_found: int) -> None:
    assert len(find_spikes(pulses((0, 1, 1.0), fs_hz=fs_hz))) == n_found


@pytest.mark.parametrize(
    ("fs_hz", "n_samples", "n_found"), [(1000.0, 8, 10), (1000.0, 9, 0), (500.0, 4, 10), (500.0, 5, 0), (250.0, 3, 0)]
)
def test_what_lasts_up_to_8_ms_is_narrow(fs_hz: float, n_samples: int, n_found: int) -> None:
    shape = [(start, 1, height) for start, height in enumerate(np.linspace(1, 1.1, n_samples))]  # one is the highest
    assert len(find_spikes(pulses(*shape, fs_hz=fs_hz))) == n_found


@pytest.mark.parametrize(("n_samples", "n_found"), [(24, 0), (25, 10)])
def test_what_stands_on_a_wave_of_up_to_24_ms_is_its_tip(n_samples: int, n_found: int) -> None:
    assert len(find_spikes(pulses((-12, n_samples, 1.0), (0, 1, 1.0)))) == n_found


@pytest.mark.parametrize(("tip_mv", "n_found"), [(16.9, 0), (17.0, 10)])
def test_a_spike_has_85_percent_of_the_height_over_24_ms(tip_mv: float, n_found: int) -> None:
    assert len(find_spikes(pulses((-10, 20, 20 - tip_mv), (0, 1, tip_mv)))) == n_found


@pytest.mark.parametrize(("height_mv", "n_found"), [(0.0399, 0), (0.0401, 10), (-0.0399, 0), (-0.0401, 10)])
def test_a_spike_has_40_microvolts_up_or_down(height_mv: float, n_found: int) -> None:
    assert find_spikes(pulses((0, 1, height_mv))) == tuple(EVERY_SECOND[:n_found] / 1000)


@pytest.mark.parametrize(
    ("lead", "height_mv", "n_found"), [("V3", 0.112, 0), ("V3", 0.115, 10), ("II", 0.115, 10), ("aVF", 9.0, 0)]
)
def test_its_height_is_the_root_mean_square_of_the_eight_leads(lead: str, height_mv: float, n_found: int) -> None:
    """0.04 mV times the square root of 8 are 0.113 mV."""
    assert len(find_spikes(pulses((0, 1, height_mv), lead=lead))) == n_found


@pytest.mark.parametrize(("height_mv", "n_found"), [(0.62, 0), (0.625, 10)])
def test_a_spike_has_ten_times_the_height_of_the_noise(height_mv: float, n_found: int) -> None:
    assert len(find_spikes(pulses((0, 1, height_mv), background=0.0625))) == n_found


@pytest.mark.parametrize("first_mv", [0.9, 1.1])
@pytest.mark.parametrize("apart", [20, 21])
def test_of_two_within_20_ms_the_higher_is_the_spike(apart: int, first_mv: float) -> None:
    spikes_s = find_spikes(pulses((0, 1, first_mv), (apart, 1, 1.0)))
    both = EVERY_SECOND, EVERY_SECOND + apart
    expected = np.sort(np.concatenate(both)) if apart > 20 else both[first_mv < 1.0]
    assert spikes_s == tuple(expected / 1000)


@pytest.mark.parametrize(("n_spikes", "n_found"), [(2, 0), (3, 3)])
def test_three_spikes_before_beats_are_a_pacemaker(n_spikes: int, n_found: int) -> None:
    heart = ecg(rr_s=np.diff([0.4, *IRREGULAR_S]), fs_hz=1000.0, noise_mv=0.0, qrs_ms=160.0)
    at = np.round(1000 * IRREGULAR_S[2 : 2 + n_spikes]).astype(int) - 40
    heart.samples[:, at] += 2.0
    assert find_spikes(heart) == tuple(at[:n_found] / 1000)


def orderly(at_s: Sequence[float], beats_s: Sequence[float] = ()) -> list[bool]:
    return _orderly(np.sort(at_s), np.asarray(beats_s, dtype=float)).tolist()


@pytest.mark.parametrize("before_s", [0.3, 0.04, -0.015])
def test_one_place_of_the_beat_is_orderly_also_a_little_behind_its_mark(before_s: float) -> None:
    assert orderly(IRREGULAR_S - before_s, IRREGULAR_S) == [True] * 9


@pytest.mark.parametrize(("further_s", "found"), [(0.0059, True), (0.0061, False)])
def test_one_place_is_within_6_ms(further_s: float, found: bool) -> None:
    assert orderly(IRREGULAR_S[:3] - [0.2, 0.2, 0.2 + further_s], IRREGULAR_S) == [found] * 3


def test_one_place_is_within_6_ms_of_one_of_its_spikes() -> None:
    assert orderly([-0.006, 1.7, 2.8], [0.0, 1.7, 2.8]) == [True] * 3  # 6 ms to the last bit
    assert orderly(IRREGULAR_S[:4] - [0.2, 0.205, 0.205, 0.21], IRREGULAR_S) == [True] * 4
    assert orderly(IRREGULAR_S[:5] - [0.2, 0.205, 0.205, 0.21, 0.2], IRREGULAR_S) == [True] * 5


def test_two_places_of_the_beat_are_those_of_the_chambers_and_a_third_is_none() -> None:
    places = [IRREGULAR_S[i * 3 : i * 3 + 3] - before for i, before in enumerate((0.3, 0.2, 0.1))]
    assert sum(orderly(np.concatenate(places), IRREGULAR_S)) == 6
    assert orderly(np.concatenate(places[:2]), IRREGULAR_S) == [True] * 6


@pytest.mark.parametrize(("n_others", "n_found"), [(2, 3), (3, 0)])
def test_six_in_ten_of_the_narrow_places_are_orderly(n_others: int, n_found: int) -> None:
    others = IRREGULAR_S[3 : 3 + n_others] - np.array([0.1, 0.2, 0.3])[:n_others]
    assert orderly([*(IRREGULAR_S[:3] - 0.04), *others], IRREGULAR_S) == [True] * n_found + [False] * (
        3 + n_others - n_found
    )


def test_what_no_beat_follows_has_no_place() -> None:
    assert orderly([0.86, 1.61, 2.71, 9.3, 9.5], IRREGULAR_S) == [True] * 3 + [False] * 2


@pytest.mark.parametrize(("intervals_s", "found"), [([1, 1, 1], True), ([1, 1, 1.0099], True), ([1, 1, 1.0101], False)])
def test_three_intervals_within_10_ms_are_orderly(intervals_s: list[float], found: bool) -> None:
    assert orderly(np.cumsum([0.5, *intervals_s])) == [found] * 4


def test_an_interval_makes_both_of_its_ends_orderly() -> None:
    assert orderly(np.cumsum([0.5, 1, 1, 1, 0.6])) == [True] * 4 + [False]
    assert orderly(np.cumsum([0.5, 0.6, 1, 1, 1])) == [False] + [True] * 4


@pytest.mark.parametrize(
    ("at_s", "fs_hz", "gap"),
    [(0.5, 1000.0, (494, 510)), (0.5, 500.0, (247, 255)), (0.5, 250.0, (123, 128)), (0.002, 1000.0, (0, 12))],
)
def test_a_gap_goes_from_6_ms_before_to_10_ms_after_its_spike(at_s: float, fs_hz: float, gap: tuple[int, int]) -> None:
    assert gaps([at_s], fs_hz) == [gap]
    made = ecg(fs_hz=fs_hz, seconds=1.0)
    missing = np.isnan(without_spikes(made, [at_s]).samples)
    assert (missing.all(axis=0) == missing.any(axis=0)).all()
    assert np.flatnonzero(missing[0]).tolist() == list(range(gap[0], gap[1] + 1))
    assert not np.isnan(made.samples).any()
