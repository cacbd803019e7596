"""What the gate is trained on: chest films as clinics send them, and pictures that are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.cohorts import laterals, negatives
from training.learning import augment

CUT_FROM, WHOLE_TO = 0.12, 0.04
"""Share of the lungs outside the film above which they are labelled cut off, and below which they are not."""

KINDS = ("made_up", "spoiled", "lateral")
KIND_SHARES = (0.25, 0.25, 0.5)
"""Of the negatives. Laterals are as many as all others, because they are the only ones that clinics send often."""

INVERTED_SHARE, MIRRORED_SHARE, WHITENED_SHARE = 0.35, 0.5, 0.15
"""Of the chest films in a batch."""


@dataclass(frozen=True)
class GateCases:
    """Real films ``(n, 1, side, side) uint8`` and lung fields ``(n, 1, side, side) float32``, NaN where unknown."""

    films: Tensor
    lungs: Tensor


def batch(
    cases: GateCases, rows: NDArray[np.intp], rng: np.random.Generator, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Films of ``rows`` and as many negatives: ``x``, lungs, targets ``(chest, inverted, cut_off, mirrored)``."""
    n = len(rows)
    films, lungs, lost = transform_together(cases.films[rows], cases.lungs[rows], generator)
    films = torch.from_numpy(np.stack([as_sent(film[0].numpy(), rng) for film in films]))[:, None].float()
    others = np.stack([negative(cases.films[row, 0].numpy(), rng) for row in rng.choice(len(cases.films), n)])
    x = augment.grey_values(torch.cat([films, torch.from_numpy(others)[:, None].float()]), generator)
    lungs = torch.cat([lungs, torch.zeros_like(lungs)])
    mirrored = torch.rand(2 * n, generator=generator) < MIRRORED_SHARE
    inverted = torch.from_numpy(np.append(rng.random(n) < INVERTED_SHARE, np.zeros(n, dtype=bool)))
    x = torch.where(inverted.view(-1, 1, 1, 1), 255 - x, x)
    x, lungs = (torch.where(mirrored.view(-1, 1, 1, 1), plane.flip(3), plane) for plane in (x, lungs))
    nan, unknown = torch.tensor(torch.nan), torch.full((n,), torch.nan)
    chest = torch.cat([torch.where(lost > 0.4, nan, 1.0), torch.zeros(n)])
    cut = torch.where(lost > CUT_FROM, 1.0, torch.where(lost < WHOLE_TO, 0.0, nan))
    of_films = (torch.cat([known[:n], unknown]) for known in (inverted.float(), cut, mirrored.float()))
    return x, lungs, torch.stack([chest, *of_films], dim=1)


def negative(film: negatives.Picture, rng: np.random.Generator) -> negatives.Picture:
    """A picture that is no frontal chest film, made up or from ``film``."""
    kind = rng.choice(KINDS, p=KIND_SHARES)
    if kind == "made_up":
        return negatives.draw(rng, len(film))
    if kind == "spoiled":
        return negatives.spoil(film, rng)
    # Half of them upright. Turned, one may look like a frontal film, and films are turned until they do.
    turns = int(rng.integers(1, 4)) if rng.random() < 0.5 else 0
    return np.ascontiguousarray(np.rot90(laterals.draw(film, rng), turns))


def transform_together(films: Tensor, lungs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Transform each film and its lung fields alike; also the share of the lungs that is then outside.

    Most are rotated, scaled and squeezed as projection and collimation do, with any grey beside the film; the others
    are cropped. Without lung fields the share is NaN.
    """
    n = len(films)
    gentle = augment.affine(n, generator, scale=(0.9, 1.45), shift=0.1, degrees=15, aspect=(0.82, 1.22))
    crop = torch.rand(n, 1, 1, generator=generator) < 0.4
    theta = torch.where(crop, augment.crops(n, generator, smallest=0.6), gentle)
    area = torch.linalg.det(theta[:, :, :2]).abs()
    after = augment.warp(lungs, theta, "nearest")
    lost = 1 - after.mean(dim=(1, 2, 3)) * area / lungs.mean(dim=(1, 2, 3)).clamp_min(1e-6)
    inside = augment.warp(torch.ones(films.shape), theta, "nearest")
    beside = 255 * torch.rand(n, 1, 1, 1, generator=generator)
    beside = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.7, 0.0, beside)
    return augment.warp(films.float(), theta, "bilinear") * inside + beside * (1 - inside), after, lost


def as_sent(film: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A film, now and then with one lung white, a marker, or the border of a scan."""
    side = len(film)
    if rng.random() < WHITENED_SHARE:
        y, x = np.mgrid[0:side, 0:side] / side
        at = 0.5 + rng.choice([-1, 1]) * rng.uniform(0.12, 0.3), rng.uniform(0.3, 0.8)
        far = np.hypot((x - at[0]) / rng.uniform(0.1, 0.3), (y - at[1]) / rng.uniform(0.15, 0.6))
        white = (np.clip(1.5 - 1.2 * far, 0, 1) * rng.uniform(0.3, 1)).astype(np.float32)
        film = film * (1 - white) + np.float32(np.quantile(film, 0.9)) * white
    return negatives.framed(film, rng)


def read_lungs(paths: list[Path | None], side: int) -> Tensor:
    """Lung fields at ``side`` pixels, ``(n, 1, side, side) float32`` of 0 and 1; NaN for ``None``."""
    fields = torch.full((len(paths), 1, side, side), torch.nan)
    for row, path in enumerate(paths):
        if path is not None:
            drawn = Image.open(path).convert("L").resize((side, side), Image.Resampling.BOX)
            fields[row, 0] = torch.from_numpy(np.asarray(drawn) > 127).float()
    return fields
