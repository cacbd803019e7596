"""``/v1/visits``: post a visit, read it, list visits, and get its files."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from data_specs.schema import Moment
from data_specs.visit.contract import Priority, Status, Visit
from service import errors
from service.api.examples import ACCEPTED, POSTED_VISIT, VISIT
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.errors import Forbidden, StorageUnavailable
from service.keys import Key
from service.language.choice import language_of
from service.receive.accept import accept_visit
from service.receive.commit import RETRY_AFTER_S
from service.state import service_of
from service.storage.tables import VisitRow
from service.visits.filters import MAX_SEARCH, Asked, Filter
from service.visits.listing import MAX_PAGE, PAGE, in_utc, list_visits
from service.visits.stored import input_content, load_visit, visit_view

DEFAULT_WAIT_S = 30.0
MAX_WAIT_S = 120.0
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Authorization, Cookie"}

router = APIRouter(
    prefix="/v1/visits", tags=["visits"], responses=problem_responses(errors.Unauthorised, errors.Forbidden)
)

VisitId = Annotated[str, Path(description="The visit's id")]
Index = Annotated[int, Path(ge=0, le=1000, description="Index of the posted file in `inputs`")]
_HAS_VISIT: dict[str, Any] = {"content": {"application/json": {"example": VISIT}}}
FOUND = problem_responses(errors.NotFound, errors.InvalidRequest, errors.InternalFault)
_LOCATED = {"Location": {"description": "Address of the visit", "schema": {"type": "string"}}}


class VisitList(BaseModel):
    """One page of visits, newest first. ``next`` is the ``cursor`` of the following page, ``null`` on the last."""

    items: list[Visit]
    next: str | None


@router.post(
    "",
    status_code=201,
    response_model=Visit,
    responses={
        201: {
            "description": "The finished visit; for a repeated Idempotency-Key with the same body, the first visit",
            "headers": _LOCATED,
            **_HAS_VISIT,
        },
        202: {
            "description": "Accepted and on disk, not finished yet: ask `Location` again after `Retry-After` seconds",
            "model": Visit,
            "content": {"application/json": {"example": ACCEPTED}},
            "headers": _LOCATED | {"Retry-After": {"schema": {"type": "integer"}}},
        },
        **problem_responses(
            errors.IdempotencyConflict,
            errors.BodyTooLarge,
            errors.BodyTooSlow,
            errors.UnsupportedMediaType,
            errors.InvalidRequest,
            errors.QueueFull,
            errors.Unavailable,
            errors.InternalFault,
        ),
    },
    openapi_extra=POSTED_VISIT,
)
async def post_visit(request: Request, key: CurrentKey) -> Response:
    """Post one person's images, recordings and context of one day.

    Every part is optional. A missing part makes an organ `not_assessed` or a finding absent, never normal; a body
    without any part is a visit that is `unassessed`. The visit is on disk before it is answered.
    """
    service = service_of(request)
    if not key.may_post:
        raise Forbidden
    started = time.monotonic()
    accepted = await accept_visit(service, key, request)
    service.metrics.stages.labels("intake").observe(time.monotonic() - started)
    return await finished_or_not(request, key, accepted.row)


async def finished_or_not(request: Request, key: Key, row: VisitRow) -> Response:
    """The answer to a posted visit: 201 if it is finished within the time of ``Prefer``, else 202."""
    service = service_of(request)
    wait_s, applied = prefer(request)
    if row.status == "accepted" and wait_s > 0:
        await service.work.wait(row.id, wait_s, request.is_disconnected)
        if row.status == "accepted":  # not finished, or finished by another process
            with contextlib.suppress(StorageUnavailable):  # it is accepted, whether it can be read now or not
                row = await load_visit(service, key, row.id)
    response = _visit_response(request, row)
    response.headers["Location"] = f"/v1/visits/{row.id}"
    if applied:
        response.headers["Preference-Applied"] = applied
    if row.status == "accepted":
        response.status_code = 202
        response.headers["Retry-After"] = str(min(RETRY_AFTER_S, 1 + int(wait_s)))
    else:
        response.status_code = 201
    return response


@router.get(
    "",
    response_model=VisitList,
    responses={
        200: {"content": {"application/json": {"example": {"items": [ACCEPTED, VISIT], "next": "MjAyNi0xMS0yMQ"}}}},
        **problem_responses(errors.InvalidRequest, errors.InternalFault),
    },
)
async def get_visits(
    request: Request,
    key: CurrentKey,
    *,
    priority: Priority | None = None,
    status: Status | None = None,
    since: Annotated[
        Moment | None, Query(description="Received at or after this time; UTC if it names no zone")
    ] = None,
    person: Annotated[
        str | None,
        Query(min_length=1, max_length=200, description="The person's identifier, exactly as it was posted"),
    ] = None,
    before: Annotated[Moment | None, Query(description="Received before this time; UTC if it names no zone")] = None,
    q: Annotated[
        str,
        Query(
            max_length=MAX_SEARCH,
            description="Words, or parts of them, of the person's name or identifier, or of the accession number; case "
            "and diacritics do not matter",
        ),
    ] = "",
    site: Annotated[str | None, Query(max_length=100)] = None,
    signed: Annotated[Literal["yes", "no"] | None, Query(description="Whether a doctor has signed")] = None,
    asked: Annotated[Asked | None, Query(description="Whether a specialist was asked; a specialist: were you")] = None,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE,
) -> Response:
    """Page through the visits that the key may see, newest first."""
    service, language = service_of(request), language_of(request)
    wanted = Filter(
        search=q,
        person=person,
        priority=priority,
        status=status,
        since=None if since is None else in_utc(since, "since"),
        before=None if before is None else in_utc(before, "before"),
        site=site,
        signed=None if signed is None else signed == "yes",
        asked=asked,
    )
    page = await list_visits(service, key, wanted, cursor=cursor, limit=limit)

    def listed() -> str:
        """Runs in a thread, because a page of visits is much JSON to read and to write."""
        items = [visit_view(row, language) for row in page.rows]
        return VisitList(items=items, next=page.next).model_dump_json()

    return _json(await asyncio.to_thread(listed), request)


@router.get("/{visit_id}", response_model=Visit, responses={200: _HAS_VISIT, **FOUND})
async def get_visit(request: Request, key: CurrentKey, visit_id: VisitId) -> Response:
    """The visit in its present state."""
    row = await load_visit(service_of(request), key, visit_id)
    response = _visit_response(request, row)
    if row.status == "accepted":
        response.headers["Retry-After"] = "1"
    return response


@router.get(
    "/{visit_id}/inputs/{index}",
    response_class=Response,
    responses={
        200: {"description": "The file as it was posted", "content": {"application/octet-stream": {}}},
        **FOUND,
    },
)
async def get_input(request: Request, key: CurrentKey, visit_id: VisitId, index: Index) -> Response:
    """A posted file, byte for byte."""
    posted, content = await input_content(service_of(request), key, visit_id, index)
    disposition = f"attachment; filename*=UTF-8''{quote(posted.filename, safe='')}"
    headers = FOREVER | {"Content-Disposition": disposition, "ETag": f'"{posted.sha256}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


def prefer(request: Request) -> tuple[float, str]:
    """Seconds to wait, and the value of ``Preference-Applied``.

    A preference that cannot be read is ignored (RFC 7240, section 2). Both together, ``respond-async, wait=10``, mean:
    asynchronously, if it takes longer than that (section 4.3).
    """
    header = ",".join(request.headers.getlist("prefer"))[:500].lower()
    if found := re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?\s*(?=$|[,;])", header):
        wait_s = min(float(found[1]), MAX_WAIT_S)
        return wait_s, f"wait={wait_s:g}"
    if re.search(r"(?:^|[,\s])respond-async\s*(?=$|[,;])", header):
        return 0.0, "respond-async"
    return DEFAULT_WAIT_S, ""


def _visit_response(request: Request, row: VisitRow) -> Response:
    response = _json(visit_view(row, language_of(request)).model_dump_json(), request)
    response.headers["Server-Timing"] = _timing(row)
    return response


def _timing(row: VisitRow) -> str:
    """Time in the queue, and time of the assessment so far.

    References
    ----------
    W3C Server Timing: durations in milliseconds.
    """
    now = datetime.now(UTC)
    started = row.started_at or row.completed_at or now
    queue_ms = max(0.0, (started - row.received_at).total_seconds() * 1000)
    work_ms = max(0.0, ((row.completed_at or now) - started).total_seconds() * 1000)
    return f"queue;dur={queue_ms:.1f}, inference;dur={work_ms:.1f}"


def _json(content: str, request: Request) -> Response:
    headers = {"Content-Language": language_of(request), "Vary": "Accept-Language"}
    return Response(content, 200, headers, JSONResponse.media_type)
