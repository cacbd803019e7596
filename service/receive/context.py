"""From a validator's complaints to the contract's: which field, and what it accepts, never what was sent."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pydantic import ValidationError

from data_specs.visit.context import Context
from service.errors import FieldFault, InvalidRequest
from service.receive.fhir.request import context_of_bundle, is_bundle

MAX_FAULTS = 20
MAX_NAME = 60

_EXPECTED = {
    "greater_than_equal": "≥ {ge}",
    "greater_than": "> {gt}",
    "less_than_equal": "≤ {le}",
    "less_than": "< {lt}",
    "string_too_long": "≤ {max_length} × U+",
    "string_too_short": "≥ {min_length} × U+",
    "too_long": "≤ {max_length}",
    "literal_error": "{expected}",
    "finite_number": "-∞ < x < ∞",
    "string_type": '"…"',
    "string_unicode": "UTF-8",
    "float_type": "0.0",
    "float_parsing": "0.0",
    "int_type": "0",
    "int_parsing": "0",
    "tuple_type": "[…]",
    "list_type": "[…]",
    "model_type": "{{…}}",
    "date_type": "YYYY-MM-DD",
    "date_parsing": "YYYY-MM-DD",
    "date_from_datetime_parsing": "YYYY-MM-DD",
    "datetime_type": "YYYY-MM-DDThh:mm:ssZ",
    "datetime_parsing": "YYYY-MM-DDThh:mm:ssZ",
    "datetime_from_date_parsing": "YYYY-MM-DDThh:mm:ssZ",
    "json_invalid": "JSON",
}
"""What a field accepts, by pydantic's type of error, in signs that need no translation."""

_CODES = {"extra_forbidden": "field_unknown", "missing": "field_missing", "too_long": "field_too_many"}


def field_faults(found: Sequence[Mapping[str, Any]], prefix: str = "") -> list[FieldFault]:
    """Pydantic's list of errors as the contract's; the first few of them where there are many."""
    return [_fault(each, prefix) for each in found[:MAX_FAULTS]]


def _fault(error: Mapping[str, Any], prefix: str) -> FieldFault:
    kind = str(error["type"])
    path = ".".join([prefix, *(_name(part) for part in error["loc"])] if prefix else map(_name, error["loc"]))
    code = _CODES.get(kind, "field_invalid")
    expected = ""
    if kind in _EXPECTED:
        expected = _EXPECTED[kind].format(**{"expected": "", **error.get("ctx", {})}).replace("'", "")
        expected = expected.replace(" or ", ", ")
    return FieldFault(path or "body", code, expected)


def _name(part: object) -> str:
    """A member's name as it may be quoted: whatever the client called it, short and printable."""
    return "".join(each for each in str(part) if each.isprintable())[:MAX_NAME] or "?"


def read_context(document: bytes) -> Context:
    """The posted ``context``: the contract's own document, or a FHIR Bundle with a ServiceRequest.

    Stricter than JSON has to be: a member given twice, a number that is none, a text with control characters are
    refused, since any of them could be read in two ways. ``null`` says the same as leaving the member out. A birth date
    and the day of the visit give the age where none is stated.

    Raises
    ------
    InvalidRequest
        Naming every field that cannot be used.
    """
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(FieldFault("context", "body_malformed", "UTF-8")) from None
    try:
        members = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        _refuse_control_characters(members, "context")
    except (ValueError, RecursionError):
        raise InvalidRequest(FieldFault("context", "body_malformed", "JSON")) from None
    if isinstance(members, dict) and is_bundle(members):
        return context_of_bundle(members)
    if isinstance(members, dict) and None in members.values():
        text = json.dumps({name: member for name, member in members.items() if member is not None})
    try:
        return Context.model_validate_json(text, strict=True).with_age()
    except ValidationError as error:
        raise InvalidRequest(*field_faults(error.errors(include_url=False), "context")) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise InvalidRequest(FieldFault(f"context.{_name(name)}", "field_repeated"))
        members[name] = value
    return members


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _refuse_control_characters(value: object, path: str) -> None:
    if isinstance(value, str):
        if any(unicodedata.category(each) in ("Cc", "Cs") for each in value):
            raise InvalidRequest(FieldFault(path, "field_invalid", "U+0020 …"))
    elif isinstance(value, dict):
        for name, member in value.items():
            _refuse_control_characters(member, f"{path}.{_name(name)}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _refuse_control_characters(member, f"{path}.{index}")
