"""The one table of terms: findings, organs and what they are made from, with their codes and their names."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Language = Literal["vi", "fr", "en"]
LANGUAGES: tuple[Language, ...] = ("vi", "fr", "en")

SYSTEMS = {"sct": "http://snomed.info/sct", "loinc": "http://loinc.org", "own": "urn:sangloc:term"}


@dataclass(frozen=True, slots=True)
class Term:
    """``name`` on the wire, its code (``own`` where neither SNOMED CT nor LOINC has the concept), display names."""

    name: str
    system: str
    code: str
    unit: str | None
    display: dict[str, str]


@cache
def terms() -> dict[str, Term]:
    """Every term by name, read from ``vocabulary.toml``."""
    with (Path(__file__).parent / "vocabulary.toml").open("rb") as f:
        table = tomllib.load(f)
    return {
        name: Term(
            name=name,
            system=SYSTEMS[row["system"]],
            code=row.get("code", name),
            unit=row.get("unit"),
            display={language: row[language] for language in LANGUAGES},
        )
        for name, row in table.items()
    }


def term_of(name: str) -> Term:
    """The term; of a name that the table does not have (an imported bundle's own finding), one of our own under it."""
    return terms().get(name) or Term(name, SYSTEMS["own"], name, None, dict.fromkeys(LANGUAGES, name))


def display(name: str, language: Language) -> str:
    """Name of a term in ``language``; a string that is no term comes back as it is."""
    return term_of(name).display[language]


def localise(found: str, language: Language) -> str:
    """Replace each comma-separated part that is a term by its display name."""
    return ", ".join(display(part, language) for part in found.split(", "))
