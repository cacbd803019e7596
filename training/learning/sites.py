"""Leave one site out: the figures of a network of the same making on cases of a site that it never saw.

They are what a hospital may expect whose films nobody learnt from; the network itself has seen some of every site.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data_specs.bundle import Evaluation, FindingSpec
from training.cohorts.cohort import Cohort, apart, sites_to_leave_out
from training.figures.offer import figures_elsewhere
from training.learning.batches import Recipe
from training.learning.evaluation import NothingToOffer, calibrate_and_evaluate, keep_first_columns
from training.learning.fit import predict
from training.learning.task import Column, Task
from training.learning.trials import Train


def figures_of_sites_left_out(
    task: Task, cohorts: Sequence[Cohort], columns: Sequence[Column], recipe: Recipe, run: Path, train: Train
) -> dict[int, tuple[Evaluation, ...]]:
    """Train once more without each site, and evaluate there; by the column of the finding.

    Parameters
    ----------
    run
        Folder of the whole training; each further one has a folder in it, from which it is resumed.
    """
    figures: dict[int, tuple[Evaluation, ...]] = {}
    for i, cohort in enumerate(cohorts):
        for site in sites_to_leave_out(cohort):
            rest, alone = apart(cohort, site)
            others = [*cohorts[:i], rest, *cohorts[i + 1 :]]
            network, kept = train(others, recipe, run / f"without-{folder_name(site)}")
            print(f"without {site}: {kept.sentence(recipe.epochs)}")
            keep_first_columns(network.cpu(), sum(column.offered for column in columns))
            specs = _offered(network, others, columns, replace(task, elsewhere=(), macro=()))
            rows = alone.rows("test")
            logits = predict(network, torch.from_numpy(alone.x[rows]))
            for j, column in enumerate(columns):
                if column.cohort == i and column.offered:
                    # Where nothing would be offered without the site there are no points, and the AUROC is shown alone.
                    spec = specs.get(j) or FindingSpec(name=column.label, column=j, age_years=alone.age_years)
                    y = alone.labels[column.label].to_numpy(dtype=np.float64)[rows]
                    there = figures_elsewhere(spec, y, logits[:, j], alone.person[rows], alone.title)
                    figures[j] = (*figures.get(j, ()), *there)
    return figures


def _offered(
    network: nn.Module, cohorts: Sequence[Cohort], columns: Sequence[Column], task: Task
) -> dict[int, FindingSpec]:
    try:
        offered, _ = calibrate_and_evaluate(network, cohorts, columns, task)
    except NothingToOffer:
        return {}
    return {one.spec.column: one.spec for one in offered}


def folder_name(site: str) -> str:
    """A site's name with nothing in it that a file system minds."""
    return re.sub(r"[^\w-]+", "-", site)
