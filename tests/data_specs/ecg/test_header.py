"""The calibration pulse: cut off where a machine put one, nothing touched where none is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_specs.ecg.header import recording, without_calibration_pulse
from data_specs.ecg.recording import LEADS
from data_specs.subject import Subject
from tests.data_specs.ecg_made import EIGHT, FS, counts, millivolts, on_disk, read


def made(names: tuple[str, ...] = LEADS) -> dict[str, np.ndarray]:
    """Eleven seconds of an ECG by lead, mV."""
    return {name: row for name, row in zip(LEADS, millivolts(counts(seconds=11.0)), strict=True) if name in names}


def with_pulse(leads: dict[str, np.ndarray], first: int, last: int, *, noise_mv: float = 0.0) -> dict[str, np.ndarray]:
    """``first`` to ``last`` replaced by a flat line with 200 ms of 1 mV in its middle."""
    rng = np.random.default_rng(3)
    found = {}
    middle = (first + last) // 2
    for name, values in leads.items():
        found[name] = values.copy()
        found[name][first:last] = rng.normal(0, noise_mv, last - first)
        found[name][middle - 50 : middle + 50] += 1.0
    return found


@pytest.mark.parametrize("names", [LEADS, EIGHT])
@pytest.mark.parametrize(("first", "last"), [(5000, 5500), (0, 500)])
def test_a_pulse_is_cut_off_at_either_end_with_its_flat_line(names: tuple[str, ...], first: int, last: int) -> None:
    leads = made(names)
    cut = without_calibration_pulse(with_pulse(leads, first, last), FS)
    kept = cut["I"].size
    assert 4980 <= kept <= 5000  # some isoelectric samples next to it may go with it
    for name, values in cut.items():
        np.testing.assert_array_equal(values, leads[name][:kept] if first else leads[name][-kept:])


def test_a_noisy_pulse_is_cut_off() -> None:
    cut = without_calibration_pulse(with_pulse(made(), 5000, 5500, noise_mv=0.01), FS)
    assert max(float(np.min(values[5000:], initial=0.0)) for values in cut.values()) < 0.1
    assert cut["I"].size < 5200


def test_a_pulse_that_reaches_the_end_is_cut_off() -> None:
    leads = made()
    for values in leads.values():
        values[5400:] = 1.0
    assert without_calibration_pulse(leads, FS)["I"].size <= 5390


def test_a_gap_next_to_a_pulse_stays() -> None:
    leads = with_pulse(made(), 5000, 5500)
    for values in leads.values():
        values[4900:5000] = np.nan
    assert without_calibration_pulse(leads, FS)["I"].size == 5000


@pytest.mark.parametrize("names", [LEADS, EIGHT])
def test_a_recording_without_a_pulse_keeps_every_sample(names: tuple[str, ...]) -> None:
    leads = made(names)
    assert without_calibration_pulse(leads, FS) is leads
    flat_end = {name: np.concatenate([values, np.zeros(500)]) for name, values in leads.items()}
    assert without_calibration_pulse(flat_end, FS) is flat_end
    samples = recording(leads, fs_hz=FS, format="made", subject=Subject()).samples
    stored = [LEADS.index(name) for name in names]
    np.testing.assert_array_equal(samples[stored], np.stack([leads[LEADS[i]] for i in stored]).astype(np.float32))


def test_real_recordings_without_a_pulse_keep_every_sample(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = sorted((shared_data / "ecg" / "raw").glob("*.hea"))
    if not headers:
        pytest.skip("ecg/raw not found: real recordings are not compared")
    records = [on_disk([header, header.with_suffix(".mat")]) for header in headers]
    cut = [read(record).samples for record in records]
    monkeypatch.setattr("data_specs.ecg.header.without_calibration_pulse", lambda leads, fs_hz: leads)
    for samples, record in zip(cut, records, strict=True):
        assert samples.tobytes() == read(record).samples.tobytes()
