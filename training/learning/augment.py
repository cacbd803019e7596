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
    """Time shift, lead gain, baseline wander, muscle noise, lost leads, shortened recordings.

    Parameters
    ----------
    batch
        ``(n, 12, n_samples) float32``, standard deviations, 100 Hz.
    """
    n, leads, length = batch.shape
    shift = int(torch.randint(-length // 4, length // 4 + 1, (1,), generator=generator, device=generator.device))
    x = torch.roll(batch, shift, dims=2)
    x = x * (1 + 0.1 * _randn(generator, n, leads, 1))
    time = torch.arange(length, device=batch.device) / 100.0
    frequency = 0.05 + 0.45 * _rand(generator, n, leads, 1)
    phase = 2 * math.pi * _rand(generator, n, leads, 1)
    x = x + 0.15 * _rand(generator, n, leads, 1) * torch.sin(2 * math.pi * frequency * time + phase)
    x = x + 0.08 * _rand(generator, n, 1, 1) * _randn(generator, *x.shape)
    x = x.masked_fill(_rand(generator, n, leads, 1) < 0.04, 0.0)
    # Half of the recordings lose up to a tenth on each side.
    margin = (_rand(generator, n, 1, 1) * 2 - 1).clamp_min(0) * 0.1 * length
    position = torch.arange(length, device=batch.device).view(1, 1, -1)
    return x.masked_fill((position < margin) | (position >= length - margin), 0.0)


def _rand(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _randn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)
