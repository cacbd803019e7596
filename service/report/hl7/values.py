"""HL7 v2 data types and notes as the report's segments hold them.

References
----------
HL7 v2.5.1, chapter 2A: CWE, NM, TS; chapter 2: NTE (2.15.10); tables 0105, 0396.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from data_specs.visit.contract import Code
from data_specs.vocabulary import SYSTEMS, Language, display, term_of
from service.protocols.er7 import OWN_SYSTEM, composed, escaped, line, segment

SYSTEM_NAMES = {SYSTEMS["sct"]: "SCT", SYSTEMS["loinc"]: "LN", SYSTEMS["own"]: OWN_SYSTEM}
"""Table 0396."""
NO_UNIT = "1"
"""The UCUM unit of a number without a unit, such as a probability."""


def notes(*sentences: str) -> list[str]:
    """NTE segments. ``L``: written by the filler of the order (table 0105)."""
    return [segment("NTE", {1: str(n), 2: "L", 3: escaped(sentence)}) for n, sentence in enumerate(sentences, 1)]


def coded(code: Code, words: str) -> str:
    """CWE: a code with its text and its coding system (table 0396)."""
    return composed(line(code.code), line(words), SYSTEM_NAMES.get(code.system, OWN_SYSTEM))


def term(name: str, language: Language) -> str:
    """CWE of a term of the vocabulary."""
    found = term_of(name)
    return coded(Code(system=found.system, code=found.code), display(name, language))


def own_code(code: str, words: str = "") -> str:
    """CWE of a code of our own coding system."""
    return composed(code, line(words), OWN_SYSTEM)


def unit(code: str | None) -> str:
    """CWE of a UCUM unit; empty without one."""
    return composed(line(code), "", "UCUM") if code else ""


def number(value: float) -> str:
    """NM: digits only, without an exponent."""
    written = format(Decimal(repr(float(value))), "f")
    return written.removesuffix(".0")


def moment(at: datetime) -> str:
    """TS in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y%m%d%H%M%S}+0000"
