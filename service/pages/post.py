"""``/post``: the page that posts a visit. Without script it is one form; with script the files are uploaded before.

The form then has the ids of the uploads that ``static/upload.js`` has made, in hidden fields. So the form is read and
checked in one place, in both cases.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData, UploadFile

from data_specs.conditions import CONDITIONS
from data_specs.labs import standard_labs
from data_specs.visit.context import Context
from data_specs.vocabulary import Language
from service.api.refusals import STATUS, note_unavailable, problem_document
from service.api.session import page_key
from service.errors import FieldFault, InvalidRequest, NotFound, OutcomeUnknown, ServiceError, UploadGone
from service.keys import Key
from service.language.choice import language_of
from service.pages.frame import page, to_login
from service.receive.body import PIECE_BYTES
from service.receive.commit import upload_turn
from service.receive.context import read_context
from service.receive.posted import LIMITS, Field, Part, clean_filename
from service.receive.uploaded_visit import MAX_PER_VISIT, visit_of_uploads
from service.state import service_of
from service.storage.drafts import Drafts
from service.storage.outages import disk_outages

UNITS = {"creatinine": ("umol/L", "mg/dL", "mg/L"), "urine_acr": ("mg/g", "mg/mmol")}
TEXTS = ("person_id", "age", "sex", "visited_on", "referrer_id", "token", *UNITS, *(f"{name}_unit" for name in UNITS))
MAX_TEXT = 200
FIELDS = {
    "context.person.id": "person_id",
    "context.person.age_years": "age",
    "context.person.sex": "sex",
    "context.visited_on": "visited_on",
    "context.referrer.id": "referrer_id",
    "context.conditions": "conditions",
    "uploads": "image",
    "image": "image",
    "ecg": "ecg",
}
"""Path of a field in a posted visit, and its field in the form; any other problem is shown above the form."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/post")
async def empty_form(request: Request) -> Response:
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if not key.may_post:
        return page(request, "missing.html", 404, key=key)
    return _form(request, key, {}, [])


@router.post("/post")
async def post_form(request: Request) -> Response:
    """Accept the visit and redirect to its page; or show the form again, with the problem next to each field."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if not key.may_post:
        return page(request, "missing.html", 404, key=key)
    async with _form_of(request, key) as form:
        given: dict[str, Any] = {name: _text(form, name) for name in TEXTS}
        given["conditions"] = _texts(form, "conditions")
        upload_ids = _texts(form, "upload")
        drafts = Drafts(service_of(request).store.drafts)
        try:
            context = _context(given)
            if wrong := _wrong_labs(context, language_of(request)):
                return _form(request, key, given, upload_ids, wrong, 422)
            files = [part for field in ("image", "ecg") for part in await _files(form, field, drafts)]
            if not (files or upload_ids or context.labs):
                raise InvalidRequest(FieldFault("image", "field_missing"))
            accepted = await visit_of_uploads(
                service_of(request),
                key,
                upload_ids,
                context,
                posted=files,
                idempotency_key=f"page-{given['token']}" if given["token"].isalnum() else None,
            )
        except ServiceError as error:
            kept = [] if isinstance(error, (NotFound, UploadGone)) else upload_ids
            return _refused_form(request, key, given, kept, error)
        finally:
            await asyncio.to_thread(drafts.remove)
    return RedirectResponse(f"/visits/{accepted.row.id}", 303)


@asynccontextmanager
async def _form_of(request: Request, key: Key) -> AsyncIterator[FormData]:
    """The posted form; it has a turn while it is read."""
    async with upload_turn(service_of(request), key.id) as take_turn:
        await take_turn()
        with disk_outages():  # large files of a form are kept in a temporary folder
            form = await request.form(max_files=MAX_PER_VISIT + 2, max_fields=MAX_PER_VISIT + 60)
    try:
        yield form
    finally:
        await form.close()


def _refused_form(
    request: Request, key: Key, given: Mapping[str, Any], upload_ids: Sequence[str], error: ServiceError
) -> Response:
    """The form with the problem. Where the visit may have been made, the token stays: the next post is a repetition."""
    note_unavailable(error, request)
    token = {"token": given["token"]} if isinstance(error, OutcomeUnknown) else {}
    wrong = _wrong(error, language_of(request))
    response = _form(request, key, given, upload_ids, wrong, STATUS[type(error)].value, **token)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def _form(
    request: Request,
    key: Key,
    given: Mapping[str, Any],
    upload_ids: Sequence[str],
    wrong: Mapping[str, Sequence[str]] = MappingProxyType({}),
    status: int = 200,
    *,
    token: str = "",
) -> Response:
    """The form as it was filled in; without ``token`` it gets a new one, because the next post is a new request."""
    settings = service_of(request).settings
    return page(
        request,
        "post.html",
        status,
        key=key,
        given={**dict.fromkeys(TEXTS, ""), "conditions": [], **given, "token": token or secrets.token_hex(16)},
        wrong=wrong,
        upload_ids=upload_ids,
        conditions=CONDITIONS,  # nothing chosen means not known; `none` means that the person has none of them
        units=UNITS,
        max_files=LIMITS,
        max_bytes=settings.max_upload_bytes,
        max_mb=settings.max_upload_mb,
        today=datetime.now(UTC).date() + timedelta(days=1),  # in some time zones it is already tomorrow
    )


def _wrong(error: ServiceError, language: Language) -> dict[str, list[str]]:
    """Sentences about problems, by field of the form."""
    if not isinstance(error, InvalidRequest):
        return {"": [problem_document(error, language, "/post").detail]}
    wrong: dict[str, list[str]] = {}
    for fault in error.faults:
        field = fault.field if fault.field in UNITS else FIELDS.get(fault.field, "")
        wrong.setdefault(field, []).append(f"{fault.sentence(language)}.")
    return wrong


def _wrong_labs(context: Context, language: Language) -> dict[str, list[str]]:
    """Values that the assessment could not use, shown now, while the user still has the laboratory's report."""
    found = {lab.name: standard_labs([lab])[1] for lab in context.labs}
    return {name: [each.message(language) for each in problems] for name, problems in found.items() if problems}


def _context(given: Mapping[str, Any]) -> Context:
    """The context of the form, read in the same way as a posted one; an empty field is left out.

    Raises
    ------
    InvalidRequest
    """
    fields: dict[str, Any] = {
        "person": {
            "id": given["person_id"],
            "age_years": _number("context.person.age_years", given["age"]),
            "sex": given["sex"],
        },
        "referrer": {"id": given["referrer_id"]},
        "visited_on": given["visited_on"],
    }
    fields["person"] = {name: value for name, value in fields["person"].items() if value not in ("", None)}
    document = {name: value for name, value in fields.items() if value and value != {"id": ""}}
    labs = [
        {"name": name, "value": _number(name, given[name]), "unit": given[f"{name}_unit"]}
        for name in UNITS
        if given[name]
    ]
    if labs:
        document["labs"] = labs
    if given["conditions"]:
        if "none" in given["conditions"] and len(given["conditions"]) > 1:
            raise InvalidRequest(FieldFault("context.conditions", "field_invalid", "1"))
        document["conditions"] = [each for each in given["conditions"] if each != "none"]
    return read_context(json.dumps(document).encode())


def _number(field: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidRequest(FieldFault(field, "field_invalid", "0.0"))
    return value


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value.strip()[: MAX_TEXT + 1] if isinstance(value, str) else ""


def _texts(form: FormData, name: str) -> list[str]:
    return [value for value in form.getlist(name) if isinstance(value, str)][: MAX_PER_VISIT + 1]


async def _files(form: FormData, field: Field, drafts: Drafts) -> list[Part]:
    """The files of one field; a browser sends an empty file if none was chosen."""
    parts: list[Part] = []
    for value in form.getlist(field):
        if isinstance(value, UploadFile) and (value.filename or value.size):
            draft = drafts.new()
            while piece := await value.read(PIECE_BYTES):
                await asyncio.to_thread(draft.write, piece)
            parts.append(Part(field, clean_filename(value.filename or "") or f"{field}-{len(parts)}", draft))
    return parts
