"""From cohorts to a bundle, for ``lung`` and ``cardiac``: training, calibration, evaluation, export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from data_specs.bundle import CxrInput, EcgInput
from training.bundle.agreement import evaluated_on
from training.bundle.export import Draft, write_bundle
from training.cohorts.cohort import Cohort, refuse_two_answers
from training.learning.evaluation import calibrate_and_evaluate
from training.learning.fit import Recipe, fit, predict
from training.learning.from_bundle import Inherited, from_bundle, network_of
from training.learning.processes import Processes
from training.learning.rounding import hold_in_fp16
from training.learning.start import CannotStart, backbone_of, fill_backbone
from training.learning.task import Column, Start, Task, cases_of, columns_of

PARITY_CASES = 48


def make_bundle(
    task: Task, cohorts: Sequence[Cohort], *, run: Path, bundles: Path, version: str, start: Start, device: str
) -> Path | None:
    """Train on the cohorts and write ``bundles/NAME-VERSION``; ``None`` on all processes but the first.

    Parameters
    ----------
    run
        Folder of the checkpoint and the TensorBoard files, from which an interrupted run is resumed.

    Raises
    ------
    FileExistsError
        The version exists.
    ValueError
        Two cohorts have one label for the same ages.
    NothingHolds
        No finding of any cohort may be offered.
    """
    if (bundles / f"{task.name}-{version}").exists():
        raise FileExistsError(f"{task.name}-{version} exists in {bundles}: a version is never replaced")
    columns = columns_of(cohorts)
    refuse_two_answers(cohorts)
    recipe = task.recipe
    torch.manual_seed(recipe.seed)
    made = network_of(start.bundle, (task.network, *task.earlier)) if start.bundle else task.network
    network = made(len(columns))
    inherited, sentence = initialise(network, columns, cohorts, start, task.input)
    if start.freeze:
        recipe = replace(recipe, frozen=backbone_of(network))
    cases = cases_of(cohorts, columns, task.shares)
    network = fit(network, cases, task.augment, recipe, run, device=device, watch=validation_auroc(cohorts, columns))
    if not Processes.current().first:
        return None
    keep_first_columns(network, sum(column.offered for column in columns))
    hold_in_fp16(network)
    offered, withheld = calibrate_and_evaluate(network, cohorts, columns, task)
    draft = Draft(
        name=task.name,
        version=version,
        organ=task.organ,
        purpose=task.purpose,
        input=task.input,
        outputs=("logits", "evidence"),
        findings=tuple(one.spec for one in offered),
        training_data=(*inherited.training_data, *(cohort.source for cohort in cohorts)),
        limits=(*task.limits, *(limit for cohort in cohorts for limit in cohort.limits)),
        thresholds={},
        withheld=tuple(withheld),
        from_bundle=inherited.ancestors,
        recipe=recipe_for_card(recipe, sentence, len(cases.x)),
    )
    parity = np.concatenate([c.x[c.rows("validation")][: PARITY_CASES // len(cohorts)] for c in cohorts])
    evaluated = evaluated_on(cohorts, draft.findings)
    return write_bundle(network.cpu(), draft, task.golden, parity, bundles, plots=offered, evaluated=evaluated)


def initialise(
    network: nn.Module,
    columns: Sequence[Column],
    cohorts: Sequence[Cohort],
    start: Start,
    takes: CxrInput | EcgInput,
) -> tuple[Inherited, str]:
    """Give the network its first weights; what it inherits, and the sentence for the card."""
    if start.bundle is None:
        if start.freeze and start.init == "none":
            raise CannotStart("--freeze: random weights would not be trained; give --init or --from-bundle")
        return Inherited((), (), ""), fill_backbone(network, start.init)
    names = [column.label if column.offered else "" for column in columns]
    inherited = from_bundle(
        network, names, start.bundle, ages=[cohorts[c.cohort].age_years for c in columns], takes=takes
    )
    return inherited, inherited.sentence


def validation_auroc(cohorts: Sequence[Cohort], columns: Sequence[Column]) -> Callable[[nn.Module], dict[str, float]]:
    """A function that gives the AUROC of each offered column on validation, for the curves only."""

    def figures(network: nn.Module) -> dict[str, float]:
        found = {}
        for i, cohort in enumerate(cohorts):
            rows = cohort.rows("validation")
            logits = predict(network, torch.from_numpy(cohort.x[rows]))
            for j, column in enumerate(columns):
                if column.cohort == i and column.offered:
                    y = cohort.labels[column.label].to_numpy(dtype=np.float64)[rows]
                    known = ~np.isnan(y)
                    if 0 < y[known].sum() < known.sum():
                        found[f"{cohort.name}/{column.label}"] = float(roc_auc_score(y[known], logits[known, j]))
        return found

    return figures


def keep_first_columns(network: nn.Module, n_columns: int) -> None:
    """Remove the columns of further tasks."""
    classifier = network.get_submodule("classifier")
    classifier.weight = nn.Parameter(classifier.weight[:n_columns].detach().clone())
    classifier.bias = nn.Parameter(classifier.bias[:n_columns].detach().clone())
    classifier.out_channels = n_columns


def recipe_for_card(recipe: Recipe, start: str, n_cases: int) -> dict[str, str | int | float]:
    """The recipe and the start, as the card lists them."""
    return {
        "start": start,
        "cases": n_cases,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "mixup": recipe.mixup,
        "precision": recipe.precision,
        "frozen": ", ".join(recipe.frozen) or "nothing",
        "seed": recipe.seed,
    }
