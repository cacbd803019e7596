"""Faults of single fields: pydantic's errors as the service tells them, and what of a value may be quoted.

A refusal says what stood there and what is accepted, so that whoever connects a system sees the mistake at once. It
goes to the sender of the value and to nobody else: neither is logged or stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from service.errors import FieldFault

MAX_FAULTS = 20
MAX_NAME = 60
BETWEEN = " | "
"""Between names that have to be written as they stand; names between commas are shown in the reader's language."""

_EXPECTED = {
    "greater_than_equal": "≥ {ge}",
    "greater_than": "> {gt}",
    "less_than_equal": "≤ {le}",
    "less_than": "< {lt}",
    "string_too_long": "≤ {max_length} × U+",
    "string_too_short": "≥ {min_length} × U+",
    "too_long": "≤ {max_length}",
    "finite_number": "-∞ < x < ∞",
    "string_type": '"…"',
    "string_unicode": "UTF-8",
    "float_type": "0.5",
    "float_parsing": "0.5",
    "int_type": "0, 1, 2 …",
    "int_parsing": "0, 1, 2 …",
    "int_parsing_size": "0, 1, 2 …",
    "int_from_float": "0, 1, 2 …",
    "bool_type": "true | false",
    "bool_parsing": "true | false",
    "dict_type": "{{…}}",
    "model_attributes_type": "{{…}}",
    "string_pattern_mismatch": "{pattern}",
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
"""What a field accepts, by pydantic's type of error, in signs that are the same in every language; other errors bring
it as ``expected``."""

_CODES = {
    "extra_forbidden": "field_unknown",
    "missing": "field_missing",
    "member_missing": "field_missing",
    "too_long": "field_too_many",
}
_HINTS = dict.fromkeys(("float_type", "float_parsing"), "hint_number")
_QUOTED = re.compile(r"[-+]?[0-9][0-9.,:/ %-]{0,19}|\w{1,12}")
_NEVER_QUOTED = frozenset(
    {"birth_date", "id", "name", "address", "secret", "key", "national_id", "province", "commune"}
)


def field_faults(
    found: Sequence[Mapping[str, Any]], prefix: str = "", model: type[BaseModel] | None = None
) -> list[FieldFault]:
    """Pydantic's errors as faults, at most ``MAX_FAULTS``: each names a field, what stood there and what it accepts.

    Parameters
    ----------
    found
        As pydantic lists them.
        A check of a whole model names its field as ``member`` of the error's context.
    prefix
        Stands before the path of each field.
    model
        What the document was read as: it names the fields that are known beside one that is not.
    """
    return [_fault(each, prefix, model) for each in found[:MAX_FAULTS]]


def _fault(error: Mapping[str, Any], prefix: str, model: type[BaseModel] | None) -> FieldFault:
    kind = str(error["type"])
    context = {name: _whole(each) for name, each in error.get("ctx", {}).items()}
    loc = (*error["loc"], context["member"]) if "member" in context else error["loc"]
    path = ".".join([prefix, *map(quoted_name, loc)] if prefix else map(quoted_name, loc))
    code = _CODES.get(kind, "field_invalid")
    expected = _EXPECTED.get(kind, "{expected}").format(**{"expected": "", **context})
    if kind == "literal_error":
        expected = expected.replace("'", "").replace(" or ", ", ").replace(", ", BETWEEN)
    if kind == "extra_forbidden" and model is not None:
        expected = BETWEEN.join(_members(model, error["loc"][:-1]))
    field = str(loc[-1]) if loc else ""
    quoted = "" if code != "field_invalid" or field in _NEVER_QUOTED else quoted_value(error.get("input"))
    return FieldFault(path or "body", code, expected, quoted, _HINTS.get(kind, ""))


def _whole(limit: object) -> object:
    """A limit as a person writes it: 0, not 0.0."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def quoted_value(value: object) -> str:
    """A value as a refusal may quote it to its sender: a number, a day or one short word; else nothing.

    Longer text is not quoted: it may name a person.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if _QUOTED.fullmatch(value) else ""
    return f"{value:.10g}" if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e15) else ""


def _members(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The fields of the model that stands at ``path`` inside ``model``."""
    inner: Any = model
    for part in path[1:] if path[:1] == ("body",) else path:
        if isinstance(part, str) and isinstance(inner, type) and issubclass(inner, BaseModel):
            field = inner.model_fields.get(part)
            inner = _model_in(field.annotation if field else None)
    return list(inner.model_fields) if inner is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an optional member, or of the members of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, Annotated, tuple, list):
        return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
    return None


def quoted_name(part: object) -> str:
    """A field's name, which the client may have chosen, made safe to quote: printable characters, cut short."""
    return "".join(each for each in str(part) if each.isprintable())[:MAX_NAME] or "?"
