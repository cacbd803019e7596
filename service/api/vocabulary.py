"""In ``/openapi.json``: every name and code that a system may send or be sent, from the tables that the service reads.

Where a text may also be another one (a laboratory value that is not known is a reserve, not a refusal), the schema is
the known names or any text; else it is the names alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from data_specs.conditions import CONDITIONS
from data_specs.labs import ANALYTES
from data_specs.problems import sentences
from data_specs.visit.contract import ORGANS
from data_specs.vocabulary import findings_of
from service.api.refusals import STATUS

_SENTENCE_OF_A_CODE = frozenset(
    {
        *("field_invalid_found", "field_unknown_known", "hint_number", "person_mismatch_PatientID"),
        *(code for code in sentences("en") if code.startswith("sign_in_refused_")),
    }
)
"""Sentences that stand beside a code of another name."""
_OF_A_FIELD = frozenset({"body_malformed", "site_unknown"})
"""Codes of a field whose names do not say so."""


def add_vocabulary(schemas: dict[str, Any]) -> None:
    """Say in the schemas which names and codes there are."""
    requests = {kind.code for kind in STATUS}
    codes = sentences("en")
    fields = {code for code in codes if code.startswith("field_") or code in _OF_A_FIELD} - _SENTENCE_OF_A_CODE
    reasons = {code: codes[code] for code in codes if code not in requests | fields | _SENTENCE_OF_A_CODE}
    schemas["ProblemDocument"]["properties"]["code"] = _only(
        sorted(requests), "Why the request was refused.", {code: codes[code] for code in sorted(requests)}
    )
    schemas["FieldProblem"]["properties"]["code"] = _only(
        sorted(fields), "Why the field was refused.", {code: codes[code] for code in sorted(fields)}
    )
    for name in ("Reason", "InputProblem"):
        schemas[name]["properties"]["code"] = _known(
            reasons, "What is wrong, or what has to be known; the message says it in the caller's language.", reasons
        )
    labs = {
        each.name: f"{' | '.join(each.accepted_units)}; {each.minimum:g} to {each.maximum:g} {each.unit}"
        for each in ANALYTES
    }
    units = dict.fromkeys(unit for analyte in ANALYTES for unit in analyte.accepted_units)
    lab = schemas["Lab"]["properties"]
    lab["name"] = _known(labs, "Name, or LOINC code; accepted units and range of each:", labs) | {
        "minLength": 1,
        "maxLength": 60,
    }
    lab["unit"] = _known(units, "As UCUM or as the laboratory writes it; which are accepted depends on the name.")
    known_conditions = _known(CONDITIONS, "")
    schemas["Context"]["properties"]["conditions"] = {
        "anyOf": [{"type": "array", "maxItems": 100, "items": known_conditions}, {"type": "null"}],
        "default": None,
        "description": "All conditions of the person: what is not in the list is taken as absent. Leave the list out "
        "where they are not known. A name that is not known is a reserve of the visit.",
    }
    findings = {
        term.name: f"{organ}; {term.display['en']}; {term.unit or ' | '.join(term.words) or 'probability'}"
        for organ in ORGANS
        for term in findings_of(organ)
    }
    schemas["Finding"]["properties"]["name"] = _known(findings, "Organ, name and unit of each:", findings)


def _only(names: Iterable[str], words: str, table: dict[str, str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(names), "description": _with_table(words, table)}


def _known(names: Iterable[str], words: str, table: dict[str, str] | None = None) -> dict[str, Any]:
    known: dict[str, Any] = {"anyOf": [{"type": "string", "enum": list(names)}, {"type": "string"}]}
    return known | ({"description": _with_table(words, table or {})} if words else {})


def _with_table(words: str, table: dict[str, str]) -> str:
    return "\n".join([words, "", *(f"- `{name}`: {said}" for name, said in table.items())]) if table else words
