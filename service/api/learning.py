"""``/v1/learning``: cases to learn from, for trainees; how they do, for them and for admins."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from data_specs.schema import Moment
from data_specs.visit.teaching import NewReading
from service import errors
from service.api.refusals import problem_responses
from service.api.session import AdminKey, CurrentKey
from service.audit.routes import shows
from service.errors import NotFound
from service.keys import Key
from service.language.choice import language_of
from service.language.zone import zone_named
from service.learning import progress as learning
from service.learning import readings
from service.learning.progress import CaseProgress, Progress
from service.learning.readings import NextCase, Reading
from service.state import service_of
from service.visits.listing import in_utc

router = APIRouter(
    prefix="/v1/learning",
    tags=["learning"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)
Reader = Annotated[
    str | None, Query(max_length=36, description="Id of a trainee's key, for admins; default: one's own")
]
Since = Annotated[Moment | None, Query(description="Read at or after this time")]
Before = Annotated[Moment | None, Query(description="Read before this time")]
_GONE = problem_responses(errors.NotFound)


class ReaderList(BaseModel):
    items: list[Progress]


class CaseList(BaseModel):
    items: list[CaseProgress]


@router.post("/next", responses=problem_responses(errors.NotFound, errors.NoCaseNow))
async def post_next_case(request: Request, key: CurrentKey, wanted: NextCase) -> Reading:
    """The case to read: the one that is not signed yet, else a new one, or one where the trainee erred."""
    return await readings.give(service_of(request), key, wanted)


@router.get("/readings/{reading_id}", responses=_GONE)
async def get_reading(request: Request, key: CurrentKey, reading_id: Annotated[str, Path(max_length=36)]) -> Reading:
    """A case that was given; what is known of it as soon as it was signed."""
    found, row = await readings.reading_of(service_of(request), key, reading_id)
    shows(request.scope, [row.id])
    return found


@router.post("/readings/{reading_id}", responses=problem_responses(errors.NotFound, errors.CaseWasRead))
async def post_reading(
    request: Request, key: CurrentKey, reading_id: Annotated[str, Path(max_length=36)], said: NewReading
) -> Reading:
    """Sign what one sees, and learn what is known of the case. It is no opinion on a visit."""
    return await readings.sign(service_of(request), key, reading_id, said)


@router.get("/figures", responses=_GONE)
async def get_figures(
    request: Request, key: CurrentKey, reader: Reader = None, since: Since = None, before: Before = None
) -> Progress:
    """Figures of a trainee over first readings, with 95 % intervals, and quartiles of their peers."""
    return await _progress(request, key, reader, since, before)


@router.get(
    "/certificate.pdf",
    response_class=Response,
    responses={200: {"description": "The certificate", "content": {"application/pdf": {}}}, **_GONE},
)
async def get_certificate(
    request: Request, key: CurrentKey, reader: Reader = None, since: Since = None, before: Before = None
) -> Response:
    """The figures as a certificate, in the language of the request; 404 where no case was read."""
    found = await _progress(request, key, reader, since, before)
    if not found.cases:
        raise NotFound
    from service.learning.certificate import certificate  # noqa: PLC0415  loads reportlab

    service, language = service_of(request), language_of(request)
    zone = zone_named(service.settings.time_zone)
    content = await asyncio.to_thread(certificate, found, language, zone)
    headers = {
        "Content-Disposition": 'inline; filename="certificate.pdf"',
        "Content-Language": language,
        "Cache-Control": "no-store",
        "Vary": "Accept-Language, Authorization, Cookie",
    }
    return Response(content, 200, headers, "application/pdf")


@router.get("/readers")
async def get_readers(request: Request, key: AdminKey) -> ReaderList:
    """The figures of all trainees who have read a case."""
    return ReaderList(items=await learning.readers(service_of(request), key))


@router.get("/cases")
async def get_cases(request: Request, key: AdminKey) -> CaseList:
    """All cases, the hardest first, with what is true of them."""
    return CaseList(items=await learning.hard_cases(service_of(request), key))


async def _progress(
    request: Request, key: Key, reader: str | None, since: datetime | None, before: datetime | None
) -> Progress:
    return await learning.progress(
        service_of(request),
        key,
        reader,
        since=None if since is None else in_utc(since, "since"),
        before=None if before is None else in_utc(before, "before"),
    )
