"""Intervals from given beats and boundaries: every limit from both sides and at itself, QTc worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from data_specs.ecg.recording import Recording
from inference.ecg.beats import AFTER, BEFORE, Beats, RepresentativeBeat
from inference.ecg.delineate import Examined, Marks
from inference.ecg.intervals import Intervals
from inference.ecg.measure import QTC_FORMULA, measure

NO_SAMPLES = Recording(np.zeros((12, 0), np.float32), 500.0, "made")
ONSET = 240
"""Of the QRS, samples at 500/s: one sample is 2 ms."""


def beats(rr_s: Sequence[float] = (1.0,) * 9, other: Sequence[int] = ()) -> Beats:
    """Beats at these intervals, all of the dominant shape but the ``other``."""
    at = np.round(500 * np.cumsum([0.4, *rr_s])).astype(np.int64)
    dominant = ~np.isin(np.arange(len(at)), other)
    return Beats(at, dominant, np.where(dominant, 1.0, 0.0), 10.0, np.zeros((12, 0)))


def marks(**given: object) -> Marks:
    """PR 160 ms, QRS 100 ms, QT 400 ms."""
    usual = {
        "qrs_onset": ONSET,
        "qrs_offset": ONSET + 50,
        "restlessness": 0.01,
        "p_onset": ONSET - 80,
        "p_amplitude_mv": 0.1,
        "p_consistency": 0.95,
        "t_offset": ONSET + 200,
        "t_amplitude_mv": 0.2,
    }
    return Marks(**{**usual, **given})  # type: ignore[arg-type]


def found(of: Beats | None = None, rr_s: float = 1.0, **given: object) -> Intervals:
    samples = np.zeros((12, BEFORE + AFTER))
    samples[:, ONSET + 20] = 1.0  # so that the QRS has an axis
    beat = RepresentativeBeat(samples, np.zeros((1, 8, BEFORE + AFTER)), rr_s)
    return measure(NO_SAMPLES, Examined(of or beats(), beat, marks(**given), ()))


def intervals(of: Intervals) -> tuple[float | None, float | None, float | None, float | None]:
    return of.pr_ms, of.qrs_ms, of.qt_ms, of.qtc_ms


def test_intervals_are_the_distances_of_their_marks() -> None:
    usual = found()
    assert usual.heart_rate_per_min == 60
    assert intervals(usual) == (160, 100, 400, 400)
    assert usual.r_peaks_s[:3] == (0.4, 1.4, 2.4)
    assert (usual.rhythm_regular, usual.rr_spread, usual.dominant_share, usual.unmeasured) == (True, 0, 1, ())


def test_the_corrected_interval_is_that_of_fridericia() -> None:
    """QT over the cube root of RR in seconds: 0.8 and 1.1 are the roots of 0.512 and 1.331."""
    assert QTC_FORMULA == "Fridericia"
    assert found(rr_s=0.512, t_offset=ONSET + 200).qtc_ms == pytest.approx(400 / 0.8)
    assert found(rr_s=1.331, t_offset=ONSET + 220).qtc_ms == pytest.approx(440 / 1.1)


def test_the_rate_is_of_all_beats_and_the_correction_of_the_dominant_ones() -> None:
    early = found(beats([1.0] * 4 + [0.5, 1.5] + [1.0] * 6, other=[5]), rr_s=1.0)
    assert early.heart_rate_per_min == pytest.approx(60)
    assert (early.rr_spread, early.rhythm_regular, early.qtc_ms) == (0, True, 400)
    bigeminy = found(beats([0.5, 1.1] * 8, other=range(1, 17, 2)))
    assert bigeminy.heart_rate_per_min == pytest.approx(60 / 0.8)
    assert (bigeminy.rr_spread, bigeminy.rhythm_regular, bigeminy.qt_ms, bigeminy.qtc_ms) == (None, None, 400, None)
    assert bigeminy.dominant_share == pytest.approx(9 / 17)


@pytest.mark.parametrize(
    ("rr_s", "rate"),
    [
        ([3.02], None),  # 19.9/min
        ([3.0], 20),
        ([0.2], 300),
        ([0.2] * 4 + [0.198], None),  # 300.6/min
    ],
)
def test_a_rate_that_no_heart_has_is_none(rr_s: list[float], rate: float | None) -> None:
    of = found(beats(rr_s))
    assert of.heart_rate_per_min == rate
    assert ("heart_rate" in of.unmeasured) == (rate is None)


def test_without_a_rate_nothing_is_measured() -> None:
    of = found(beats([3.02] * 9))
    assert intervals(of) == (None, None, None, None)
    assert of.unmeasured == ("heart_rate", "pr_interval", "qrs_duration", "qtc_interval")


@pytest.mark.parametrize(("n_beats", "rate", "qrs_ms"), [(1, None, None), (2, 60, None), (3, 60, 100)])
def test_least_number_of_beats(n_beats: int, rate: float | None, qrs_ms: float | None) -> None:
    of = found(beats([1.0] * (n_beats - 1)))
    assert (of.heart_rate_per_min, of.qrs_ms) == (rate, qrs_ms)


def test_no_beat_at_all() -> None:
    none = Beats(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0), 1.0, np.zeros((12, 0)))
    of = measure(NO_SAMPLES, Examined(none, None, None, ()))
    assert (of.heart_rate_per_min, of.r_peaks_s, of.rr_spread, of.dominant_share) == (None, (), None, 0)
    assert intervals(of) == (None, None, None, None)


@pytest.mark.parametrize(("n_beats", "qrs_ms"), [(10, 100), (11, None)])
def test_four_in_ten_beats_are_of_the_shape_that_is_measured(n_beats: int, qrs_ms: float | None) -> None:
    assert found(beats([1.0] * (n_beats - 1), other=range(4, n_beats))).qrs_ms == qrs_ms


@pytest.mark.parametrize(("n_beats", "regular"), [(3, None), (4, True)])
def test_three_intervals_tell_whether_the_rhythm_is_regular(n_beats: int, regular: bool | None) -> None:
    of = found(beats([1.0] * (n_beats - 1)))
    assert of.rhythm_regular is regular
    assert of.qtc_ms == (400 if regular else None)


def test_the_spread_goes_from_the_tenth_to_the_ninetieth_percentile() -> None:
    """Of eleven intervals, the second and the tenth."""
    rr_s = [0.4, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 0.95, 1.0, 1.1, 1.6]
    assert found(beats(rr_s)).rr_spread == pytest.approx((1.1 - 0.6) / 0.8)


@pytest.mark.parametrize(("longest_s", "regular"), [(1.25, True), (1.252, False)])
def test_a_rhythm_is_regular_up_to_a_spread_of_a_quarter(longest_s: float, regular: bool) -> None:
    of = found(beats([1.0] * 9 + [longest_s, longest_s]))
    assert of.rhythm_regular is regular
    assert (of.qt_ms, of.qtc_ms) == (400, 400 if regular else None)


@pytest.mark.parametrize(
    ("rr_s", "consistency", "pr_ms"),
    [
        ([1.0] * 9, 0.69, None),
        ([1.0] * 9, 0.7, 160),
        ([0.8, 1.2] * 5, 0.84, None),
        ([0.8, 1.2] * 5, 0.85, 160),
        ([1.0] * 2, 0.84, None),  # too few to say that they are regular
    ],
)
def test_p_waves_have_to_be_alike_and_more_so_in_an_irregular_rhythm(
    rr_s: list[float], consistency: float, pr_ms: float | None
) -> None:
    assert found(beats(rr_s), p_consistency=consistency).pr_ms == pr_ms


@pytest.mark.parametrize(("amplitude_mv", "pr_ms"), [(0.0079, None), (0.008, 160)])
def test_a_p_wave_has_at_least_8_microvolts(amplitude_mv: float, pr_ms: float | None) -> None:
    assert found(p_amplitude_mv=amplitude_mv).pr_ms == pr_ms


@pytest.mark.parametrize(("amplitude_mv", "qt_ms"), [(0.0199, None), (0.02, 400)])
def test_a_t_wave_has_at_least_20_microvolts(amplitude_mv: float, qt_ms: float | None) -> None:
    of = found(t_amplitude_mv=amplitude_mv)
    assert intervals(of) == (160, 100, qt_ms, qt_ms)


@pytest.mark.parametrize(("samples", "pr_ms"), [(39, None), (40, 80), (210, 420), (211, None)])
def test_limits_of_pr(samples: int, pr_ms: float | None) -> None:
    of = found(p_onset=ONSET - samples)
    assert intervals(of) == (pr_ms, 100, 400, 400)
    assert of.unmeasured == (() if pr_ms else ("pr_interval",))


@pytest.mark.parametrize(("samples", "qt_ms"), [(99, None), (100, 200), (375, 750), (376, None)])
def test_limits_of_qt(samples: int, qt_ms: float | None) -> None:
    rr_s = 0.343 if samples < 200 else 1.728  # so that QTc is within its own limits
    of = found(rr_s=rr_s, t_offset=ONSET + samples)
    assert of.qt_ms == qt_ms
    assert of.unmeasured == (() if qt_ms else ("qtc_interval",))


@pytest.mark.parametrize(
    ("p_onset", "rr_s", "qt_ms"), [(None, 0.55, 400), (None, 0.548, None), (ONSET - 80, 0.548, 400), (None, 0.3, None)]
)
def test_without_pr_a_t_wave_ends_150_ms_before_the_next_beat(
    p_onset: int | None, rr_s: float, qt_ms: float | None
) -> None:
    assert found(rr_s=rr_s, p_onset=p_onset).qt_ms == qt_ms


@pytest.mark.parametrize(
    ("samples", "rr_s", "qtc_ms"),
    [
        (140, 1.008, None),  # 279.3 ms
        (140, 1.0, 280),
        (350, 1.0, 700),
        (350, 0.997, None),  # 700.7 ms
    ],
)
def test_limits_of_qtc_and_qt_goes_with_it(samples: int, rr_s: float, qtc_ms: float | None) -> None:
    of = found(rr_s=rr_s, t_offset=ONSET + samples)
    assert (of.qt_ms, of.qtc_ms) == (qtc_ms, qtc_ms)
    assert of.unmeasured == (() if qtc_ms else ("qtc_interval",))


@pytest.mark.parametrize("unclear", [{"qrs_onset_hidden": True}, {"restlessness": 0.07}, {"qrs_offset": ONSET + 121}])
def test_without_a_clear_qrs_there_is_neither_pr_nor_qt(unclear: dict[str, object]) -> None:
    of = found(**unclear)
    assert intervals(of) == (None, None, None, None)
    assert of.heart_rate_per_min == 60
    assert of.unmeasured == ("pr_interval", "qrs_duration", "qtc_interval")


def test_a_wave_without_its_boundary_gives_no_interval() -> None:
    assert intervals(found(p_onset=None)) == (None, 100, 400, 400)
    assert intervals(found(t_offset=None)) == (160, 100, None, None)
