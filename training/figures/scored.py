"""Local scores with outcomes, from a CSV, in the place of the cases that a bundle carries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_specs.bundle import FindingSpec
from training.cohorts.cohort import subgroup_members
from training.figures.roc import roc_points, rocs_by_group
from training.figures.screening import PlanError

OUTCOMES = {"confirmed": 1.0, "1": 1.0, "refuted": 0.0, "0": 0.0, "lost": np.nan, "": np.nan}
MAX_BYTES = 200_000_000
SHOWN = 10


def on_local_scores(spec: FindingSpec, file: Path, groups: Sequence[str] = ()) -> tuple[FindingSpec, list[str]]:
    """The finding with the ROC of local cases, and what a reader has to know about them.

    Parameters
    ----------
    file
        CSV with ``probability``, as this finding gives it, and ``outcome`` (``confirmed`` or 1, ``refuted`` or 0,
        ``lost`` or empty: left out), ``person`` if some have several rows, and any columns of groups. With a column
        ``finding``, as ``python -m models recalls --scores`` writes it, only the rows of this finding count.
    groups
        Names of columns: each value with enough cases is a group, named like ``sex F``.

    Raises
    ------
    PlanError
        The message has the fault and its lines.
    """
    rows = _read(file, groups, spec.name)
    probability = pd.to_numeric(rows.probability, errors="coerce")
    outcome = rows.outcome.str.strip().str.lower()
    for column, wrong, expected in (
        ("probability", ~probability.between(0, 1), "from 0 to 1"),
        ("outcome", ~outcome.isin(list(OUTCOMES)), "confirmed, refuted, lost, 1, 0 or empty"),
    ):
        if wrong.any():
            lines = ", ".join(str(i + 2) for i in rows.index[wrong][:SHOWN])
            raise PlanError(f"{file}: '{column}' has to be {expected}, and is not in line {lines}")
    y, p = outcome.map(OUTCOMES).to_numpy(np.float64), probability.to_numpy(np.float64)
    known = ~np.isnan(y)
    if not ((y == 1).any() and (y == 0).any()):
        raise PlanError(
            f"{file}: {int((y == 1).sum())} with and {int((y == 0).sum())} without the finding; both are needed"
        )
    members = subgroup_members(rows.loc[known, list(groups)].replace("", None), np.arange(int(known.sum())))
    y, p = y[known], p[known]
    said = [f"{int((~known).sum())} rows without an outcome were left out."] if not known.all() else []
    if "person" in rows.columns and (n := rows.person[known].nunique()) < len(y):
        said.append(
            f"{len(y)} rows of {n} persons: rows of one person are not independent, so intervals are too narrow."
        )
    points = tuple(point.model_copy(update={"cohort": file.name}) for point in spec.operating_points)
    of_groups = rocs_by_group(y, p, members, points)
    if few := sorted(set(members) - set(of_groups)):
        said.append(f"Too few cases to plan from: {', '.join(few)}.")
    new = {"roc": roc_points(y, p, points), "roc_by_group": of_groups, "operating_points": points, "evaluation": ()}
    return spec.model_copy(update=new), said


def _read(file: Path, groups: Sequence[str], finding: str) -> pd.DataFrame:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise PlanError(f"{file}: larger than {MAX_BYTES} bytes")
        rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"{file}: cannot be read as a CSV ({type(error).__name__})") from error
    needed = ["probability", "outcome", *groups]
    if missing := [name for name in needed if name not in rows.columns]:
        raise PlanError(f"{file}: no column {', '.join(missing)}")
    if "finding" in rows.columns:
        rows = rows[rows.finding == finding]
    if rows.empty:
        raise PlanError(f"{file}: no rows of {finding}")
    return rows
