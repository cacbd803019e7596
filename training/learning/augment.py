"""Augmentation of whole batches by what differs between clinics, and by nothing that changes the diagnosis.

The generator has to be on the device of the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate


def affine(
    n: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float],
    shift: float,
    degrees: float,
    aspect: tuple[float, float],
) -> Tensor:
    """Random rotations, scales, aspects and shifts as ``(n, 2, 3) float32`` for :func:`warp`; no flip."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * _rand(generator, n)

    angle, scales, aspects = uniform(-degrees, degrees) * math.pi / 180, uniform(*scale), uniform(*aspect)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack(
        [
            torch.stack([cos * scales * aspects, -sin * scales, uniform(-shift, shift)], dim=1),
            torch.stack([sin * scales, cos * scales / aspects, uniform(-shift, shift)], dim=1),
        ],
        dim=1,
    )


def crops(n: int, generator: torch.Generator, *, smallest: float) -> Tensor:
    """Random windows inside the picture, down to ``smallest`` of a side: ``(n, 2, 3) float32`` for :func:`warp`."""
    scale = smallest + (1 - smallest) * _rand(generator, n, 2)
    shift = (1 - scale) * (2 * _rand(generator, n, 2) - 1)
    return torch.cat([torch.diag_embed(scale), shift[:, :, None]], dim=2)


def warp(pictures: Tensor, theta: Tensor, mode: str) -> Tensor:
    """Transform ``(n, 1, side, side)`` by the matrices of :func:`affine` or :func:`crops`; outside is zero."""
    grid = affine_grid(theta, list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, mode=mode, padding_mode="zeros", align_corners=False)


def grey_values(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Random gamma, contrast, brightness, resolution and noise: ``(n, 1, side, side)``, 0 to 255."""
    n, side = len(pictures), pictures.shape[-1]

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * _rand(generator, n)).view(n, 1, 1, 1)

    x = (pictures / 255).clamp_min(1e-4).pow(torch.exp(uniform(-0.35, 0.35)))
    centre = uniform(0.35, 0.65)
    x = ((x - centre) * uniform(0.7, 1.35) + centre + uniform(-0.1, 0.1)).clamp(0, 1)
    if _rand(generator, 1) < 0.3:
        small = int(side * float(0.4 + 0.5 * _rand(generator, 1)))
        x = interpolate(interpolate(x, size=small, mode="area"), size=side, mode="bilinear", align_corners=False)
    noise = _randn(generator, *x.shape) * uniform(0, 0.04)
    return (x + noise).clamp(0, 1) * 255


def films(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Random geometry and grey values. No flip, because the heart is on one side.

    Parameters
    ----------
    batch
        ``(n, 1, side, side) uint8``.

    Returns
    -------
    ``(n, 1, side, side) float32``, 0 to 255
    """
    theta = affine(len(batch), generator, scale=(0.85, 1.12), shift=0.08, degrees=10, aspect=(0.92, 1.08))
    return grey_values(warp(batch.float(), theta, "bilinear"), generator)


def recordings(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Time shift, filters, misplaced chest electrodes, gain, noise of leads, lost leads, short recordings.

    Parameters
    ----------
    batch
        ``(n, 12, n_samples) float32``, standard deviations, 100 Hz, leads in the order I to V6.
    """
    n, leads, length = batch.shape
    shift = int(torch.randint(-length // 4, length // 4 + 1, (1,), generator=generator, device=generator.device))
    x = filtered(torch.roll(batch, shift, dims=2), generator)
    # A chest electrode between its place and that of its neighbour sees a mixture of both.
    towards = 0.3 * _rand(generator, n, leads - 6, 1) * (_rand(generator, n, 1, 1) < 0.5)
    chest = x[:, 6:]
    neighbour = (
        torch.cat([chest[:, 1:], chest[:, -2:-1]], dim=1)
        if _rand(generator, 1) < 0.5
        else torch.cat([chest[:, 1:2], chest[:, :-1]], dim=1)
    )
    x = torch.cat([x[:, :6], chest * (1 - towards) + neighbour * towards], dim=1)
    x = x * (1 + 0.1 * _randn(generator, n, leads, 1))
    time = torch.arange(length, device=batch.device) / 100.0
    frequency = 0.05 + 0.45 * _rand(generator, n, leads, 1)
    phase = 2 * math.pi * _rand(generator, n, leads, 1)
    x = x + 0.15 * _rand(generator, n, leads, 1) * torch.sin(2 * math.pi * frequency * time + phase)
    x = x + 0.08 * _rand(generator, n, 1, 1) * _randn(generator, *x.shape)
    # One recording of four has some leads that are much noisier than the others.
    noisy = (_rand(generator, n, leads, 1) < 0.2) & (_rand(generator, n, 1, 1) < 0.25)
    x = x + 0.4 * noisy * _rand(generator, n, leads, 1) * _randn(generator, *x.shape)
    x = x.masked_fill(_rand(generator, n, leads, 1) < 0.04, 0.0)
    # Half of the recordings lose up to a quarter on each side.
    margin = (_rand(generator, n, 1, 1) * 2 - 1).clamp_min(0) * 0.25 * length
    position = torch.arange(length, device=batch.device).view(1, 1, -1)
    return x.masked_fill((position < margin) | (position >= length - margin), 0.0)


def filtered(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the recordings ``(n, leads, n_samples)``, 100 Hz, through a further low pass (15 to 40 Hz) and high pass.

    Devices differ in both; Butterworth's gain of the second order without phase, as filters there and back have.
    """
    n, _, length = batch.shape
    frequency = torch.fft.rfftfreq(length, 0.01, device=batch.device)
    low_hz, high_hz = 15 + 25 * _rand(generator, n, 1, 1), 0.8 * _rand(generator, n, 1, 1)
    gain = 1 / (1 + (frequency / low_hz) ** 4) / (1 + (high_hz / frequency.clamp_min(0.01)) ** 4)
    gain = torch.where(_rand(generator, n, 1, 1) < 0.5, gain, torch.ones_like(gain))
    return torch.fft.irfft(torch.fft.rfft(batch, dim=2) * gain, n=length, dim=2)


def _rand(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
