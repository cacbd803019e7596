"""The form in which a network takes a recording: the shipped one to the last bit, and those that imports ask for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import signal

from data_specs.bundle import EcgInput
from data_specs.ecg.filters import fill_gaps, resample, zero_phase
from data_specs.ecg.recording import LEADS, Recording, amid_zeros, conform, window_starts


def recording(seconds: float = 10.0, fs_hz: float = 250.0, *, gap: bool = False) -> Recording:
    rng = np.random.default_rng(3)
    time = np.arange(round(seconds * fs_hz)) / fs_hz
    size = np.arange(1, 13)[:, None] / 6
    samples = (size * np.sin(2 * np.pi * 1.2 * time) + 0.02 * rng.standard_normal((12, len(time)))).astype(np.float32)
    if gap:
        samples[3, 100:140] = np.nan
    return Recording(samples, fs_hz, "test")


def as_before(one: Recording, fs_hz: int, n_samples: int) -> NDArray[np.float32]:
    """What the shipped networks were trained on, step by step."""
    samples = zero_phase(resample(fill_gaps(one.samples), one.fs_hz, 500.0), 4, (0.5, 40.0), 500.0)
    samples -= samples.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.einsum("ij,ij->i", samples, samples) / samples.shape[1])[:, None]
    samples /= np.where(deviation > 0, deviation, 1.0)
    done = resample(samples, 500.0, float(fs_hz)).astype(np.float32)
    starts = window_starts(done.shape[1], n_samples, 6)
    return np.stack([done[:, start : start + n_samples] for start in starts])


@pytest.mark.parametrize("seconds", [10.0, 35.0])
@pytest.mark.parametrize("gap", [False, True])
def test_the_shipped_form_is_what_it_was_to_the_last_bit(seconds: float, gap: bool) -> None:
    one = recording(seconds, gap=gap)
    expected = as_before(one, 100, 1000)
    assert np.array_equal(conform(one, fs_hz=100, n_samples=1000), expected)
    shipped = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=6)
    assert np.array_equal(shipped.conform(one), expected)
    assert len(shipped.conform(one, max_windows=1)) == 1


def test_a_bundle_that_says_nothing_takes_the_shipped_form() -> None:
    old = EcgInput.model_validate_json('{"modality":"ecg","fs_hz":100,"n_samples":1000,"leads":["I"],"max_windows":6}')
    assert old.form == ((0.5, 40.0), "lead", "continue")


def test_millivolts_are_resampled_and_nothing_else() -> None:
    one = recording(12.0, 500.0)
    takes = EcgInput(
        fs_hz=400, n_samples=4096, leads=LEADS, max_windows=1, band_hz=None, normalisation="none", filling="zeros"
    )
    (found,) = takes.conform(one)
    expected = signal.resample_poly(one.samples.astype(np.float64), 4, 5, axis=1, padtype="line")
    start = window_starts(expected.shape[1], 4096, 1)[0]
    np.testing.assert_allclose(found, expected[:, start : start + 4096], atol=2e-3)


def test_a_short_recording_stands_in_the_middle_of_zeros() -> None:
    takes = EcgInput(
        fs_hz=400, n_samples=4096, leads=LEADS, max_windows=1, band_hz=None, normalisation="none", filling="zeros"
    )
    (found,) = takes.conform(recording(7.0, 400.0))
    assert found.shape == (12, 4096)
    assert not found[:, :648].any()
    assert not found[:, 3448:].any()
    assert np.array_equal(found[:, 648:3448], recording(7.0, 400.0).samples)
    assert amid_zeros(np.ones((12, 3), np.float32), 6)[0].tolist() == [0, 1, 1, 1, 0, 0]


def test_all_leads_together_keep_what_is_between_them() -> None:
    (found,) = conform(
        recording(10.0, 500.0),
        fs_hz=500,
        n_samples=5000,
        max_windows=1,
        band_hz=(0.67, 40.0),
        normalisation="recording",
    )
    assert found.dtype == np.float32
    assert float(found.mean()) == pytest.approx(0, abs=1e-5)
    assert float(found.std()) == pytest.approx(1, abs=1e-5)
    ratio = found[11].std() / found[0].std()
    assert ratio == pytest.approx(12, rel=0.02), "one lead stays twelve times the other"
    (blank,) = conform(
        Recording(np.zeros((12, 5000), np.float32), 500, "test"), fs_hz=500, n_samples=5000, max_windows=1,
        normalisation="recording",
    )  # fmt: skip
    assert not blank.any()
