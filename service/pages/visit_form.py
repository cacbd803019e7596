"""What the form of a visit holds, and the context that it states: read and checked like a posted one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import FormData

from data_specs.labs import ANALYTES, standard_labs
from data_specs.numbers import number
from data_specs.problems import Refused
from data_specs.visit.context import Context, Vitals
from data_specs.vocabulary import Language
from service.api.refusals import problem_document
from service.errors import FieldFault, InvalidRequest, ServiceError
from service.faults import quoted_value
from service.language.texts import text
from service.receive.context import read_context
from service.receive.uploaded_visit import MAX_PER_VISIT

UNITS = {analyte.name: analyte.accepted_units for analyte in ANALYTES}
VITALS = tuple(Vitals.model_fields)
WORDS = {
    "person_id": "context.person.id",
    "person_name": "context.person.name",
    "national_id": "context.person.national_id",
    "birth_date": "context.person.birth_date",
    "sex": "context.person.sex",
    "visited_on": "context.visited_on",
    "referrer_id": "context.referrer.id",
    "referrer_name": "context.referrer.name",
    "referrer_facility": "context.referrer.facility",
    "ecg_unit": "context.ecg_unit",
}
NUMBERS = {"age": "context.person.age_years", **{name: f"context.vitals.{name}" for name in VITALS}}
"""Fields of the form that state words and numbers: name in the form, and path in a posted visit."""
TEXTS = ("token", "form", *WORDS, *NUMBERS, *UNITS, *(f"{name}_unit" for name in UNITS))
MAX_TEXT = 200
MAX_FORMS = 99
"""Forms that one page may have."""
OTHER_FIELDS = {"context.conditions": "conditions", "uploads": "image", "image": "image", "ecg": "ecg"}

_TWO_WAYS = re.compile(r"[1-9]\d{0,2},\d{3}")
"""A number whose comma may be a decimal point or part thousands."""


def read_form(form: FormData) -> dict[str, Any]:
    """What was typed and chosen, by field; files and uploads aside."""
    return {name: _text(form, name) for name in TEXTS} | {"conditions": texts_of(form, "conditions")}


def texts_of(form: FormData, name: str) -> list[str]:
    """All texts of one field."""
    return [value for value in form.getlist(name) if isinstance(value, str)][: MAX_PER_VISIT + 1]


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value.strip()[: MAX_TEXT + 1] if isinstance(value, str) else ""


def context_of(given: Mapping[str, Any]) -> Context:
    """The context that a form states; an empty field is left out.

    Raises
    ------
    InvalidRequest
        It names all fields that cannot be used.
    """
    faults: list[FieldFault] = []
    document: dict[str, Any] = {}
    for name, path in (WORDS | NUMBERS).items():
        if given[name]:
            stated = _number(path, given[name], faults) if name in NUMBERS else given[name]
            if stated is not None:
                *parents, last = path.split(".")[1:]
                _inside(document, parents)[last] = stated
    labs = [
        {"name": name, "value": value, "unit": given[f"{name}_unit"]}
        for name in UNITS
        if given[name] and (value := _number(name, given[name], faults)) is not None
    ]
    if labs:
        document["labs"] = labs
    if given["conditions"]:
        if "none" in given["conditions"] and len(given["conditions"]) > 1:
            faults.append(FieldFault("context.conditions", "field_invalid", "1"))
        document["conditions"] = [each for each in given["conditions"] if each != "none"]
    try:
        context = read_context(json.dumps(document).encode())
    except InvalidRequest as error:
        raise InvalidRequest(*faults, *error.faults) from None
    if faults:
        raise InvalidRequest(*faults)
    return context


def _inside(document: dict[str, Any], parents: Sequence[str]) -> dict[str, Any]:
    for parent in parents:
        document = document.setdefault(parent, {})
    return document


def _number(path: str, written: str, faults: list[FieldFault]) -> float | None:
    """A number as people write it; ``None``, and a fault, where it can be read in no way or in two."""
    if _TWO_WAYS.fullmatch(written):
        faults.append(FieldFault(path, "field_invalid", f"{written.replace(',', '.')} / {written.replace(',', '')}"))
        return None
    try:
        return number(written, path)
    except Refused:
        faults.append(FieldFault(path, "field_invalid", "1.5", quoted_value(written)))
        return None


def wrong_fields(error: ServiceError, language: Language) -> dict[str, list[str]]:
    """Sentences about a refusal, by field of the form; under the empty name those that stand above the form."""
    if not isinstance(error, InvalidRequest):
        return {"": [problem_document(error, language, "/post").detail]}
    fields = {path: name for name, path in (WORDS | NUMBERS).items()} | OTHER_FIELDS | {name: name for name in UNITS}
    wrong: dict[str, list[str]] = {}
    for fault in error.faults:
        sentence = f"{fault.sentence(language)}."
        wrong.setdefault(fields.get(fault.field, ""), []).append(sentence)
    return wrong


def wrong_labs(context: Context, language: Language) -> dict[str, list[str]]:
    """Values that the assessment could not use, shown now, while the laboratory's report is still at hand."""
    wrong = {lab.name: [text("post_choose_unit", language)] for lab in context.labs if not lab.unit}
    for problem in standard_labs([lab for lab in context.labs if lab.unit])[1]:
        wrong.setdefault(problem.found.partition(", ")[0], []).append(problem.message(language))
    return wrong


def form_number(given: Mapping[str, Any]) -> int:
    """Which form of its page this is: the ids of its fields begin with that number."""
    written = given.get("form", "")
    known = written.isascii() and written.isdigit() and len(written) <= len(str(MAX_FORMS))
    return max(1, int(written)) if known else 1
