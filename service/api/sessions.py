"""``/v1/sessions``: the open sessions of browsers, for their owners and for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from service import errors
from service.api.refusals import problem_responses
from service.api.session import COOKIE, CurrentKey
from service.keys import Role
from service.state import service_of

router = APIRouter(
    prefix="/v1/sessions",
    tags=["keys"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)


class SessionView(BaseModel):
    """An open session. ``id`` names it and opens nothing; ``key_id``, ``role``, ``site``, ``doctor_id`` and ``label``
    say whose it is. ``used_at`` is to the minute, ``network`` the network around the address, ``browser`` the browser's
    family; both are empty where they are not known. ``own``: the session in which this was asked."""

    id: str
    key_id: str
    role: Role
    site: str
    doctor_id: str | None
    label: str
    opened_at: datetime
    used_at: datetime
    expires_at: datetime
    network: str
    browser: str
    own: bool


class SessionList(BaseModel):
    items: list[SessionView]


class Ended(BaseModel):
    """How many sessions ended."""

    ended: int


@router.get("")
async def list_sessions(request: Request, key: CurrentKey) -> SessionList:
    """Open sessions, the latest first: an admin sees all, everybody else their own."""
    found = await service_of(request).sessions.list(key, request.cookies.get(COOKIE, ""))
    return SessionList(
        items=[
            SessionView(
                id=each.id,
                key_id=each.key.id,
                role=each.key.role,
                site=each.key.site,
                doctor_id=each.key.doctor_id,
                label=each.key.label,
                opened_at=each.opened_at,
                used_at=each.used_at,
                expires_at=each.expires_at,
                network=each.network,
                browser=each.browser,
                own=each.own,
            )
            for each in found
        ]
    )


@router.delete("")
async def end_sessions(request: Request, key: CurrentKey) -> Ended:
    """End all sessions that `GET /v1/sessions` lists, this one among them."""
    return Ended(ended=await service_of(request).sessions.end(key))


@router.delete("/{session_id}", status_code=204, responses=problem_responses(errors.NotFound))
async def end_session(request: Request, key: CurrentKey, session_id: Annotated[str, Path(max_length=36)]) -> Response:
    """End one session at once."""
    await service_of(request).sessions.end(key, session_id)
    return Response(status_code=204)
