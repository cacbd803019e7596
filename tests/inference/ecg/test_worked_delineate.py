"""Boundaries of waves: the limits of QRS and T, counted in samples of 2 ms, and what a pacing spike hides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.ecg.filters import Signal
from data_specs.ecg.recording import Recording
from inference.ecg.beats import AFTER, BEFORE, INDEPENDENT, Beats, RepresentativeBeat
from inference.ecg.delineate import (
    Marks,
    _above_pr,
    _end_of_t,
    _hidden,
    _qrs,
    _steepest,
    _t_boundaries,
    _t_window,
    delineate,
    examine,
)
from inference.ecg.velocity import Wave
from tests.inference.ecg.synthesis import P, Q, R, S, T, ecg, pulse
from tests.inference.ecg.test_pacing import ONSETS_S, with_spikes

N = BEFORE + AFTER
ONSET = 235
"""Of the QRS of analytic beats."""
NOTHING_HIDDEN = np.zeros(N, dtype=bool)


def curve(values: Mapping[int | tuple[int, int], float]) -> Signal:
    """Zero but for these samples and stretches, each from its first sample to the one before its last."""
    made = np.zeros(N)
    for at, value in values.items():
        made[slice(*at) if isinstance(at, tuple) else at] = value
    return made


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


# The QRS.


@pytest.mark.parametrize(
    ("values", "top"),
    [
        ({(215, 230): 10}, 10),  # from 70 ms before the beat
        ({(214, 229): 10}, 0),
        ({(280, 295): 10}, 10),  # to 90 ms after it
        ({(281, 296): 10}, 0),
        ({(240, 254): 10}, 0),  # for 28 ms only
        ({(240, 254): 10, 260: 100}, 16),  # what is held for 30 ms, times 1.6
        ({(240, 253): 10, 260: 100}, 0),
        ({(240, 255): 10, 260: 15}, 15),
    ],
    ids=str,
)
def test_the_steepest_slope_is_limited_by_what_is_held_for_thirty_ms(
    values: dict[int | tuple[int, int], float], top: float
) -> None:
    assert _steepest(curve(values))[1] == top


def test_the_steepest_place_is_steep_for_twenty_two_ms() -> None:
    """Stretches of 20, 22 and 24 ms, the shorter the steeper; a spike of 2 ms is cut."""
    made = curve({(216, 226): 10.5, (232, 243): 10, (250, 262): 9.5, 275: 200})
    assert _steepest(made) == (237, 16)


def test_restlessness_is_the_fifteenth_percentile_from_400_ms_before_to_500_ms_after_the_beat() -> None:
    """Of 0 to 449 it is 15 % of 449; the largest about the beat are 244 (at its end) and 230 (for 30 ms)."""
    made = np.zeros(N)
    made[50:500] = np.arange(450)
    assert _qrs(made)[2] == pytest.approx(0.15 * 449 / 244)


def test_a_flat_signal_has_no_restlessness() -> None:
    assert _qrs(np.zeros(N))[2] == 0


def test_a_signal_of_small_slopes_is_as_restless_as_one_of_large_slopes() -> None:
    made = np.full(N, 1e-6)
    made[235:265] = 1e-4
    assert _qrs(made)[2] == pytest.approx(0.01)


QRS = {(0, N): 1.0, (235, 265): 101.0}
"""A rest of 1 and 100 more from 235 on, to 265; it counts as steepest at 240. Flat is less than 6 before it and less
than 5.5 after it."""


@pytest.mark.parametrize(
    ("values", "onset", "offset"),
    [
        ({}, 234, 265),
        ({(225, 235): 6, (265, 275): 5.5}, 224, 275),
        ({(225, 235): 5.9, (265, 275): 5.4}, 234, 265),
        ({(220, 225): 7, (230, 235): 7, (265, 270): 7, (275, 280): 7}, 219, 280),  # 10 ms between are no rest
        ({(219, 224): 7, (230, 235): 7, (265, 270): 7, (276, 281): 7}, 229, 270),  # 12 ms are
        ({(101, 235): 101}, 100, 265),
        ({(100, 235): 101}, None, 265),  # more than 300 ms before the beat
        ({(0, 235): 7}, None, 265),
        ({(265, 345): 8, (345, N): 7}, 234, 265),  # an ST segment that is not flat: less than 1.25 * 8
        ({(265, 345): 8, (265, 270): 10, (345, N): 7}, 234, 270),
        ({(265, 345): 8, (345, N): 7, 269: 4}, 234, 265),
        ({(265, 345): 8, (345, N): 7, 270: 4}, 234, None),  # its calmest place, from 60 ms after the steepest one
        ({(265, 345): 8, (345, N): 7, 329: 4}, 234, None),  # to 180 ms
        ({(265, 345): 8, (345, N): 7, 330: 4}, 234, 265),
    ],
    ids=str,
)
def test_onset_and_offset_of_the_qrs(
    values: dict[int | tuple[int, int], float], onset: int | None, offset: int | None
) -> None:
    assert _qrs(curve({**QRS, **values}))[:2] == (onset, offset)


# The T wave.


@pytest.mark.parametrize(
    ("rr_s", "last"),
    [(1.0, 550), (0.36, 382), (4.0, 640)],
    ids=["620 ms times the root of RR after the onset of the QRS", "90 % of RR, less 40 ms", "20 ms before the end"],
)
def test_where_the_t_wave_is_searched(rr_s: float, last: int) -> None:
    assert _t_window(240, 290, rr_s) == (310, last)


@pytest.mark.parametrize(("at", "level"), [(231, 0), (232, 1), (238, 1), (239, 0)])
def test_height_is_that_over_the_last_fourteen_ms_before_the_qrs(at: int, level: float) -> None:
    """Not counting its last sample; one in seven samples of one in two leads is 7 mV."""
    height = _above_pr(np.stack([curve({at: 7, 300: 2}), curve({})]), 240)
    assert height[300] == pytest.approx((2 - level) / np.sqrt(2))


def tent(at: int, height: float = 0.2, rise: int = 10, fall: int = 10) -> Signal:
    away = np.arange(N) - at
    return height * np.maximum(0, 1 - np.where(away < 0, -away / rise, away / fall))


@pytest.mark.parametrize(
    ("height", "peak"),
    [
        (tent(301), 301),
        (tent(300), None),
        (tent(391), 391),  # it falls for 16 ms before the search ends at 400
        (tent(392), None),
        (tent(340, 0.01), 340),
        (tent(340, 0.0099), None),
        (tent(340, 0.2) + tent(365, 0.19), 340),
        (tent(340, 0.19) + tent(365, 0.2), 365),
        (tent(285, 0.3) + tent(340, 0.2), 340),
        (np.zeros(N), None),
    ],
)
def test_peak_of_the_t_wave(height: Signal, peak: int | None) -> None:
    found = _t_boundaries(height, np.zeros(N), 300, 400)
    assert (found.peak, found.amplitude_mv) == (peak, 0 if peak is None else height[peak])


@pytest.mark.parametrize(("last", "peak"), [(330, 310), (329, None)])
def test_no_t_wave_is_searched_in_less_than_sixty_ms(last: int, peak: int | None) -> None:
    assert _t_boundaries(tent(310), np.zeros(N), 300, last).peak == peak


FALL = {(0, N): 11.0, (50, 110): 1.0, (345, 346): 110.0, (346, 360): 25.5, (360, 380): 24.5}
"""Velocity with a rest of 10, nine tenths of the way from the smallest sixty of 600 values, 1, to the others, 11: one
more or one less of the smallest makes it 1 or 11. Flat is less than 25, 15 % of the way to 110."""


@pytest.mark.parametrize(
    ("values", "last", "offset"),
    [
        ({}, 400, 360),
        ({(49, 50): 1}, 400, 360),
        ({(350, 357): 11}, 400, 360),
        ({(350, 358): 11}, 400, 350),  # it rests for 16 ms
        ({}, 368, 360),
        ({}, 367, None),
    ],
    ids=str,
)
def test_offset_of_the_t_wave(values: dict[int | tuple[int, int], float], last: int, offset: int | None) -> None:
    """The wave has its peak at 330 and falls most steeply at 345."""
    height = np.interp(np.arange(N), [310, 330, 344, 346, 390], [0, 1, 0.8, 0.4, 0])
    assert _t_boundaries(height, curve({**FALL, **values}), 300, last).offset == offset


def test_p_waves_can_begin_where_t_ends() -> None:
    assert _end_of_t(Wave(400, offset=440), 290) == 440
    assert _end_of_t(Wave(400), 290) == 430  # 60 ms after its peak
    assert _end_of_t(Wave(), 290) == 340  # 100 ms after the QRS


# The beat as a whole.


def beat(
    *,
    rr_s: float = 1.0,
    pr_ms: float = 160,
    qt_ms: float = 380,
    p_mv: float = 0.15,
    t_mv: float = 0.3,
) -> RepresentativeBeat:
    """Raised cosines: P of 100 ms, a QRS of 92 ms from sample 235 on, T of 190 ms."""
    t = (np.arange(N) - ONSET) / 500
    pr, qt = pr_ms / 1000, qt_ms / 1000
    waves = p_mv * np.outer(P, pulse(t, -pr, 0.1 - pr))
    waves += 0.15 * np.outer(Q, pulse(t, 0, 0.0322))
    waves += 1.1 * np.outer(R, pulse(t, 0.0138, 0.069))
    waves += 0.7 * np.outer(S, pulse(t, 0.046, 0.092))
    waves += t_mv * np.outer(T, pulse(t, qt - 0.19, qt))
    samples = np.zeros((12, N))
    samples[list(INDEPENDENT)] = waves
    return RepresentativeBeat(samples, np.stack([waves] * 3), rr_s)


def hidden(*at: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(N), at)


def boundaries(marks: Marks) -> dict[str, int | None]:
    names = ("p_onset", "p_peak", "p_offset", "qrs_onset", "qrs_offset", "t_peak", "t_offset")
    return {name: getattr(marks, name) for name in names}


USUAL = {"p_onset": 154, "p_peak": 180, "p_offset": 206, "qrs_onset": 236, "qrs_offset": 283}
USUAL |= {"t_peak": 377, "t_offset": 424}
"""What is found on the usual beat. It was made with 155, 180, 205; 235, 281; 377.5 and 425: a raised cosine starts so
flatly, and is smoothed, that no place is wrong by more than 4 ms."""


@pytest.mark.parametrize(
    ("known", "differs"),
    [
        ({}, {}),
        ({"p_mv": 0.0}, {"p_onset": None, "p_peak": None, "p_offset": None}),
        ({"t_mv": 0.0}, {"t_peak": None, "t_offset": None}),
        ({"pr_ms": 300}, {"p_onset": 84, "p_peak": 110, "p_offset": 136}),
        ({"qt_ms": 440}, {"t_peak": 407, "t_offset": 454}),
        (
            {"rr_s": 0.5, "pr_ms": 140},
            {"p_onset": None, "p_peak": 191, "p_offset": 216},
        ),  # it begins before T has ended
    ],
    ids=str,
)
def test_boundaries_of_analytic_beats(known: dict[str, float], differs: dict[str, int | None]) -> None:
    found = delineate(beat(**known), NOTHING_HIDDEN)  # type: ignore[arg-type]
    assert boundaries(found) == {**USUAL, **differs}
    assert found.restlessness == pytest.approx(0, abs=1e-9)


def test_amplitudes_are_root_mean_squares_over_the_leads() -> None:
    """That of P over the mean of 162 ms, of which the wave is 100 with a mean of a half; smoothing takes 5 and 1 %."""
    found = delineate(beat(), NOTHING_HIDDEN)
    assert found.p_amplitude_mv == pytest.approx(0.15 * np.sqrt(np.mean(np.square(P))) * (0.95 - 50 / 162), rel=0.02)
    assert found.t_amplitude_mv == pytest.approx(0.30 * np.sqrt(np.mean(np.square(T))) * 0.99, rel=0.02)
    assert found.p_consistency == pytest.approx(1)


@pytest.mark.parametrize("lead", [0, 11])
def test_a_noisy_lead_is_left_out(lead: int) -> None:
    usual = beat()
    rng = np.random.default_rng(0)
    noisy = usual.samples + rng.normal(0, 0.001, (12, N))
    without = noisy.copy()
    noisy[lead] = rng.normal(0, 1.5, N)
    without[lead] = 0.0
    found, reference = (delineate(replace(usual, samples=made), NOTHING_HIDDEN) for made in (noisy, without))
    assert found == reference
    assert found.p_onset is not None


def straight(slopes: Mapping[tuple[int, int], float]) -> RepresentativeBeat:
    """The same lead eight times, of straight lines with these slopes in hundredths of a millivolt a sample."""
    samples = np.zeros((12, N))
    samples[list(INDEPENDENT)] = np.cumsum(curve(slopes)) / 100
    return RepresentativeBeat(samples, np.zeros((1, 8, N)), 1.0)


def test_a_beat_without_a_qrs_has_no_marks() -> None:
    assert delineate(straight({}), NOTHING_HIDDEN) == Marks(None, None, 0.0)


def test_a_qrs_without_an_onset_has_no_marks() -> None:
    found = delineate(straight({(0, 240): 0.5, (240, 265): 5, (265, 290): -5}), NOTHING_HIDDEN)
    assert (found.qrs_onset, found.qrs_offset, found.t_peak) == (None, None, None)


def test_a_qrs_is_smoothed_over_ten_ms() -> None:
    """It begins at 240 with 0.35 of its steepest slope. Moving average and slope see a twentieth of that at 236, which
    is flat, and three twentieths at 237: 5.25 % of the steepest."""
    found = delineate(straight({(240, 250): 1.75, (250, 270): 5, (270, 294): -5}), NOTHING_HIDDEN)
    assert found.qrs_onset == 236


# Pacing spikes.


@pytest.mark.parametrize(
    ("at", "onset"),
    [(103, 154), (104, None), (157, None), (158, 154)],
    ids=["102 ms before", "100 ms before", "6 ms after", "8 ms after"],
)
def test_a_spike_shortly_before_p_hides_its_onset(at: int, onset: int | None) -> None:
    found = delineate(beat(), hidden(at))
    assert boundaries(found) == {**USUAL, "p_onset": onset}
    assert found.p_consistency == pytest.approx(0 if onset is None else 1)


def test_a_spike_at_the_start_of_the_window_hides_an_early_p() -> None:
    early = beat(pr_ms=380, rr_s=1.2)
    assert delineate(early, NOTHING_HIDDEN).p_onset == 44
    assert delineate(early, hidden(0)).p_onset is None


@pytest.mark.parametrize(
    ("at", "onset", "is_hidden"),
    [(233, 236, False), (234, 236, True), (236, 236, True), (237, 237, True), (238, 236, False)],
)
def test_a_spike_at_the_start_of_the_qrs_hides_it(at: int, onset: int, is_hidden: bool) -> None:
    found = delineate(beat(), hidden(at))
    assert (found.qrs_onset, found.qrs_onset_hidden) == (onset, is_hidden)


def test_hidden_samples_count_as_at_rest() -> None:
    most = hidden(*range(200), *range(300, 500))
    assert delineate(beat(), most).restlessness == pytest.approx(0, abs=1e-9)


def beats(n: int, other: int = 0) -> Beats:
    """One each second from the first on, of which the last ``other`` are of another shape."""
    dominant = np.arange(n) < n - other
    return Beats(500 * np.arange(1, n + 1), dominant, dominant.astype(float), 10.0, np.zeros((12, 500 * n + 500)))


def test_the_gap_of_a_spike_and_eight_ms_on_both_sides_are_hidden() -> None:
    """The gap goes from 6 ms before the spike to 10 ms after it, in whole samples: 497 to 506, the beat at 500."""
    assert np.flatnonzero(_hidden(beats(1), [1.001])).tolist() == list(range(243, 261))
    assert not _hidden(beats(1), []).any()


def test_a_gap_at_the_start_of_a_recording_is_hidden() -> None:
    early = replace(beats(1), at=np.array([BEFORE]))
    assert np.flatnonzero(_hidden(early, [0.001])).tolist() == list(range(11))


@pytest.mark.parametrize(("n", "spikes", "is_hidden"), [(20, 10, False), (21, 11, True), (21, 10, False)])
def test_what_is_in_the_gap_in_more_than_half_of_the_beats_is_hidden(n: int, spikes: int, is_hidden: bool) -> None:
    made = beats(n + 5, other=5)
    assert _hidden(made, made.at[:spikes] / 500 + 0.001).any() == is_hidden


def test_what_is_examined() -> None:
    paced = with_spikes(ecg(ectopic=(3,)), ONSETS_S - 0.004, 1.0)
    found = examine(paced)
    assert found.marks is not None
    assert found.marks.qrs_onset_hidden
    assert not found.beats.dominant.all()
    longer = examine(replace(paced, samples=np.tile(paced.samples, 7)))
    assert 59 < max(longer.spikes_s) < 60  # the first minute


def test_without_a_beat_there_is_nothing_to_delineate() -> None:
    found = examine(Recording(np.zeros((12, 5000), np.float32), 500.0, "made"))
    assert (found.beat, found.marks, found.spikes_s) == (None, None, ())
