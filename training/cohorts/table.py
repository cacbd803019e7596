"""The table of a cohort: columns under canonical names, labels as numbers, a part for each person."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.bundle import TrainingData
from data_specs.cohort import VITALS, CohortManifest, read_manifest
from data_specs.conditions import CONDITIONS
from data_specs.labs import standard_labs
from data_specs.person import read_sex
from data_specs.problems import Problem
from data_specs.visit.context import Lab
from training.cohorts.cohort import part_of_person

PARTS = ("train", "validation", "test", "unused")
EMPTY = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")
"""Values that mean 'unknown' in a table."""


class TableUnusable(ValueError):
    """The table itself cannot be read, or lacks the columns without which nothing can be checked."""


@dataclass(frozen=True)
class CohortTable:
    """The rows of a cohort, under canonical names.

    Parameters
    ----------
    manifest, folder
        The manifest, and the folder it is in.
    frame
        One row per case: ``row`` (as a spreadsheet counts: 2 is the first case), ``person``, ``file``, ``site``,
        ``device``, ``view`` (str or ``None``), ``age_years`` (float), ``sex`` (``female``, ``male``, ``other`` or
        ``None``), ``made_on`` (timestamp or NaT), ``part``. A value that cannot be read is unknown here.
    labels
        One column per finding, float; NaN where the table has no number.
    features
        ``labs`` only: one column per canonical name (``creatinine_umol_per_l``), float, and the problems met.
    raw
        Values as the table has them, as text under the canonical names (labels as ``label:NAME``), ``None`` if empty.
    absent, unnamed
        Columns that the manifest names and the table lacks, as ``(canonical name, column)``; columns of the table
        that the manifest does not name.
    """

    manifest: CohortManifest
    folder: Path
    frame: pd.DataFrame
    labels: pd.DataFrame
    features: pd.DataFrame
    raw: pd.DataFrame
    absent: tuple[tuple[str, str], ...]
    unnamed: tuple[str, ...]
    feature_problems: tuple[tuple[int, Problem], ...] = ()

    @property
    def person(self) -> NDArray[np.str_]:
        """Person identifiers with the cohort's name before them, so that two cohorts never share one by chance."""
        return np.array([f"{self.manifest.name}:{p}" for p in self.frame.person], dtype=str)

    @property
    def site(self) -> NDArray[np.object_]:
        """Site of each row: the manifest's, else the table's, ``None`` where unknown."""
        if self.manifest.site is not None:
            return np.full(len(self.frame), self.manifest.site, dtype=object)
        return np.asarray(self.frame.site, dtype=object)

    def source(self, rows: NDArray[np.intp]) -> TrainingData:
        """Name, citation, licence and counts of these rows, for the card."""
        manifest = self.manifest
        return TrainingData(
            name=manifest.name,
            citation=manifest.source.citation,
            licence=manifest.source.licence,
            n_persons=len(set(self.frame.person.iloc[rows])),
            n_items=len(rows),
        )


def load_table(manifest_path: Path) -> CohortTable:
    """Read the manifest and the table of a cohort; every row gets a part.

    Raises
    ------
    data_specs.cohort.ManifestInvalid
        The manifest cannot be used.
    TableUnusable
        The table cannot be read, is empty, or has no column of persons or files.
    """
    manifest = read_manifest(manifest_path)
    folder = manifest_path.resolve().parent
    table = _read_table(folder / manifest.table, manifest.separator)
    wanted = _named_columns(manifest)
    absent = tuple((name, column) for name, column in wanted.items() if column not in table)
    needed = {"person"} | ({"file"} if manifest.modality != "labs" else set())
    lacking = [f"columns.{name}: no column '{column}'" for name, column in absent if name in needed]
    if lacking:
        have = ", ".join(map(str, table.columns[:40]))
        raise TableUnusable(
            f"{manifest.table}: {'; '.join(lacking)} (the table has: {have}; separator '{manifest.separator}')"
        )
    raw = pd.DataFrame({name: _text(table[c]) if c in table else None for name, c in wanted.items()}, dtype=object)
    for name in ("file", "age_years", "sex", "site", "device", "view", "made_on", "split"):
        if name not in raw:
            raw[name] = None
    frame = pd.DataFrame({"row": table.index.to_numpy() + 2})
    for name in ("person", "file", "site", "device", "view"):
        frame[name] = raw[name].to_numpy(dtype=object)
    # A row without a person counts as one person until the checks report it.
    frame["person"] = [p or f"(row {r})" for p, r in zip(frame.person, frame.row, strict=True)]
    frame["age_years"] = to_numbers(raw.age_years)
    frame["sex"] = [sex_of(value, manifest) for value in raw.sex]
    frame["made_on"] = pd.to_datetime(raw.made_on.astype(object), errors="coerce", format="ISO8601", utc=True)
    frame["part"] = _parts(raw.split, frame.person, manifest)
    labels = pd.DataFrame({finding: to_numbers(raw[f"label:{finding}"]) for finding in manifest.labels})
    features, feature_problems = _features(raw, frame, manifest)
    named = set(wanted.values())
    return CohortTable(
        manifest=manifest,
        folder=folder,
        frame=frame,
        labels=labels,
        features=features,
        raw=raw,
        absent=absent,
        unnamed=tuple(str(column) for column in table.columns if column not in named),
        feature_problems=feature_problems,
    )


def to_numbers(values: pd.Series) -> NDArray[np.float64]:
    """Numbers of a column of texts; NaN for what is no number, and for infinity."""
    parsed = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isfinite(parsed), parsed, np.nan)


def sex_of(value: str | None, manifest: CohortManifest) -> str | None:
    """``female``, ``male`` or ``other``; ``None`` where unknown or not understood.

    Codes of DICOM and whole words are read; other words need ``values.sex``.
    """
    if value is None:
        return None
    sex = manifest.values.sex.get(value) or read_sex(value, "dicom")
    return None if sex == "unknown" else sex


def _named_columns(manifest: CohortManifest) -> dict[str, str]:
    """Canonical name to the table's column, for every column that the manifest names."""
    named = {name: column for name, column in manifest.columns.model_dump().items() if column is not None}
    named |= {f"label:{finding}": column for finding, column in manifest.labels.items()}
    return named | {f"feature:{name}": feature.column for name, feature in manifest.features.items()}


def _read_table(path: Path, separator: str) -> pd.DataFrame:
    """The table with its values as text; the index counts the rows of the file from 0."""
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            table = pd.read_parquet(path).reset_index(drop=True)
            columns = [str(column).strip() for column in table.columns]
        else:
            with warnings.catch_warnings():
                # A row with more values than the header has names must be an error: pandas would drop the values.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # Read separately, because pandas renames a column that occurs twice.
                first = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, encoding="utf-8-sig")
                columns = [str(name).strip() for name in first.iloc[0] if isinstance(name, str)]
                table = pd.read_csv(
                    path,
                    sep=separator,
                    dtype=str,
                    keep_default_na=False,
                    skip_blank_lines=False,
                    encoding="utf-8-sig",
                    index_col=False,
                )
    except FileNotFoundError as error:
        raise TableUnusable(f"{path.name}: there is no such file in the manifest's folder") from error
    except UnicodeDecodeError as error:
        raise TableUnusable(f"{path.name}: not UTF-8 at byte {error.start}; save the table as CSV UTF-8") from error
    except Exception as error:  # the parsers may raise any exception for damaged bytes
        raise TableUnusable(f"{path.name}: cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    table.columns = [str(column).strip() for column in table.columns]
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise TableUnusable(f"{path.name}: more than one column is called {', '.join(repeated)}")
    table = table[~table.apply(lambda row: all(str(v).strip() in EMPTY or v is None for v in row), axis=1)]
    if table.empty:
        raise TableUnusable(f"{path.name}: the table has no rows")
    return table


def _text(column: pd.Series) -> NDArray[np.object_]:
    """Values as stripped text, ``None`` where empty; 7.0 in a column of numbers is '7'."""

    def one(value: object) -> str | None:
        if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
            return None
        if isinstance(value, bool | np.bool_):
            return str(int(value))
        if isinstance(value, float | np.floating) and float(value).is_integer():
            return str(int(value))
        text = str(value).strip()
        return None if text in EMPTY else text

    return np.array([one(value) for value in column], dtype=object)


def _parts(split: pd.Series, person: pd.Series, manifest: CohortManifest) -> list[str]:
    """Part of each row: from the table's split, else by a hash of the person.

    If the table has train and test but no validation, a share of its training persons becomes validation, by the same
    hash. A row whose part is empty or not understood is unused.
    """
    shares = manifest.shares.model_dump()
    shares = {part: shares[part] for part in ("validation", "test", "train")}
    if split.isna().all():
        return [part_of_person(p, shares, manifest.name) for p in person]
    stated = [part_named(value, manifest) or "unused" for value in split]
    if "validation" in stated or "train" not in stated:
        return stated
    kept = shares["train"] + shares["test"]
    drawn = {"validation": shares["validation"], "train": kept}
    return [
        part_of_person(p, drawn, manifest.name) if part == "train" else part
        for p, part in zip(person, stated, strict=True)
    ]


def part_named(value: str | None, manifest: CohortManifest) -> str | None:
    """The part that a word of the table means; ``None`` if it means none."""
    if value is None:
        return None
    part = manifest.values.split.get(value, value)
    return part if part in PARTS else None


def _features(
    raw: pd.DataFrame, frame: pd.DataFrame, manifest: CohortManifest
) -> tuple[pd.DataFrame, tuple[tuple[int, Problem], ...]]:
    """Laboratory values in canonical units, converted as in serving, with age and sex where the table has them."""
    if manifest.modality != "labs":
        return pd.DataFrame(index=frame.index), ()
    rows: list[dict[str, float]] = []
    problems: list[tuple[int, Problem]] = []
    columns = {name: to_numbers(raw[f"feature:{name}"]) for name in manifest.features}
    as_it_is = set(VITALS) | set(CONDITIONS)
    for i in range(len(frame)):
        known = {name: float(values[i]) for name, values in columns.items() if not np.isnan(values[i])}
        labs = [
            Lab(name=name, value=value, unit=manifest.features[name].unit)
            for name, value in known.items()
            if name not in as_it_is
        ]
        values, met = standard_labs(labs)
        rows.append(values | {name: value for name, value in known.items() if name in as_it_is})
        problems += [(i, problem) for problem in met]
    table = pd.DataFrame(rows, index=frame.index, dtype=np.float64)
    table.insert(0, "age_years", frame.age_years)
    table.insert(1, "female", frame.sex.map({"female": 1.0, "male": 0.0}).astype(float))
    return table, tuple(problems)
