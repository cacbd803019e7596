"""``python -m training pretrain``: train a network's backbone on training cases without their labels.

Each case is augmented twice, and the features of both versions are made similar by the loss VICReg
(:mod:`training.learning.vicreg`). No label and no person of validation or test is used. The result is a file for
``--init FILE``.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.cohorts.cohort import Cohort
from training.learning import augment
from training.learning.checkpoints import write
from training.learning.fit import cosine
from training.learning.start import parts_of
from training.learning.vicreg import vicreg

View = Callable[[Tensor, torch.Generator], Tensor]

PROJECTOR = 4
"""Width of the projector's three layers, per case of a batch: 8192 for 2048 in Bardes et al. 2022, section 4.2. In a
small batch even independent features have a covariance, which grows with this ratio."""
SMALLEST_BATCH = 16
"""The variance of a feature cannot be estimated from fewer cases."""
CHUNK = 8
"""Cases that are augmented together, and share what an augmentation draws once per batch."""


class CannotPretrain(ValueError):
    """The cohorts, the files or the training do not allow it; the message says why."""


@dataclass(frozen=True)
class Pretext:
    """How to train without labels; as :class:`training.learning.fit.Recipe`."""

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    bf16: bool = True
    seed: int = 20260101


@dataclass(frozen=True)
class Unlabelled:
    """Network inputs ``(n, ...)`` of the train parts, the names of the cohorts and the number of persons."""

    x: Tensor
    cohorts: tuple[str, ...]
    n_persons: int


def unlabelled_cases(cohorts: Sequence[Cohort]) -> Unlabelled:
    """The train parts of ``cohorts``, without their labels.

    Raises
    ------
    CannotPretrain
        A person of a train part is also in validation or test, or there are too few cases.
    """
    kept, persons = [], set()
    for cohort in cohorts:
        train = cohort.rows("train")
        here = set(cohort.person[train])
        if elsewhere := here & set(cohort.person[np.isin(cohort.part, ("validation", "test"))]):
            raise CannotPretrain(
                f"{cohort.name}: {len(elsewhere)} persons of the train part are also in validation or test; "
                "later figures would be too good, because the features are learnt from these persons"
            )
        kept.append(cohort.x[train])
        persons |= here
    if sum(map(len, kept)) < SMALLEST_BATCH:
        raise CannotPretrain(f"{sum(map(len, kept))} training cases; at least {SMALLEST_BATCH} are needed")
    return Unlabelled(torch.from_numpy(np.concatenate(kept)), tuple(c.name for c in cohorts), len(persons))


def films(batch: Tensor, generator: torch.Generator) -> Tensor:
    """A random window of at least half of each side, augmented: ``(n, 1, side, side) float32``."""
    window = augment.warp(batch.float(), augment.crops(len(batch), generator, smallest=0.5), "bilinear")
    return augment.films(window, generator)


def recordings(batch: Tensor, generator: torch.Generator) -> Tensor:
    """At least half of the time of a recording, augmented: ``(n, 12, n_samples) float32``.

    The rest is zero, like the padding of a short recording. Leaving out time was the best augmentation in Mehari and
    Strodthoff, Comput Biol Med 2022;141:105114. Time is not stretched, because the heart rate is a finding.
    """
    x = augment.recordings(batch, generator)
    n, _, length = x.shape
    kept = length * (0.5 + 0.5 * torch.rand(n, 1, 1, generator=generator))
    first = (length - kept) * torch.rand(n, 1, 1, generator=generator)
    position = torch.arange(length).view(1, 1, -1)
    return x.masked_fill((position < first) | (position >= first + kept), 0.0)


def pooled_features(network: nn.Module, x: Tensor) -> Tensor:
    """``(n, channels)``: features before the classifier of ``network``, averaged over space or time."""
    features: Tensor = network.features(x)
    return features.flatten(2).mean(dim=2)


def pretrain(
    network: nn.Module, cases: Unlabelled, view: View, pretext: Pretext, out: Path, *, device: str = "cpu"
) -> dict[str, str | int | float]:
    """Train ``network`` without its classifier, write the weights to ``out``, and return how they were made.

    An interrupted run is resumed after its last finished epoch (``OUT.run``), with the same result.

    Raises
    ------
    CannotPretrain
        ``OUT.run`` is of other cases or another recipe, or the loss is not finite.
    FileExistsError
        ``out`` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; give another file or delete it")
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
    # The width is read from the features of one case, because the networks do not state it in the same way.
    bare.eval()
    with torch.no_grad():
        width = pooled_features(bare, cases.x[:1].to(device)).shape[1]
    projector = _projector(width, PROJECTOR * batch_size).to(device)
    learning = nn.ModuleList([bare, projector])
    optimizer = torch.optim.AdamW(learning.parameters(), lr=pretext.learning_rate, weight_decay=pretext.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(pretext.epochs * steps, pretext.warmup))
    checkpoint = out.with_name(out.name + ".run")
    first = _resume(checkpoint, made_by, learning, optimizer, schedule)
    bar = tqdm(total=pretext.epochs * steps, initial=first * steps, unit="step", mininterval=5)
    for epoch in range(first, pretext.epochs):
        # All random numbers depend only on seed and epoch, so that a resumed run gives the same result.
        torch.manual_seed(pretext.seed + 1000 * (epoch + 1))
        generator = torch.Generator().manual_seed(pretext.seed + 1000 * (epoch + 1))
        order = torch.randperm(len(cases.x), generator=generator)[: steps * batch_size]
        learning.train()
        total = spread = 0.0
        for batch in order.split(batch_size):
            versions = []
            for _ in range(2):
                x = torch.cat([view(cases.x[part], generator) for part in batch.split(CHUNK)]).to(device)
                with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=pretext.bf16):
                    features = pooled_features(bare, x)
                versions.append(projector(features.float()))
            loss = vicreg(*versions)
            if not bool(torch.isfinite(loss)):
                raise CannotPretrain(f"epoch {epoch + 1}: the loss is {float(loss)}; try a lower learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
            spread += float(versions[0].detach().std(dim=0).mean())
            bar.update()
        bar.set_postfix(epoch=epoch + 1, loss=f"{total / steps:.3f}", spread=f"{spread / steps:.2f}")
        made_by |= {"loss": total / steps, "spread": spread / steps}
        write(checkpoint, {"made_by": made_by, "epoch": epoch, **_state(learning, optimizer, schedule)})
    bar.close()
    weights = {name: value.cpu().contiguous() for name, value in parts_of(bare).state_dict().items()}
    write(out, {"backbone": weights, "made_by": made_by})
    checkpoint.unlink(missing_ok=True)
    return made_by


def _projector(features: int, width: int) -> nn.Module:
    """The expander of Bardes et al. 2022: three layers, the first two with batch normalisation."""
    layers: list[nn.Module] = []
    for channels in (features, width):
        layers += [nn.Linear(channels, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(width, width))


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
    """Load the checkpoint and return the next epoch; 0 if there is no checkpoint."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    other = [k for k, v in made_by.items() if state["made_by"].get(k) != v]
    if other:
        raise CannotPretrain(
            f"{checkpoint} is of a run with another {', '.join(other)}; delete it, or give the same options to resume"
        )
    learning.load_state_dict(state["learning"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    made_by |= state["made_by"]
    return int(state["epoch"]) + 1


VIEWS: dict[str, View] = {"cxr": films, "ecg": recordings}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after an error message on standard error."""
    from data_specs.cohort import ManifestInvalid  # noqa: PLC0415
    from training.cohorts.local import CohortUnusable, local_cohort  # noqa: PLC0415
    from training.cohorts.table import TableUnusable  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="python -m training pretrain",
        description="Learn from training cases without their labels; the file is for --init of the same network.",
    )
    parser.add_argument("bundle", choices=("lung", "cardiac"), help="the bundle whose network is trained")
    parser.add_argument(
        "--cohort", type=Path, action="append", help="cohort document (YAML); may be given several times"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the shipped cohorts, used without --cohort"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write; an interrupted run is resumed")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=Pretext.seed)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args(argv)
    if arguments.epochs < 1:
        parser.error("--epochs: at least 1")
    torch.set_num_threads(arguments.threads)
    organ = importlib.import_module(f"training.organs.{arguments.bundle}")
    try:
        if arguments.cohort:
            cache = arguments.out.parent / "cache"
            cohorts = [local_cohort(path, organ.INPUT, cache=cache, progress=True) for path in arguments.cohort]
        else:
            cohorts = organ.shipped(arguments.data)
        network = organ.task(cohorts, arguments.data).network(1)
        made_by = pretrain(
            network,
            unlabelled_cases(cohorts),
            VIEWS[organ.INPUT.modality],
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
