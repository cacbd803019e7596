"""Visits to post: from files, from a folder, or from a table.

- Several files are one visit.
- In a folder, each subfolder is a visit; so is each file beside them, where files of one stem (``a.hea``, ``a.dat``)
  belong together. ``context.json`` in a subfolder, and ``a.json`` beside ``a.png``, is the context of the visit.
- In a table (CSV with a row of names), each row is a visit.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

Field = Literal["image", "ecg"]
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How PNG, JPEG, TIFF and BigTIFF begin."""
WAVEFORM = b"1.2.840.10008.5.1.4.1.1.9."
"""SOP classes of waveforms in the head of a DICOM file (PS3.4, table B.5-1)."""
HEAD_BYTES = 2048
DIGEST_LETTERS = 48
VITALS = (
    *("systolic_mmHg", "diastolic_mmHg", "heart_rate_per_min", "spo2_percent"),
    *("temperature_celsius", "weight_kg", "height_cm", "bmi_kg_per_m2"),
)
PERSON = ("id", "name", "national_id", "birth_date", "sex")
OTHERS = ("visit", *PERSON, "age_years", "visited_on", "referrer", "conditions", "files", "ecg_unit")
LAB = re.compile(r"(?P<name>[^\[\]]+?)\s*\[(?P<unit>[^\[\]]+)\]")
NUMBER = re.compile(r"[-+]?\d{1,12}(?:[.,]\d{1,9})?", re.ASCII)


class BadInput(Exception):
    """The folder or the table cannot be used: ``str()`` says where and why."""


@dataclass(frozen=True)
class Case:
    """One visit to post.

    Parameters
    ----------
    name
        What it is called in the client's own table.
    files
        Field and path of each file.
    context
        As ``POST /v1/visits`` takes it.
    digest
        Of the context and the files' bytes: the same visit has the same, so that it is posted once.
    """

    name: str
    files: tuple[tuple[Field, Path], ...]
    context: Mapping[str, Any] = field(default_factory=dict)

    def context_json(self) -> str:
        return json.dumps(self.context, ensure_ascii=False, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        whole = hashlib.sha256(self.context_json().encode())
        for kind, path in self.files:
            whole.update(f"\0{kind}\0{path.name}\0".encode())
            with path.open("rb") as opened:
                whole.update(hashlib.file_digest(opened, "sha256").digest())
        return f"client-{whole.hexdigest()[:DIGEST_LETTERS]}"


def read_cases(paths: Sequence[Path]) -> list[Case]:
    """The visits in a folder, in a table, or in several files, which are one visit.

    Raises
    ------
    BadInput
        Nothing is there, or the table has a column or a cell that cannot be read.
    """
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: there is no such file or folder")
    first = paths[0]
    if len(paths) == 1 and first.is_dir():
        cases = list(_in_folder(first))
    elif len(paths) == 1 and first.suffix.lower() == ".csv":
        cases = list(_in_table(first))
    elif any(path.is_dir() or path.suffix.lower() == ".csv" for path in paths):
        raise BadInput("give one folder, one table (.csv), or the files of one visit")
    else:
        cases = [_case(first.stem, paths)]
    if not cases:
        raise BadInput(f"{first}: no visits in it")
    return cases


# ---------------------------------------------------------------- a folder
def _in_folder(folder: Path) -> Iterator[Case]:
    loose: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            files = [each for each in sorted(path.rglob("*")) if each.is_file() and not each.name.startswith(".")]
            if files:
                yield _case(path.name, files)
        else:
            loose.setdefault(path.stem, []).append(path)
    for stem, files in loose.items():
        if any(each.suffix.lower() != ".json" for each in files):
            yield _case(stem, files)


def _case(name: str, paths: Iterable[Path]) -> Case:
    """A visit of files, of which one with the suffix ``.json`` is the context."""
    contexts = [path for path in paths if path.suffix.lower() == ".json"]
    if len(contexts) > 1:
        raise BadInput(f"{name}: more than one context ({', '.join(path.name for path in contexts)})")
    context: Any = {}
    if contexts:
        try:
            context = json.loads(contexts[0].read_text("utf-8-sig"))
        except ValueError:
            raise BadInput(f"{contexts[0]}: this is not JSON") from None
    return Case(name, tuple((field_of(path), path) for path in paths if path not in contexts), context)


def field_of(path: Path) -> Field:
    """Whether a file is a film or a recording, by how it begins."""
    with path.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    if head[128:132] == b"DICM":
        return "ecg" if WAVEFORM in head else "image"
    return "image" if head.startswith(PICTURES) else "ecg"


# ---------------------------------------------------------------- a table
def _in_table(table: Path) -> Iterator[Case]:
    text = table.read_text("utf-8-sig")
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter, restkey="")
    columns = [name.strip() for name in rows.fieldnames or ()]
    for name in columns:
        if name not in (*OTHERS, *VITALS) and not LAB.fullmatch(name):
            raise BadInput(
                f"{table}: column {name!r} is not known; known: {', '.join((*OTHERS, *VITALS))}, NAME [UNIT]"
            )
    if len(set(columns)) < len(columns):
        raise BadInput(f"{table}: a column stands twice")
    for row in rows:
        if "" in row:
            raise BadInput(f"{table}, line {rows.line_num}: more cells than the first line has")
        cells = {name.strip(): (value or "").strip() for name, value in row.items()}
        if any(cells.values()):
            yield _row(cells, table, rows.line_num)


def _row(cells: Mapping[str, str], table: Path, line: int) -> Case:
    where = f"{table}, line {line}"
    said = {name: value for name, value in cells.items() if value}
    numbers = {name: _number(said[name], f"{where}, {name}") for name in ("age_years", *VITALS) if name in said}
    person: dict[str, Any] = {name: said[name] for name in PERSON if name in said}
    if "age_years" in numbers:
        person["age_years"] = numbers["age_years"]
    context: dict[str, Any] = {"person": person} if person else {}
    if "referrer" in said:
        context["referrer"] = {"id": said["referrer"]}
    context |= {name: said[name] for name in ("visited_on", "ecg_unit") if name in said}
    if "conditions" in said:
        named = [each.strip() for each in said["conditions"].split(";") if each.strip()]
        context["conditions"] = [] if named == ["none"] else named
    if vitals := {name: numbers[name] for name in VITALS if name in numbers}:
        context["vitals"] = vitals
    labs = [(match, value) for name, value in said.items() if (match := LAB.fullmatch(name))]
    if labs:
        context["labs"] = [
            {"name": match["name"].strip(), "value": _number(value, f"{where}, {match[0]}"), "unit": match["unit"]}
            for match, value in labs
        ]
    paths = [table.parent / each.strip() for each in said.get("files", "").split(";") if each.strip()]
    for path in paths:
        if not path.is_file():
            raise BadInput(f"{where}: there is no file {path}")
    name = said.get("visit") or said.get("id") or f"line {line}"
    return Case(name, tuple((field_of(path), path) for path in paths), context)


def _number(text: str, where: str) -> float:
    """A number of a cell; a comma stands for the decimal point, as spreadsheets of many countries write it."""
    if not NUMBER.fullmatch(text):
        raise BadInput(f"{where}: {text!r} is not a number")
    return float(text.replace(",", "."))
