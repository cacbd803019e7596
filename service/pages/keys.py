"""``/keys``: admins make, renew and revoke the keys of sites and persons. A secret is in one answer alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import Annotated, get_args

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import ValidationError

from data_specs.problems import message
from service.api.keys import NewKey
from service.api.refusals import STATUS
from service.api.session import page_key
from service.errors import FieldFault, Forbidden, InvalidRequest, ServiceError, StorageUnavailable
from service.faults import field_faults
from service.keys import MAX_LABEL, PERSONS, Key, Role
from service.language.choice import language_of
from service.language.texts import text
from service.pages.frame import page, to_login
from service.state import service_of
from service.storage.tables import KeyRow

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/keys")
async def keys(request: Request) -> Response:
    return await _for_admin(request, lambda key: _page(request, key))


@router.post("/keys")
async def create(
    request: Request,
    role: Annotated[str, Form()] = "",
    site: Annotated[str, Form()] = "",
    label: Annotated[str, Form()] = "",
    doctor_id: Annotated[str, Form()] = "",
) -> Response:
    """Make a key, and show its secret; or show the form again, with the problem next to each field."""
    given = {
        "role": role,
        "site": " ".join(site.split()),
        "label": " ".join(label.split()),
        "doctor_id": doctor_id.strip(),
    }

    async def make(key: Key) -> Response:
        wrong = _wrong(request, given)
        if wrong:
            return await _page(request, key, given=given, wrong=wrong, status_code=422)
        asked = NewKey.model_validate({**given, "doctor_id": given["doctor_id"] or None})
        made = await service_of(request).keys.create(asked.role, asked.site, asked.doctor_id, asked.label)
        return await _page(request, key, made=made)

    return await _for_admin(request, make)


@router.post("/keys/{key_id}/rotate")
async def rotate(request: Request, key_id: str) -> Response:
    async def renew(key: Key) -> Response:
        return await _page(request, key, made=await service_of(request).keys.rotate(key_id))

    return await _for_admin(request, renew)


@router.post("/keys/{key_id}/name")
async def name(request: Request, key_id: str, label: Annotated[str, Form()] = "") -> Response:
    """Give the key of a person a name, or another one."""

    async def rename(_: Key) -> Response:
        named = " ".join(label.split())
        if not 0 < len(named) <= MAX_LABEL or not named.isprintable():
            raise InvalidRequest(FieldFault("label", "field_invalid", f"1 … {MAX_LABEL} × U+"))
        await service_of(request).keys.name(key_id, named)
        return RedirectResponse("/keys", 303)

    return await _for_admin(request, rename)


@router.post("/keys/{key_id}/revoke")
async def revoke(request: Request, key_id: str) -> Response:
    async def end(key: Key) -> Response:
        if key_id == key.id:  # nobody would be left who can make another
            raise Forbidden
        await service_of(request).keys.revoke(key_id)
        return RedirectResponse("/keys", 303)

    return await _for_admin(request, end)


@router.post("/keys/{key_id}/readmit")
async def readmit(request: Request, key_id: str) -> Response:
    """Let a person who signs in by the provider and was revoked sign in again."""

    async def let_in(_: Key) -> Response:
        await service_of(request).keys.readmit(key_id)
        return RedirectResponse("/keys", 303)

    return await _for_admin(request, let_in)


async def _for_admin(request: Request, work: Callable[[Key], Awaitable[Response]]) -> Response:
    key = await page_key(request)
    if key is None:
        return to_login(request, "/keys")
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    try:
        return await work(key)
    except StorageUnavailable:
        raise
    except ServiceError as error:
        problem = message(error.code, language_of(request), found=error.found, expected=error.expected)
        return await _page(request, key, problem=problem, status_code=STATUS[type(error)].value)


def _wrong(request: Request, given: dict[str, str]) -> dict[str, str]:
    """Why fields cannot be used, by field; here a doctor or specialist also needs a name."""
    language = language_of(request)
    is_person = given["role"] in PERSONS
    wrong = {name: text("key_needed", language) for name in ("label", "doctor_id") if is_person and not given[name]}
    if given["doctor_id"] and given["role"] in ("site", "admin"):
        wrong["doctor_id"] = text("key_person_id_stray", language)
    try:
        NewKey.model_validate({**given, "doctor_id": given["doctor_id"] or None})
    except ValidationError as error:
        for fault in field_faults(error.errors(include_url=False)):
            if fault.field in given:
                wrong.setdefault(fault.field, fault.sentence(language))
    return wrong


async def _page(
    request: Request,
    key: Key,
    *,
    made: tuple[KeyRow, str] | None = None,
    given: dict[str, str] | None = None,
    wrong: dict[str, str] | None = None,
    problem: str | None = None,
    status_code: int = 200,
) -> Response:
    """The page; ``made`` is a new key with its secret, ``given`` what stands in the form and ``wrong`` why not."""
    rows = await service_of(request).keys.list()
    valid = sorted((row for row in rows if row.revoked_at is None), key=lambda row: (row.site, row.role, row.label))
    return page(
        request,
        "keys.html",
        status_code,
        key=key,
        sites={site: list(group) for site, group in groupby(valid, key=lambda row: row.site)},
        revoked=[row for row in reversed(rows) if row.revoked_at is not None],
        roles=get_args(Role),
        made=made,
        given=given or {},
        wrong=wrong or {},
        problem=problem,
    )
