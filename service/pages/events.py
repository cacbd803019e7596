"""New urgent visits, told to open worklists as server-sent events.

References
----------
WHATWG HTML, section 9.2 (server-sent events): a browser connects again by itself after an end, and no more after 204.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.types import Receive, Scope, Send

from service.api.session import page_key
from service.errors import ServiceError
from service.keys import Key
from service.language.choice import language_of
from service.language.texts import text
from service.places import Shares
from service.state import service_of
from service.storage.database import database_now
from service.storage.tables import VisitRow
from service.visits.stored import visible

LOOK_EVERY_S = 5.0
DRAIN_EVERY_S = 0.5
"""How often a connection looks whether the process has to end."""
LONGEST_S = 600.0
"""Then the browser connects again, so that connections spread over the processes."""
COMMITTED_WITHIN = timedelta(seconds=10)
"""A visit may be committed after another that was completed later, so that time is looked at again."""
MOST_AT_ONCE = 1000

router = APIRouter(include_in_schema=False)


class Told(Response):
    """A stream that holds one of a bounded number of places while it is sent; 204 where none is free."""

    def __init__(self, lines: AsyncIterator[str], places: Shares, holder: str) -> None:
        self.background = None
        self._lines, self._places, self._holder = lines, places, holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._places.fits(self._holder):
            await Response(status_code=204)(scope, receive, send)
            return
        self._places.take(self._holder)
        try:
            headers = {"X-Accel-Buffering": "no"}
            await StreamingResponse(self._lines, headers=headers, media_type="text/event-stream")(scope, receive, send)
        finally:
            self._places.give(self._holder)


@router.get("/worklist/events")
async def urgent_visits(request: Request) -> Response:
    """Tell of visits that become urgent from now on, as long as the key may see them."""
    key = await page_key(request)
    service = service_of(request)
    if key is None or service.draining:
        return Response(status_code=204)
    return Told(_lines(request, key), service.listeners, key.id)


async def _lines(request: Request, key: Key) -> AsyncIterator[str]:
    service, language = service_of(request), language_of(request)
    end = time.monotonic() + LONGEST_S
    yield f"retry: {round(1000 * LOOK_EVERY_S)}\n\n"
    try:
        since = latest = await service.database.read(database_now)
        told: set[str] = set()
        while time.monotonic() < end:
            looked = time.monotonic()
            while time.monotonic() - looked < LOOK_EVERY_S:
                if service.draining:
                    return
                await asyncio.sleep(min(DRAIN_EVERY_S, LOOK_EVERY_S))
            looked_from = max(since, latest - COMMITTED_WITHIN)
            found = await service.database.read(lambda session, at=looked_from: _urgent(session, key, at))  # type: ignore[misc]
            new = [each for each in found if each[0] not in told]
            if new and await page_key(request) != key:  # signed out, or the key was revoked
                return
            for visit_id, person_id, completed_at in new:
                said = text("urgent_arrived", language, person=person_id or text("no_person_id", language))
                yield f"event: urgent\ndata: {json.dumps({'id': visit_id, 'text': said})}\n\n"
                told.add(visit_id)
                latest = completed_at
            if not new:
                yield ": still here\n\n"  # a connection that was lost is noticed by it
    except ServiceError:  # the page loads its list again by the clock meanwhile
        return


def _urgent(session: Session, key: Key, since: datetime) -> Sequence[tuple[str, str | None, datetime]]:
    """Urgent visits that were completed after ``since``, in the order of completion."""
    query = visible(select(VisitRow.id, VisitRow.person_id, VisitRow.completed_at), key)
    query = query.where(VisitRow.priority == "urgent", VisitRow.completed_at > since)
    rows = session.execute(query.order_by(VisitRow.completed_at).limit(MOST_AT_ONCE)).all()
    return [(row.id, row.person_id, row.completed_at.astimezone(UTC)) for row in rows]
