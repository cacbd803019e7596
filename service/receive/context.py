"""Reads the posted ``context``: the contract's own JSON document, or a FHIR Bundle."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, NoReturn

from pydantic import ValidationError

from data_specs.visit.context import Context
from service.errors import FieldFault, InvalidRequest
from service.faults import field_faults, quoted_name
from service.receive.fhir.request import context_of_bundle, is_bundle


def read_context(document: bytes) -> Context:
    """The posted ``context``: the contract's own document, or a FHIR Bundle with a ServiceRequest.

    A member that stands twice, ``NaN`` or ``Infinity``, and a text with control characters are refused: two readers
    could understand them differently. ``null`` means the same as leaving the member out. A birth date and the day of
    the visit give the age where none is stated.

    Raises
    ------
    InvalidRequest
        It names every field that cannot be used.
    """
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequest(FieldFault("context", "body_malformed", "UTF-8")) from None
    try:
        members = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
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
        raise InvalidRequest(*field_faults(error.errors(include_url=False), "context", Context)) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise InvalidRequest(FieldFault(f"context.{quoted_name(name)}", "field_repeated"))
        members[name] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    """Refuse ``NaN`` and ``Infinity``, which Python reads and JSON does not have."""
    raise ValueError(name)


def _refuse_control_characters(value: object, path: str) -> None:
    if isinstance(value, str):
        if any(unicodedata.category(each) in ("Cc", "Cs") for each in value):
            raise InvalidRequest(FieldFault(path, "field_invalid", "U+0020 …"))
    elif isinstance(value, dict):
        for name, member in value.items():
            _refuse_control_characters(member, f"{path}.{quoted_name(name)}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _refuse_control_characters(member, f"{path}.{index}")
