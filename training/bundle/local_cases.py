"""Labelled local cases for an evaluation or a recalibration: read as in serving, checked, computed by the bundle.

They are described by a cohort manifest (``data_specs.cohort``), whose checks they have to pass; or a table has them
(:mod:`training.bundle.case_table`). What the gate of serving refuses is left out either way, and counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.bundle import CxrInput, EcgInput, FindingSpec, TrainingData
from data_specs.problems import Problem
from inference.bundles.loading import Bundle
from training.cohorts import gates
from training.cohorts.ages import is_plausible
from training.cohorts.checks import OF_TRAINING, check_cohort
from training.cohorts.cohort import Cohort, digest_of
from training.cohorts.inputs import load_inputs
from training.cohorts.local import subgroups
from training.cohorts.table import load_table
from training.cohorts.verdicts import report, unusable

Floats = NDArray[np.float64]

BATCH = 32


class CannotRecalibrate(ValueError):
    """The cases or the bundle do not allow it; the message has one line per reason."""


@dataclass(frozen=True)
class Refusal:
    """A case that serving would not assess: the code of its reason, and the device if the table has it."""

    code: str
    sentence: str
    device: str | None = None


@dataclass(frozen=True)
class Cases:
    """Labelled local cases.

    Parameters
    ----------
    labels
        One column per finding, 0, 1 or NaN (unknown).
    logits
        ``(n, n_columns)``: the network's first output; NaN in columns without a logit in the table.
    age_years
        ``(n,)``, NaN where unknown; ``None`` if the table has no ages.
    source
        Name, citation, licence, counts and digest, for the card.
    subgroups
        Columns to report separately, as those of a :class:`training.cohorts.cohort.Cohort`.
    refused
        Cases that the gate refuses; they are in none of the arrays.
    n_by_device
        Cases that were read, refused ones too, by device.
    inputs
        What the network was given: ``(n_windows, ...)`` for each case, so that another version can be run on the same;
        empty where the table has logits.
    """

    person: NDArray[np.str_]
    labels: pd.DataFrame
    logits: Floats
    age_years: Floats | None
    source: TrainingData
    subgroups: pd.DataFrame = field(default_factory=pd.DataFrame)
    refused: tuple[Refusal, ...] = ()
    n_by_device: dict[str, int] = field(default_factory=dict)
    inputs: tuple[NDArray[np.generic], ...] = ()

    def outcome(self, spec: FindingSpec) -> Floats:
        """``(n,)`` labels of a finding; NaN for persons of ages that it is not offered for."""
        y = self.labels[spec.name].to_numpy(dtype=np.float64)
        if spec.age_years is None or self.age_years is None:
            return y
        low, high = spec.age_years
        return np.where((self.age_years >= low) & (self.age_years < high), y, np.nan)


def cohort_cases(
    path: Path, bundle: Bundle, *, parts: Sequence[str] | None = None, cache: Path | None = None, progress: bool = True
) -> Cases:
    """The labelled cases of a cohort manifest, read, gated and checked, with the bundle's logits.

    Parameters
    ----------
    parts
        Parts of the cohort to take. By default ``validation`` and ``test`` where the table has a split, or where the
        bundle was trained on a cohort of this name; else all.

    Raises
    ------
    CannotRecalibrate
        A check finds the cohort unusable, it is of another modality, or no case is left.
    ManifestInvalid, TableUnusable
        The manifest or the table cannot be read.
    """
    table, contract = load_table(path), bundle.manifest.input
    manifest = table.manifest
    if not isinstance(contract, CxrInput | EcgInput):
        raise CannotRecalibrate("the bundle takes laboratory values, which cannot be read from files; give logits")
    if manifest.modality != contract.modality:
        raise CannotRecalibrate(
            f"{manifest.name}: its modality is {manifest.modality}, but {contract.modality} is needed"
        )
    gate = gates.serving_gate(manifest.modality)
    inputs = load_inputs(table, progress=progress, spec=contract, cache=cache, gate=gate, every_window=True)
    checks = [check for check in check_cohort(table, inputs) if check.name not in OF_TRAINING]
    if unusable(checks):
        raise CannotRecalibrate(report(checks, table))
    part, frame = table.frame.part.to_numpy(dtype=str), table.frame
    learnt = {data.name for data in bundle.manifest.training_data}
    if parts is None:
        decides = bool(table.raw["split"].notna().any()) or manifest.name in learnt
        parts = ("validation", "test") if decides else ("train", "validation", "test")
    wanted = np.isin(part, parts)
    rows = np.flatnonzero(wanted & inputs.readable)
    if not len(rows):
        raise CannotRecalibrate(f"{manifest.name}: no case of {', '.join(parts)} is left")
    windows = tuple(np.concatenate([inputs.x[i][None], *_further(inputs.further, i)]) for i in rows)
    age = frame.age_years.to_numpy(dtype=np.float64)[rows]
    labels = table.labels.iloc[rows].reset_index(drop=True)
    device = frame.device.to_numpy(dtype=object)
    return Cases(
        person=table.person[rows],
        labels=labels,
        logits=logits_of(bundle, windows),
        age_years=np.where(is_plausible(age), age, np.nan) if is_plausible(age).any() else None,
        source=table.source(rows).model_copy(
            update={"digest": digest_of([inputs.digests[i] for i in rows], labels, table.person[rows])}
        ),
        subgroups=subgroups(frame.iloc[rows].reset_index(drop=True), table.site[rows]),
        refused=tuple(refusal(inputs.problems[i], device[i]) for i in np.flatnonzero(wanted & inputs.refused)),
        n_by_device=dict(Counter(str(d) for d in device[wanted & (inputs.readable | inputs.refused)] if d is not None)),
        inputs=windows,
    )


def of_cohort(cohort: Cohort, part: str, bundle: Bundle) -> Cases:
    """The cases of one part of a cohort that was read for training, with a bundle's logits."""
    rows = cohort.rows(part)
    windows = tuple(cohort.x[i][None] for i in rows)
    return Cases(
        person=cohort.person[rows],
        labels=cohort.labels.iloc[rows].reset_index(drop=True),
        logits=logits_of(bundle, windows),
        age_years=None,
        source=cohort.source,
        subgroups=cohort.subgroups.iloc[rows].reset_index(drop=True),
        inputs=windows,
    )


def logits_of(bundle: Bundle, inputs: Sequence[NDArray[np.generic]]) -> Floats:
    """``(n, n_columns)`` of a bundle for ``n`` cases; windows of a recording are averaged as in serving."""
    return output_of(bundle, inputs, bundle.manifest.outputs[0])


def output_of(bundle: Bundle, inputs: Sequence[NDArray[np.generic]], name: str) -> Floats:
    """As :func:`logits_of`, for another output of rows, such as ``distance``."""
    place = bundle.manifest.outputs.index(name)
    found: list[Floats] = []
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        out = np.asarray(bundle.session.run(np.concatenate(list(batch)))[place], dtype=np.float64)
        ends = np.cumsum([len(x) for x in batch])
        found.extend(part.mean(axis=0) for part in np.split(out, ends[:-1]))
    return np.stack(found)


def _further(further: list[NDArray[np.generic]] | None, row: int) -> list[NDArray[np.generic]]:
    return [further[row]] if further else []


def refusal(problems: Sequence[Problem], device: str | None) -> Refusal:
    """The first problem of a case for which it is refused."""
    first = next(problem for problem in problems if problem.severity == "reject")
    return Refusal(first.code, first.message("en"), device)
