"""Train small networks with everything on that could depend on the number of processes; a script for ``torchrun`` too.

``torchrun … ddp_curve.py FOLDER PRECISION`` trains each of :data:`NETWORKS` into ``FOLDER/NAME`` and saves its weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from models.networks import ChannelDropout, FilmNet, RecordingNet
from training.learning import augment
from training.learning.batches import Cases, Recipe
from training.learning.fit import fit, masked_loss, n_cases
from training.learning.processes import Processes, synchronised

NETWORKS = ("recording", "film")


class SmallNet(FilmNet):
    """The film network with three of its sixteen blocks."""

    BLOCKS = ("r1_k3_s22_e1_i32_o16", "r1_k5_s22_e6_i16_o24", "r1_k3_s11_e6_i24_o32")


def unknown(y: torch.Tensor) -> torch.Tensor:
    """Hide most of the second column and some of the first, by chance: no two halves of a batch know as much."""
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(5)) < torch.tensor([0.2, 0.7])
    return y.masked_fill(hidden, torch.nan)


def recordings(n: int = 48) -> Cases:
    """Recordings whose first lead carries a 5 Hz wave or none."""
    y = (torch.arange(n) % 2).float()
    x = 0.5 * torch.randn(n, 12, 200, generator=torch.Generator().manual_seed(1))
    x[:, 0] += y[:, None] * torch.sin(torch.arange(200) * 2 * torch.pi * 5 / 100)
    return Cases(x, unknown(torch.stack([y, 1 - y], dim=1)), np.linspace(1, 2, n))


def films(n: int = 40) -> Cases:
    """Films that are brighter above or below."""
    y = (torch.arange(n) % 2).float()
    x = 60 + 80 * torch.rand(n, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    x[:, :, :32] += 60 * y.view(n, 1, 1, 1)
    return Cases(x.to(torch.uint8), unknown(torch.stack([y, 1 - y], dim=1)), np.linspace(1, 2, n))


def train(name: str, run: Path, precision: str) -> nn.Module:
    torch.manual_seed(3)
    if name == "recording":
        network: nn.Module = RecordingNet(2, widths=(8, 16), blocks=1, kernels=(5, 7))
        recipe = Recipe(4, 16, 5e-3, average_decay=0.9, mixup=0.3, precision=precision)
        return fit(network, recordings(), augment.recordings, recipe, run, device="cpu")
    # Few small steps: Adam makes of a gradient's last digit a whole step, and what differs there grows.
    recipe = Recipe(3, 16, 3e-5, average_decay=0.9, mixup=0.3, precision=precision)
    return fit(SmallNet(2), films(), augment.films, recipe, run, device="cpu")


def gradients(processes: Processes) -> dict[str, torch.Tensor]:
    """Gradients and running statistics of one step in double precision, where rounding hides nothing."""
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8, momentum=None),
        ChannelDropout(0.3),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8, affine=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(8),
        nn.Linear(8, 2),
    ).double()
    x, y = torch.randn(16, 1, 9, 9).double(), films(16).y.double()
    if processes.world_size > 1:
        network = synchronised(network)
        x, y = x[processes.rows(16)], y[processes.rows(16)]
    for _ in range(2):
        network.zero_grad()
        masked_loss(network(x), y, processes.sum(n_cases(y))).backward()
        processes.sum_gradients(network)
    return {**{name: p.grad for name, p in network.named_parameters()}, **dict(network.named_buffers())}


def curve(run: Path, tag: str = "loss") -> list[float]:
    """What TensorBoard shows of ``tag``: one value per epoch, in order."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    points = events.Scalars(tag)
    assert [point.step for point in points] == list(range(len(points)))
    return [point.value for point in points]


def main(name: str, precision: str) -> None:
    torch.set_num_threads(1)
    folder = Path(name)
    with Processes.joined("cpu") as processes:
        torch.save(gradients(processes), folder / f"gradients-{processes.rank}.pt")
        for each in NETWORKS:
            network = train(each, folder / each, precision)
            torch.save(network, folder / f"{each}-{processes.rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
