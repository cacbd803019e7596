"""From cohorts to a bundle, for ``lung`` and ``cardiac``: training, calibration, evaluation, export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from data_specs.bundle import CxrInput, EcgInput
from inference.bundles.loading import Bundle
from training.bundle.agreement import evaluated_on
from training.bundle.evaluate_bundle import predecessor
from training.bundle.export import Draft, write_bundle
from training.bundle.local_cases import of_cohort
from training.cohorts.cohort import Cohort, refuse_two_answers
from training.learning.batches import Recipe
from training.learning.curves import require_mlflow
from training.learning.evaluation import calibrate_and_evaluate, keep_first_columns
from training.learning.fit import fit, predict
from training.learning.from_bundle import Inherited, from_bundle, network_of
from training.learning.kept import Kept
from training.learning.likeness import likeness_table, with_distance
from training.learning.processes import Processes
from training.learning.rounding import hold_in_fp16
from training.learning.sites import figures_of_sites_left_out
from training.learning.start import CannotStart, backbone_of, fill_backbone
from training.learning.task import Column, Start, Task, cases_of, columns_of
from training.learning.trials import Mean, Train, Trained, folds, once, search

PARITY_CASES = 48


@dataclass(frozen=True)
class Choices:
    """How much is tried.

    Parameters
    ----------
    patience
        Epochs without a better one on validation after which training stops; 0: none stops.
    folds
        Networks that each leave out a part of the persons, and whose mean is exported; 0: one network.
    search
        Whether learning rates and freezing are tried, and the best on validation taken.
    leave_sites_out
        Whether one network more is trained without each smaller site, for figures of a site that it never saw.
    mlflow
        Where MLflow tracks the curves beside TensorBoard; ``None``: nowhere.
    """

    patience: int = 0
    folds: int = 0
    search: bool = False
    leave_sites_out: bool = False
    mlflow: str | None = None


def make_bundle(
    task: Task,
    cohorts: Sequence[Cohort],
    *,
    run: Path,
    bundles: Path,
    version: str,
    start: Start,
    device: str,
    choices: Choices = Choices(),
    serves: Bundle | None = None,
    as_served: Sequence[Cohort] = (),
) -> Path | None:
    """Train on the cohorts and write ``bundles/NAME-VERSION``; ``None`` on all processes but the first.

    Parameters
    ----------
    run
        Folder of the checkpoint and the TensorBoard files, from which an interrupted run is resumed.
    serves
        The version in service, which is evaluated on the same test cases, so that a promotion can compare.
    as_served
        The cohorts as that version takes them.

    Raises
    ------
    FileExistsError
        The version exists.
    ValueError
        Two cohorts have one label for the same ages, or the choices cannot be made.
    NothingToOffer
        No finding of any cohort may be offered.
    """
    if (bundles / f"{task.name}-{version}").exists():
        raise FileExistsError(f"{task.name}-{version} exists in {bundles}: a version is never replaced")
    if choices.mlflow is not None:
        require_mlflow()
    columns = columns_of(cohorts)
    refuse_two_answers(cohorts)
    recipe = task.recipe
    torch.manual_seed(recipe.seed)
    made = network_of(start.bundle, (task.network, *task.earlier)) if start.bundle else task.network
    first = made(len(columns))
    inherited, sentence = initialise(first, columns, cohorts, start, task.input)
    if start.freeze:
        recipe = replace(recipe, frozen=backbone_of(first))

    def train(taken: Sequence[Cohort], option: Recipe, folder: Path) -> tuple[nn.Module, Kept]:
        figures, counts = validation_auroc(taken, columns)
        kept = Kept(figures, counts, may_keep_start=start.bundle is not None, patience=choices.patience)
        cases = cases_of(taken, columns, task.shares)
        trained = fit(first, cases, task.augment, option, folder, device=device, kept=kept, mlflow=choices.mlflow)
        return trained, kept

    if choices.leave_sites_out and Processes.current().world_size > 1:
        raise ValueError("--leave-sites-out trains one network after another, in one process: start without torchrun")
    trained = _tried(cohorts, columns, recipe, run, train, first, choices, start)
    if not Processes.current().first:
        return None
    if not choices.folds and not choices.search:
        print(f"epoch kept: {trained.said['epoch kept']}")
    network, n_offered = trained.network, sum(column.offered for column in columns)
    for each in network.members if isinstance(network, Mean) else (network,):
        keep_first_columns(each, n_offered)
        hold_in_fp16(each)
    of_sites = (
        figures_of_sites_left_out(task, cohorts, columns, trained.recipe, run, train) if choices.leave_sites_out else {}
    )
    offered, withheld = calibrate_and_evaluate(
        network, trained.cohorts, columns, task, left_out=trained.left_out, of_sites=of_sites
    )
    measured, thresholds = with_distance(network.cpu(), cohorts)
    on_test = [(of_cohort(c, "test", serves), c.part_title("test")) for c in as_served] if serves else []
    draft = Draft(
        name=task.name,
        version=version,
        organ=task.organ,
        purpose=task.purpose,
        input=task.input,
        outputs=("logits", "evidence", "distance"),
        findings=tuple(one.spec for one in offered),
        training_data=(*inherited.training_data, *(cohort.source for cohort in cohorts)),
        limits=(*task.limits, *(limit for cohort in cohorts for limit in cohort.limits)),
        thresholds=thresholds,
        withheld=tuple(withheld),
        from_bundle=inherited.ancestors,
        recipe=recipe_for_card(trained.recipe, sentence, len(cases_of(cohorts, columns, task.shares).x))
        | trained.said
        | {f"sha256 of {c.source.name}": c.source.digest for c in cohorts if c.source.digest},
        predecessors=(predecessor(serves, on_test),) if serves else (),
        measured=(likeness_table(measured, thresholds, [one.spec for one in offered], [*cohorts, *task.elsewhere]),),
    )
    parity = np.concatenate([c.x[c.rows("validation")][: PARITY_CASES // len(cohorts)] for c in cohorts])
    evaluated = evaluated_on(cohorts, draft.findings)
    return write_bundle(measured, draft, task.golden, parity, bundles, plots=offered, evaluated=evaluated)


def _tried(
    cohorts: Sequence[Cohort],
    columns: Sequence[Column],
    recipe: Recipe,
    run: Path,
    train: Train,
    network: nn.Module,
    choices: Choices,
    start: Start,
) -> Trained:
    """The training or trainings that ``choices`` ask for.

    Raises
    ------
    ValueError
        Both folds and a search are asked for, or either in several processes.
    """
    if choices.folds and choices.search:
        raise ValueError("give --folds or --search, not both: search first, then cross-validate what was found")
    if (choices.folds or choices.search) and Processes.current().world_size > 1:
        raise ValueError("--folds and --search train one network after another, in one process: start without torchrun")
    if choices.folds:
        return folds(cohorts, recipe, run, train, choices.folds, sum(column.offered for column in columns))
    if choices.search:
        return search(cohorts, recipe, run, train, network, may_freeze=bool(start.bundle or start.init != "none"))
    return once(cohorts, recipe, run, train)


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


def validation_auroc(
    cohorts: Sequence[Cohort], columns: Sequence[Column]
) -> tuple[Callable[[nn.Module], dict[str, float]], dict[str, tuple[int, int]]]:
    """A function that gives the AUROC of each offered column on validation, by which an epoch is kept; and the
    positives and negatives behind each."""
    rows = [cohort.rows("validation") for cohort in cohorts]
    known: dict[str, tuple[int, int, NDArray[np.float64]]] = {}
    for j, column in enumerate(columns):
        cohort = cohorts[column.cohort]
        if column.offered:
            y = cohort.labels[column.label].to_numpy(dtype=np.float64)[rows[column.cohort]]
            if (y == 1).any() and (y == 0).any():
                known[f"{cohort.name}/{column.label}"] = (column.cohort, j, y)

    def figures(network: nn.Module) -> dict[str, float]:
        logits = [predict(network, torch.from_numpy(c.x[r])) for c, r in zip(cohorts, rows, strict=True)]
        return {
            name: float(roc_auc_score(y[~np.isnan(y)], logits[i][~np.isnan(y), j])) for name, (i, j, y) in known.items()
        }

    return figures, {name: (int((y == 1).sum()), int((y == 0).sum())) for name, (_, _, y) in known.items()}


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
