"""The training loop: masked multi-label loss, cosine schedule, averaged weights, one checkpoint per epoch.

A resumed run gives the same result as an uninterrupted one, and several processes (started by ``torchrun``) give the
result of one, up to rounding.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from training.learning.batches import CHUNK, Augment, Cases, Recipe, batch_of, draws, seed_of
from training.learning.checkpoints import fingerprint, resume, save
from training.learning.curves import curves
from training.learning.kept import Kept
from training.learning.processes import Processes, synchronised

Watch = Callable[[nn.Module], Mapping[str, float]]


def masked_loss(logits: Tensor, y: Tensor, count: Tensor | None = None) -> Tensor:
    """Binary cross-entropy: mean over the known labels of each case, then over the cases with any known label.

    So a case has the same weight whether its cohort has one label or eighteen. ``logits`` are ``(n, n_labels)``, or
    ``(n_members, n, n_labels)`` of an ensemble, whose members each have their own loss. ``count`` is the number of
    cases with a known label, to be given if the batch is shared with other processes.
    """
    known = ~torch.isnan(y)
    per_member = logits.reshape(-1, *y.shape)
    loss = binary_cross_entropy_with_logits(per_member, y.nan_to_num().expand_as(per_member), reduction="none") * known
    per_case = loss.sum(dim=2).mean(dim=0) / known.sum(dim=1).clamp_min(1)
    return per_case.sum() / (n_cases(y) if count is None else count).clamp_min(1)


def n_cases(y: Tensor) -> Tensor:
    """Number of cases with any known label."""
    return (~torch.isnan(y)).any(dim=1).sum()


def fit(
    network: nn.Module,
    cases: Cases,
    augment: Augment,
    recipe: Recipe,
    run: Path,
    *,
    device: str = "auto",
    watch: Watch | None = None,
    kept: Kept | None = None,
    mlflow: str | None = None,
) -> nn.Module:
    """Train a copy of ``network`` and return it with averaged weights, in ``eval`` mode, on the training device.

    Each epoch draws about as many cases as there are (whole batches), by ``cases.weight``. An interrupted run is
    resumed after the last finished epoch, with the same result. Under ``torchrun`` all processes return the same
    network; only the first one writes files.

    Parameters
    ----------
    run
        Folder of ``checkpoint.pt`` and ``tensorboard/``, shared by all processes.
    watch
        Called after each epoch with the averaged network; its figures are only logged.
    kept
        Sees the averaged network before training and after each epoch; the weights of its best epoch are returned, and
        it says when to stop. Without it the last epoch's are.
    mlflow
        Where MLflow tracks the curves beside TensorBoard; ``None``: nowhere.

    Raises
    ------
    CheckpointMismatch
        ``run`` has the checkpoint of another training.
    ValueError
        The batch cannot be shared evenly, there is no submodule of a frozen name, or no CUDA device.
    FloatingPointError
        The loss is not finite; the checkpoint is that of the epoch before.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(Processes.joined(device))
        _check_batch_size(recipe, processes.world_size)
        identity = fingerprint(network, asdict(recipe), x=cases.x, y=cases.y, weight=cases.weight)
        learner = _learner(network, cases, recipe, processes)
        average, schedule, steps_per_epoch = learner.average, learner.schedule, learner.steps_per_epoch
        parts = learner.parts | ({"kept": kept} if kept is not None else {})
        first = resume(run / "checkpoint.pt", parts, identity)
        if not processes.same(first):
            raise ValueError(
                f"{run}: not every process sees the same checkpoint; give a folder that all processes share"
            )
        logged = stack.enter_context(curves(run, first, asdict(recipe), mlflow)) if processes.first else None
        bar = stack.enter_context(
            tqdm(
                total=recipe.epochs * steps_per_epoch,
                initial=first * steps_per_epoch,
                unit="step",
                mininterval=5,
                disable=not processes.first,
            )
        )
        if kept is not None and logged is not None and not kept.seen:
            logged.log(0, {f"before training/{name}": value for name, value in kept.see(average).items()})
            average.eval()
        for epoch in range(first, recipe.epochs):
            if processes.any(kept is not None and kept.stops):
                break
            started, rate = time.perf_counter(), float(schedule.get_last_lr()[0])
            mean = _train_epoch(learner, cases, augment, recipe, epoch, bar)
            bar.set_postfix(epoch=epoch + 1, loss=f"{mean:.4f}")
            if logged is not None:
                speed = steps_per_epoch * recipe.batch_size / (time.perf_counter() - started)
                watched = {**(watch(average) if watch is not None else {}), **(kept.see(average) if kept else {})}
                average.eval()
                # Curves before the checkpoint: if the epoch is trained again, TensorBoard hides its first curves.
                figures = {"loss": mean, "learning rate": rate, "cases per second": speed}
                logged.log(epoch, figures | {f"watch/{name}": value for name, value in watched.items()})
                save(run / "checkpoint.pt", parts, identity, epoch)
        if kept is not None and processes.first:
            average.load_state_dict(kept.weights)
        if kept is not None:
            processes.share(average)
    return average


@dataclass(frozen=True)
class _Learner:
    """A network in training, and what moves its weights."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    frozen: list[nn.Module]
    steps_per_epoch: int
    processes: Processes

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {name: getattr(self, name) for name in ("network", "average", "optimizer", "schedule")}


def _learner(network: nn.Module, cases: Cases, recipe: Recipe, processes: Processes) -> _Learner:
    """A copy of ``network`` on the training device, with optimizer and schedule."""
    network = copy.deepcopy(network).to(processes.device)
    if cases.x.ndim == 4:
        network = network.to(memory_format=torch.channels_last)
    processes.share(network)
    average = copy.deepcopy(network).eval()
    if processes.world_size > 1:
        network = synchronised(network)
    frozen = [_submodule(network, name).requires_grad_(False) for name in recipe.frozen]
    steps_per_epoch = math.ceil(len(cases.x) / recipe.batch_size)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(recipe.epochs * steps_per_epoch, recipe.warmup))
    return _Learner(network, average, optimizer, schedule, frozen, steps_per_epoch, processes)


def _train_epoch(learner: _Learner, cases: Cases, augment: Augment, recipe: Recipe, epoch: int, bar: Any) -> float:
    """One epoch; returns its mean loss.

    Raises
    ------
    FloatingPointError
        The loss is not finite.
    """
    network, processes = learner.network, learner.processes
    share = processes.rows(recipe.batch_size)
    torch.manual_seed(seed_of(np.random.SeedSequence((recipe.seed, epoch))))
    _to_training(network, learner.frozen)
    total = torch.zeros((), device=processes.device)
    for step, drawn in enumerate(draws(cases.weight, recipe, epoch, learner.steps_per_epoch)):
        x, y = batch_of(cases, drawn[share], (epoch, step, share.start), augment, recipe, processes.device)
        with torch.autocast(processes.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits, _ = network(x)
        loss = masked_loss(logits.float(), y, processes.sum(n_cases(y)))
        learner.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        processes.sum_gradients(network)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        learner.optimizer.step()
        learner.schedule.step()
        _average(learner.average, network, recipe.average_decay, learner.schedule.last_epoch)
        total += loss.detach()
        bar.update()
    mean = float(processes.sum(total)) / learner.steps_per_epoch
    if not math.isfinite(mean):
        raise FloatingPointError(f"the loss of epoch {epoch + 1} is {mean}; try a lower learning rate")
    return mean


def predict(network: nn.Module, x: Tensor, batch_size: int = 64) -> NDArray[np.float64]:
    """Logits ``(n, n_findings) float64`` of ``x``, computed in fp32 on the device of ``network``."""
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        return np.concatenate([network(part.to(device))[0].cpu().numpy() for part in x.split(batch_size)]).astype(
            np.float64
        )


def _check_batch_size(recipe: Recipe, world_size: int) -> None:
    unit = CHUNK * world_size
    if recipe.batch_size < 1 or recipe.batch_size % unit:
        below = recipe.batch_size // unit * unit
        raise ValueError(
            f"batch_size is {recipe.batch_size}, but {world_size} process(es) share it in chunks of {CHUNK}: "
            f"give a multiple of {unit}, such as {f'{below} or ' if below > 0 else ''}{max(below, 0) + unit}"
        )


def _submodule(network: nn.Module, name: str) -> nn.Module:
    modules = dict(network.named_modules())
    if not name or name not in modules:
        names = ", ".join(child for child, _ in network.named_children())
        raise ValueError(f"frozen: the network has no submodule {name!r}; it has {names} and their submodules")
    return modules[name]


def _to_training(network: nn.Module, frozen: list[nn.Module]) -> None:
    network.train()
    for module in frozen:
        module.eval()


def cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear over the share ``warmup`` of ``steps``, then a half cosine to 0."""
    warm = max(1, int(warmup * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and buffers, with a smaller decay in early steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)
