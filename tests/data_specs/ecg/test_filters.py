"""The arithmetic on leads gives what numpy and scipy give, whose functions it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, signal

from data_specs.ecg.filters import (
    fill_gaps,
    highest_around,
    lowest_around,
    median,
    percentiles,
    resample,
    zero_phase,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n_samples", [800, 5003])
@pytest.mark.parametrize("order_and_band", [(2, 0.5), (4, (0.5, 40.0))])
def test_the_filter_is_sosfiltfilt(n_samples: int, order_and_band: tuple[int, float | tuple[float, float]]) -> None:
    order, band_hz = order_and_band
    samples = 5 + np.cumsum(RNG.normal(0, 0.05, (12, n_samples)), axis=1)
    kind = "bandpass" if isinstance(band_hz, tuple) else "highpass"
    sos = signal.butter(order, band_hz, btype=kind, fs=500.0, output="sos")
    np.testing.assert_allclose(zero_phase(samples, order, band_hz, 500.0), signal.sosfiltfilt(sos, samples), atol=1e-8)


def test_a_constant_has_no_part_in_the_band() -> None:
    np.testing.assert_allclose(zero_phase(np.full((12, 5000), 3.0), 4, (0.5, 40.0), 500.0), 0.0, atol=1e-9)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(500, 100), (1000, 500), (500, 250), (100, 500), (257, 500)])
@pytest.mark.parametrize("n_samples", [997, 5000])
def test_resampling_is_resample_poly(from_hz: int, to_hz: int, n_samples: int) -> None:
    samples = np.cumsum(RNG.normal(0, 0.05, (12, n_samples)), axis=1)
    expected = signal.resample_poly(samples, to_hz, from_hz, axis=-1, padtype="line")
    np.testing.assert_allclose(resample(samples, from_hz, to_hz), expected, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 651, 1250])
def test_order_statistics_are_those_of_numpy(n: int) -> None:
    samples = RNG.normal(size=(8, n))
    np.testing.assert_array_equal(median(samples), np.median(samples, axis=-1))
    wanted = [0.5, 10, 50, 98, 99.5]
    np.testing.assert_array_equal(percentiles(samples, wanted), np.percentile(samples, wanted, axis=-1))
    single = samples.astype(np.float32)
    np.testing.assert_array_equal(percentiles(single, wanted), np.percentile(single, wanted, axis=-1))


def test_gaps_are_bridged_and_empty_leads_are_zero() -> None:
    samples = np.tile(np.arange(10, dtype=np.float32), (3, 1))
    samples[0, 3:5] = samples[1, :2] = samples[2] = np.nan
    assert fill_gaps(samples).tolist() == [list(range(10)), [2, 2, *range(2, 10)], [0] * 10]


@pytest.mark.parametrize("width", [1, 3, 5, 7, 9, 13, 21, 25, 41])
@pytest.mark.parametrize("shape", [(8, 5000), (5000,), (3, 12), (5,), (1,)])
def test_the_highest_and_lowest_around_are_those_of_scipy(width: int, shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(width).normal(size=shape)
    np.testing.assert_array_equal(highest_around(samples, width), ndimage.maximum_filter1d(samples, width))
    np.testing.assert_array_equal(lowest_around(samples, width), ndimage.minimum_filter1d(samples, width))
