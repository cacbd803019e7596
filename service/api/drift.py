"""``/v1/drift``: devices whose films are compared with those of before, and alarms; for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from service import errors
from service.api.parameters import Truth
from service.api.refusals import problem_responses
from service.api.session import AdminKey
from service.drift import actions
from service.drift.actions import Alarm, DeviceSummary, DeviceView, NewReference, Silence
from service.state import service_of

router = APIRouter(
    prefix="/v1/drift",
    tags=["drift"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)
Site = Annotated[str | None, Query(max_length=100)]


class DeviceList(BaseModel):
    items: list[DeviceSummary]


class AlarmList(BaseModel):
    items: list[Alarm]


@router.get("/devices")
async def get_devices(request: Request, _: AdminKey, site: Site = None) -> DeviceList:
    """Devices whose films are compared with those of before."""
    return DeviceList(items=await actions.list_devices(service_of(request), site=site))


@router.get("/device", responses=problem_responses(errors.NotFound))
async def get_device(
    request: Request,
    _: AdminKey,
    site: Annotated[str, Query(max_length=100)],
    device: Annotated[str, Query(max_length=200)],
) -> DeviceView:
    """A device with its reference and its last weeks."""
    return await actions.device_view(service_of(request), site, device)


@router.get("/alarms")
async def get_alarms(request: Request, _: AdminKey, site: Site = None, open: Truth | None = None) -> AlarmList:
    """Alarms: those first that nobody has silenced, then the latest."""
    return AlarmList(items=await actions.list_alarms(service_of(request), site=site, is_open=open))


@router.post("/alarms/{alarm_id}/silence", responses=problem_responses(errors.NotFound))
async def post_silence(
    request: Request, key: AdminKey, alarm_id: Annotated[str, Path(max_length=36)], asked: Silence
) -> Alarm:
    """Silence an alarm with a reason, until a time."""
    return await actions.silence(service_of(request), key, alarm_id, asked)


@router.post("/references", status_code=204, responses=problem_responses(errors.NotFound))
async def post_reference(request: Request, key: AdminKey, asked: NewReference) -> Response:
    """Compare a device with its films from now on, because they are right as they are; its alarms end."""
    await actions.new_reference(service_of(request), key, asked)
    return Response(status_code=204)
