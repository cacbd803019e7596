"""A hospital's own cases: from the manifest that describes them to a cohort that trains as the shipped ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.bundle import CxrInput, EcgInput
from training.cohorts.checks import MAX_AGE_YEARS, ages_to_offer, check_cohort, outside_ages
from training.cohorts.cohort import Cohort, even_over
from training.cohorts.files import load_inputs
from training.cohorts.table import load_table
from training.cohorts.verdicts import doubts, report, unusable

AGE_BANDS = {0: "<1", 1: "1-5", 6: "6-17", 18: "18-40", 41: "41-60", 61: "61-75", 76: "76+"}
"""First year of life of each band: the adults' as in the shipped cohort, the children's finer."""
MOST_OFTEN = 5.0
"""A case is drawn at most so many times as often as the mean one: a handful of films would be learnt by heart."""
FEW_POSITIVES = 0.2
"""Recordings are drawn evenly by label where fewer than this share are positive."""
MIN_FURTHER = 20
"""A further task wants so many cases of each kind to learn from."""


class CohortUnusable(ValueError):
    """Nothing may be trained on this cohort; the text has every fault that was found, with its rows."""


def local_cohort(
    manifest_path: Path, spec: CxrInput | EcgInput, *, cache: Path | None, progress: bool = True
) -> Cohort:
    """Read and check a hospital's cases.

    Parameters
    ----------
    manifest_path
        Its ``cohort.yaml`` (see :mod:`data_specs.cohort`).
    spec
        Input of the network that is to be trained.
    cache
        Folder that keeps what the files became, for the next run; ``None``: nothing is kept.
    progress
        Whether to draw a progress bar.

    Returns
    -------
    The cases that can be used: without unreadable files, rows of no part, and those that would validate or test what
    is not offered for their age. What was doubtful stands in ``limits``

    Raises
    ------
    data_specs.cohort.ManifestInvalid, training.cohorts.table.TableUnusable
        The manifest or the table cannot be read.
    CohortUnusable
        The checks found what stops a training, or the cohort is of another modality.
    """
    table = load_table(manifest_path)
    manifest = table.manifest
    if manifest.modality != spec.modality:
        raise CohortUnusable(f"{manifest.name}: modality {manifest.modality}, where {spec.modality} is to be trained")
    inputs = load_inputs(table, progress=progress, spec=spec, cache=cache)
    checks = check_cohort(table, inputs)
    if unusable(checks):
        raise CohortUnusable(report(checks, table))
    part = table.frame.part.to_numpy(dtype=str)
    used = inputs.readable & (part != "unused") & ~outside_ages(table)
    rows = np.flatnonzero(used)
    frame = table.frame.iloc[rows].reset_index(drop=True)
    labels = table.labels.iloc[rows].reset_index(drop=True)
    train = part[rows] == "train"
    return Cohort(
        name=manifest.name,
        # A copy doubles the memory, so none is made where every row is used.
        x=inputs.x if used.all() else inputs.x[rows],
        labels=labels,
        person=table.person[rows],
        part=part[rows],
        subgroups=subgroups(frame, table.site[rows]),
        source=table.source(rows[train]),
        title=manifest.name,
        age_years=ages_to_offer(table, inputs),
        further=further_tasks(frame, train),
        weight=draws(labels, frame.view, train, evenly_by_view=manifest.modality == "cxr"),
        # Several cohorts may stand in one card.
        limits=tuple(f"{manifest.name}, {doubt.rstrip('.')}." for doubt in doubts(checks)),
    )


def subgroups(frame: pd.DataFrame, site: NDArray[np.object_]) -> pd.DataFrame:
    """Columns to report apart, each with at least one value known; text, ``None`` where unknown."""
    columns = {
        "sex": frame.sex,
        "age": [age_band(age) for age in frame.age_years],
        "view": frame.view,
        "device": frame.device,
        "site": site,
    }
    table = pd.DataFrame(
        {
            name: np.array([None if v is None else str(v) for v in values], dtype=object)
            for name, values in columns.items()
        },
        index=frame.index,
        dtype=object,
    )
    return table.loc[:, table.notna().any()]


def age_band(age_years: float) -> str | None:
    """Band of an age, by completed years; ``None`` where it is unknown or no age."""
    if not 0 <= age_years <= MAX_AGE_YEARS:
        return None
    return AGE_BANDS[max(first for first in AGE_BANDS if first <= age_years)]


def further_tasks(frame: pd.DataFrame, train: NDArray[np.bool_]) -> pd.DataFrame:
    """Sex and age as tasks that help to learn and are never offered: 0, 1 or NaN where unknown."""
    age = frame.age_years.where(frame.age_years.between(0, MAX_AGE_YEARS))
    tasks = pd.DataFrame(
        {
            "female": frame.sex.map({"female": 1.0, "male": 0.0}).astype(float),
            "age_over_45": (age > 45).astype(float).where(age.notna()),
            "age_over_60": (age > 60).astype(float).where(age.notna()),
        },
        index=frame.index,
    )
    enough = [min((tasks[name][train] == value).sum() for value in (0, 1)) >= MIN_FURTHER for name in tasks]
    return tasks.loc[:, enough]


def draws(
    labels: pd.DataFrame, view: pd.Series, train: NDArray[np.bool_], *, evenly_by_view: bool
) -> NDArray[np.float64] | None:
    """``(n,)`` how often each case is drawn, 1 on average over ``train``; ``None``: evenly.

    Films: cases with and without any finding are drawn alike, in each view, so that neither the rarer kind nor the tie
    of label and view is learnt. Recordings: with and without any finding alike, only where few are positive. A case
    without a known label is not drawn; no other more than ``MOST_OFTEN`` times as often as the mean one.
    """
    known, positive = labels.notna().any(axis=1), (labels == 1).any(axis=1)
    counted = train & known.to_numpy()
    if not evenly_by_view and positive[counted].mean() >= FEW_POSITIVES:
        return None
    cells = positive.map({True: "with", False: "without"})
    if evenly_by_view:
        cells = cells + " " + view.fillna("").astype(str)
    weight = np.where(known, even_over(cells, counted), 0.0)
    # Cutting the largest lowers the mean, so it is cut again until it holds.
    for _ in range(200):
        weight = weight / weight[counted].mean()
        if weight[counted].max() <= MOST_OFTEN * (1 + 1e-9):
            break
        weight = np.minimum(weight, MOST_OFTEN)
    return weight
