"""More than one training for one bundle: a small search over the recipe, and the folds of a small cohort.

Both choose on validation alone. What was chosen among, and how, stands in the card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from training.cohorts.cohort import Cohort
from training.learning.batches import Recipe
from training.learning.fit import predict
from training.learning.kept import Kept
from training.learning.start import backbone_of

RATES = (0.3, 1.0, 3.0)
"""Factors of the recipe's learning rate that a search tries."""

Train = Callable[[Sequence[Cohort], Recipe, Path], tuple[nn.Module, Kept]]
"""Trains the first weights on the train parts of cohorts, in a folder; validation decides which epoch is kept."""


@dataclass(frozen=True)
class Trained:
    """A trained network, what the card says of its training, and what its calibration is chosen on.

    Parameters
    ----------
    cohorts
        As given, or with the persons of train and validation in ``validation``, if these were cross-validated.
    left_out
        Then, for each cohort, ``(n, n_columns)`` logits of those persons by networks that never saw them.
    """

    network: nn.Module
    cohorts: tuple[Cohort, ...]
    said: dict[str, str | int | float]
    recipe: Recipe
    left_out: tuple[NDArray[np.float64], ...] | None = None


class Mean(nn.Module):
    """Networks side by side: mean logits and mean evidence, in one graph."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def features(self, x: Tensor) -> Tensor:
        """``(n, channels of all members, ...)``."""
        return torch.cat([member.features(x) for member in self.members], dim=1)  # type: ignore[operator]

    def head(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean logits and mean evidence of :meth:`features`."""
        parts = features.chunk(len(self.members), dim=1)
        outputs = [member.head(part) for member, part in zip(self.members, parts, strict=True)]  # type: ignore[operator]
        logits = torch.stack([logits for logits, _ in outputs]).mean(dim=0)
        return logits, torch.stack([evidence for _, evidence in outputs]).mean(dim=0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.features(x))


def once(cohorts: Sequence[Cohort], recipe: Recipe, run: Path, train: Train) -> Trained:
    """One training."""
    network, kept = train(cohorts, recipe, run)
    return Trained(network, tuple(cohorts), {"epoch kept": kept.sentence(recipe.epochs)}, recipe)


def search(
    cohorts: Sequence[Cohort], recipe: Recipe, run: Path, train: Train, network: nn.Module, *, may_freeze: bool
) -> Trained:
    """The best on validation of learning rates around the recipe's, with all weights and with the last layer only.

    Parameters
    ----------
    network
        The first weights, whose backbone may be frozen.
    may_freeze
        Whether they were learnt: a random backbone has to be trained.
    """
    options = list(product(RATES, (False, True) if may_freeze else (bool(recipe.frozen),)))
    tried: list[tuple[float, str, nn.Module, Kept, Recipe]] = []
    for factor, frozen in options:
        rate = recipe.learning_rate * factor
        option = replace(recipe, learning_rate=rate, frozen=backbone_of(network) if frozen else ())
        name = f"learning rate {rate:g}, {'last layer' if frozen else 'all weights'}"
        trained, kept = train(cohorts, option, run / f"{rate:g}-{'last-layer' if frozen else 'all'}")
        tried.append((kept.value(kept.kept), name, trained.cpu(), kept, option))
        print(f"{name}: {kept.sentence(option.epochs)}")
    # Of equal ones the first: nothing is won by a higher rate.
    _, name, best, kept, option = max(tried, key=lambda one: one[0])
    others = "; ".join(f"{each[1]}: {each[0]:.3f}" for each in tried)
    said = {"search": f"{name}, the best on validation of {others}", "epoch kept": kept.sentence(option.epochs)}
    return Trained(best, tuple(cohorts), said, option)


def folds(cohorts: Sequence[Cohort], recipe: Recipe, run: Path, train: Train, n_folds: int, n_columns: int) -> Trained:
    """Networks that each leave out a part of the persons of train and validation, and their mean.

    Each fold's part validates its network (which epoch is kept) and has its logits; so every person of train and
    validation helps to choose calibration and thresholds, and none by a network that learnt from them.

    Parameters
    ----------
    n_columns
        Columns that are offered; the others only help to learn.
    """
    parts = [fold_of(cohort, n_folds, recipe.seed) for cohort in cohorts]
    left_out = [np.full((len(cohort.x), n_columns), np.nan) for cohort in cohorts]
    members, said = [], []
    for fold in range(n_folds):
        taken = [
            replace(c, part=np.where(of == fold, "validation", np.where(of >= 0, "train", c.part)))
            for c, of in zip(cohorts, parts, strict=True)
        ]
        network, kept = train(taken, recipe, run / f"fold-{fold + 1}")
        members.append(network.cpu())
        said.append(f"{kept.kept} ({kept.value(kept.kept):.3f})")
        for logits, cohort, of in zip(left_out, cohorts, parts, strict=True):
            logits[of == fold] = predict(network, torch.from_numpy(cohort.x[of == fold]))[:, :n_columns]
    decides = tuple(
        replace(
            c,
            part=np.where(of >= 0, "validation", c.part),
            part_names={**c.part_names, "validation": f"{c.part_title('validation')}, left out by {n_folds} folds"},
        )
        for c, of in zip(cohorts, parts, strict=True)
    )
    return Trained(
        Mean(members),
        decides,
        {"folds": n_folds, "epochs kept (AUROC on the persons left out)": ", ".join(said)},
        recipe,
        tuple(left_out),
    )


def fold_of(cohort: Cohort, n_folds: int, seed: int) -> NDArray[np.intp]:
    """``(n,)`` fold of each case of train and validation, -1 for others; a person is in one, positives spread evenly.

    Raises
    ------
    ValueError
        There are fewer persons than folds.
    """
    rows = np.flatnonzero(np.isin(cohort.part, ("train", "validation")))
    persons, index = np.unique(cohort.person[rows], return_inverse=True)
    if not 2 <= n_folds <= len(persons):
        raise ValueError(
            f"--folds {n_folds}: {cohort.name} has {len(persons)} persons to train and validate; from 2 on"
        )
    positive = np.bincount(index, (cohort.labels.iloc[rows] == 1).any(axis=1).to_numpy(dtype=float)) > 0
    enough = min(positive.sum(), (~positive).sum()) >= n_folds
    split = StratifiedKFold(n_folds, shuffle=True, random_state=seed % 2**32)
    found = np.full(len(cohort.part), -1)
    for fold, (_, out) in enumerate(split.split(persons, positive if enough else np.zeros_like(positive))):
        found[rows[np.isin(index, out)]] = fold
    return found
