"""The profile by which DICOM objects leave, and what it does with each element of a posted header.

An object that leaves is made anew of the elements that ``kept.csv`` lists, so an element that no list knows does not
leave. Table E.1-1 of the standard (``ps3_15.csv``) says which of the posted elements had to go; it is counted for the
manifest, and a test holds every kept element against it.

References
----------
DICOM PS3.15, annex E: table E.1-1; sections E.2 (basic profile), E.3.1 (clean pixel data), E.3.5 (clean descriptors),
E.3.6 (retain longitudinal temporal information, modified dates), E.3.7 (retain patient characteristics). PS3.16: CID
7050.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113101", "Clean Pixel Data Option"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""Code values and meanings of scheme DCM (PS3.16, CID 7050), in (0012,0064)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An element that a film may leave with.

    Parameters
    ----------
    action
        What table E.1-1 says of it; empty: it is not in the table.
    value
        ``empty``, ``pseudonym``, ``moved``, ``made`` by us, or ``closed``: one of a few terms, or a number.
    """

    keyword: str
    action: str
    option: str
    value: str


@cache
def actions() -> dict[str, str]:
    """Action of the basic profile by tag, eight digits; ``x`` stands for any digit."""
    return {row["tag"]: row["action"] for row in _rows("ps3_15.csv")}


@cache
def options() -> dict[str, dict[str, str]]:
    """By tag, what each option that is used allows instead: ``K`` keep, ``C`` clean. What allows nothing is left out.

    The codes are those of :data:`CODES`.
    """
    columns = {"113107": "dates", "113108": "characteristics", "113105": "descriptors"}
    rows = _rows("ps3_15.csv")
    return {row["tag"]: {code: row[name] for code, name in columns.items() if row[name]} for row in rows}


@cache
def kept() -> dict[str, Kept]:
    """The elements that a film may leave with, by keyword."""
    return {row["keyword"]: Kept(**row) for row in _rows("kept.csv")}


def action_of(tag: str) -> str | None:
    """What table E.1-1 says of an element, eight hexadecimal digits; ``None`` where it says nothing."""
    if int(tag[:4], 16) % 2:
        return actions()["xxxxxxxx"]
    repeated = tag[:2] + "xx" + tag[4:]
    for name in (tag, repeated, tag[:2] + "xxxxxx"):
        if name in actions():
            return actions()[name]
    return None


def counted(tags: Iterable[str]) -> Counter[str]:
    """Elements of posted headers by what the table says of them: ``private``, an action, or ``not in the table``."""
    counts: Counter[str] = Counter()
    for tag in tags:
        counts["private" if int(tag[:4], 16) % 2 else action_of(tag) or "not in the table"] += 1
    return counts


def _rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))
