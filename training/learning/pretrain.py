"""``python -m training pretrain``: a network's weights before it has seen a label, from all training cases at hand.

Each case is looked at twice, as two clinics might have taken it; the features of the two looks are drawn together,
while each feature must keep its spread over the cases and no two features may say the same (VICReg). Labels are never
read, and persons of validation and test are never looked at. What is written is for ``--init FILE``.

References
----------
Bardes, Ponce, LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, ICLR 2022.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import tqdm

from training.cohorts.cohort import Cohort
from training.learning import augment
from training.learning.start import parts_of

View = Callable[[Tensor, torch.Generator], Tensor]

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""Weights of the three terms, Bardes et al. 2022, section 4.2 (lambda, mu, nu)."""
SPREAD, EPSILON = 1.0, 1e-4
"""Deviation that each feature must keep, and what keeps its root smooth: ibid., section 4.1 (gamma, epsilon)."""
PROJECTOR = 4
"""Width of the three layers that the loss looks through, per case of a batch: 8192 for 2048, ibid., section 4.2. The
covariance of features that are independent is not zero in a small batch: it grows with this ratio."""
SMALLEST_BATCH = 16
"""Fewer cases say nothing of a feature's spread."""
CHUNK = 8
"""Cases that share what an augmentation draws once per batch."""


class CannotPretrain(ValueError):
    """For a reason that is said in full."""


@dataclass(frozen=True)
class Pretext:
    """How to train without labels."""

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    bf16: bool = True
    seed: int = 20260101


@dataclass(frozen=True)
class Unlabelled:
    """Network inputs ``(n, ...)`` of the train parts, and whose they are."""

    x: Tensor
    cohorts: tuple[str, ...]
    n_persons: int


def unlabelled(cohorts: Sequence[Cohort]) -> Unlabelled:
    """The train parts of ``cohorts``, without their labels.

    Raises
    ------
    CannotPretrain
        A person of a train part also validates or tests, or there are too few cases.
    """
    kept, persons = [], set()
    for cohort in cohorts:
        train = cohort.rows("train")
        here = set(cohort.person[train])
        if elsewhere := here & set(cohort.person[np.isin(cohort.part, ("validation", "test"))]):
            raise CannotPretrain(
                f"{cohort.name}: {len(elsewhere)} persons of the train part also validate or test; "
                "features learnt from them would flatter every later figure"
            )
        kept.append(cohort.x[train])
        persons |= here
    if sum(map(len, kept)) < SMALLEST_BATCH:
        raise CannotPretrain(f"{sum(map(len, kept))} training cases; at least {SMALLEST_BATCH} are needed")
    return Unlabelled(torch.from_numpy(np.concatenate(kept)), tuple(c.name for c in cohorts), len(persons))


def films(batch: Tensor, generator: torch.Generator) -> Tensor:
    """A window of at least half of each side, as another clinic might have taken it: ``(n, 1, side, side) float32``."""
    window = augment.warp(batch.float(), augment.crops(len(batch), generator, smallest=0.5), "bilinear")
    return augment.films(window, generator)


def recordings(batch: Tensor, generator: torch.Generator) -> Tensor:
    """At least half of the time, as another device might have taken it: ``(n, 12, n_samples) float32``.

    The rest is blank, as a short recording is padded. Of the ways to look at a recording twice, leaving out time did
    best in Mehari and Strodthoff, Comput Biol Med 2022;141:105114; time is not stretched here, as rate is a finding.
    """
    x = augment.recordings(batch, generator)
    n, _, length = x.shape
    kept = length * (0.5 + 0.5 * torch.rand(n, 1, 1, generator=generator))
    first = (length - kept) * torch.rand(n, 1, 1, generator=generator)
    position = torch.arange(length).view(1, 1, -1)
    return x.masked_fill((position < first) | (position >= first + kept), 0.0)


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    """Loss of two looks ``(n, d) float32`` at the same cases, Bardes et al. 2022, equation 6."""
    spread = (_too_narrow(a) + _too_narrow(b)) / 2
    return INVARIANCE * mse_loss(a, b) + VARIANCE * spread + COVARIANCE * (_repeated(a) + _repeated(b))


def _too_narrow(z: Tensor) -> Tensor:
    """Equation 1. Halved for each look in :func:`vicreg`, as in the authors' program."""
    return torch.relu(SPREAD - (z.var(dim=0) + EPSILON).sqrt()).mean()


def _repeated(z: Tensor) -> Tensor:
    """Equations 3 and 4."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def pooled(network: nn.Module, x: Tensor) -> Tensor:
    """``(n, channels)``: the mean over space or time of what ``network``'s classifier looks at."""
    features: Tensor = network.features(x)
    return features.flatten(2).mean(dim=2)


def pretrain(
    network: nn.Module, cases: Unlabelled, view: View, pretext: Pretext, out: Path, *, device: str = "cpu"
) -> dict[str, str | int | float]:
    """Train everything of ``network`` but its classifier and write it to ``out``; what the file says of itself.

    Interrupted, it goes on from its last finished epoch (``OUT.run``) and ends with the weights it would have had.

    Raises
    ------
    CannotPretrain
        ``OUT.run`` is of other cases or another recipe; the loss is no longer a number.
    FileExistsError
        ``out`` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; name another file or take it away")
    batch_size = min(pretext.batch_size, len(cases.x))
    steps = len(cases.x) // batch_size
    made_by: dict[str, str | int | float] = {
        "objective": "VICReg (Bardes et al., ICLR 2022)",
        "network": type(network).__name__,
        "cohorts": ", ".join(cases.cohorts),
        "n_items": len(cases.x),
        "n_persons": cases.n_persons,
        **asdict(pretext),
        "batch_size": batch_size,
    }
    torch.manual_seed(pretext.seed)
    bare = copy.deepcopy(network).to(device, memory_format=torch.channels_last)
    # Made by looking at one case: the last feature map's width is nowhere written down alike for all networks.
    bare.eval()
    with torch.no_grad():
        width = pooled(bare, cases.x[:1].to(device)).shape[1]
    projector = _projector(width, PROJECTOR * batch_size).to(device)
    learning = nn.ModuleList([bare, projector])
    optimizer = torch.optim.AdamW(learning.parameters(), lr=pretext.learning_rate, weight_decay=pretext.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(pretext, steps))
    checkpoint = out.with_name(out.name + ".run")
    first = _resume(checkpoint, made_by, learning, optimizer, schedule)
    bar = tqdm(total=pretext.epochs * steps, initial=first * steps, unit="step", mininterval=5)
    for epoch in range(first, pretext.epochs):
        # Every source of chance is a function of seed and epoch, so a resumed run is the run it resumes.
        torch.manual_seed(pretext.seed + 1000 * (epoch + 1))
        generator = torch.Generator().manual_seed(pretext.seed + 1000 * (epoch + 1))
        order = torch.randperm(len(cases.x), generator=generator)[: steps * batch_size]
        learning.train()
        total = spread = 0.0
        for batch in order.split(batch_size):
            looks = []
            for _ in range(2):
                x = torch.cat([view(cases.x[part], generator) for part in batch.split(CHUNK)]).to(device)
                with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=pretext.bf16):
                    features = pooled(bare, x)
                looks.append(projector(features.float()))
            loss = vicreg(*looks)
            if not bool(torch.isfinite(loss)):
                raise CannotPretrain(f"epoch {epoch + 1}: the loss is {float(loss)}; try a lower learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
            spread += float(looks[0].detach().std(dim=0).mean())
            bar.update()
        bar.set_postfix(epoch=epoch + 1, loss=f"{total / steps:.3f}", spread=f"{spread / steps:.2f}")
        made_by |= {"loss": total / steps, "spread": spread / steps}
        _save(checkpoint, {"made_by": made_by, "epoch": epoch, **_state(learning, optimizer, schedule)})
    bar.close()
    weights = {name: value.cpu().contiguous() for name, value in parts_of(bare).state_dict().items()}
    _save(out, {"backbone": weights, "made_by": made_by})
    checkpoint.unlink(missing_ok=True)
    return made_by


def _projector(features: int, width: int) -> nn.Module:
    """The paper's expander: three layers, the first two normalised over the batch."""
    layers: list[nn.Module] = []
    for channels in (features, width):
        layers += [nn.Linear(channels, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(width, width))


def _cosine(pretext: Pretext, steps_per_epoch: int) -> Callable[[int], float]:
    steps = pretext.epochs * steps_per_epoch
    warm = max(1, int(pretext.warmup * steps))
    return lambda step: (
        (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    )


def _state(
    learning: nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR
) -> dict[str, object]:
    return {
        "learning": learning.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }


def _resume(
    checkpoint: Path,
    made_by: dict[str, str | int | float],
    learning: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> int:
    """The epoch to go on with; 0 where there is nothing to go on from."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    other = [k for k, v in made_by.items() if state["made_by"].get(k) != v]
    if other:
        raise CannotPretrain(
            f"{checkpoint} is of a run with another {', '.join(other)}; take it away, or run as then to go on with it"
        )
    learning.load_state_dict(state["learning"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    made_by |= state["made_by"]
    return int(state["epoch"]) + 1


def _save(path: Path, content: dict[str, object]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as f:
        torch.save(content, f)
        f.flush()
        os.fsync(f.fileno())
    part.replace(path)


VIEWS: dict[str, View] = {"cxr": films, "ecg": recordings}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0, or 2 and one plain sentence on standard error."""
    from data_specs.cohort import ManifestInvalid  # noqa: PLC0415
    from training.cohorts.local import CohortUnusable, local_cohort  # noqa: PLC0415
    from training.cohorts.table import TableUnusable  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="python -m training pretrain",
        description="Learn from training cases without their labels; the file is for --init of the same network.",
    )
    parser.add_argument("bundle", choices=("lung", "cardiac"), help="whose network")
    parser.add_argument("--cohort", type=Path, action="append", help="cohort document (YAML); may be given repeatedly")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the real data, where no --cohort is given"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write; an interrupted run goes on")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=Pretext.seed)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args(argv)
    if arguments.epochs < 1:
        parser.error("--epochs: at least 1")
    torch.set_num_threads(arguments.threads)
    workflow = importlib.import_module(f"training.organs.{arguments.bundle}")
    try:
        if arguments.cohort:
            cache = arguments.out.parent / "cache"
            cohorts = [local_cohort(path, workflow.INPUT, cache=cache, progress=True) for path in arguments.cohort]
        else:
            cohorts = workflow.shipped(arguments.data)
        network = workflow.task(cohorts, arguments.data).network(1)
        made_by = pretrain(
            network,
            unlabelled(cohorts),
            VIEWS[workflow.INPUT.modality],
            Pretext(epochs=arguments.epochs, seed=arguments.seed),
            arguments.out,
            device=arguments.device,
        )
    except (
        CannotPretrain,
        CohortUnusable,
        ManifestInvalid,
        TableUnusable,
        FileExistsError,
        FileNotFoundError,
    ) as error:
        print(f"cannot pretrain: {error}", file=sys.stderr)
        return 2
    print(f"written: {arguments.out}")
    print("\n".join(f"  {name}: {value}" for name, value in made_by.items()))
    return 0
