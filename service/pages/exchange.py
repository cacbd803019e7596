"""What waits at a node to be sent to its centre, and since when; there is no such page where this is no node."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from service.api.session import page_key
from service.errors import NotFound
from service.exchange.queue import centre_of, refused_visits, waiting
from service.pages.frame import page, to_login
from service.state import service_of

MOST_REFUSED = 20
CLOCK_S = 60.0
"""A clock that differs by less does no harm to signatures."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/exchange")
async def what_waits(request: Request) -> Response:
    """The state of the link, what waits for it, and what the centre does not take."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    service = service_of(request)
    if service.upstream is None:
        raise NotFound

    def look(session: Session) -> dict[str, object]:
        centre = centre_of(session)
        ahead_s = abs(centre.ahead_s or 0.0)
        return {
            "centre": centre,
            "clock_minutes": round(ahead_s / 60) if ahead_s > CLOCK_S else None,
            "waiting": waiting(session),
            "refused": refused_visits(session, MOST_REFUSED) if key.role == "admin" else [],
        }

    found = await service.database.read(look)
    return page(request, "exchange.html", key=key, centre_address=service.settings.upstream, **found)
