"""``/v1/visits``: post a visit, read it, list visits, and get its files and pictures."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from data_specs.cxr.image import Window
from data_specs.schema import Moment
from data_specs.visit.contract import Priority, Status, Visit
from service import errors
from service.api.examples import POSTED_VISIT, VISIT
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.errors import Forbidden, StorageUnavailable
from service.keys import Key
from service.language.choice import language_of
from service.receive.accept import accept_visit
from service.receive.commit import RETRY_AFTER_S
from service.state import service_of
from service.storage.tables import VisitRow
from service.visits import evidence
from service.visits.stored import MAX_PAGE, PAGE, input_content, list_visits, load_visit, visit_view

DEFAULT_WAIT_S = 30.0
MAX_WAIT_S = 120.0
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Authorization, Cookie"}
AN_HOUR = {"Cache-Control": "private, max-age=3600", "Vary": "Authorization, Cookie"}

router = APIRouter(
    prefix="/v1/visits", tags=["visits"], responses=problem_responses(errors.Unauthorised, errors.Forbidden)
)

VisitId = Annotated[str, Path(description="The visit's id")]
Index = Annotated[int, Path(ge=0, le=1000, description="Index of the posted file in `inputs`")]
MaxPx = Annotated[int | None, Query(ge=16, le=10_000, description="Longest side; default: the film's own")]
ShownWindow = Annotated[
    Window,
    Query(
        description="Grey values that are shown: as the file asks; all of them; the darker part, for the lungs; the "
        "brighter part, for bones and mediastinum"
    ),
]
_HAS_VISIT: dict[str, Any] = {"content": {"application/json": {"example": VISIT}}}
_FOUND = problem_responses(errors.NotFound, errors.InvalidRequest, errors.InternalFault)
_LOCATED = {"Location": {"description": "Address of the visit", "schema": {"type": "string"}}}


class VisitList(BaseModel):
    """One page of visits, newest first. ``next`` is the ``cursor`` of the following page, ``null`` on the last."""

    items: list[Visit]
    next: str | None


class Film(BaseModel):
    """Size of a film in pixels; ``pixel_mm``: height and width of a pixel on the detector, ``null`` if not stated."""

    rows: int
    columns: int
    pixel_mm: tuple[float, float] | None


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
    wait_s, applied = _prefer(request)
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


@router.get("", response_model=VisitList, responses=problem_responses(errors.InvalidRequest, errors.InternalFault))
async def get_visits(
    request: Request,
    key: CurrentKey,
    *,
    priority: Priority | None = None,
    status: Status | None = None,
    since: Annotated[
        Moment | None, Query(description="Received at or after this time; UTC if it names no zone")
    ] = None,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE,
) -> Response:
    """Page through the visits that the key may see, newest first."""
    service, language = service_of(request), language_of(request)
    page = await list_visits(service, key, priority=priority, status=status, since=since, cursor=cursor, limit=limit)

    def listed() -> str:
        """Runs in a thread, because a page of visits is much JSON to read and to write."""
        items = [visit_view(row, language) for row in page.rows]
        return VisitList(items=items, next=page.next).model_dump_json()

    return _json(await asyncio.to_thread(listed), request)


@router.get("/{visit_id}", response_model=Visit, responses={200: _HAS_VISIT, **_FOUND})
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
        **_FOUND,
    },
)
async def get_input(request: Request, key: CurrentKey, visit_id: VisitId, index: Index) -> Response:
    """A posted file, byte for byte."""
    posted, content = await input_content(service_of(request), key, visit_id, index)
    disposition = f"attachment; filename*=UTF-8''{quote(posted.filename, safe='')}"
    headers = FOREVER | {"Content-Disposition": disposition, "ETag": f'"{posted.sha256}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get(
    "/{visit_id}/inputs/{index}/film.png",
    response_class=Response,
    responses={200: {"description": "The image for display", "content": {"image/png": {}}}, **_FOUND},
)
async def get_film(
    request: Request,
    key: CurrentKey,
    visit_id: VisitId,
    index: Index,
    max_px: MaxPx = None,
    window: ShownWindow = "as_sent",
) -> Response:
    """A posted image for display, also one that was refused; 404 where it cannot be decoded."""
    service = service_of(request)
    with service.metrics.stages.labels("evidence").time():
        shown = await evidence.film(service, key, visit_id, index, max_px, window=window)
    return Response(shown, 200, AN_HOUR, "image/png")


@router.get(
    "/{visit_id}/inputs/{index}/film.jpg",
    response_class=Response,
    responses={200: {"description": "The image for a thin link", "content": {"image/jpeg": {}}}, **_FOUND},
)
async def get_film_preview(
    request: Request,
    key: CurrentKey,
    visit_id: VisitId,
    index: Index,
    max_px: MaxPx = None,
    window: ShownWindow = "as_sent",
) -> Response:
    """As `film.png`, as JPEG: a tenth of its size, and not to be read from."""
    service = service_of(request)
    with service.metrics.stages.labels("evidence").time():
        shown = await evidence.film(service, key, visit_id, index, max_px, window=window, kind="jpeg")
    return Response(shown, 200, AN_HOUR, "image/jpeg")


@router.get("/{visit_id}/inputs/{index}/film.json", response_model=Film, responses=_FOUND)
async def get_film_size(request: Request, key: CurrentKey, visit_id: VisitId, index: Index) -> Response:
    """Size of a posted image, and of its pixels where the file states it, so that lengths can be measured."""
    found = await evidence.size(service_of(request), key, visit_id, index)
    film = Film(rows=found.rows, columns=found.columns, pixel_mm=found.pixel_mm)
    return Response(film.model_dump_json(), 200, AN_HOUR, JSONResponse.media_type)


@router.get(
    "/{visit_id}/inputs/{index}/trace.svg",
    response_class=Response,
    responses={200: {"description": "The recording for display", "content": {"image/svg+xml": {}}}, **_FOUND},
)
async def get_trace(
    request: Request,
    key: CurrentKey,
    visit_id: VisitId,
    index: Index,
    *,
    finding: Annotated[str | None, Query(max_length=60, description="Mark the evidence of this finding")] = None,
    speed: Annotated[Literal["25", "50"], Query(description="mm/s")] = "25",
    gain: Annotated[Literal["5", "10", "20"], Query(description="mm/mV")] = "10",
    layout: Annotated[
        Literal["3x4", "12x1"], Query(description="Three rows of four leads with a rhythm strip, or a row for each lead")
    ] = "3x4",
) -> Response:
    """The recording that a file belongs to, on millimetre paper, also a refused one; 404 where no lead can be drawn."""
    from inference.render.paper import GAINS, SPEEDS, Form  # noqa: PLC0415  where a trace is asked for

    service, form = service_of(request), Form(SPEEDS[speed], GAINS[gain], layout)
    with service.metrics.stages.labels("evidence").time():
        return _svg(await evidence.trace(service, key, visit_id, index, finding, form), request)


@router.get(
    "/{visit_id}/inputs/{index}/beats.svg",
    response_class=Response,
    responses={200: {"description": "The median beats", "content": {"image/svg+xml": {}}}, **_FOUND},
)
async def get_beats(request: Request, key: CurrentKey, visit_id: VisitId, index: Index) -> Response:
    """The median beat of each lead, with the onsets and offsets between which the intervals were measured."""
    service = service_of(request)
    with service.metrics.stages.labels("evidence").time():
        return _svg(await evidence.beats(service, key, visit_id, index), request)


@router.get(
    "/{visit_id}/evidence/{finding}/{index}.png",
    response_class=Response,
    responses={200: {"description": "The evidence of the finding", "content": {"image/png": {}}}, **_FOUND},
)
async def get_evidence(
    request: Request,
    key: CurrentKey,
    *,
    visit_id: VisitId,
    finding: Annotated[str, Path(max_length=60)],
    index: Index,
    layer: Annotated[
        evidence.Layer, Query(description="`film`: blended over the film or trace; `overlay`: a heatmap alone")
    ] = "film",
) -> Response:
    """The evidence of a finding, as the model gave it."""
    service = service_of(request)
    with service.metrics.stages.labels("evidence").time():
        image = await evidence.evidence_png(service, key, visit_id, finding, index, layer=layer)
    return Response(image, 200, AN_HOUR, "image/png")


@router.get(
    "/{visit_id}/evidence/{finding}/{index}.svg",
    response_class=Response,
    responses={200: {"description": "The outline of the evidence", "content": {"image/svg+xml": {}}}, **_FOUND},
)
async def get_outline(
    request: Request, key: CurrentKey, visit_id: VisitId, finding: Annotated[str, Path(max_length=60)], index: Index
) -> Response:
    """The outline of a heatmap, where it has half of its range; to be stretched over the film."""
    return _svg(await evidence.outline(service_of(request), key, visit_id, finding, index), request)


def _prefer(request: Request) -> tuple[float, str]:
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


def _svg(drawing: bytes, request: Request) -> Response:
    """A drawing, compressed to a fifth where the client takes that; it holds nothing that a client could choose."""
    headers = AN_HOUR | {"Vary": "Authorization, Cookie, Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        drawing, headers = gzip.compress(drawing, 6, mtime=0), headers | {"Content-Encoding": "gzip"}
    return Response(drawing, 200, headers, "image/svg+xml")


def _json(content: str, request: Request) -> Response:
    headers = {"Content-Language": language_of(request), "Vary": "Accept-Language"}
    return Response(content, 200, headers, JSONResponse.media_type)
