"""Pages: the login, the worklist, a visit. They are rendered on the server and need no script."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import get_args

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from data_specs.visit.teaching import teaches
from service.api.session import page_key
from service.followup.line_list import line_list
from service.language.choice import language_of
from service.pages.chosen import RECENT_DAYS, Chosen, ready_made
from service.pages.frame import page, to_login
from service.pages.visit import visit_response
from service.state import service_of
from service.visits.filters import Asked, sites
from service.visits.stored import visit_view
from service.visits.worklist import Order, worklist
from service.wrong_keys import WRONG_EVERY_S

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
async def root(request: Request) -> Response:
    """Redirect to the worklist; for a specialist to the list of questions, for a trainee to what there is to learn."""
    key = await page_key(request)
    if key is not None and teaches(key.site):
        return RedirectResponse("/learning", 303)
    return RedirectResponse("/questions" if key and key.role == "specialist" else "/worklist", 303)


@router.get("/login")
async def login(request: Request, next: str = "/", failed: str | None = None, ended: str = "") -> Response:
    """The login; after a session that the provider had opened, with the way to end it there too."""
    if await page_key(request) is not None:
        return RedirectResponse("/", 303)
    too_often = failed == "often"
    provider = service_of(request).provider
    shown = page(
        request,
        "login.html",
        429 if too_often else 200,
        key=None,
        action="/login",
        carried=(),
        next=next,
        refused=failed is not None,
        too_often=too_often,
        has_provider=provider is not None,
        end_session=provider.end_session if provider is not None and ended == "provider" else None,
    )
    if too_often:
        shown.headers["Retry-After"] = str(math.ceil(WRONG_EVERY_S))
    return shown


@router.get("/worklist")
async def worklist_page(request: Request, cursor: str | None = None) -> Response:
    """Persons by the urgency and the waiting time of their visits, or in the order that was chosen."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    service, language = service_of(request), language_of(request)
    chosen = Chosen.of(request.query_params)
    found = await worklist(
        service, key, chosen.filter(datetime.now(UTC)), order=chosen.order or "priority", cursor=cursor
    )
    return page(
        request,
        "worklist.html",
        key=key,
        chosen=chosen,
        persons=[(person, visit_view(person.latest, language)) for person in found.persons],
        found=found,
        sites=await sites(service, key),
        ready=ready_made(key),
        recent_days=RECENT_DAYS,
        orders=get_args(Order),
        askeds=get_args(Asked),
    )


@router.get("/worklist.csv")
async def worklist_csv(request: Request) -> Response:
    """The chosen visits as a line list, newest first."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    wanted = Chosen.of(request.query_params).filter(datetime.now(UTC))
    headers = {"Content-Disposition": 'attachment; filename="visits.csv"'}
    lines = line_list(service_of(request), key, wanted)
    return StreamingResponse(lines, headers=headers, media_type="text/csv; charset=utf-8")


@router.get("/visits/{visit_id}")
async def visit_page(request: Request, visit_id: str) -> Response:
    key = await page_key(request)
    return to_login(request) if key is None else await visit_response(request, key, visit_id)
