"""Pacing spikes are found, said, and change no measurement; nothing else is taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import Recording
from inference.ecg.delineate import examine
from inference.ecg.gate import gate
from inference.ecg.measure import measure
from inference.ecg.pacing import find_spikes
from tests.inference.ecg.synthesis import ecg, twelve

ONSETS_S = 0.4 + np.arange(12) * 60 / 70
"""Where the QRS complexes of ``ecg()`` begin."""


def with_spikes(recording: Recording, at_s: np.ndarray, height_mv: float) -> Recording:
    """Pulses of 1 ms through the 150 Hz low-pass of an electrocardiograph, of another height and sign in every lead."""
    fs_hz = 8000
    pulses = np.zeros(int(recording.duration_s * fs_hz))
    for at in at_s[(at_s > 0.02) & (at_s < recording.duration_s - 0.05)]:
        pulses[round(at * fs_hz) : round((at + 0.001) * fs_hz)] = 4.0
    shown = signal.sosfilt(signal.butter(2, 150, fs=fs_hz, output="sos"), pulses)
    shown = shown[(np.arange(recording.samples.shape[1]) * fs_hz / recording.fs_hz).astype(int)]
    shares = np.array([1.0, -0.6, 0.3, 1.2, -1.5, 0.8, 0.2, 1.0]) * height_mv
    return replace(recording, samples=recording.samples + twelve(shares[:, None] * shown).samples)


def are_at(spikes_s: tuple[float, ...], at_s: np.ndarray) -> tuple[float, ...]:
    """The spikes found, each within 5 ms of one that was added: at 250 samples/s a sample has 4."""
    for spike_s in spikes_s:
        assert np.abs(at_s - spike_s).min() <= 0.005, spike_s
    return spikes_s


@pytest.mark.parametrize("height_mv", [0.25, 0.5, 3.0])
@pytest.mark.parametrize("fs_hz", [250.0, 500.0, 1000.0])
def test_spikes_before_the_qrs_change_no_interval(fs_hz: float, height_mv: float) -> None:
    plain = ecg(fs_hz=fs_hz, qrs_ms=140.0)
    paced = with_spikes(plain, ONSETS_S - 0.04, height_mv)
    found, reference = measure(paced), measure(plain)
    assert len(are_at(find_spikes(paced), ONSETS_S - 0.04)) >= 7  # of 12; what most beats lack, their median lacks
    assert found.heart_rate_per_min == pytest.approx(reference.heart_rate_per_min, abs=0.3)
    assert found.pr_ms == pytest.approx(reference.pr_ms, abs=8)
    assert found.qrs_ms == pytest.approx(reference.qrs_ms, abs=6)
    assert found.qt_ms == pytest.approx(reference.qt_ms, abs=8)


def test_the_gate_says_so_and_accepts() -> None:
    problems, accepted = gate(with_spikes(ecg(), ONSETS_S - 0.04, 0.5))
    assert accepted
    assert [(p.code, p.severity) for p in problems] == [("paced", "warn")]


def test_a_qrs_that_begins_at_its_spike_has_no_duration() -> None:
    found = measure(with_spikes(ecg(), ONSETS_S - 0.004, 1.0))
    assert {"pr_interval", "qrs_duration", "qtc_interval"} <= set(found.unmeasured)
    assert found.heart_rate_per_min == pytest.approx(70, abs=0.5)


def test_a_p_wave_that_a_spike_started_has_no_known_onset() -> None:
    paced = with_spikes(ecg(), ONSETS_S - 0.16 - 0.03, 0.5)
    found = measure(paced)
    assert len(are_at(find_spikes(paced), ONSETS_S - 0.16 - 0.03)) == 12
    assert found.unmeasured == ("pr_interval",)
    assert found.qrs_ms == pytest.approx(92, abs=8)


def test_two_chambers() -> None:
    at_s = np.sort(np.concatenate([ONSETS_S - 0.2, ONSETS_S - 0.04]))
    paced = with_spikes(ecg(qrs_ms=140.0), at_s, 0.5)
    assert len(are_at(find_spikes(paced), at_s)) == 24
    assert measure(paced).qrs_ms == pytest.approx(140, abs=8)


def test_spikes_that_no_beat_follows_are_found_by_their_interval() -> None:
    at_s = np.arange(0.3, 10, 1.0)
    assert len(are_at(find_spikes(with_spikes(ecg(rate=45.0, qt_ms=460.0), at_s, 0.5)), at_s)) == 10


def test_pulses_at_any_time_are_no_pacemaker() -> None:
    at = np.sort(np.random.default_rng(2).uniform(0.1, 9.9, 14))
    assert find_spikes(with_spikes(ecg(), at, 0.5)) == ()


def test_one_pulse_more_than_a_pacemaker_gives_is_left_as_it_is() -> None:
    at_s = np.sort(np.append(ONSETS_S - 0.04, 3.7))
    assert len(are_at(find_spikes(with_spikes(ecg(), at_s, 0.5)), ONSETS_S - 0.04)) == 12


@pytest.mark.parametrize("known", [{}, {"qrs_ms": 60.0}, {"noise_mv": 0.1}, {"ectopic": (3, 7)}], ids=str)
def test_a_heart_without_a_pacemaker_has_no_spikes(known: dict[str, float]) -> None:
    assert find_spikes(ecg(**known)) == ()  # type: ignore[arg-type]


def test_a_slow_recording_is_not_searched() -> None:
    assert find_spikes(with_spikes(ecg(fs_hz=100.0), ONSETS_S - 0.04, 3.0)) == ()


def test_the_one_paced_recording_among_real_ones(shared_data: Path) -> None:
    folder = shared_data / "ecg" / "raw"
    if not folder.is_dir():
        pytest.skip("ecg/raw not found: spikes are not looked for in real recordings")
    paced = set()
    for header in sorted(folder.glob("*.hea")):
        files = [PostedFile(i, p.name, p.read_bytes()) for i, p in enumerate((header, header.with_suffix(".mat")))]
        (of_recording,) = group_recordings(files)
        recording = read_recording(of_recording, ecg_unit=None)
        if spikes_s := find_spikes(recording):
            paced.add(header.stem)
            assert examine(recording).spikes_s == spikes_s
            assert np.diff(spikes_s) == pytest.approx(0.852, abs=0.003)  # 70/min
    assert paced == {"HR12083"}
