"""Leave one site out: the figures of a network of the same making on cases of a site that it never saw.

They are what a hospital may expect whose films nobody learnt from; the network itself has seen some of every site.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_specs.bundle import Evaluation
from training.cohorts.cohort import Cohort, apart, sites_to_leave_out
from training.learning.evaluation import NothingToOffer, calibrate_and_evaluate, keep_first_columns
from training.learning.fit import Recipe
from training.learning.task import Column, Task
from training.learning.trials import Train


def figures_of_sites_left_out(
    task: Task, cohorts: Sequence[Cohort], columns: Sequence[Column], recipe: Recipe, run: Path, train: Train
) -> dict[int, tuple[Evaluation, ...]]:
    """Train once more without each site, and evaluate there what is then offered; by the column of the finding.

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
            try:
                offered, _ = calibrate_and_evaluate(
                    network, others, columns, replace(task, elsewhere=(alone,), macro=())
                )
            except NothingToOffer:
                continue
            for one in offered:
                there = tuple(each for each in one.spec.evaluation if each.cohort == alone.title)
                figures[one.spec.column] = (*figures.get(one.spec.column, ()), *there)
    return figures


def folder_name(site: str) -> str:
    """A site's name with nothing in it that a file system minds."""
    return re.sub(r"[^\w-]+", "-", site)
