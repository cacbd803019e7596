"""What is changed in a recording differs between hospitals, and what a doctor reads from it stays."""

from __future__ import annotations

import pytest
import torch

from training.learning.augment import filtered, recordings


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(hz: float, n: int = 64) -> torch.Tensor:
    time = torch.arange(1000) / 100.0
    return torch.sin(2 * torch.pi * hz * time).expand(n, 12, 1000).clone()


@pytest.mark.parametrize(("hz", "least"), [(2.0, 0.97), (10.0, 0.83)])
def test_filters_leave_the_middle_of_the_band_and_shift_nothing(hz: float, least: float) -> None:
    x = wave(hz)
    y = filtered(x, drawn(1))
    kept = (y * x).mean(dim=(1, 2)) / x.square().mean(dim=(1, 2))  # of what lies in phase
    assert least <= kept.min()
    assert kept.max() <= 1 + 1e-5
    torch.testing.assert_close(y, x * kept[:, None, None], atol=1e-3, rtol=0)  # and nothing lies out of phase


def test_half_of_the_recordings_are_filtered_at_the_edges_of_the_band() -> None:
    for hz in (0.2, 39.0):
        power = filtered(wave(hz, 400), drawn(2)).square().mean(dim=(1, 2))
        unchanged = (power > 0.4999).float().mean()
        assert 0.4 < unchanged < 0.65
        assert power.min() < 0.05


def test_a_recording_stays_finite_whole_and_of_its_shape() -> None:
    x = torch.randn(128, 12, 1000, generator=drawn(3))
    y = recordings(x, drawn(4))
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    # Five seconds of ten are left at least, in every recording.
    recorded = (y.abs().sum(dim=1) > 0).sum(dim=1)
    assert recorded.min() >= 500
    assert (recorded == 1000).float().mean() > 0.3


def test_chest_leads_are_mixed_with_their_neighbours_only() -> None:
    """Each lead has a frequency of its own, so that what it was mixed with can be told."""
    hz = torch.arange(3.0, 15.0)
    x = torch.sin(2 * torch.pi * hz[:, None] * torch.arange(1000) / 100.0).expand(64, 12, 1000).clone()
    strength = torch.fft.rfft(recordings(x, drawn(5)), dim=2).abs()[:, :, (hz * 10).long()] / 500
    share = strength / strength.diagonal(dim1=1, dim2=2)[:, :, None].clamp_min(1e-3)
    alive = strength.diagonal(dim1=1, dim2=2) > 0.3  # neither lost nor cut
    near = (torch.arange(12)[:, None] - torch.arange(12)).abs() == 1
    chest = torch.zeros(12, 12, dtype=torch.bool)
    chest[6:, 6:] = True
    mixed = share[:, near & chest][alive[:, 6:].all(dim=1)]
    apart = share[:, ~near & ~torch.eye(12, dtype=torch.bool)][alive.all(dim=1)]
    assert mixed.max() > 0.25
    assert apart.median() < 0.05
