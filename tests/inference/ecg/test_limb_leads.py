"""Exchanged electrodes, inverted and misnamed leads, and leads that were each scaled by a factor of their own."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import LEADS, Recording
from data_specs.problems import Problem
from inference.ecg.gate import gate
from tests.inference.ecg.synthesis import ecg, twelve

Samples = NDArray[np.float32]


def found(recording: Recording, code: str = "leads_reversed") -> list[str]:
    return [p.found for p in gate(recording)[0] if p.code == code]


def refused(recording: Recording) -> set[str]:
    return {p.code for p in gate(recording)[0] if p.severity == "reject"}


def scaled(recording: Recording, seed: int = 0) -> Recording:
    """A factor of up to three and an offset for each lead."""
    rng = np.random.default_rng(seed)
    factors = np.exp(np.clip(rng.normal(0, 0.5, 12), -1.1, 1.1))[:, None]
    return replace(recording, samples=(recording.samples * factors + rng.normal(0, 0.3, (12, 1))).astype(np.float32))


def normalised(recording: Recording) -> Recording:
    """Standard deviations, lead by lead."""
    centred = recording.samples - recording.samples.mean(axis=1, keepdims=True)
    return replace(recording, samples=centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-9))


def ranged(recording: Recording) -> Recording:
    """From -1 to 1, lead by lead."""
    low, high = (f(recording.samples, axis=1, keepdims=True) for f in (np.min, np.max))
    return replace(recording, samples=2 * (recording.samples - low) / np.maximum(high - low, 1e-9) - 1)


def inverted(recording: Recording, lead: int) -> Recording:
    samples = recording.samples.copy()
    samples[lead] *= -1
    return replace(recording, samples=samples)


def misnamed(recording: Recording, a: int, b: int) -> Recording:
    order = list(range(12))
    order[a], order[b] = b, a
    return replace(recording, samples=recording.samples[order])


def exchanged(recording: Recording, a: str, b: str) -> Recording:
    """What is recorded with two electrodes exchanged; the legs have one potential, V1 to V6 follow the terminal."""
    one, two = recording.samples[:2]
    potential = {"RA": np.zeros_like(one), "LA": one, "LL": two, "RL": two}
    seen = potential | {a: potential[b], b: potential[a]}
    terminal = sum(potential[name] - seen[name] for name in ("RA", "LA", "LL")) / 3
    eight = [seen["LA"] - seen["RA"], seen["LL"] - seen["RA"], *(recording.samples[6:] + terminal)]
    return replace(recording, samples=twelve(np.stack(eight)).samples)


GAINS = {"as recorded": lambda r: r, "scaled": scaled, "normalised": normalised, "ranged": ranged}


@pytest.mark.parametrize("gains", ["scaled", "normalised", "ranged"])
@pytest.mark.parametrize("fs_hz", [100.0, 257.0, 500.0])
def test_gains_of_their_own_are_a_reserve(gains: str, fs_hz: float) -> None:
    problems, accepted = gate(GAINS[gains](ecg(fs_hz=fs_hz)))
    assert accepted
    assert Problem("gains_inconsistent", "warn") in problems


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_one_factor_for_all_leads_is_none(factor: float) -> None:
    recording = ecg()
    assert gate(replace(recording, samples=(recording.samples * factor).astype(np.float32))) == ([], True)


def test_normalised_leads_are_noticed_where_only_eight_were_stored() -> None:
    """III and the augmented leads are computed here from I and II, so that all laws hold."""
    for change in (normalised, ranged):
        stored = change(ecg()).samples
        problems, accepted = gate(twelve(stored[[0, 1, *range(6, 12)]]))
        assert accepted
        assert [p.code for p in problems if p.severity == "warn" and p.code != "noisy"] == ["gains_inconsistent"]


def test_with_gains_of_their_own_a_high_voltage_says_nothing() -> None:
    tall = ecg()
    tall = replace(tall, samples=(tall.samples * 12).astype(np.float32))
    assert refused(tall) == {"amplitude_implausible"}
    assert refused(scaled(tall)) == set()


@pytest.mark.parametrize("gains", GAINS)
@pytest.mark.parametrize("lead", range(6))
def test_an_inverted_lead_is_named(gains: str, lead: int) -> None:
    assert found(GAINS[gains](inverted(ecg(), lead))) == [f"−{LEADS[lead]}"]


@pytest.mark.parametrize("gains", GAINS)
@pytest.mark.parametrize(("a", "b"), [*combinations(range(6), 2)])
def test_exchanged_names_are_named(gains: str, a: int, b: int) -> None:
    assert found(GAINS[gains](misnamed(ecg(), a, b))) == [f"{LEADS[a]} ↔ {LEADS[b]}"]


@pytest.mark.parametrize("gains", GAINS)
@pytest.mark.parametrize("pair", ["RA ↔ LA", "RA ↔ LL", "RA ↔ RL", "LA ↔ RL"])
def test_exchanged_electrodes_are_named(gains: str, pair: str) -> None:
    recording = GAINS[gains](exchanged(ecg(), *pair.split(" ↔ ")))
    flat = "RL" in pair  # with no noise of its own, a flat lead
    assert refused(recording) == {"lead_flat" if flat else "leads_reversed"}
    if not flat:
        assert [text.split(",")[0] for text in found(recording)] == [pair]


@pytest.mark.parametrize("gains", GAINS)
@pytest.mark.parametrize(("pair", "lead"), [("RA ↔ RL", "II"), ("LA ↔ RL", "III")])
def test_an_arm_on_the_right_leg_leaves_a_lead_without_size(gains: str, pair: str, lead: str) -> None:
    """The legs differ by some microvolts: not flat, and once normalised as large as any lead."""
    recording = exchanged(ecg(noise_mv=0.002), *pair.split(" ↔ "))
    rng = np.random.default_rng(1)
    eight = recording.samples[[0, 1, *range(6, 12)]].astype(np.float64)
    leg = 0.006 * rng.standard_normal(eight.shape[1])
    eight[:2] += {"II": np.stack([np.zeros_like(leg), leg]), "III": np.stack([leg, np.zeros_like(leg)])}[lead]
    (text,) = found(GAINS[gains](twelve(eight)))
    assert text.startswith(f"{pair}, {lead} ")


def test_exchanged_left_arm_and_leg_pass() -> None:
    """They change the axis only, and what they change is often seen in healthy hearts."""
    assert gate(exchanged(ecg(), "LA", "LL"))[1]


def test_waves_from_below_the_atria_alone_are_no_exchange() -> None:
    """A junctional rhythm: the P wave is inverted in II, the QRS is not."""
    recording = ecg(p_mv=-0.15)
    assert gate(recording)[1]


def test_missing_augmented_leads_do_not_hide_the_others() -> None:
    for recording in (scaled(ecg()), inverted(scaled(ecg()), 2)):
        without = recording.samples.copy()
        without[3:6] = 0.0
        same = replace(recording, samples=without)
        assert refused(same) <= {"leads_reversed"}
        one, two = recording.samples[:2]
        without[3:6] = np.stack([-(one + two) / 2, one - two / 2, two - one / 2])  # computed after the scaling
        assert gate(replace(recording, samples=without))[1] is gate(recording)[1]


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_augmented_leads_computed_after_the_scaling_say_nothing_of_it(factor: float) -> None:
    recording = ecg()
    samples = recording.samples.copy()
    samples[1] *= factor
    one, two = samples[:2]
    samples[3:6] = np.stack([-(one + two) / 2, one - two / 2, two - one / 2])
    same = replace(recording, samples=samples)
    problems, accepted = gate(same)
    assert accepted
    assert "gains_inconsistent" in {p.code for p in problems}
    assert found(inverted(same, 2))


@pytest.mark.parametrize("lead", [3, 5])
def test_a_lead_of_another_recording_is_refused(lead: int) -> None:
    for recording in (ecg(), scaled(ecg())):
        samples = recording.samples.copy()
        samples[lead] = ecg(rate=53, seed=9).samples[6]
        assert len(found(replace(recording, samples=samples))) == 1


def delayed(recording: Recording, seed: int) -> Recording:
    """Each lead later or earlier by up to 4 ms."""
    rng = np.random.default_rng(seed)
    t = np.arange(recording.samples.shape[1], dtype=np.float64)
    shifts = rng.uniform(-0.004, 0.004, 12) * recording.fs_hz
    moved = [np.interp(t - shift, t, lead) for lead, shift in zip(recording.samples, shifts, strict=True)]
    return replace(recording, samples=np.stack(moved).astype(np.float32))


def rounded(recording: Recording, bits: int = 8) -> Recording:
    step = np.ptp(recording.samples) / 2**bits
    return replace(recording, samples=(np.round(recording.samples / step) * step).astype(np.float32))


def drifting(recording: Recording, seed: int) -> Recording:
    rng = np.random.default_rng(seed)
    t = np.arange(recording.samples.shape[1]) / recording.fs_hz
    size = 0.5 * recording.samples.std(axis=1, keepdims=True)
    drift = size * np.sin(2 * np.pi * 0.2 * t + rng.uniform(0, 6, (12, 1)))
    return replace(recording, samples=(recording.samples + drift).astype(np.float32))


def real(shared_data: Path, every: int) -> Iterator[Recording]:
    folder = shared_data / "ecg" / "raw"
    if not folder.is_dir():
        pytest.skip("ecg/raw not found: gains are not tried on real recordings")
    for header in sorted(folder.glob("*.hea"))[::every]:
        paths = (header, header.with_suffix(".mat"))
        (files,) = group_recordings([PostedFile(i, p.name, p.read_bytes()) for i, p in enumerate(paths)])
        recording = read_recording(files, ecg_unit=None)
        if gate(recording)[1]:
            yield recording


def test_real_recordings_with_gains_of_their_own_are_assessed(shared_data: Path) -> None:
    n, not_assessed, unnoticed = 0, 0, 0
    for k, recording in enumerate(real(shared_data, every=5)):
        for changed in (
            scaled(recording, k),
            normalised(recording),
            rounded(scaled(recording, k)),
            normalised(delayed(recording, k)),
            drifting(scaled(recording, k), k),
        ):
            problems, accepted = gate(changed)
            n += 1
            not_assessed += not accepted
            unnoticed += accepted and "gains_inconsistent" not in {p.code for p in problems}
    assert n >= 90
    assert not_assessed <= 0.01 * n
    assert unnoticed <= 0.01 * n


def test_real_recordings_with_inverted_and_misnamed_leads_are_refused(shared_data: Path) -> None:
    wrong = []
    for k, recording in enumerate(real(shared_data, every=20)):
        for change in (recording, scaled(recording, k), normalised(recording)):
            wrong += [k for lead in range(6) if found(inverted(change, lead)) != [f"−{LEADS[lead]}"]]
            wrong += [k for a, b in ((0, 1), (3, 4), (3, 5)) if not found(misnamed(change, a, b))]
    assert wrong == []


def test_recordings_of_ptbxl_as_they_are_normalised(shared_data: Path) -> None:
    """Every thirty-second record of folds 1 to 9; each lead has a deviation of 1, and none its voltage."""
    folder = shared_data / "ecg" / "ptbxl"
    if not folder.is_dir():
        pytest.skip("ecg/ptbxl not found")
    with (folder / "labels.csv").open() as f:
        rows = [i for i, row in enumerate(csv.DictReader(f)) if int(row["strat_fold"]) <= 9][::32]
    recordings = [
        Recording(x.astype(np.float32) / 1000, 100.0, "made") for x in np.load(folder / "signals_100hz.npz")["x"][rows]
    ]
    results = [gate(recording) for recording in recordings]
    assert sum(accepted for _, accepted in results) >= 0.97 * len(results)
    assert all("gains_inconsistent" in {p.code for p in problems} for problems, accepted in results if accepted)
    for recording in recordings[::5]:
        assert all(found(inverted(recording, lead)) for lead in range(6))
