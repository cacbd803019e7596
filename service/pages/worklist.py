"""Pages: the login, the worklist, a visit. They are rendered on the server and need no script."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from data_specs.visit.contract import Priority, Status
from service.api.session import page_key
from service.keys import WRONG_EVERY_S
from service.language.choice import language_of
from service.pages.frame import page, to_login
from service.pages.visit import visit_response
from service.state import service_of
from service.visits.stored import visit_view
from service.visits.worklist import Filter, worklist

RECENT_DAYS = 7
"""The worklist begins with visits of this many days; older ones are a filter away."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
async def root(request: Request) -> Response:
    """Redirect to the worklist, for a specialist to the list of questions."""
    key = await page_key(request)
    return RedirectResponse("/questions" if key and key.role == "specialist" else "/worklist", 303)


@router.get("/login")
async def login(request: Request, next: str = "/", failed: str | None = None) -> Response:
    if await page_key(request) is not None:
        return RedirectResponse("/", 303)
    too_often = failed == "often"
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
    )
    if too_often:
        shown.headers["Retry-After"] = str(math.ceil(WRONG_EVERY_S))
    return shown


@router.get("/worklist")
async def worklist_page(
    request: Request,
    priority: str | None = None,
    status: str | None = None,
    period: str | None = None,
    cursor: str | None = None,
) -> Response:
    """Visits by urgency and waiting time. An unknown filter is ignored."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    chosen_priority: Priority | None = priority if priority in get_args(Priority) else None  # type: ignore[assignment]
    chosen_status: Status | None = status if status in get_args(Status) else None  # type: ignore[assignment]
    now = datetime.now(UTC)
    since = None if period == "all" else now - timedelta(days=RECENT_DAYS)
    found = await worklist(service_of(request), key, Filter(chosen_priority, chosen_status, since), cursor)
    chosen = {"priority": chosen_priority, "status": chosen_status, "period": "all" if since is None else None}
    language = language_of(request)
    return page(
        request,
        "worklist.html",
        key=key,
        visits=[visit_view(row, language) for row in found.rows],
        counts=found.counts,
        recent_days=RECENT_DAYS,
        at_start=cursor is None,
        filtered=partial(_filtered, chosen),
        next_page=_filtered(chosen, cursor=found.next) if found.next else None,
        **chosen,
    )


@router.get("/visits/{visit_id}")
async def visit_page(request: Request, visit_id: str) -> Response:
    key = await page_key(request)
    return to_login(request) if key is None else await visit_response(request, key, visit_id)


def _filtered(chosen: dict[str, str | None], **change: str | None) -> str:
    """Address of the worklist with the chosen filters and some of them changed."""
    asked = {name: value for name, value in {**chosen, **change}.items() if value is not None}
    return f"/worklist?{urlencode(asked)}" if asked else "/worklist"
