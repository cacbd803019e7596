"""Labelled local cases for an evaluation or a recalibration: read as in serving, checked, computed by the bundle.

They are described by a cohort manifest (``data_specs.cohort``), whose checks they have to pass; or a table has them, a
CSV with ``person``, one column per finding (0, 1, or empty for unknown), ``file`` (relative to the table) or the
network's logits (``logit_FINDING``, or ``logit`` for a single finding), and ``age_years`` if the bundle has one finding
for several ages. What the gate of serving refuses is left out either way, and counted by reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from data_specs.bundle import BundleManifest, CxrInput, EcgInput, FindingSpec, TrainingData
from data_specs.ecg.recording import VoltageUnit
from data_specs.problems import Problem
from inference.bundles.loading import Bundle
from training.cohorts import gates
from training.cohorts.ages import is_plausible
from training.cohorts.checks import OF_TRAINING, check_cohort
from training.cohorts.cohort import Cohort, digest_of
from training.cohorts.files import Case, Folders, case_of
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


@dataclass(frozen=True)
class Table:
    """A table with the column names of this module, and the folder of its files."""

    rows: pd.DataFrame
    files: Path
    source: TrainingData
    ecg_unit: VoltageUnit | None = None


def read_csv(path: Path, source: TrainingData) -> Table:
    """Read a CSV that has the column names of this module.

    Raises
    ------
    CannotRecalibrate
        The file cannot be read as a CSV.
    """
    try:
        return Table(pd.read_csv(path, dtype=str, keep_default_na=False), path.parent, source)
    except (OSError, ValueError) as error:  # a wrong encoding and pandas' parser errors are ValueErrors
        raise CannotRecalibrate(f"{path.name} cannot be read as a CSV ({type(error).__name__})") from error


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
        refused=tuple(_refusal(inputs.problems[i], device[i]) for i in np.flatnonzero(wanted & inputs.refused)),
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


def _refusal(problems: Sequence[Problem], device: str | None) -> Refusal:
    first = next(problem for problem in problems if problem.severity == "reject")
    return Refusal(first.code, first.message("en"), device)


def read_cases(table: Table, bundle: Bundle) -> Cases:
    """Check the table, and compute the logits of its files with the bundle's session unless the table has logits.

    Raises
    ------
    CannotRecalibrate
        The message has every fault with its lines.
    """
    rows, findings = table.rows, bundle.manifest.findings
    names = [n for n in dict.fromkeys(f.name for f in findings if f.kind == "probability") if n in rows.columns]
    faults: list[str] = []
    if not names:
        known = ", ".join(dict.fromkeys(f.name for f in findings if f.kind == "probability"))
        faults.append(f"no column has the name of a finding of the bundle ({known})")
    if "person" not in rows.columns:
        faults.append("there is no column 'person', so the cases of a person cannot be kept in one fold")
    elif (rows.person.str.strip() == "").any():
        faults.append(f"no person: {_lines(rows, rows.person.str.strip() == '')}")
    labels = rows[names].apply(pd.to_numeric, errors="coerce")
    for name in names:
        wrong = (rows[name].str.strip() != "") & ~labels[name].isin([0, 1])
        if wrong.any():
            faults.append(f"'{name}' is 0, 1 or empty (unknown), but not in {_lines(rows, wrong)}")
    twice = [n for n in names if sum(f.name == n for f in findings) > 1]
    if twice and "age_years" not in rows.columns:
        faults.append(f"the bundle has '{twice[0]}' for several ages: the table needs a column 'age_years'")
    if faults:
        raise CannotRecalibrate("\n".join(faults))
    age = pd.to_numeric(rows.age_years, errors="coerce").to_numpy(np.float64) if "age_years" in rows.columns else None
    person = rows.person.str.strip().to_numpy(dtype=str)
    labels = labels.astype(np.float64).reset_index(drop=True)
    logits = _given_logits(rows, names, bundle.manifest)
    if logits is not None:
        return Cases(person, labels, logits, age, source=_counted(table.source, person, _texts(logits), labels))
    read = _read_files(table, bundle.manifest)
    taken = np.array([x is not None for x, _, _ in read], dtype=bool)
    if not taken.any():
        raise CannotRecalibrate("the gate of serving refuses every file")
    windows = tuple(x for x, _, _ in read if x is not None)
    person, labels = person[taken], labels[taken].reset_index(drop=True)
    return Cases(
        person=person,
        labels=labels,
        logits=logits_of(bundle, windows),
        age_years=None if age is None else age[taken],
        source=_counted(table.source, person, [digest for x, _, digest in read if x is not None], labels),
        refused=tuple(_refusal(problems, None) for x, problems, _ in read if x is None),
        inputs=windows,
    )


def _counted(
    source: TrainingData, person: NDArray[np.str_], digests: Sequence[str], labels: pd.DataFrame
) -> TrainingData:
    counts = {"n_persons": len(np.unique(person)), "n_items": len(person)}
    return source.model_copy(update={**counts, "digest": digest_of(digests, labels, person)})


def _texts(logits: Floats) -> list[str]:
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in logits]


def _lines(rows: pd.DataFrame, wrong: pd.Series, most: int = 10) -> str:
    """Line numbers in the file; the header is line 1."""
    lines = [str(i + 2) for i in rows.index[wrong]]
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return f"line {', '.join(lines[:most])}{more}"


def _given_logits(rows: pd.DataFrame, names: list[str], manifest: BundleManifest) -> Floats | None:
    """``(n, n_columns)`` from ``logit_FINDING`` or ``logit``; ``None`` if the table has neither."""
    columns = {name: f"logit_{name}" for name in names}
    if len(names) == 1 and "logit" in rows.columns:
        columns = {names[0]: "logit"}
    given = {name: column for name, column in columns.items() if column in rows.columns}
    if not given:
        return None
    missing = [columns[name] for name in names if name not in given]
    if missing:
        raise CannotRecalibrate(f"some findings have logits and others do not: missing {', '.join(missing)}")
    logits = np.full((len(rows), 1 + max(f.column for f in manifest.findings)), np.nan)
    for name, column in given.items():
        values = pd.to_numeric(rows[column], errors="coerce").to_numpy(np.float64)
        wrong = pd.Series(~np.isfinite(values), index=rows.index)
        if wrong.any():
            raise CannotRecalibrate(f"'{column}' is not a finite number in {_lines(rows, wrong)}")
        for spec in manifest.findings:
            if spec.name == name:
                logits[:, spec.column] = values
    return logits


def _read_files(table: Table, manifest: BundleManifest) -> list[Case]:
    """Each line's file, read, gated and conformed as in serving; without an input where the gate refuses it.

    Raises
    ------
    CannotRecalibrate
        The message has each line whose file cannot be read, with the reason.
    """
    rows, contract = table.rows, manifest.input
    if "file" not in rows.columns:
        raise CannotRecalibrate("the table has neither a column 'file' nor logits ('logit' or 'logit_FINDING')")
    if not isinstance(contract, CxrInput | EcgInput):
        raise CannotRecalibrate("the bundle takes laboratory values, which cannot be read from files; give logits")
    gate, folders = gates.serving_gate(contract.modality), Folders(table.files)
    names = [name.strip() for name in rows.file]
    read = [case_of(name, folders, contract, table.ecg_unit, gate) for name in tqdm(names, unit="file", disable=None)]
    faults = [
        f"line {line}: {case.problems[0].message('en')}"
        for line, case in zip(rows.index + 2, read, strict=True)
        if case.x is None and not case.digest
    ]
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise CannotRecalibrate("\n".join(["files that cannot be used:", *faults[:20], *more]))
    return read
