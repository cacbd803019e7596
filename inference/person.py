"""Whether a file and the context are of the same person, and which age is used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Protocol, Self

from data_specs.cxr.image import ChestImage
from data_specs.ecg.recording import Recording
from data_specs.person import BinarySex, years_between
from data_specs.problems import Problem
from data_specs.visit.context import Context, Person

AGE_TOLERANCE_YEARS = 2.0
"""A stated age may be rounded, and a birthday may lie between a file and its visit; with more it is another person."""


class FromFile(Protocol):
    @property
    def age_years(self) -> float | None: ...
    @property
    def sex(self) -> BinarySex | None: ...
    @property
    def person_id(self) -> str | None: ...
    @property
    def recorded_on(self) -> date | None: ...
    @property
    def problems(self) -> tuple[Problem, ...]: ...


@dataclass(frozen=True, slots=True)
class Stated:
    """What a film or a recording says besides its pixels or samples; ``None`` where it does not."""

    format: str
    age_years: float | None
    sex: BinarySex | None
    person_id: str | None
    recorded_on: date | None
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, read: ChestImage | Recording) -> Self:
        return cls(read.format, read.age_years, read.sex, read.person_id, read.recorded_on, read.problems)


def mismatch(file: FromFile, context: Context) -> list[Problem]:
    """``person_mismatch`` where file and context disagree.

    Another sex or age refuses the file. Another identifier is a reserve, because hospitals give the same person
    different identifiers. Where both days are known, the file's age is moved to the day of the visit before it is
    compared. An age is not compared where the file contradicts itself: the context may have been made from it.
    """
    person = context.person
    earlier_years = 0.0
    if context.visited_on is not None and file.recorded_on is not None:
        earlier_years = years_between(file.recorded_on, context.visited_on)
    found, expected = [], []
    if person.sex in ("female", "male") and file.sex is not None and file.sex != person.sex:
        found.append(f"PatientSex {file.sex[0].upper()}")
        expected.append(person.sex[0].upper())
    contradicts_itself = any(problem.code == "age_contradicts" for problem in file.problems)
    if (
        person.age_years is not None
        and not contradicts_itself
        and file.age_years is not None
        and abs(file.age_years + earlier_years - person.age_years) > AGE_TOLERANCE_YEARS
    ):
        found.append(f"PatientAge {format_age(file.age_years + earlier_years)}")
        expected.append(format_age(person.age_years))
    if found:
        return [Problem("person_mismatch", "reject", found=", ".join(found), expected=", ".join(expected))]
    if person.id and file.person_id and person.id.strip() != file.person_id.strip():
        return [Problem("person_mismatch", "warn", found="PatientID")]
    return []


def format_age(age_years: float | None) -> str:
    """An age for a message, cut to one digit: 17.99 is shown as 17.9, since 18 may be the bound that it misses."""
    return "" if age_years is None else f"{math.floor(age_years * 10) / 10:g}"


def age_of(file: FromFile, person: Person) -> float | None:
    """The age in years that is used: the context's, else the file's."""
    return person.age_years if person.age_years is not None else file.age_years


def sex_of(file: FromFile, person: Person) -> BinarySex | None:
    """Female or male: the context's, else the file's; ``None`` for every other."""
    if person.sex in (None, "unknown"):
        return file.sex
    return person.sex if person.sex in ("female", "male") else None
