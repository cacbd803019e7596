"""``/sessions``: the open sessions of a person, for an admin those of everybody, and their end."""

from __future__ import annotations

from contextlib import suppress
from itertools import groupby

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from service.api.session import COOKIE, page_key
from service.errors import NotFound
from service.pages.frame import page, to_login
from service.state import service_of

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/sessions")
async def sessions(request: Request) -> Response:
    """By person: their own first, then by site and name."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    found = await service_of(request).sessions.list(key, request.cookies.get(COOKIE, ""))
    found.sort(key=lambda each: (each.key.id != key.id, each.key.site, each.key.label, each.key.id))  # keeps the times
    persons = [(of, list(group)) for of, group in groupby(found, key=lambda each: each.key)]
    return page(request, "sessions.html", key=key, persons=persons, total=len(found))


@router.post("/sessions/end")
async def end_all(request: Request) -> Response:
    """End every session that the page shows."""
    return await _end(request)


@router.post("/sessions/{session_id}/end")
async def end_one(request: Request, session_id: str) -> Response:
    """End one session."""
    return await _end(request, session_id)


@router.post("/sessions/of/{key_id}/end")
async def end_of_person(request: Request, key_id: str) -> Response:
    """End every session of one person or site."""
    return await _end(request, of_key=key_id)


async def _end(request: Request, session_id: str | None = None, *, of_key: str | None = None) -> Response:
    key = await page_key(request)
    if key is None:
        return to_login(request, "/sessions")
    with suppress(NotFound):  # it ended meanwhile, and the list says so; of others' sessions it says nothing
        await service_of(request).sessions.end(key, session_id, of_key=of_key)
    return RedirectResponse("/sessions", 303)
