"""What is trained on, and how it is drawn, augmented and mixed into batches.

All random numbers depend only on seed, epoch, step and position in the batch, so that a resumed training, and one of
several processes, see the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]

CHUNK = 8
"""Cases that are augmented and mixed together; the part of a batch in each process is a multiple of it."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Parameters
    ----------
    batch_size
        Of all processes together: a multiple of :data:`CHUNK` times their number.
    average_decay
        Decay of the moving average of the weights, per step.
    mixup
        Parameter of the Beta distribution (Zhang et al., ICLR 2018), 0 for no mixup.
    frozen
        Names of submodules that do not change: neither weights nor running statistics, and without dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup: float = 0.1
    average_decay: float = 0.995
    mixup: float = 0.0
    precision: Literal["bf16", "fp32"] = "bf16"
    frozen: tuple[str, ...] = ()
    seed: int = 20260101


@dataclass(frozen=True)
class Cases:
    """Training cases held in memory.

    Parameters
    ----------
    x
        ``(n, ...)`` network input.
    y
        ``(n, n_labels) float32`` of 0, 1 and NaN (unknown: left out of the loss).
    weight
        ``(n,) float64``: how often a case is drawn, relative to the others.
    """

    x: Tensor
    y: Tensor
    weight: NDArray[np.float64]


def seed_of(chance: np.random.SeedSequence) -> int:
    """A seed for torch."""
    return int(chance.generate_state(1, np.uint64)[0])


def draws(weight: NDArray[np.float64], recipe: Recipe, epoch: int, steps: int) -> Iterator[Tensor]:
    """Rows of each batch of the epoch, ``(batch_size,) int64``; every batch is full."""
    generator = torch.Generator().manual_seed(seed_of(np.random.SeedSequence((recipe.seed, epoch))))
    n = steps * recipe.batch_size
    drawn = torch.multinomial(torch.from_numpy(weight), n, replacement=True, generator=generator)
    return iter(drawn.split(recipe.batch_size))


def batch_of(
    cases: Cases, rows: Tensor, place: tuple[int, int, int], augment: Augment, recipe: Recipe, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Augment and mix chunk by chunk; the random numbers depend on seed, epoch, step and position in the batch."""
    epoch, step, start = place
    generator = torch.Generator(device)
    parts = []
    for chunk, chunk_rows in enumerate(rows.split(CHUNK), start=start // CHUNK):
        chance = np.random.SeedSequence((recipe.seed, epoch, step, chunk))
        x = augment(cases.x[chunk_rows].to(device), generator.manual_seed(seed_of(chance)))
        y = cases.y[chunk_rows].to(device)
        parts.append(_mix(x, y, recipe.mixup, np.random.default_rng(chance)) if recipe.mixup else (x, y))
    xs, ys = zip(*parts, strict=True)
    x = torch.cat(xs)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, torch.cat(ys)


def _mix(x: Tensor, y: Tensor, parameter: float, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
    share = float(chance.beta(parameter, parameter))
    other = torch.from_numpy(chance.permutation(len(x))).to(x.device)
    return share * x + (1 - share) * x[other], share * y + (1 - share) * y[other]
