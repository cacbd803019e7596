"""A table (CSV) of films and recordings, or of studies, with what it states about persons."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from data_specs.cohort import Columns
from data_specs.person import Sex, fhir_day, read_age, read_sex
from inference.archive.cases import BadSource, Case, SourceFile
from inference.archive.files import Files

NOT_READ = ("device", "view", "split")
NAMES = (*(name for name in Columns.model_fields if name not in NOT_READ), "study")
"""What a table may state: what a cohort's table does, and the StudyInstanceUID for an archive that is asked for it."""
SEPARATORS = ",;\t"
NUMBER = re.compile(r"\d{1,5}(?:[.,]\d{0,20})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table, read: the cell of ``file`` or ``study``, and what is stated about it."""

    wanted: str
    site: str = ""
    person: str = ""
    age_years: float | None = None
    sex: Sex | None = None
    made_on: date | None = None

    def case(self, files: tuple[SourceFile, ...], source: int) -> Case:
        return Case(files, source, self.site, self.person, self.age_years, self.sex, self.made_on)


@dataclass(frozen=True)
class Table:
    """Films and recordings by their paths, ``a.hea;a.dat`` where a recording has several files.

    Parameters
    ----------
    files
        Where the paths start from.
    columns
        Name in :data:`NAMES` to the table's own, where that is another.
    """

    path: Path
    files: Files
    columns: Mapping[str, str]

    @property
    def address(self) -> str:
        return self.files.address

    def cases(self) -> Iterator[Case]:
        for line in lines_of(self.path, "file", self.columns, self.files.site):
            names = [name.strip() for name in line.wanted.split(";")]
            yield line.case(tuple(self.files.find(name) for name in names), self.files.number)

    def read(self, file: SourceFile) -> bytes:
        return self.files.read(file)


def lines_of(path: Path, wanted: str, columns: Mapping[str, str], site: str = "") -> Iterator[Line]:
    """The lines of a table. Columns without a name that is known are not used; an empty cell states nothing.

    Parameters
    ----------
    wanted
        ``file`` or ``study``: what each line has to have.
    site
        Of all lines, where the table does not state it.

    Raises
    ------
    BadSource
        The table, a column or a cell cannot be read; the message has the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            head = opened.readline()
            opened.seek(0)
            rows = csv.DictReader(opened, delimiter=max(SEPARATORS, key=head.count), restkey="")
            names = {name: columns.get(name, name) for name in NAMES}
            have = [str(name).strip() for name in rows.fieldnames or ()]
            lacking = [column for name, column in names.items() if name in (wanted, *columns) and column not in have]
            if lacking:
                raise BadSource(f"{path}: no column {lacking[0]!r}; it has: {', '.join(have)}")
            for row in rows:
                cells = {str(key).strip(): str(value or "").strip() for key, value in row.items()}
                yield _line({name: cells.get(column, "") for name, column in names.items()}, wanted, site,
                            f"{path}, line {rows.line_num}")  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadSource(f"{path}: this table cannot be read ({type(error).__name__})") from error


def _line(cells: Mapping[str, str], wanted: str, site: str, where: str) -> Line:
    if not cells[wanted]:
        raise BadSource(f"{where}: no {wanted}")
    return Line(
        wanted=cells[wanted],
        site=cells["site"] or site,
        person=cells["person"],
        age_years=_age(cells["age_years"], where),
        sex=_sex(cells["sex"], where),
        made_on=_day(cells["made_on"], where),
    )


def _age(cell: str, where: str) -> float | None:
    """An age in years; a number that cannot be one (0, 300) states none."""
    if cell and not NUMBER.fullmatch(cell):
        raise BadSource(f"{where}: age_years is no number")
    return read_age(cell, "y") if cell else None


def _sex(cell: str, where: str) -> Sex | None:
    sex = "unknown" if cell.lower() == "unknown" else read_sex(cell, "dicom") if cell else None
    if cell and sex is None:
        raise BadSource(f"{where}: sex is not female, male, other or unknown")
    return sex


def _day(cell: str, where: str) -> date | None:
    try:
        day = fhir_day(cell)
    except ValueError:
        day = None
    if cell and day is None:
        raise BadSource(f"{where}: made_on is no day (YYYY-MM-DD)")
    return day
