"""``/post``: the page that posts a visit. Without script it is one form; with script the files are uploaded before.

The form then has the ids of the uploads that ``static/upload.js`` has made, in hidden fields. So the form is read and
checked in one place, in both cases.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeGuard

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData, UploadFile

from data_specs.conditions import CONDITIONS
from data_specs.vocabulary import terms
from service.api.refusals import STATUS, note_unavailable
from service.api.session import page_key
from service.errors import FieldFault, InvalidRequest, NotFound, OutcomeUnknown, ServiceError, UploadGone
from service.keys import Key
from service.language.choice import language_of
from service.language.texts import text
from service.pages.frame import page, to_login
from service.pages.visit_form import (
    TEXTS,
    UNITS,
    VITALS,
    context_of,
    form_number,
    read_form,
    texts_of,
    wrong_fields,
    wrong_labs,
)
from service.receive.body import PIECE_BYTES
from service.receive.commit import upload_turn
from service.receive.posted import LIMITS, Field, Part, clean_filename
from service.receive.uploaded_visit import MAX_PER_VISIT, visit_of_uploads
from service.state import service_of
from service.storage.drafts import Drafts
from service.storage.outages import disk_outages

MAX_FIELDS = len(TEXTS) + len(CONDITIONS) + 10

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
        given = read_form(form)
        upload_ids = texts_of(form, "upload")
        drafts = Drafts(service_of(request).store.drafts)
        try:
            context = context_of(given)
            if wrong := wrong_labs(context, language_of(request)):
                return _form(request, key, given, upload_ids, _and_files(wrong, form, request), 422)
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
            are_gone = isinstance(error, (NotFound, UploadGone))
            wrong = _and_files(wrong_fields(error, language_of(request)), form, request, are_gone=are_gone)
            return _refused_form(request, key, given, [] if are_gone else upload_ids, error, wrong)
        finally:
            await asyncio.to_thread(drafts.remove)
    return RedirectResponse(f"/visits/{accepted.row.id}", 303)


@asynccontextmanager
async def _form_of(request: Request, key: Key) -> AsyncIterator[FormData]:
    """The posted form; it has a turn while it is read."""
    async with upload_turn(service_of(request), key.id) as take_turn:
        await take_turn()
        with disk_outages():  # large files of a form are kept in a temporary folder
            form = await request.form(max_files=MAX_PER_VISIT + 2, max_fields=MAX_PER_VISIT + MAX_FIELDS)
    try:
        yield form
    finally:
        await form.close()


def _and_files(
    wrong: dict[str, list[str]], form: FormData, request: Request, *, are_gone: bool = False
) -> dict[str, list[str]]:
    """What is wrong, and that files have to be chosen again: those that came with the form itself, or are gone."""
    if are_gone or any(_is_file(value) for value in (*form.getlist("image"), *form.getlist("ecg"))):
        wrong.setdefault("image", []).append(text("post_choose_again", language_of(request)))
    return wrong


def _refused_form(
    request: Request,
    key: Key,
    given: Mapping[str, Any],
    upload_ids: Sequence[str],
    error: ServiceError,
    wrong: Mapping[str, Sequence[str]],
) -> Response:
    """The form with the problem. Where the visit may have been made, the token stays: the next post is a repetition."""
    note_unavailable(error, request)
    token = {"token": given["token"]} if isinstance(error, OutcomeUnknown) else {}
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
    blank = {**dict.fromkeys(TEXTS, ""), "conditions": []}
    return page(
        request,
        "post.html",
        status,
        key=key,
        number=form_number(given),
        given={**blank, **given, "token": token or secrets.token_hex(16)},
        blank=blank,
        wrong=wrong,
        upload_ids=upload_ids,
        conditions=CONDITIONS,  # nothing chosen means not known; `none` means that the person has none of them
        units=UNITS,
        vitals={name: terms()[name].unit for name in VITALS},
        max_files=LIMITS,
        max_bytes=settings.max_upload_bytes,
        max_mb=settings.max_upload_mb,
        tomorrow=datetime.now(UTC).date() + timedelta(days=1),  # in some time zones it is tomorrow already
    )


def _is_file(value: UploadFile | str) -> TypeGuard[UploadFile]:
    """Whether a field has a file; a browser sends an empty one if none was chosen."""
    return isinstance(value, UploadFile) and bool(value.filename or value.size)


async def _files(form: FormData, field: Field, drafts: Drafts) -> list[Part]:
    """The files of one field."""
    parts: list[Part] = []
    for value in form.getlist(field):
        if _is_file(value):
            draft = drafts.new()
            while piece := await value.read(PIECE_BYTES):
                await asyncio.to_thread(draft.write, piece)
            parts.append(Part(field, clean_filename(value.filename or "") or f"{field}-{len(parts)}", draft))
    return parts
