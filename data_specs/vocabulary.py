"""The one table of terms: findings, organs and what they are made from, with their codes and their names."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Language = Literal["vi", "fr", "en"]
LANGUAGES: tuple[Language, ...] = ("vi", "fr", "en")

SYSTEMS = {"sct": "http://snomed.info/sct", "loinc": "http://loinc.org", "own": "urn:sangloc:term"}


def _alike(shown: str) -> dict[Language, str]:
    return dict.fromkeys(LANGUAGES, shown)


SHOWN_UNITS: dict[str, dict[Language, str]] = {
    "/min": {"vi": "lần/phút", "fr": "/min", "en": "/min"},
    "mL/min/1.73 m2": {"vi": "mL/phút/1,73 m²", "fr": "mL/min/1,73 m²", "en": "mL/min/1.73 m²"},
    "mL/min/{1.73_m2}": {"vi": "mL/phút/1,73 m²", "fr": "mL/min/1,73 m²", "en": "mL/min/1.73 m²"},
    "mL/min/{1.73_m2}/a": {
        "vi": "mL/phút/1,73 m² mỗi năm",
        "fr": "mL/min/1,73 m² par an",
        "en": "mL/min/1.73 m² per year",
    },
    "umol/L": _alike("µmol/L"),
    "mm[Hg]": _alike("mmHg"),
    "Cel": _alike("°C"),
    "deg": _alike("°"),
    "kg/m2": _alike("kg/m²"),
}
"""Units that readers write in another way than UCUM; any other unit is shown as it is."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the vocabulary.

    Parameters
    ----------
    name
        On the wire.
    system, code
        Its code; ``own`` where neither SNOMED CT nor LOINC has the concept.
    unit
        UCUM; ``None`` where the term is no number.
    display
        Its name in each language.
    organ
        Organ of a finding; ``None``: the term is no finding.
    judged
        Whether the answer of a finding is a probability; otherwise it is a measured value.
    implies
        The finding that is there whenever this one is; ``None``: no other.
    words
        What the value can be, where it is a word and no number.
    withheld_by
        Codes of the reserves under which the finding does not hold.
    reassuring
        Whether it is a good sign where it is positive. It then excludes every other judged finding of its organ.
    risk
        Whether its probability is that of something to come, read as it is: a limit decides what is done about it.
    signed
        Whether its value may be below 0.
    """

    name: str
    system: str
    code: str
    unit: str | None
    display: dict[str, str]
    organ: str | None = None
    judged: bool = False
    implies: str | None = None
    words: tuple[str, ...] = ()
    withheld_by: tuple[str, ...] = ()
    reassuring: bool = False
    risk: bool = False
    signed: bool = False

    @property
    def measured(self) -> bool:
        """Whether it has a value: a number with a unit, or a word."""
        return self.unit is not None or bool(self.words)


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
            organ=row.get("organ"),
            judged=row.get("judged", False),
            implies=row.get("implies"),
            words=tuple(row.get("words", ())),
            withheld_by=tuple(row.get("withheld_by", ())),
            reassuring=row.get("reassuring", False),
            risk=row.get("risk", False),
            signed=row.get("signed", False),
        )
        for name, row in table.items()
    }


def findings_of(organ: str) -> tuple[Term, ...]:
    """The findings of an organ, judged and measured, in the order of the table."""
    return tuple(term for term in terms().values() if term.organ == organ)


def judged_findings(organ: str) -> tuple[str, ...]:
    """Names of the findings of an organ whose answer is a probability."""
    return tuple(term.name for term in findings_of(organ) if term.judged)


def findings_withheld_by(reserve: str) -> tuple[str, ...]:
    """Names of the findings that do not hold under a reserve."""
    return tuple(term.name for term in terms().values() if reserve in term.withheld_by)


def term_of(name: str) -> Term:
    """The term ``name``; where the table has none, as for a finding of an imported bundle, one of system ``own``."""
    return terms().get(name) or Term(name, SYSTEMS["own"], name, None, dict.fromkeys(LANGUAGES, name))


def display(name: str, language: Language) -> str:
    """Name of a term in ``language``; a string that is no term comes back unchanged."""
    return term_of(name).display[language]


def is_reassuring(name: str) -> bool:
    """Whether a finding is a good sign where it is positive: no step follows from it."""
    return term_of(name).reassuring


def localise(found: str, language: Language) -> str:
    """Replace each comma-separated part that is a term by its display name.

    A part may be a measured term and its value (``spo2_percent 87``), which is shown with its unit.
    """
    return ", ".join(_localised(part, language) for part in found.split(", "))


def _localised(part: str, language: Language) -> str:
    name, _, value = part.partition(" ")
    term = terms().get(name)
    if term is None or term.unit is None or not re.fullmatch(r"-?[0-9.]+", value):
        return display(part, language)
    written = (value if language == "en" else value.replace(".", ",")).replace("-", "−")
    return f"{term.display[language]} {with_unit(written, term.unit, language)}"


def shown_unit(unit: str, language: Language) -> str:
    """A unit (UCUM) as readers write it."""
    return SHOWN_UNITS.get(unit, {}).get(language, unit)


def with_unit(written: str, unit: str | None, language: Language) -> str:
    """A number as written, and its unit; degrees and, outside French, per cent stand without a space."""
    shown = shown_unit(unit, language) if unit else ""
    is_close = shown == "°" or (shown == "%" and language != "fr")
    return f"{written}{'' if is_close else ' '}{shown}".rstrip()
