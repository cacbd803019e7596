"""From cohorts to a bundle: columns, training, calibration, what holds, export. Lung and cardiac both run this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from data_specs.bundle import CxrInput, EcgInput, Evaluation, Withheld
from data_specs.visit.contract import Organ
from training.bundle.agreement import evaluated_on
from training.bundle.export import Draft, write_bundle
from training.cohorts.cohort import Cohort, one_answer_each
from training.figures.evaluate import bootstrap
from training.figures.offer import Offered, Rule, offer
from training.figures.offer import elsewhere as elsewhere_figures
from training.learning.fit import Augment, Cases, Recipe, fit, predict
from training.learning.processes import Processes
from training.learning.rounding import hold_in_fp16
from training.learning.start import CannotStart, Inherited, backbone_of, from_bundle, initialise

PERTURBED_DRAWS = 4
"""Times that each validation case is looked at as another clinic might have taken it, for calibration."""
PARITY_CASES = 48

WHOLE_ORGAN = {"abnormal", "normal_ecg"}
"""Findings that answer for the organ as a whole."""


@dataclass(frozen=True)
class Task:
    """What tells one network's training from another's.

    Parameters
    ----------
    network
        From the number of columns to a module whose last part is ``classifier``.
    golden
        Cases that the bundle keeps, free to be published.
    shares
        Share of the draws by cohort; cohorts that are not named share the rest by their size.
    macro
        Findings of one cohort whose mean AUROC is reported, on the first of them.
    elsewhere
        Cases of other places, never learnt from: what is offered is measured on all of them at its own thresholds.
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
    elsewhere: tuple[Cohort, ...] = ()


@dataclass(frozen=True)
class Start:
    """Where the weights begin: ``init`` (``none``, ``imagenet`` or a file) or a bundle, its backbone frozen or not."""

    init: str = "none"
    bundle: Path | None = None
    freeze: bool = False


@dataclass(frozen=True)
class Column:
    """One output of the network: a question that one cohort answers."""

    cohort: int
    label: str
    offered: bool


def make_bundle(
    task: Task, cohorts: Sequence[Cohort], *, run: Path, bundles: Path, version: str, start: Start, device: str
) -> Path | None:
    """Train on the cohorts and write ``bundles/NAME-VERSION``; ``None`` on a process that only helped to train.

    Parameters
    ----------
    run
        Folder of this run's checkpoint and TensorBoard files; an interrupted run goes on from there.

    Raises
    ------
    FileExistsError
        The version exists.
    ValueError
        Two cohorts answer one question for the same ages.
    NothingHolds
        No finding of any cohort may be offered; the message says why for each.
    """
    if (bundles / f"{task.name}-{version}").exists():
        raise FileExistsError(f"{task.name}-{version} exists in {bundles}: a version is never replaced")
    columns = columns_of(cohorts)
    one_answer_each(cohorts)
    recipe = task.recipe
    torch.manual_seed(recipe.seed)
    network = task.network(len(columns))
    inherited, says = begin(network, columns, cohorts, start, task.input)
    if start.freeze:
        recipe = replace(recipe, frozen=backbone_of(network))
    cases = cases_of(cohorts, columns, task.shares)
    network = fit(network, cases, task.augment, recipe, run, device=device, watch=watch(cohorts, columns))
    if not Processes.current().first:
        return None
    keep_first_columns(network, sum(column.offered for column in columns))
    hold_in_fp16(network)
    offered, withheld = offer_all(network, cohorts, columns, task)
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
        recipe=told(recipe, says, len(cases.x)),
    )
    parity = np.concatenate([c.x[c.rows("validation")][: PARITY_CASES // len(cohorts)] for c in cohorts])
    evaluated = evaluated_on(cohorts, draft.findings)
    return write_bundle(network.cpu(), draft, task.golden, parity, bundles, plots=offered, evaluated=evaluated)


class NothingHolds(ValueError):
    """No finding may be offered."""


def columns_of(cohorts: Sequence[Cohort]) -> tuple[Column, ...]:
    """What may be offered first, what only helps to learn behind it."""
    offered = [Column(i, label, True) for i, cohort in enumerate(cohorts) for label in cohort.labels]
    further = [Column(i, task, False) for i, cohort in enumerate(cohorts) for task in cohort.further]
    return (*offered, *further)


def cases_of(cohorts: Sequence[Cohort], columns: Sequence[Column], shares: Mapping[str, float]) -> Cases:
    """The train parts of all cohorts; a question of another cohort is unknown, and left out of the loss."""
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


def begin(
    network: nn.Module,
    columns: Sequence[Column],
    cohorts: Sequence[Cohort],
    start: Start,
    takes: CxrInput | EcgInput,
) -> tuple[Inherited, str]:
    """Give the network its first weights; what they come from, and the sentence that the card says of it."""
    if start.bundle is None:
        if start.freeze and start.init == "none":
            raise CannotStart("--freeze: weights that began at random would stay as they are; name where they start")
        return Inherited((), (), ""), initialise(network, start.init)
    names = [column.label if column.offered else "" for column in columns]
    inherited = from_bundle(
        network, names, start.bundle, ages=[cohorts[c.cohort].age_years for c in columns], takes=takes
    )
    return inherited, inherited.says


def watch(cohorts: Sequence[Cohort], columns: Sequence[Column]) -> Callable[[nn.Module], dict[str, float]]:
    """AUROC of each offered column on validation, for the curves; nothing is chosen by it."""

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
    """Cut off the columns that only helped to learn."""
    classifier = network.get_submodule("classifier")
    classifier.weight = nn.Parameter(classifier.weight[:n_columns].detach().clone())
    classifier.bias = nn.Parameter(classifier.bias[:n_columns].detach().clone())
    classifier.out_channels = n_columns


def offer_all(
    network: nn.Module, cohorts: Sequence[Cohort], columns: Sequence[Column], task: Task
) -> tuple[list[Offered], list[Withheld]]:
    """Calibrate on validation, as taken and perturbed; evaluate once on test; sort what holds from what does not."""
    offered: list[Offered] = []
    withheld: list[Withheld] = []
    for i, cohort in enumerate(cohorts):
        # Train cases are looked at by nobody any more.
        seen = np.concatenate([cohort.rows("validation"), cohort.rows("test")])
        logits = np.full((len(cohort.x), sum(column.offered for column in columns)), np.nan)
        logits[seen] = predict(network, torch.from_numpy(cohort.x[seen]))
        perturbed = perturb(network, cohort.x[cohort.rows("validation")], task) if cohort.test_apart else None
        own: list[Offered] = []
        for j, column in enumerate(columns):
            if column.cohort == i and column.offered:
                rule = rule_of(cohort, column.label)
                elsewhere = None if perturbed is None else perturbed[:, :, j]
                result = offer(cohort, column.label, j, logits[:, j], rule, perturbed=elsewhere)
                if isinstance(result, Offered):
                    own.append(result)
                else:
                    withheld.append(result)
        offered += with_risk(with_macro(own, cohort, logits, task.macro))
    if not offered:
        reasons = "\n".join(f"  - {one.name}: {one.reason}" for one in withheld)
        raise NothingHolds(f"no finding may be offered:\n{reasons}")
    return [measured_elsewhere(one, network, task.elsewhere) for one in offered], withheld


def rule_of(cohort: Cohort, label: str) -> Rule:
    """Findings that stand for the whole organ decide at ``screening``, others at ``balanced``."""
    whole = WHOLE_ORGAN & set(cohort.labels)
    return Rule(decides_at="screening" if label in whole or not whole else "balanced", negative=label == "normal_ecg")


def with_risk(offered: list[Offered]) -> list[Offered]:
    """The organ's risk is the finding that stands for all of it; where there is none, the highest of all."""
    whole = WHOLE_ORGAN & {one.spec.name for one in offered}
    risk = {
        name: "complement" if name == "normal_ecg" else "direct" for name in whole or {o.spec.name for o in offered}
    }
    return [replace(o, spec=o.spec.model_copy(update={"risk": risk.get(o.spec.name)})) for o in offered]


def with_macro(
    offered: list[Offered], cohort: Cohort, logits: NDArray[np.float64], names: tuple[str, ...]
) -> list[Offered]:
    """Add the mean AUROC of ``names`` on the test part to the first of them."""
    if not names or not set(names) <= {one.spec.name for one in offered}:
        return offered
    columns = [next(one.spec.column for one in offered if one.spec.name == name) for name in names]
    test = cohort.rows("test")
    y = cohort.labels[list(names)].to_numpy(dtype=np.float64)[test]
    known = ~np.isnan(y).any(axis=1)
    mean = bootstrap(
        lambda y, p: float(roc_auc_score(y, p, average="macro")),
        y[known],
        logits[test][known][:, columns],
        cohort.person[test][known],
    )
    figure = Evaluation(cohort=cohort.called("test"), subgroup=", ".join(names), metric="macro auroc", estimate=mean)
    return [also(one, [figure]) if one.spec.name == names[0] else one for one in offered]


def measured_elsewhere(one: Offered, network: nn.Module, elsewhere: Sequence[Cohort]) -> Offered:
    """Sensitivity and specificity at the finding's own thresholds, and AUROC where there are both classes."""
    figures: list[Evaluation] = []
    for cohort in elsewhere:
        if one.spec.name in cohort.labels and cohort.age_years == one.spec.age_years:
            y = cohort.labels[one.spec.name].to_numpy(dtype=np.float64)
            logits = predict(network, torch.from_numpy(cohort.x))[:, one.spec.column]
            figures += elsewhere_figures(one.spec, y, logits, cohort.person, cohort.title)
    return also(one, figures)


def also(one: Offered, figures: Sequence[Evaluation]) -> Offered:
    return replace(one, spec=one.spec.model_copy(update={"evaluation": (*figures, *one.spec.evaluation)}))


def perturb(network: nn.Module, x: NDArray[np.generic], task: Task) -> NDArray[np.float64]:
    """Logits ``(n, PERTURBED_DRAWS, n_columns)`` of cases as other clinics might have taken them."""
    generator = torch.Generator().manual_seed(task.recipe.seed)
    draws = []
    for _ in range(PERTURBED_DRAWS):
        parts = [task.augment(part, generator) for part in torch.from_numpy(x).split(8)]
        draws.append(predict(network, torch.cat(parts)))
    return np.stack(draws, axis=1)


def told(recipe: Recipe, start: str, n_cases: int) -> dict[str, str | int | float]:
    """How it was trained, for the card."""
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
