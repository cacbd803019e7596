"""A trained network on validation and test: calibrated, evaluated, and which findings are offered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from data_specs.bundle import Evaluation, Withheld
from training.cohorts.cohort import Cohort, same_question
from training.figures.evaluate import bootstrap
from training.figures.offer import Offered, Rule, figures_elsewhere, offer
from training.figures.use import for_use
from training.learning.fit import predict
from training.learning.task import Column, Task

PERTURBED_DRAWS = 4
"""Perturbed versions of each validation case that the calibration uses."""
WHOLE_ORGAN = {"abnormal", "normal_ecg"}
"""Findings that describe the whole organ."""


class NothingToOffer(ValueError):
    """No finding may be offered; the message says why for each."""


def calibrate_and_evaluate(
    network: nn.Module,
    cohorts: Sequence[Cohort],
    columns: Sequence[Column],
    task: Task,
    *,
    left_out: Sequence[NDArray[np.float64]] | None = None,
    of_sites: Mapping[int, Sequence[Evaluation]] | None = None,
) -> tuple[list[Offered], list[Withheld]]:
    """Calibrate on validation and evaluate once on test; returns the offered and the withheld findings.

    Parameters
    ----------
    left_out
        For each cohort ``(n, n_columns)`` logits of the validation cases by networks that never saw them, where
        ``network`` is the mean of such; ``None``: ``network`` itself gives them.
    of_sites
        Figures by column, by networks that left out a site.

    Raises
    ------
    NothingToOffer
        No finding may be offered.
    """
    offered: list[Offered] = []
    withheld: list[Withheld] = []
    for i, cohort in enumerate(cohorts):
        seen = np.concatenate([cohort.rows("validation"), cohort.rows("test")])
        logits = np.full((len(cohort.x), sum(column.offered for column in columns)), np.nan)
        logits[seen] = predict(network, torch.from_numpy(cohort.x[seen]))
        perturb = cohort.test_apart and left_out is None
        perturbed = perturbed_logits(network, cohort.x[cohort.rows("validation")], task) if perturb else None
        if left_out is not None:
            logits[cohort.rows("validation")] = left_out[i][cohort.rows("validation")]
        of_cohort: list[Offered] = []
        for j, column in enumerate(columns):
            if column.cohort == i and column.offered:
                if reason := never_offered(cohort, column.label, [each.spec.name for each in of_cohort], task):
                    withheld.append(Withheld(name=column.label, cohort=cohort.title or cohort.name, reason=reason))
                    continue
                rule = Rule(negative=column.label == "normal_ecg")
                logits_perturbed = None if perturbed is None else perturbed[:, :, j]
                result = offer(cohort, column.label, j, logits[:, j], rule, perturbed=logits_perturbed)
                if isinstance(result, Offered):
                    of_cohort.append(result)
                else:
                    withheld.append(result)
        places = {column.label: j for j, column in enumerate(columns) if column.cohort == i and column.offered}
        macro = {name: places[name] for name in task.macro if name in places}
        offered += add_risk(add_macro_auroc(of_cohort, cohort, logits, macro))
    if not offered:
        reasons = "\n".join(f"  - {finding.name}: {finding.reason}" for finding in withheld)
        raise NothingToOffer(f"no finding may be offered:\n{reasons}")
    evaluated = [evaluate_elsewhere(finding, network, task.elsewhere) for finding in offered]
    evaluated = [add_figures(one, (of_sites or {}).get(one.spec.column, ())) for one in evaluated]
    return [replace(one, spec=for_use(one.spec, task.triage)) for one in evaluated], withheld


def keep_first_columns(network: nn.Module, n_columns: int) -> None:
    """Remove the columns of further tasks."""
    classifier = network.get_submodule("classifier")
    classifier.weight = nn.Parameter(classifier.weight[:n_columns].detach().clone())
    classifier.bias = nn.Parameter(classifier.bias[:n_columns].detach().clone())
    classifier.out_channels = n_columns


def never_offered(cohort: Cohort, label: str, offered: Sequence[str], task: Task) -> str:
    """Why a label is not offered whatever its figures; empty if they decide."""
    if label in task.withheld:
        return task.withheld[label]
    asked = same_question(cohort, label, offered)
    return f"in these cases it is the same question as {asked}, which is offered" if asked else ""


def add_risk(offered: list[Offered]) -> list[Offered]:
    """Mark the findings that give the organ's risk: those of the whole organ, else all (the highest counts)."""
    whole = WHOLE_ORGAN & {finding.spec.name for finding in offered}
    risk = {
        name: "complement" if name == "normal_ecg" else "direct" for name in whole or {o.spec.name for o in offered}
    }
    return [replace(o, spec=o.spec.model_copy(update={"risk": risk.get(o.spec.name)})) for o in offered]


def add_macro_auroc(
    offered: list[Offered], cohort: Cohort, logits: NDArray[np.float64], columns: Mapping[str, int]
) -> list[Offered]:
    """Add the mean AUROC of these labels on the test part to the first offered finding, whatever else is offered."""
    if not columns or not offered:
        return offered
    test = cohort.rows("test")
    y = cohort.labels[list(columns)].to_numpy(dtype=np.float64)[test]
    known = ~np.isnan(y).any(axis=1)
    mean = bootstrap(
        lambda y, p: float(roc_auc_score(y, p, average="macro")),
        y[known],
        logits[test][known][:, list(columns.values())],
        cohort.person[test][known],
    )
    figure = Evaluation(
        cohort=cohort.part_title("test"), subgroup=", ".join(columns), metric="macro auroc", estimate=mean
    )
    return [add_figures(offered[0], [figure]), *offered[1:]]


def evaluate_elsewhere(finding: Offered, network: nn.Module, elsewhere: Sequence[Cohort]) -> Offered:
    """Add the figures of cohorts of other sites that have the finding for the same ages."""
    figures: list[Evaluation] = []
    for cohort in elsewhere:
        if finding.spec.name in cohort.labels and cohort.age_years == finding.spec.age_years:
            rows = cohort.rows("test")
            y = cohort.labels[finding.spec.name].to_numpy(dtype=np.float64)[rows]
            logits = predict(network, torch.from_numpy(cohort.x[rows]))[:, finding.spec.column]
            figures += figures_elsewhere(finding.spec, y, logits, cohort.person[rows], cohort.title)
    return add_figures(finding, figures)


def add_figures(finding: Offered, figures: Sequence[Evaluation]) -> Offered:
    """Put further figures before those of the finding."""
    return replace(finding, spec=finding.spec.model_copy(update={"evaluation": (*figures, *finding.spec.evaluation)}))


def perturbed_logits(network: nn.Module, x: NDArray[np.generic], task: Task) -> NDArray[np.float64]:
    """Logits ``(n, PERTURBED_DRAWS, n_columns)`` of randomly augmented versions of ``x``, ``(n, ...)``."""
    generator = torch.Generator().manual_seed(task.recipe.seed)
    draws = []
    for _ in range(PERTURBED_DRAWS):
        parts = [task.augment(part, generator) for part in torch.from_numpy(x).split(8)]
        draws.append(predict(network, torch.cat(parts)))
    return np.stack(draws, axis=1)
