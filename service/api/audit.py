"""``/v1/audit`` and ``/v1/incidents``: the audit log for admins, and incidents for doctors and admins."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from service import errors
from service.api.parameters import Truth
from service.api.refusals import problem_responses
from service.api.session import AdminKey, CurrentKey
from service.audit.actions import ACTIONS
from service.audit.listing import MAX_PAGE, PAGE, Wanted, list_entries
from service.audit.proof import Stored
from service.errors import FieldFault, InvalidRequest
from service.incidents import actions as incidents
from service.incidents.actions import Closing, Incident, NewIncident
from service.state import service_of

router = APIRouter(
    prefix="/v1",
    tags=["audit"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)
VisitId = Annotated[str, Path(max_length=36, description="The visit's id")]


class EntryView(BaseModel):
    """An entry of the audit log. ``digest`` is SHA-256 over the digest of the entry before it, a line feed and
    ``content``; ``actor`` is the id of a key, or a word for what acts without one."""

    number: int
    at: datetime
    actor: str
    role: str
    action: str
    visit: str | None
    detail: dict[str, Any]
    content: str
    digest: str


class EntryList(BaseModel):
    """Entries, the latest first. ``next`` is the ``before`` of the following page, ``null`` on the last."""

    items: list[EntryView]
    next: int | None


class IncidentList(BaseModel):
    items: list[Incident]


@router.get("/audit")
async def get_audit(
    request: Request,
    _: AdminKey,
    visit: Annotated[str | None, Query(max_length=36)] = None,
    person: Annotated[str | None, Query(max_length=200, description="Of the visits of this person")] = None,
    key: Annotated[str | None, Query(max_length=60, description="Id of a key")] = None,
    action: Annotated[str | None, Query(max_length=30)] = None,
    day: Annotated[date | None, Query(description="In UTC")] = None,
    before: Annotated[int | None, Query(ge=1, le=2**62, description="`next` of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE,
) -> EntryList:
    """The audit log, the latest entry first."""
    if action is not None and action not in ACTIONS:
        raise InvalidRequest(FieldFault("query.action", "field_invalid", " | ".join(ACTIONS)))
    wanted = Wanted(visit=visit, person=person, key=key, action=action, day=day, before=before)
    found = await service_of(request).database.read(lambda session: list_entries(session, wanted, limit + 1))
    return EntryList(
        items=[_view(each) for each in found[:limit]],
        next=found[limit - 1].entry.number if len(found) > limit else None,
    )


@router.post("/visits/{visit_id}/incidents", status_code=201, responses=problem_responses(errors.NotFound))
async def post_incident(request: Request, key: CurrentKey, visit_id: VisitId, new: NewIncident) -> Incident:
    """Raise an incident from a visit. It keeps what the audit log has of the visit, and has a deadline."""
    return await incidents.raise_incident(service_of(request), key, visit_id, new)


@router.get("/incidents")
async def get_incidents(
    request: Request,
    key: CurrentKey,
    visit: Annotated[str | None, Query(max_length=36)] = None,
    open: Truth | None = None,
) -> IncidentList:
    """Incidents, those first whose deadline is nearest: an admin sees all, whoever else those that they raised."""
    found = await incidents.list_incidents(service_of(request), key, visit=visit, is_open=open)
    return IncidentList(items=found)


@router.post("/incidents/{incident_id}/close", responses=problem_responses(errors.NotFound))
async def post_closing(
    request: Request, key: CurrentKey, incident_id: Annotated[str, Path(max_length=36)], closing: Closing
) -> Incident:
    """Close an incident with what was found."""
    return await incidents.close_incident(service_of(request), key, incident_id, closing)


def _view(stored: Stored) -> EntryView:
    entry = stored.entry
    return EntryView(
        **{**entry._asdict(), "detail": json.loads(entry.detail)}, content=entry.content(), digest=stored.digest
    )
