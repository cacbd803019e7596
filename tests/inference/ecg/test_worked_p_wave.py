"""The P wave: each window and limit from both sides, counted in samples of 2 ms, and the likeness of P waves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from data_specs.ecg.filters import Signal
from inference.ecg.p_wave import (
    _agreed,
    _calmest,
    _earliest,
    _high_from,
    _over_surroundings,
    _p_first,
    _p_offset,
    _p_peak,
    _steep_from,
    _without_neighbours,
    consistency,
    p_wave,
)
from inference.ecg.velocity import Wave

N = 650
FIRST, ONSET = 100, 240
"""Start of the search and onset of the QRS."""


def tents(heights: Mapping[int, float]) -> Signal:
    """Zero but for triangles of these heights about these samples, which rise and fall in ten samples each."""
    return sum((h * np.maximum(0, 1 - np.abs(np.arange(N) - at) / 10) for at, h in heights.items()), np.zeros(N))


def steps(values: Mapping[int, float]) -> Signal:
    """A curve that takes each value from its sample on."""
    curve = np.zeros(N)
    for start, value in values.items():
        curve[start:] = value
    return curve


def changed(curve: Signal, values: Mapping[int | range, float]) -> Signal:
    curve = curve.copy()
    for at, value in values.items():
        curve[list(at) if isinstance(at, range) else at] = value
    return curve


@pytest.mark.parametrize(
    ("onset", "previous_t", "first"),
    [(240, -50, 30), (240, 100, 100), (200, -50, 12)],
    ids=["420 ms before the QRS", "after the last T", "24 ms after the start"],
)
def test_where_the_search_begins(onset: int, previous_t: int, first: int) -> None:
    assert _p_first(onset, previous_t) == first


def test_no_p_wave_is_searched_in_less_than_sixty_ms() -> None:
    leads = tents({ONSET - 20: 0.2})[None]
    assert p_wave(leads, ONSET, ONSET - 30).peak == ONSET - 20
    assert p_wave(leads, ONSET, ONSET - 29) == Wave()


def test_a_flat_lead_has_no_p_wave() -> None:
    assert p_wave(np.zeros((2, N)), ONSET, FIRST) == Wave()


def test_qrs_and_t_are_replaced_by_what_stands_next_to_them() -> None:
    """By the mean of the first four samples after T, and of the last six before the QRS, lead by lead."""
    leads = np.zeros((2, N))
    leads[:, ONSET:], leads[:, :FIRST] = 50.0, 50.0
    leads[0, ONSET - 7], leads[0, ONSET - 6] = 100.0, 6.0
    leads[1, FIRST + 3], leads[1, FIRST + 4] = 8.0, 100.0
    given = leads.copy()
    curve = _without_neighbours(leads, FIRST, ONSET)
    assert curve[:, ONSET + 8 :] == pytest.approx(np.tile([[1.0], [0.0]], N - ONSET - 8))
    assert curve[:, : FIRST - 8] == pytest.approx(np.tile([[0.0], [2.0]], FIRST - 8))
    assert (leads == given).all()


def test_height_is_that_over_the_mean_of_162_ms() -> None:
    impulse = np.zeros((1, N))
    impulse[0, 200] = 81.0
    expected = steps({160: 1, 241: 0})
    expected[200] = 80
    assert _over_surroundings(impulse) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("heights", "peak"),
    [
        ({160: 0.1}, 160),
        ({FIRST + 1: 0.1}, FIRST + 1),
        ({FIRST: 0.1}, None),
        ({ONSET - 14: 0.1}, ONSET - 14),  # a peak has a sample behind it; the search ends 24 ms before the QRS
        ({ONSET - 13: 0.1}, None),
        ({160: 0.003}, 160),
        ({160: 0.0029}, None),
        ({}, None),
        ({140: 0.2, 200: 0.1}, 200),  # the last that is half as prominent as the most prominent
        ({140: 0.2, 200: 0.0999}, 140),
        ({140: 0.1, 200: 0.2}, 200),
    ],
    ids=str,
)
def test_peak(heights: dict[int, float], peak: int | None) -> None:
    assert _p_peak(tents(heights), FIRST, ONSET) == peak


RISE = steps({0: 2.0, 150: 2.5, 160: 4.0, 180: 11.0, 181: 8.0, 202: 1.0})
"""Velocity of a P wave with its peak at 200 over a rest of 1: 2.5 and 4 are 15 and 30 % of the way to 11."""


@pytest.mark.parametrize(
    ("values", "first", "onsets"),
    [
        ({}, FIRST, [149, 159]),
        ({range(165, 172): 1.0}, FIRST, [149, 159]),
        ({range(165, 173): 1.0}, FIRST, [172, 172]),  # it rests for 16 ms
        ({164: 21.0}, FIRST, [149, 159]),
        ({165: 21.0}, FIRST, [159, 164]),  # 70 ms before the peak: 15 and 30 % of 21 are 4 and 7
        ({200: 21.0}, FIRST, [159, 179]),
        ({201: 21.0}, FIRST, [149, 159]),
        ({}, 142, [149, 159]),
        ({}, 143, [None, 159]),
        ({166: 21.0, range(170, 178): 1.0}, 167, [177, 177]),
    ],
    ids=str,
)
def test_onset_by_the_slope(values: dict[int | range, float], first: int, onsets: list[int | None]) -> None:
    assert _steep_from(changed(RISE, values), 1.0, first, 200) == onsets


@pytest.mark.parametrize(
    ("lowest", "first", "calm"),
    [(200, FIRST, 200), (215, FIRST, 209), (140, FIRST, 155), (140, 170, 170), (240, 215, 215)],
    ids=["between", "40 ms before the peak", "150 ms before it", "not before the search", "one sample at least"],
)
def test_the_calmest_place_before_a_peak_at_230(lowest: int, first: int, calm: int) -> None:
    assert _calmest(np.abs(np.arange(N) - lowest).astype(float), first, 230) == calm


def test_calm_is_what_is_calm_for_eighteen_ms() -> None:
    """Stretches of 16, 18 and 20 ms, the shorter the calmer."""
    velocity = changed(np.full(N, 20.0), {range(160, 168): 9.0, range(176, 185): 10.0, range(194, 204): 10.5})
    assert _calmest(velocity, FIRST, 230) == 180


TRIANGLE = np.maximum(0, 20 - np.abs(np.arange(N) - 180)).astype(float)
"""Rises by one a sample from 160 to its peak of 20 at 180; 15 % of it are 3."""


@pytest.mark.parametrize(
    ("values", "calm", "onset"),
    [
        ({}, 135, 163),
        ({170: 0.0}, 135, 171),  # the last place that is low
        ({172: 40.0}, 135, 166),  # of the highest within 16 ms of the peak: 15 % of 40 are 6
        ({171: 40.0}, 135, 163),
        ({188: 40.0}, 135, 166),
        ({189: 40.0}, 135, 163),
        ({185: 200.0}, 135, 180),  # not after the peak
        ({ONSET - 5: 10.0}, 135, 166),  # the line rises to 10, 10 ms before the QRS: 15 % of 15.5 at the peak
        ({ONSET - 4: 10.0}, 135, 163),
        ({range(0, 175): 0.0, range(175, 176): 2.0}, 175, 176),  # the calm place is near the peak
        ({range(0, N): 0.0}, 135, None),
    ],
    ids=str,
)
def test_onset_by_the_height(values: dict[int | range, float], calm: int, onset: int | None) -> None:
    assert _high_from(changed(TRIANGLE, values)[None], calm, 180, ONSET) == onset


@pytest.mark.parametrize(("previous_t", "first"), [(FIRST, FIRST + 12), (50, 90)], ids=["24 ms after T", "120 ms rise"])
def test_earliest_onset_of_a_wave_with_its_peak_at_150(previous_t: int, first: int) -> None:
    assert _earliest(previous_t, 150) == first


@pytest.mark.parametrize(
    ("places", "earliest", "onset"),
    [
        ([100, 108, None], 0, 100),  # 16 ms apart
        ([100, 109, None], 0, None),
        ([100, None, None], 0, None),
        ([None, None, None], 0, None),
        ([130, 107, 100], 0, 100),
        ([100, 108, 113], 0, 108),
        ([100, 105, 110], 100, 100),
        ([100, 105, 110], 101, 105),
    ],
)
def test_two_of_three_ways_agree(places: list[int | None], earliest: int, onset: int | None) -> None:
    assert _agreed(places, earliest) == onset


FALL = steps({0: 1.0, 180: 8.0, 200: 11.0, 201: 2.5, 210: 2.4})
"""Velocity after a peak at 180 over a rest of 1: 2.5 is 15 % of the way to 11."""


@pytest.mark.parametrize(
    ("values", "onset", "offset"),
    [
        ({}, ONSET, 210),
        ({range(203, 206): 1.0}, ONSET, 210),
        ({range(203, 207): 1.0}, ONSET, 203),  # it rests for 8 ms
        ({214: 21.0}, ONSET, 215),
        ({215: 21.0}, ONSET, 210),  # 70 ms after the peak
        ({range(201, N): 9.0}, ONSET, ONSET),  # it does not rest
        ({}, 205, 205),
    ],
    ids=str,
)
def test_offset(values: dict[int | range, float], onset: int, offset: int) -> None:
    assert _p_offset(changed(FALL, values), 1.0, 180, onset) == offset


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


@pytest.mark.parametrize(("at", "counts"), [(59, False), (60, True), (100, True), (101, False)])
def test_consistency_is_that_between_the_boundaries(at: int, counts: bool) -> None:
    wave = np.zeros(200)
    wave[60:101] = np.hanning(41)
    found = consistency(np.stack([changed(wave, {at: by}) for by in (-5, 0, 5)])[:, None], 60, 100)
    assert (found < 0.99) == counts


def test_without_both_boundaries_there_is_no_consistency() -> None:
    assert consistency(np.ones((2, 1, 200)), None, 100) == 0
    assert consistency(np.ones((2, 1, 200)), 60, None) == 0
