"""``/v1/visits/…``: the pictures of a visit, for people: films, traces, median beats, evidence."""

from __future__ import annotations

import gzip
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from data_specs.cxr.image import Window
from service import errors
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.api.visits import FOUND, Index, VisitId
from service.state import service_of
from service.visits import evidence

AN_HOUR = {"Cache-Control": "private, max-age=3600", "Vary": "Authorization, Cookie"}

router = APIRouter(
    prefix="/v1/visits", tags=["visits"], responses=problem_responses(errors.Unauthorised, errors.Forbidden)
)

MaxPx = Annotated[int | None, Query(ge=16, le=10_000, description="Longest side; default: the film's own")]
ShownWindow = Annotated[
    Window,
    Query(
        description="Grey values that are shown: as the file asks; all of them; the darker part, for the lungs; the "
        "brighter part, for bones and mediastinum"
    ),
]


class Film(BaseModel):
    """Size of a film in pixels; ``pixel_mm``: height and width of a pixel on the detector, ``null`` if not stated."""

    rows: int
    columns: int
    pixel_mm: Annotated[tuple[float, ...], Field(min_length=2, max_length=2)] | None


@router.get(
    "/{visit_id}/inputs/{index}/film.png",
    response_class=Response,
    responses={200: {"description": "The image for display", "content": {"image/png": {}}}, **FOUND},
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
    responses={200: {"description": "The image for a thin link", "content": {"image/jpeg": {}}}, **FOUND},
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


@router.get("/{visit_id}/inputs/{index}/film.json", response_model=Film, responses=FOUND)
async def get_film_size(request: Request, key: CurrentKey, visit_id: VisitId, index: Index) -> Response:
    """Size of a posted image, and of its pixels where the file states it, so that lengths can be measured."""
    found = await evidence.size(service_of(request), key, visit_id, index)
    film = Film(rows=found.rows, columns=found.columns, pixel_mm=found.pixel_mm)
    return Response(film.model_dump_json(), 200, AN_HOUR, JSONResponse.media_type)


@router.get(
    "/{visit_id}/inputs/{index}/trace.svg",
    response_class=Response,
    responses={200: {"description": "The recording for display", "content": {"image/svg+xml": {}}}, **FOUND},
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
        Literal["3x4", "12x1"],
        Query(description="Three rows of four leads with a rhythm strip, or a row for each lead"),
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
    responses={200: {"description": "The median beats", "content": {"image/svg+xml": {}}}, **FOUND},
)
async def get_beats(request: Request, key: CurrentKey, visit_id: VisitId, index: Index) -> Response:
    """The median beat of each lead, with the onsets and offsets between which the intervals were measured."""
    service = service_of(request)
    with service.metrics.stages.labels("evidence").time():
        return _svg(await evidence.beats(service, key, visit_id, index), request)


@router.get(
    "/{visit_id}/evidence/{finding}/{index}.png",
    response_class=Response,
    responses={200: {"description": "The evidence of the finding", "content": {"image/png": {}}}, **FOUND},
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
    responses={200: {"description": "The outline of the evidence", "content": {"image/svg+xml": {}}}, **FOUND},
)
async def get_outline(
    request: Request, key: CurrentKey, visit_id: VisitId, finding: Annotated[str, Path(max_length=60)], index: Index
) -> Response:
    """The outline of a heatmap, where it has half of its range; to be stretched over the film."""
    return _svg(await evidence.outline(service_of(request), key, visit_id, finding, index), request)


def _svg(drawing: bytes, request: Request) -> Response:
    """A drawing, compressed to a fifth where the client takes that; it holds nothing that a client could choose."""
    headers = AN_HOUR | {"Vary": "Authorization, Cookie, Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        drawing, headers = gzip.compress(drawing, 6, mtime=0), headers | {"Content-Encoding": "gzip"}
    return Response(drawing, 200, headers, "image/svg+xml")
