"""What waits at a node to be sent to its centre, and which release it has; at a centre, which release each node has.

There is no such page where this is neither.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from service.api.session import page_key
from service.errors import NotFound
from service.exchange.nodes import known_nodes
from service.exchange.queue import centre_of, refused_visits, waiting
from service.keys import Key
from service.pages.frame import page, to_login
from service.release.kept import Kept, last_release
from service.release.offered import missing_here
from service.release.signed import REFUSALS
from service.state import Service, service_of

MOST_REFUSED = 20
CLOCK_S = 60.0
"""A clock that differs by less does no harm to signatures."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/exchange")
async def exchange(request: Request) -> Response:
    """The state of the link, what waits for it, what the centre does not take, and releases."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    service = service_of(request)
    is_admin = key.role == "admin"
    nodes = await service.database.read(known_nodes) if is_admin else []
    kept = await asyncio.to_thread(last_release, service.settings.bundles)
    if service.upstream is None and not (is_admin and (nodes or kept)):
        raise NotFound
    of_node = await _of_node(service, key) if service.upstream is not None else None
    return page(
        request,
        "exchange.html",
        key=key,
        node=of_node,
        nodes=nodes,
        kept=kept,
        lacking=[] if kept is None else await asyncio.to_thread(_lacking, service, kept),
        refusals=REFUSALS,
        own_table=service.settings.next_steps is not None,
    )


def _lacking(service: Service, kept: Kept) -> list[str]:
    return list(missing_here(service.settings.bundles, kept.release))


async def _of_node(service: Service, key: Key) -> dict[str, object]:
    def look(session: Session) -> dict[str, object]:
        centre = centre_of(session)
        ahead_s = abs(centre.ahead_s or 0.0)
        return {
            "address": service.settings.upstream,
            "centre": centre,
            "clock_minutes": round(ahead_s / 60) if ahead_s > CLOCK_S else None,
            "waiting": waiting(session),
            "refused": refused_visits(session, MOST_REFUSED) if key.role == "admin" else [],
            "hours": service.settings.upstream_hours,
        }

    return await service.database.read(look)
