"""Several processes that share a batch, as ``torchrun`` starts them: gloo on CPUs, NCCL on CUDA devices.

Every mean over the batch (the loss, the statistics of batch norm) is computed over all processes, so that a step of
several processes is the same as a step of one. With one process torch.distributed is not used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def chosen_device(device: str, local_rank: int = 0) -> torch.device:
    """The device of this process; ``auto`` is CUDA where torch sees it.

    Raises
    ------
    ValueError
        CUDA is asked for and there is none, or there are fewer devices than processes on this machine.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if device not in ("auto", "cuda"):
        raise ValueError(f"device {device!r}: expected auto, cpu or cuda")
    if not torch.cuda.is_available():
        raise ValueError("no CUDA device is available for --device cuda; give cpu or auto")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"there is no CUDA device for process {local_rank + 1} of this machine, only "
            f"{torch.cuda.device_count()} in all; start as many processes as devices, or give --device cpu"
        )
    return torch.device("cuda", local_rank)


@dataclass(frozen=True)
class Processes:
    """This process and the number of processes that share a batch.

    Attributes
    ----------
    rank, world_size
        Number of this process, from 0, and of all processes.
    device
        Where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def current(cls, device: str = "cpu") -> Processes:
        """This process in the group that :meth:`joined` entered; the only one if there is no group."""
        if dist.is_available() and dist.is_initialized():
            local_rank = int(os.environ["LOCAL_RANK"])
            return cls(dist.get_rank(), dist.get_world_size(), chosen_device(device, local_rank))
        return cls(0, 1, chosen_device(device))

    @classmethod
    @contextmanager
    def joined(cls, device: str = "auto") -> Iterator[Processes]:
        """Enter the group of processes that ``torchrun`` started, and leave it at the end.

        Without ``torchrun`` there is one process and no group. A group that was entered before stays open.
        """
        outer = int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized()
        if not outer:
            own = chosen_device(device, int(os.environ["LOCAL_RANK"]))
            if own.type == "cuda":
                torch.cuda.set_device(own)
                dist.init_process_group("nccl", device_id=own)
            else:
                dist.init_process_group("gloo")
        try:
            yield cls.current(device)
        finally:
            if not outer:
                dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def rows(self, n: int) -> slice:
        """The rows of this process, of ``n`` that are divided evenly."""
        share = n // self.world_size
        return slice(self.rank * share, (self.rank + 1) * share)

    def sum(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over all processes, without gradient."""
        if self.world_size == 1:
            return x
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    def any(self, x: bool) -> bool:
        """Whether ``x`` holds in any process."""
        return bool(self.sum(torch.tensor(float(x), device=self.device)) > 0)

    def same(self, x: int) -> bool:
        """Whether all processes have the same small number."""
        return int(self.sum(torch.tensor(x, device=self.device))) == x * self.world_size

    def share(self, network: nn.Module) -> None:
        """Copy the weights and buffers of the first process to all others."""
        if self.world_size > 1:
            for value in network.state_dict().values():
                dist.broadcast(value, src=0)

    @torch.no_grad()
    def sum_gradients(self, network: nn.Module) -> None:
        """Sum the gradients over all processes, in one message.

        The loss of each process is its part of the sum over the whole batch, so gradients are summed, not averaged.
        """
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if self.world_size > 1 and gradients:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view(gradient.shape))


class _Sum(torch.autograd.Function):
    """Sum over the processes; its gradient is also a sum, because every loss depends on every summand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class SynchronisedBatchNorm(_BatchNorm):
    """Batch norm over the equally large batches of all processes; works on CPUs, unlike ``SyncBatchNorm``.

    The variance is computed after the mean, in fp32 or more, to avoid cancellation. Running statistics (with the
    unbiased variance) and the names of the weights are those of ``nn.BatchNorm1d``.

    References
    ----------
    Ioffe, Szegedy, Batch Normalization, ICML 2015, algorithms 1 and 2.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (n, channels, …), found {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        over = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _Sum.apply(x.sum(over)) / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(over)) / count
        self._update_running_statistics(mean.detach(), variance.detach() * count / max(1, count - 1))
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        out = centred * scale.view(shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        return out.to(input.dtype)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        self.running_var.mul_(1 - momentum).add_(variance, alpha=momentum)


def synchronised(network: nn.Module) -> nn.Module:
    """``network`` with each batch norm replaced by :class:`SynchronisedBatchNorm`; weights keep their names."""
    if isinstance(network, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        norm = SynchronisedBatchNorm(
            network.num_features, network.eps, network.momentum, network.affine, network.track_running_stats
        )
        # The same parameter objects, so that device, dtype, requires_grad and sharing stay the same.
        norm._parameters, norm._buffers, norm.training = network._parameters, network._buffers, network.training
        return norm
    for name, child in network.named_children():
        setattr(network, name, synchronised(child))
    return network
