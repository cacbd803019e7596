"""Checks of every element of a FHIR document at any depth: codes, units, extensions, narrative, no empty value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from data_specs.vocabulary import SYSTEMS, terms
from service.report.fhir.findings import ABSENT, CATEGORY, INTERPRETATION
from service.report.fhir.parts import IDENTIFIER_TYPE, LOINC_NAMES, UCUM
from service.report.fhir.sources import PARTICIPANT

CODES = {
    INTERPRETATION: {"POS", "NEG"},
    ABSENT: {"not-performed"},
    CATEGORY: {"imaging", "procedure", "laboratory", "vital-signs"},
    IDENTIFIER_TYPE: {"PLAC", "ACSN"},
    PARTICIPANT: {"author", "assembler", "performer", "informant"},
}
"""Codes of HL7's systems that a report uses; the vocabulary's systems are checked against the vocabulary."""

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_XHTML = "{http://www.w3.org/1999/xhtml}"
_TAGS = frozenset(
    [
        *("div", "p", "br", "span", "b", "i", "em", "strong", "ul", "ol", "li", "pre", "a", "img"),
        *("table", "thead", "tbody", "tr", "th", "td", "h1", "h2", "h3", "h4", "h5", "h6"),
    ]
)


def element_faults(path: str, value: object) -> Iterator[str]:
    todo = [(path, value)]
    while todo:
        path, value = todo.pop()
        if value is None or value in ("", [], {}):
            yield f"{path}: is empty (ele-1)"
        elif isinstance(value, list):
            todo += [(f"{path}[{index}]", each) for index, each in enumerate(value)]
        elif isinstance(value, dict):
            yield from _element(path, value)
            todo += [(f"{path}.{name}", member) for name, member in value.items()]


def _element(path: str, value: dict[str, Any]) -> Iterator[str]:
    system, code = value.get("system"), value.get("code")
    if "value" in value and system == UCUM and code not in _units():
        yield f"{path}.code: not a unit of the vocabulary (UCUM)"
    elif "value" in value and isinstance(code, str) and not system:
        yield f"{path}.system: a coded unit names its system (qty-3)"
    elif "value" not in value and isinstance(system, str) and isinstance(code, str):
        yield from _coding(path, system, code)
    if path.endswith("]") and re.search(r"\.(modifierE|e)xtension\[\d+\]$", path):
        yield from _extension(path, value)
    if "div" in value:
        yield from _narrative(path, value["div"])
    start, end = value.get("start"), value.get("end")
    if isinstance(start, str) and isinstance(end, str) and start[: len(end)] > end[: len(start)]:
        yield f"{path}: ends before it starts (per-1)"


def _coding(path: str, system: str, code: str) -> Iterator[str]:
    if system in SYSTEMS.values() and (system, code) not in _vocabulary():
        yield f"{path}.code: not in the vocabulary under {system}"
    if system in CODES and code not in CODES[system]:
        yield f"{path}.code: not one that a report uses of {system}"


def _extension(path: str, value: dict[str, Any]) -> Iterator[str]:
    has_value = any(re.fullmatch(r"value[A-Z]\w*", member) for member in value)
    if has_value == ("extension" in value):
        yield f"{path}: has a value or extensions, one of them (ext-1)"
    nested = len(re.findall(r"xtension\[", path)) > 1
    url = value.get("url")
    if not isinstance(url, str) or not (nested or _ABSOLUTE.fullmatch(url)):
        yield f"{path}.url: has to be absolute"


def _narrative(path: str, div: object) -> Iterator[str]:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root = fromstring(div) if isinstance(div, str) else None
    except (ParseError, DefusedXmlException, ValueError):
        root = None
    if root is None or root.tag != f"{_XHTML}div":
        yield f"{path}.div: not a div of XHTML"
        return
    strange = {each.tag for each in root.iter() if str(each.tag).removeprefix(_XHTML) not in _TAGS}
    if strange:
        yield f"{path}.div: elements that a narrative may not have (txt-1)"
    if not "".join(root.itertext()).strip():
        yield f"{path}.div: says nothing (txt-2)"


@cache
def _vocabulary() -> frozenset[tuple[str, str]]:
    coded = {(term.system, term.code) for term in terms().values()}
    return frozenset(coded | {(SYSTEMS["loinc"], code) for code in LOINC_NAMES})


@cache
def _units() -> frozenset[str]:
    return frozenset(term.unit for term in terms().values() if term.unit)
