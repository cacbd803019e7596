"""``/audit``: the audit log for admins. ``/incidents``: what was raised, by its deadline, and how it is closed."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, get_args

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from service.api.refusals import STATUS
from service.api.session import page_key
from service.audit.actions import ACTIONS
from service.audit.listing import PAGE, Wanted, list_entries, names_of_keys
from service.errors import ServiceError, StorageUnavailable
from service.incidents import actions as incidents
from service.incidents.actions import Closing, NewIncident
from service.incidents.deadlines import read_deadlines
from service.keys import Key, Role
from service.pages.frame import page, to_login
from service.pages.opinion import checked
from service.pages.visit import refusal, run_and_return
from service.state import Service, service_of
from service.storage.audit import head_of

MAX_WORD = 200

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/audit")
async def audit(
    request: Request,
    visit: str = "",
    person: str = "",
    of_key: str = "",
    action: str = "",
    day: str = "",
    before: str = "",
) -> Response:
    """The log, the latest entry first. What a filter cannot mean finds nothing."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    asked = {
        name: value.replace("\0", "").strip()[:MAX_WORD]
        for name, value in (("visit", visit), ("person", person), ("of_key", of_key), ("action", action), ("day", day))
    }
    on = _day(asked["day"])
    wanted = Wanted(
        visit=asked["visit"] or None,
        person=asked["person"] or None,
        key=asked["of_key"] or None,
        action=asked["action"] or None,
        day=on,
        before=int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,
    )
    database = service_of(request).database
    is_possible = on is not None or not asked["day"]
    found = await database.read(lambda session: list_entries(session, wanted, PAGE + 1)) if is_possible else ()
    ids = [each.entry.actor for each in found]
    return page(
        request,
        "audit.html",
        key=key,
        asked=asked,
        entries=[(each.entry, json.loads(each.entry.detail), each.digest) for each in found[:PAGE]],
        more=found[PAGE - 1].entry.number if len(found) > PAGE else None,
        names=await database.read(lambda session: names_of_keys(session, ids)),
        actions=sorted(ACTIONS),
        roles=get_args(Role),
        head=await database.read(head_of),
    )


@router.get("/incidents")
async def incident_list(request: Request) -> Response:
    """Incidents: an admin sees all, whoever else those that they raised."""
    key = await page_key(request)
    return to_login(request) if key is None else await _incidents(request, key)


@router.post("/incidents/{incident_id}/close")
async def close(request: Request, incident_id: str, found: Annotated[str, Form()] = "") -> Response:
    """Close an incident; the list again where that was refused."""
    key = await page_key(request)
    if key is None:
        return to_login(request, "/incidents")
    try:
        await incidents.close_incident(service_of(request), key, incident_id, checked(Closing, {"found": found}))
    except StorageUnavailable:
        raise
    except ServiceError as error:
        return await _incidents(request, key, problem=refusal(request, error), status_code=STATUS[type(error)].value)
    return RedirectResponse("/incidents", 303)


@router.post("/visits/{visit_id}/incident")
async def raise_incident(
    request: Request,
    visit_id: str,
    kind: Annotated[str, Form()] = "",
    severity: Annotated[str, Form()] = "",
    text: Annotated[str, Form()] = "",
) -> Response:
    """Raise an incident from a visit's page."""

    async def action(service: Service, key: Key) -> None:
        new = checked(NewIncident, {"kind": kind, "severity": severity, "text": text})
        await incidents.raise_incident(service, key, visit_id, new)

    return await run_and_return(request, visit_id, action, "incidents")


async def _incidents(request: Request, key: Key, *, problem: str | None = None, status_code: int = 200) -> Response:
    service = service_of(request)
    return page(
        request,
        "incidents.html",
        status_code,
        key=key,
        found=await incidents.list_incidents(service, key),
        deadlines=read_deadlines(service.settings.incident_deadlines),
        problem=problem,
    )


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
