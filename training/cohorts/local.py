"""A hospital's own cases, from the manifest that describes them to a :class:`Cohort`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.bundle import CxrInput, EcgInput
from data_specs.person import MAX_AGE_YEARS, age_band
from training.cohorts import gates
from training.cohorts.ages import ages_to_offer, outside_ages
from training.cohorts.checks import check_cohort
from training.cohorts.cohort import Cohort, digest_of, even_weights
from training.cohorts.inputs import load_inputs
from training.cohorts.table import load_table
from training.cohorts.verdicts import doubts, report, unusable

MOST_OFTEN = 5.0
"""A case is drawn at most this many times as often as the mean case; otherwise a few films would be memorised."""
FEW_POSITIVES = 0.2
"""Below this share of positives, recordings with and without a finding are drawn equally often."""
MIN_FURTHER = 20
"""A further task needs at least this many positive and negative training cases."""


class CohortUnusable(ValueError):
    """The cohort cannot be used for training; the message lists every fault with its rows."""


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
        Folder of the cache of read files; ``None``: no cache.
    progress
        Whether to draw a progress bar.

    Returns
    -------
    The usable cases. Left out are files that serving cannot read or refuses, rows without a part, and validation and
    test cases of ages that nothing is offered for. Doubtful results of the checks are in ``limits``

    Raises
    ------
    data_specs.cohort.ManifestInvalid, training.cohorts.table.TableUnusable
        The manifest or the table cannot be read.
    CohortUnusable
        A check found the cohort unusable, or it is of another modality.
    """
    table = load_table(manifest_path)
    manifest = table.manifest
    if manifest.modality != spec.modality:
        raise CohortUnusable(f"{manifest.name}: its modality is {manifest.modality}, but {spec.modality} is needed")
    gate = gates.serving_gate(manifest.modality)
    inputs = load_inputs(table, progress=progress, spec=spec, cache=cache, gate=gate)
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
        # A copy would double the memory, so none is made if every row is used.
        x=inputs.x if used.all() else inputs.x[rows],
        labels=labels,
        person=table.person[rows],
        part=part[rows],
        subgroups=subgroups(frame, table.site[rows]),
        source=table.source(rows[train]).model_copy(
            update={"digest": digest_of([inputs.digests[i] for i in rows], labels, table.person[rows])}
        ),
        title=manifest.name,
        age_years=ages_to_offer(table, inputs),
        further=further_tasks(frame, train),
        weight=drawing_weights(labels, frame.view, train, evenly_by_view=manifest.modality == "cxr"),
        # One card may list the limits of several cohorts.
        limits=tuple(f"{manifest.name}, {doubt.rstrip('.')}." for doubt in doubts(checks)),
    )


def subgroups(frame: pd.DataFrame, site: NDArray[np.object_]) -> pd.DataFrame:
    """Columns to report separately, each with at least one known value; text, ``None`` where unknown."""
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


def further_tasks(frame: pd.DataFrame, train: NDArray[np.bool_]) -> pd.DataFrame:
    """Sex and age as tasks that help the network to learn and are never offered: 0, 1 or NaN where unknown."""
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


def drawing_weights(
    labels: pd.DataFrame, view: pd.Series, train: NDArray[np.bool_], *, evenly_by_view: bool
) -> NDArray[np.float64] | None:
    """``(n,)`` how often each case is drawn, 1 on average over ``train``; ``None``: evenly.

    Films with and without any finding are drawn equally often in each view, so that the network learns neither which
    kind is rarer nor that a view predicts a label. Recordings with and without any finding are drawn equally often only
    where few are positive. A case without a known label is not drawn; no case is drawn more than ``MOST_OFTEN`` times
    as often as the mean case.
    """
    known, positive = labels.notna().any(axis=1), (labels == 1).any(axis=1)
    counted = train & known.to_numpy()
    if not evenly_by_view and positive[counted].mean() >= FEW_POSITIVES:
        return None
    cells = positive.map({True: "with", False: "without"})
    if evenly_by_view:
        cells = cells + " " + view.fillna("").astype(str)
    weight = np.where(known, even_weights(cells, counted), 0.0)
    # Limiting the largest weights lowers the mean, so this is repeated until the limit is met.
    for _ in range(200):
        weight = weight / weight[counted].mean()
        if weight[counted].max() <= MOST_OFTEN * (1 + 1e-9):
            break
        weight = np.minimum(weight, MOST_OFTEN)
    return weight
