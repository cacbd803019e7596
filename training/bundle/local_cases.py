"""Labelled local cases for a recalibration: read from a table, checked, and computed by the bundle's session.

The table is a CSV with ``person``, one column per finding (0, 1, or empty for unknown), ``file`` (relative to the
table) or the network's logits (``logit_FINDING``, or ``logit`` for a single finding), and ``age_years`` if the bundle
has one finding for several ages; or it is described by a cohort manifest (``data_specs.cohort``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from data_specs.bundle import BundleManifest, CxrInput, EcgInput, FindingSpec, TrainingData
from data_specs.cohort import read_manifest
from data_specs.cxr import image as cxr
from data_specs.cxr.files import read_image
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import VoltageUnit
from data_specs.problems import Refused
from inference.bundles.loading import Bundle

Floats = NDArray[np.float64]

BATCH = 32


class CannotRecalibrate(ValueError):
    """The cases or the bundle do not allow it; the message has one line per reason."""


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
    """

    person: NDArray[np.str_]
    labels: pd.DataFrame
    logits: Floats
    age_years: Floats | None

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


def read_cohort(path: Path) -> Table:
    """Read a cohort manifest and its table; only rows of validation and test are kept if it has a split.

    Raises
    ------
    CannotRecalibrate, ManifestInvalid
        The table or the manifest cannot be read, or a column that it names is missing.
    """
    manifest = read_manifest(path)
    file = path.parent / manifest.table
    try:
        if file.suffix == ".parquet":
            raw = pd.read_parquet(file).astype("string").fillna("")
        else:
            raw = pd.read_csv(file, dtype=str, keep_default_na=False, sep=manifest.separator)
    except (OSError, ValueError) as error:
        raise CannotRecalibrate(f"{file.name} cannot be read ({type(error).__name__})") from error
    columns = manifest.columns
    named = {"person": columns.person, "file": columns.file, "age_years": columns.age_years, "split": columns.split}
    wanted = {name: column for name, column in {**named, **manifest.labels}.items() if column is not None}
    missing = [column for column in wanted.values() if column not in raw.columns]
    if missing:
        raise CannotRecalibrate(f"{file.name} has no column {', '.join(missing)}, which {path.name} names")
    rows = pd.DataFrame({name: raw[column] for name, column in wanted.items()})
    if "split" in rows:
        part = rows.pop("split").map(lambda word: manifest.values.split.get(word, word))
        rows = rows[part.isin(["validation", "test"])]
    source = TrainingData(
        name=manifest.name,
        citation=manifest.source.citation,
        licence=manifest.source.licence,
        n_persons=0,
        n_items=0,
    )
    return Table(rows, path.parent / manifest.files, source, manifest.ecg_unit)


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
    logits = _given_logits(rows, names, bundle.manifest)
    if logits is None:
        logits = _computed_logits(table, bundle)
    return Cases(person, labels.astype(np.float64).reset_index(drop=True), logits, age)


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


def _computed_logits(table: Table, bundle: Bundle) -> Floats:
    """``(n, n_columns)`` from the files, read and conformed as in serving.

    Raises
    ------
    CannotRecalibrate
        The message has each line whose file cannot be used, with the reason.
    """
    rows = table.rows
    if "file" not in rows.columns:
        raise CannotRecalibrate("the table has neither a column 'file' nor logits ('logit' or 'logit_FINDING')")
    if not isinstance(bundle.manifest.input, CxrInput | EcgInput):
        raise CannotRecalibrate("the bundle takes laboratory values, which cannot be read from files; give logits")
    logits: list[Floats] = []
    waiting: list[NDArray[np.generic]] = []
    faults: list[str] = []

    def flush() -> None:
        if waiting:
            out = np.asarray(bundle.session.run(np.concatenate(waiting))[0], dtype=np.float64)
            ends = np.cumsum([len(x) for x in waiting])
            # Windows of a recording are averaged as in serving; a film has one row.
            logits.extend(part.mean(axis=0) for part in np.split(out, ends[:-1]))
            waiting.clear()

    for line, name in tqdm(zip(rows.index + 2, rows.file, strict=True), total=len(rows), unit="file", disable=None):
        try:
            waiting.append(_read(table.files / name.strip(), bundle.manifest.input, table.ecg_unit))
        except OSError as error:
            faults.append(f"line {line}: {type(error).__name__}")
        except Refused as refusal:
            faults.append(f"line {line}: {refusal.problem.message('en')}")
        if len(waiting) == BATCH:
            flush()
    if faults:
        more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
        raise CannotRecalibrate("\n".join(["files that cannot be used:", *faults[:20], *more]))
    flush()
    return np.stack(logits)


def _read(path: Path, contract: CxrInput | EcgInput, ecg_unit: VoltageUnit | None) -> NDArray[np.generic]:
    """``(1 or n_windows, ...)``: one file as the network's input; a WFDB header is read with the files of its stem."""
    if isinstance(contract, CxrInput):
        return cxr.conform(read_image(path.read_bytes()).pixels, contract.size_px)[None]
    paths = [path]
    if path.suffix.lower() == ".hea":
        paths += sorted(p for p in path.parent.glob(f"{path.stem}.*") if p != path)
    posted = [PostedFile(i, p.name, p.read_bytes()) for i, p in enumerate(paths)]
    recording = read_recording(group_recordings(posted)[0], ecg_unit=ecg_unit)
    return contract.conform(recording)
