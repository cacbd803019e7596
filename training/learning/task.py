"""What is trained: the task of one network, where its weights start, its columns and its training cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data_specs.bundle import CxrInput, EcgInput
from data_specs.visit.contract import Organ
from training.cohorts.cohort import Cohort
from training.figures.triage import TRIAGE_RULE, TriageRule
from training.learning.batches import Augment, Cases, Recipe


@dataclass(frozen=True)
class Task:
    """Everything that differs between the trainings of two networks.

    Parameters
    ----------
    network
        Makes the network for a number of columns; its last submodule is ``classifier``.
    golden
        Golden cases of the bundle, which may be published.
    shares
        Share of the draws by cohort; the other cohorts get the rest in proportion to their size.
    macro
        Findings of one cohort whose mean AUROC is reported with the first of them.
    triage
        What the programme asks of a finding that decides.
    withheld
        Labels that are learnt and not offered, whatever their figures, with the reason.
    elsewhere
        Cohorts of other sites, for evaluation only: offered findings are evaluated on them at their own thresholds.
    earlier
        Networks that earlier bundles of this name hold, for a start from one of them.
    """

    name: str
    organ: Organ
    purpose: str
    input: CxrInput | EcgInput
    network: Callable[[int], nn.Module]
    recipe: Recipe
    augment: Augment
    golden: NDArray[np.generic]
    limits: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    macro: tuple[str, ...] = ()
    triage: TriageRule = TRIAGE_RULE
    withheld: Mapping[str, str] = field(default_factory=dict)
    elsewhere: tuple[Cohort, ...] = ()
    earlier: tuple[Callable[[int], nn.Module], ...] = ()


@dataclass(frozen=True)
class Start:
    """First weights: ``init`` (``none``, ``imagenet`` or a file) or a bundle; ``freeze`` fixes the backbone."""

    init: str = "none"
    bundle: Path | None = None
    freeze: bool = False


@dataclass(frozen=True)
class Column:
    """One output of the network: a label of one cohort; ``offered`` is false for a further task."""

    cohort: int
    label: str
    offered: bool


def columns_of(cohorts: Sequence[Cohort]) -> tuple[Column, ...]:
    """Columns of all cohorts: labels that may be offered first, then further tasks."""
    offered = [Column(i, label, True) for i, cohort in enumerate(cohorts) for label in cohort.labels]
    further = [Column(i, task, False) for i, cohort in enumerate(cohorts) for task in cohort.further]
    return (*offered, *further)


def cases_of(cohorts: Sequence[Cohort], columns: Sequence[Column], shares: Mapping[str, float]) -> Cases:
    """The train parts of all cohorts; labels of other cohorts are unknown, and so left out of the loss."""
    rows = [cohort.rows("train") for cohort in cohorts]
    starts = np.cumsum([0, *(len(r) for r in rows)])
    y = np.full((starts[-1], len(columns)), np.nan, dtype=np.float32)
    for j, column in enumerate(columns):
        cohort = cohorts[column.cohort]
        values = (cohort.labels if column.offered else cohort.further)[column.label]
        y[starts[column.cohort] : starts[column.cohort + 1], j] = values.to_numpy(dtype=np.float32)[rows[column.cohort]]
    unnamed = sum(len(r) for r, cohort in zip(rows, cohorts, strict=True) if cohort.name not in shares)
    weight = []
    for r, cohort in zip(rows, cohorts, strict=True):
        own = np.ones(len(r)) if cohort.weight is None else cohort.weight[r]
        share = shares.get(cohort.name, (1 - sum(shares.values())) * len(r) / max(unnamed, 1))
        weight.append(share * own / own.sum())
    x = np.concatenate([cohort.x[r] for cohort, r in zip(cohorts, rows, strict=True)])
    return Cases(torch.from_numpy(x), torch.from_numpy(y), np.concatenate(weight))
