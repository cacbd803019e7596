"""``/health-book``: for an admin, the check-ups that have not arrived in the national health book, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from service.api.destinations import Retry
from service.api.session import page_key
from service.delivery.health_book.clock import WHY, Due, Why, count_late, list_due
from service.delivery.health_book.table import book_of
from service.delivery.queue import retry
from service.errors import NotFound
from service.pages.frame import onward, page, to_login
from service.pages.opinion import checked
from service.state import service_of

MAX_SHOWN = 200

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/health-book")
async def health_book(request: Request) -> Response:
    """How many are late and what has to be done, then each, those first that have to arrive first."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    service = service_of(request)
    book = book_of(service.settings)
    if book is None:
        raise NotFound

    def find(session: Session) -> tuple[list[Due], dict[Why, int]]:
        late = count_late(session, book)
        return list_due(session, book, MAX_SHOWN + 1), {why: late[why] for why in WHY}

    due, late = await service.database.read(find)
    shown = due[:MAX_SHOWN]
    return page(
        request,
        "health_book.html",
        key=key,
        due=shown,
        late=late,
        more=len(due) > MAX_SHOWN,
        hours=f"{book.clock.hours:g}",
    )


@router.post("/health-book/retry")
async def send_again(
    request: Request,
    destination: Annotated[str, Form()] = "",
    visit: Annotated[str, Form()] = "",
    version: Annotated[str, Form()] = "",
) -> Response:
    """Send the version of a visit again that was given up; the page then says how far it has come."""
    key = await page_key(request)
    if key is None:
        return to_login(request, "/health-book")
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    asked: Retry = checked(Retry, {"destination": destination, "visit": visit, "version": version})
    service = service_of(request)
    if not await service.database.write(lambda session: retry(session, asked.destination, asked.visit, asked.version)):
        raise NotFound
    service.deliveries.try_now(asked.destination)
    return onward(request, "/health-book")
