"""Labelled local cases in a CSV: files or logits, and one column for each finding.

Columns: ``person``, one per finding (0, 1, or empty for unknown), ``file`` (relative to the table) or the network's
logits (``logit_FINDING``, or ``logit`` for a single finding), and ``age_years`` if the bundle has one finding for
several ages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from data_specs.bundle import BundleManifest, CxrInput, EcgInput, TrainingData
from data_specs.ecg.recording import VoltageUnit
from inference.bundles.loading import Bundle
from training.bundle.local_cases import CannotRecalibrate, Cases, Floats, logits_of, refusal
from training.cohorts import gates
from training.cohorts.cohort import digest_of
from training.cohorts.files import Case, Folders, case_of


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
        refused=tuple(refusal(problems, None) for x, problems, _ in read if x is None),
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
