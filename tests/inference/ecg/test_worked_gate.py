"""Each limit of the gate for recordings, from both sides: what was measured is made, so that it lies just there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.ecg.recording import LEADS, Recording
from data_specs.problems import Problem
from inference.ecg.beats import BEFORE, INDEPENDENT
from inference.ecg.delineate import Examined, examine
from inference.ecg.gate import gate
from tests.inference.ecg.synthesis import ecg

CLEAN = ecg()
EXAMINED = examine(CLEAN)
EIGHT = list(INDEPENDENT)
PRECORDIAL = ("V1", "V2", "V3", "V4", "V5", "V6")


def problems(recording: Recording = CLEAN, examined: Examined = EXAMINED) -> list[Problem]:
    found, accepted = gate(recording, examined)
    assert accepted is all(problem.severity == "warn" for problem in found)
    return found


def stored(samples: NDArray[np.float32], fs_hz: float = 500.0) -> Recording:
    return Recording(samples, fs_hz, "made")


def with_beats(**changes: object) -> Examined:
    return replace(EXAMINED, beats=replace(EXAMINED.beats, **changes))


def with_beat(samples: NDArray[np.float64], **marks: object) -> Examined:
    assert EXAMINED.beat is not None
    assert EXAMINED.marks is not None
    apart = EXAMINED.beat.single_beats - EXAMINED.beat.samples[EIGHT]
    beat = replace(EXAMINED.beat, samples=samples, single_beats=samples[EIGHT] + apart)
    return replace(EXAMINED, beat=beat, marks=replace(EXAMINED.marks, **marks))


def with_filtered(**leads: NDArray[np.float64] | float) -> Examined:
    filtered = EXAMINED.beats.filtered.copy()
    for name, lead in leads.items():
        filtered[LEADS.index(name)] = lead
    return with_beats(filtered=filtered)


def with_leads(*names: str, value: float = 0.0) -> Recording:
    samples = CLEAN.samples.copy()
    samples[[LEADS.index(name) for name in names]] = value
    return stored(samples)


def test_nothing_is_said_of_a_clean_recording() -> None:
    assert problems() == []


def test_a_paced_heart_is_assessed_with_a_reserve() -> None:
    assert problems(examined=replace(EXAMINED, spikes_s=(0.5,))) == [Problem("paced", "warn")]


@pytest.mark.parametrize(("n_samples", "told"), [(4000, []), (3999, [Problem("short", "warn", "7.99 s", "8 s")])])
def test_less_than_eight_seconds_are_short(n_samples: int, told: list[Problem]) -> None:
    assert problems(stored(CLEAN.samples[:, :n_samples])) == told


# Missing samples: of 12 leads with 5000 samples, 600 are 1 % and 12,000 are 20 %.


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (600, []),
        (601, [Problem("samples_missing", "warn", "1.0 %", "1.0 %")]),
        (3000, [Problem("samples_missing", "warn", "5.0 %", "1.0 %")]),
        (12_000, [Problem("samples_missing", "warn", "20.0 %", "1.0 %")]),
        (12_001, [Problem("samples_missing", "reject", "20.0 %", "20.0 %")]),
        (18_000, [Problem("samples_missing", "reject", "30.0 %", "20.0 %")]),
    ],
)
def test_missing_samples(missing: int, told: list[Problem]) -> None:
    samples = CLEAN.samples.copy()
    of_each, rest = divmod(missing, 12)
    samples[:, 100 : 100 + of_each] = np.nan
    samples[:rest, 99] = np.nan
    assert problems(stored(samples)) == told


def test_a_lead_without_values_is_flat_and_its_samples_are_not_counted_as_missing() -> None:
    recording = with_leads("V4", value=np.nan)
    recording.samples[:, 100:150] = np.nan
    assert problems(recording) == [Problem("lead_flat", "warn", "V4", "≥ 0.02 mV")]


def test_where_nothing_has_values_all_leads_are_flat_and_no_share_is_told() -> None:
    assert problems(with_leads(*LEADS, value=np.nan)) == [Problem("lead_flat", "reject", ", ".join(LEADS), "≥ 0.02 mV")]


# Flat leads.


@pytest.mark.parametrize(("high_mv", "flat"), [(0.0199, True), (0.02, False)])
def test_a_lead_of_less_than_20_microvolts_is_flat(high_mv: float, flat: bool) -> None:
    examined = with_filtered(V2=np.where(np.arange(5000) % 40 < 20, high_mv, 0.0))
    assert problems(examined=examined) == [Problem("lead_flat", "warn", "V2", "≥ 0.02 mV")] * flat


@pytest.mark.parametrize("height_mv", [-1.0, 1.0])
@pytest.mark.parametrize(("samples", "flat"), [(4 * 36, True), (4 * 39, False)])
def test_what_lasts_half_a_percent_of_the_time_does_not_count(height_mv: float, samples: int, flat: bool) -> None:
    """Of 60 s, 0.48 % and 0.52 %."""
    filtered = np.tile(EXAMINED.beats.filtered, 6)
    filtered[LEADS.index("V2")] = np.where(np.arange(30_000) < samples, height_mv, 0.0)
    assert problems(examined=with_beats(filtered=filtered)) == [Problem("lead_flat", "warn", "V2", "≥ 0.02 mV")] * flat


@pytest.mark.parametrize("fs_hz", [100.0, 500.0])
@pytest.mark.parametrize("at", ["start", "middle", "end"])
@pytest.mark.parametrize(("less", "flat"), [(0, True), (1, False)])
def test_a_lead_that_keeps_one_value_for_four_seconds_is_flat(fs_hz: float, at: str, less: int, flat: bool) -> None:
    recording = ecg(fs_hz=fs_hz)
    n, held = recording.samples.shape[1], round(4 * fs_hz) - less
    first = {"start": 0, "middle": round(2.3 * fs_hz), "end": n - held}[at]
    recording.samples[LEADS.index("V2"), first : first + held] = 0.1
    assert problems(recording) == [Problem("lead_flat", "warn", "V2", "≥ 0.02 mV")] * flat


def test_values_that_are_missing_for_long_are_not_flat() -> None:
    recording = with_leads()
    recording.samples[LEADS.index("V2"), 100:2600] = np.nan
    assert [problem.code for problem in problems(recording)] == ["samples_missing"]


@pytest.mark.parametrize(
    ("flat", "severity"),
    [
        *((name, "reject") for name in ("I", "II", "III")),
        *((name, "warn") for name in ("aVR", "aVL", "aVF")),
        *((name, "warn") for name in PRECORDIAL),
        *((f"{a}, {b}", "warn") for a, b in (("V1", "V2"), ("V5", "V6"))),
        *((name, "reject") for name in ("V1, V2, V3", "V4, V5, V6")),
        ("aVF, V1, V2", "warn"),
        ("I, V1", "reject"),
    ],
)
def test_which_flat_leads_leave_an_ecg(flat: str, severity: str) -> None:
    """Three electrodes make I, II and III; of the precordial leads two may be missing (`MAX_FLAT_PRECORDIAL`)."""
    assert problems(with_leads(*flat.split(", "))) == [Problem("lead_flat", severity, flat, "≥ 0.02 mV")]


@pytest.mark.parametrize(
    ("largest_mv", "told"),
    [
        (0.0, Problem("lead_flat", "reject", ", ".join(LEADS), "≥ 0.02 mV")),
        (1e-6, Problem("lead_flat", "reject", ", ".join(LEADS), "≥ 0.02 mV")),
        (1.04e-6, Problem("amplitude_implausible", "reject", "1.04e-06 mV", "≥ 0.1 mV")),
        (0.0999, Problem("amplitude_implausible", "reject", "0.0999 mV", "≥ 0.1 mV")),
        (0.1, Problem("lead_flat", "reject", ", ".join(LEADS[1:]), "≥ 0.02 mV")),
    ],
)
def test_leads_that_are_all_tiny_have_the_wrong_unit(largest_mv: float, told: Problem) -> None:
    """One lead swings; the others are constant, each at a value of its own."""
    filtered = np.repeat(np.arange(12.0)[:, None], 5000, axis=1)
    filtered[0] = np.where(np.arange(5000) % 40 < 20, largest_mv, 0.0)
    assert problems(examined=with_beats(filtered=filtered)) == [told]


# Heartbeats.


def beats_of(n: int, like: int, *, seconds: float = 10.0, contrast: float = 3.0, likeness: float = 0.95) -> Examined:
    """``n`` beats, of which ``like`` are of the dominant shape."""
    return with_beats(
        at=np.linspace(300, 2000, n).astype(np.int64),
        dominant=np.arange(n) < like,
        likeness=np.full(n, likeness),
        contrast=contrast,
        filtered=EXAMINED.beats.filtered[:, : round(seconds * 500)],
    )


@pytest.mark.parametrize(
    ("examined", "found", "expected"),
    [
        (beats_of(2, 2), "2 QRS / 10 s", "≥ 3 QRS"),
        (beats_of(2, 2, seconds=8), "2 QRS / 8 s", "≥ 3 QRS"),
        (beats_of(1, 1, seconds=7.998), "1 QRS / 8 s", "≥ 2 QRS"),
        (beats_of(1, 1, seconds=5), "1 QRS / 5 s", "≥ 2 QRS"),
        (beats_of(10, 10, contrast=1.49), "10 QRS / 10 s", "≥ 3 QRS"),
        (beats_of(100, 39), "39 QRS / 10 s", "≥ 3 QRS"),
        (beats_of(10, 10, likeness=0.79), "10 QRS / 10 s", "≥ 3 QRS"),
    ],
)
def test_too_few_beats_or_beats_that_are_not_alike(examined: Examined, found: str, expected: str) -> None:
    assert problems(examined=examined) == [Problem("no_heartbeat", "reject", found, expected)]


@pytest.mark.parametrize(
    "examined",
    [
        beats_of(3, 3),
        beats_of(3, 3, seconds=8),
        beats_of(2, 2, seconds=7.998),
        beats_of(10, 10, contrast=1.5),
        beats_of(10, 4),
        beats_of(10, 10, likeness=0.8),
    ],
)
def test_beats_that_are_just_enough(examined: Examined) -> None:
    assert problems(examined=examined) == []


def levels(*counts: int, values: tuple[float, ...] = (-5, -4.02, -4, -3.5, 3.5, 4, 4.02, 5)) -> Recording:
    """60 s at 500 Hz in which each value is held for so many of 7,500 times 8 ms, in any order; no two leads alike."""
    points = np.random.default_rng(1).permutation(np.repeat(values, counts))
    assert len(points) == 7500
    return stored((np.repeat(points, 4) * 2.0 ** np.arange(12)[:, None] / 64).astype(np.float32))


NO_QRS = [Problem("no_heartbeat", "reject", "0 QRS", "≥ 3 QRS")]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("recording", "told"),
    [
        (levels(39, 3336, 0, 375, 375, 0, 3336, 39), []),
        (levels(39, 3337, 0, 374, 375, 0, 3336, 39), NO_QRS),
        (levels(39, 3336, 0, 375, 374, 0, 3337, 39), NO_QRS),
        (levels(39, 0, 3337, 374, 375, 0, 3336, 39), []),
        (levels(39, 3336, 0, 375, 374, 3337, 0, 39), []),
        (levels(39, 0, 3711, 0, 0, 3711, 0, 39), []),
        (levels(39, 6336, 0, 187, 188, 0, 711, 39), []),
        (levels(39, 6336, 0, 187, 187, 0, 712, 39), NO_QRS),
        (levels(39, 712, 0, 187, 187, 0, 6336, 39), NO_QRS),
        (levels(39, 711, 0, 188, 187, 0, 6336, 39), []),
    ],
)
def test_a_rectangular_pulse_is_nine_tenths_of_the_time_near_one_of_two_levels(
    recording: Recording, told: list[Problem], missing: bool
) -> None:
    """Within a tenth of the range from either level, and near each of them for more than a tenth of the time."""
    samples = recording.samples.copy()
    if missing:  # 8 ms
        samples = np.concatenate([samples, np.full((12, 4), np.nan, np.float32)], axis=1)
    assert problems(stored(samples)) == told


# One source, or a heart.


def of_two_sources(share: float, last: str = "V6") -> NDArray[np.float64]:
    """A beat of which this share of the power, in the eight leads, is one waveform; the last lead has the other one."""
    phase = 2 * np.pi * np.arange(650) / 65
    beat = np.tile(np.sin(phase), (12, 1))
    beat[LEADS.index(last)] = np.sqrt(7 * (1 / share - 1)) * np.cos(phase)
    return beat + np.arange(12.0)[:, None]  # a constant of each lead is no source


ONE_SOURCE = Problem("leads_identical", "reject", "I ∝ II ∝ V1 ∝ V2 ∝ V3 ∝ V4 ∝ V5 ∝ V6", "8")
WITHOUT_QRS = {"qrs_onset": None, "qrs_offset": None}


@pytest.mark.parametrize(
    ("share", "marks", "told"),
    [
        (0.9989, {}, []),
        (0.9991, {}, [ONE_SOURCE]),
        (0.979, WITHOUT_QRS, []),
        (0.981, WITHOUT_QRS, NO_QRS),
        (0.9991, WITHOUT_QRS, NO_QRS),
        (0.9989, {"restlessness": 0.2}, NO_QRS),
    ],
)
def test_a_heart_is_more_than_one_source(share: float, marks: dict[str, object], told: list[Problem]) -> None:
    found = problems(examined=with_beat(of_two_sources(share), **marks))
    assert [problem for problem in found if problem.code in ("no_heartbeat", "leads_identical")] == told


def test_a_flat_lead_is_no_second_source() -> None:
    one_source = replace(ONE_SOURCE, found=ONE_SOURCE.found.removesuffix(" ∝ V6"))
    found = problems(with_leads("V6"), with_beat(of_two_sources(0.5)))
    assert found == [Problem("lead_flat", "warn", "V6", "≥ 0.02 mV"), one_source]


def test_a_rectangular_pulse_with_gaps_is_no_heartbeat() -> None:
    recording = levels(3750, 0, 0, 0, 0, 0, 0, 3750)
    recording.samples[:, 1000:2500] = np.nan
    assert problems(recording) == [Problem("samples_missing", "warn", "5.0 %", "1.0 %"), *NO_QRS]


def test_a_rectangular_pulse_in_all_leads_is_no_heartbeat() -> None:
    recording = levels(39, 3711, 0, 0, 0, 0, 3711, 39)
    assert problems(recording, with_beat(of_two_sources(1.0))) == NO_QRS


# Voltage.

assert EXAMINED.beat is not None
BEAT = EXAMINED.beat.samples
HEIGHTS = np.ptp(BEAT[:, BEFORE - 60 : BEFORE + 60], axis=1)
LARGEST, TYPICAL = float(HEIGHTS.max()), float(np.median(HEIGHTS[EIGHT]))


def implausible(found: str) -> Problem:
    return Problem("amplitude_implausible", "reject", found, "0.1–8 mV")


LOWEST = BEAT[:, BEFORE - 60 : BEFORE + 60].min(axis=1)
ONE_MV = (BEAT - LOWEST[:, None]) / HEIGHTS[:, None]
"""The beat with a QRS of 1 mV in every lead."""


@pytest.mark.parametrize(
    ("height_mv", "told"),
    [
        (0.0999, [implausible("0.0999 mV")]),
        (0.1, []),
        (8.0, []),
        (8.01, [implausible("8.01 mV")]),
    ],
)
def test_qrs_has_a_tenth_of_a_millivolt_in_the_largest_lead_and_eight_at_most_in_the_typical_one(
    height_mv: float, told: list[Problem]
) -> None:
    found = problems(examined=with_beat(height_mv * ONE_MV))
    assert [problem for problem in found if problem.code == "amplitude_implausible"] == told


def test_the_largest_lead_is_held_against_the_least_and_the_typical_lead_against_the_most() -> None:
    heights = np.full(12, 0.05)
    heights[7] = 0.11
    assert implausible("0.11 mV") not in problems(examined=with_beat(heights[:, None] * ONE_MV))
    heights = np.array([9.0, 9, 9, 9, 9, 9, 0.05, 9, 9, 9, 9, 20])
    assert problems(examined=with_beat(heights[:, None] * ONE_MV)) == [implausible("9 mV")]


@pytest.mark.parametrize(("at", "counts"), [(-61, False), (-60, True), (59, True), (60, False)])
def test_the_height_of_qrs_is_looked_for_within_120_ms_of_the_beat(at: int, counts: bool) -> None:
    beat = BEAT.copy()
    beat[:, BEFORE + at] = 8.5 - np.arange(12) % 2 / 4
    codes = {problem.code for problem in problems(examined=with_beat(beat))}
    assert ("amplitude_implausible" in codes) is counts


def test_a_flat_lead_has_no_typical_height() -> None:
    """Of eight heights the median is 7.5 mV; of the seven that are left when the lead of 2 mV is flat it is 9."""
    heights = np.array([12.0, 4, 1, 1, 1, 1, 11, 10, 9, 6, 5, 2])
    beat = heights[:, None] * ONE_MV
    assert implausible("7.5 mV") not in problems(examined=with_beat(beat))
    assert implausible("9 mV") in problems(with_leads("V6"), with_beat(beat))


def test_with_gains_that_disagree_a_high_voltage_is_none_and_a_low_one_is_still_low() -> None:
    gains = with_filtered(III=2 * EXAMINED.beats.filtered[2])
    high = replace(with_beat(BEAT * (20 / TYPICAL)), beats=gains.beats)
    assert [(problem.code, problem.severity) for problem in problems(examined=high)] == [("gains_inconsistent", "warn")]
    low = replace(with_beat(BEAT * (0.09 / LARGEST)), beats=gains.beats)
    assert problems(examined=low) == [implausible("0.09 mV")]


# Clipped leads: three places at the highest or the lowest value, each of 10 ms, and of three samples at least.


def held_at(level_mv: float, lengths: list[int], *leads: str, fs_hz: float = 500.0) -> Recording:
    """Leads that stay at a level for so many samples: at the start, at the end, and between."""
    recording = ecg(fs_hz=fs_hz)
    n = recording.samples.shape[1]
    starts = np.linspace(0, n - lengths[-1], len(lengths)).astype(int)
    for name in leads or ("V4",):
        for start, length in zip(starts, lengths, strict=True):
            recording.samples[LEADS.index(name), start : start + length] = level_mv
    return recording


@pytest.mark.parametrize("level_mv", [2.5, -2.5])
@pytest.mark.parametrize(
    ("fs_hz", "lengths", "clipped"),
    [
        (500.0, [5, 5, 5], True),
        (500.0, [5, 5, 5, 5], True),
        (500.0, [5, 5, 4, 4, 4, 4], False),
        (500.0, [40, 40], False),
        (1000.0, [10, 10, 10], True),
        (1000.0, [10, 10, 9, 9, 9], False),
        (930.0, [9, 9, 9], True),
        (930.0, [8, 8, 8, 8], False),
        (250.0, [3, 3, 3], True),
        (250.0, [2, 2, 2, 2, 2], False),
        (100.0, [3, 3, 3], True),
        (100.0, [2, 2, 2, 2, 2], False),
    ],
)
def test_a_lead_is_clipped(level_mv: float, fs_hz: float, lengths: list[int], clipped: bool) -> None:
    told = [Problem("amplitude_implausible", "warn", "V4", "≤ 2.5 mV")] * clipped
    assert problems(held_at(level_mv, lengths, fs_hz=fs_hz)) == told


def test_a_lead_that_is_clipped_below_alone_stays_clipped() -> None:
    lead = CLEAN.samples[LEADS.index("V1")]
    recording = with_leads()
    recording.samples[LEADS.index("V1")] = np.maximum(lead, -0.3)
    assert problems(recording) == [Problem("amplitude_implausible", "warn", "V1", "≤ 0.3 mV")]


@pytest.mark.parametrize(
    ("leads", "severity"),
    [
        ("V1, V2, V3", "warn"),
        ("V1, V2, V3, V4", "reject"),
        ("I, II, V5, V6", "reject"),
        ("III, aVR, aVL, aVF, V1, V2, V3", "warn"),
    ],
)
def test_with_half_of_the_eight_leads_clipped_nothing_is_assessed(leads: str, severity: str) -> None:
    recording = held_at(2.5, [5, 5, 5], *leads.split(", "))
    assert problems(recording) == [Problem("amplitude_implausible", severity, leads, "≤ 2.5 mV")]


def test_a_flat_lead_is_not_clipped() -> None:
    recording = held_at(2.5, [5, 5, 5])
    assert problems(recording, with_filtered(V4=0.0)) == [Problem("lead_flat", "warn", "V4", "≥ 0.02 mV")]


# Identical leads.


SQUARE = np.where(np.arange(5000) % 10 < 5, 1.0, -1.0)


@pytest.mark.parametrize(
    ("leads", "told"),
    [
        ({"V2": 200 * SQUARE, "V3": 199.004 * SQUARE}, [Problem("leads_identical", "warn", "V2 = V3", "8")]),
        ({"V2": 199.004 * SQUARE, "V3": 200 * SQUARE}, [Problem("leads_identical", "warn", "V2 = V3", "8")]),
        ({"V2": 200 * SQUARE, "V3": 199 * SQUARE}, []),
        ({"V2": 200 * SQUARE, "V3": -200 * SQUARE}, []),
        (
            {"V1": SQUARE, "V2": SQUARE, "V5": 2 * SQUARE, "V6": 2 * SQUARE},
            [Problem("leads_identical", "reject", "V1 = V2; V5 = V6", "8")],
        ),
        (
            {"V1": SQUARE, "V2": SQUARE, "V6": SQUARE},
            [Problem("leads_identical", "reject", "V1 = V2; V1 = V6; V2 = V6", "8")],
        ),
    ],
)
def test_two_leads_that_differ_by_less_than_half_a_percent_are_one(
    leads: dict[str, NDArray[np.float64]], told: list[Problem]
) -> None:
    assert problems(examined=with_filtered(**leads)) == told


def test_derived_and_flat_leads_are_not_compared() -> None:
    """With no voltage in I, III is II."""
    filtered = EXAMINED.beats.filtered
    derived = with_filtered(I=0.001 * filtered[0], III=filtered[1])
    assert "leads_identical" not in {problem.code for problem in problems(examined=derived)}
    flat = with_filtered(V2=0.001 * SQUARE, V3=0.001 * SQUARE)
    assert problems(examined=flat) == [Problem("lead_flat", "warn", "V2, V3", "≥ 0.02 mV")]


# Noise: a robust deviation, 1.4826 times the median, of the single beats from the median beat.


def noisy(deviation_mv: float, height_mv: float, *, share: float = 1.0, name: str = "V5") -> Examined:
    """Single beats above and below the median beat: in one lead by this deviation for a share of the time."""
    assert EXAMINED.beat is not None
    lead = LEADS.index(name)
    samples = BEAT.copy()
    samples[lead] *= height_mv / HEIGHTS[lead]
    single = np.repeat(samples[None, EIGHT], 8, axis=0)
    apart = np.full((8, 650), deviation_mv / 1.4826)
    apart[::2] *= -1
    apart[:, round(share * 650) :] = 0.0
    single[:, EIGHT.index(lead)] += apart
    return replace(EXAMINED, beat=replace(EXAMINED.beat, samples=samples, single_beats=single))


@pytest.mark.parametrize(
    ("deviation_mv", "height_mv", "told"),
    [
        (0.149, 2.0, False),
        (0.151, 2.0, True),
        (0.0996, 0.4, False),
        (0.1004, 0.4, True),
        (0.3, 2.0, True),
    ],
)
@pytest.mark.parametrize("name", ["I", "V1", "V5"])
def test_a_lead_is_noisy_by_itself_and_beside_its_qrs(
    deviation_mv: float, height_mv: float, told: bool, name: str
) -> None:
    assert (
        problems(examined=noisy(deviation_mv, height_mv, name=name))
        == [Problem("noisy", "warn", name, "≤ 0.15 mV")] * told
    )


@pytest.mark.parametrize(("share", "told"), [(0.49, False), (0.51, True)])
def test_what_disturbs_a_lead_for_less_than_half_of_the_beat_is_no_noise(share: float, told: bool) -> None:
    assert problems(examined=noisy(0.3, 2.0, share=share)) == [Problem("noisy", "warn", "V5", "≤ 0.15 mV")] * told


def test_a_flat_lead_is_not_noisy() -> None:
    assert problems(with_leads("V5"), noisy(0.3, 0.4)) == [Problem("lead_flat", "warn", "V5", "≥ 0.02 mV")]


# Electrodes.


def arms_exchanged(recording: Recording) -> Recording:
    one, two, three, avr, avl, avf, *chest = recording.samples
    return replace(recording, samples=np.stack([-one, three, two, avl, avr, avf, *chest]))


def test_one_reason_is_given_for_leads_that_are_reversed() -> None:
    recording = arms_exchanged(CLEAN)
    (exchanged,) = problems(recording, examine(recording))
    assert (exchanged.code, exchanged.severity) == ("leads_reversed", "reject")
    assert exchanged.found.startswith("RA ↔ LA")
    recording.samples[2] *= -1
    assert problems(recording, examine(recording)) == [Problem("leads_reversed", "reject", "−III", "III = II − I")]


def test_with_gains_that_disagree_exchanged_arms_are_noticed_too() -> None:
    recording = arms_exchanged(CLEAN)
    recording.samples[2] *= 2
    assert [problem.code for problem in problems(recording, examine(recording))] == [
        "gains_inconsistent",
        "leads_reversed",
    ]


def test_without_v6_exchanged_arms_are_not_looked_for() -> None:
    recording = arms_exchanged(CLEAN)
    recording.samples[LEADS.index("V6")] = 0.0
    assert problems(recording, examine(recording)) == [Problem("lead_flat", "warn", "V6", "≥ 0.02 mV")]
    recording = arms_exchanged(CLEAN)
    recording.samples[LEADS.index("V5")] = 0.0
    assert [problem.code for problem in problems(recording, examine(recording))] == ["lead_flat", "leads_reversed"]
