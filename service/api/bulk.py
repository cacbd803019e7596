"""``/v1/visits/bulk``: post many visits in one request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.contract import Visit
from service import errors
from service.api.examples import ACCEPTED, POSTED_VISITS, REFUSED, VISIT
from service.api.refusals import ProblemDocument, problem_document, problem_responses
from service.api.session import CurrentKey
from service.api.visits import prefer
from service.errors import Forbidden, ServiceError
from service.language.choice import language_of
from service.receive.bulk import accept_visits
from service.receive.commit import Accepted
from service.state import Service, service_of
from service.storage.tables import VisitRow
from service.visits.stored import visit_view

router = APIRouter(
    prefix="/v1/visits", tags=["visits"], responses=problem_responses(errors.Unauthorised, errors.Forbidden)
)


class PostedVisit(BaseModel):
    """One visit of the request, by its name there: the visit, or why it was refused."""

    name: str
    visit: Visit | None = None
    problem: ProblemDocument | None = None


class PostedVisits(BaseModel):
    """What became of each visit, in the order in which the request began them."""

    items: list[PostedVisit]


@router.post(
    "/bulk",
    response_model=PostedVisits,
    responses={
        200: {
            "description": "Every visit has a visit or a problem; none of them is lost, and none refuses another",
            "content": {
                "application/json": {
                    "example": {
                        "items": [
                            {"name": "P-0001", "visit": VISIT, "problem": None},
                            {"name": "P-0002", "visit": ACCEPTED, "problem": None},
                            {"name": "P-0003", "visit": None, "problem": REFUSED},
                        ]
                    }
                }
            },
        },
        **problem_responses(
            errors.BodyTooLarge,
            errors.BodyTooSlow,
            errors.UnsupportedMediaType,
            errors.InvalidRequest,
            errors.QueueFull,
            errors.Unavailable,
            errors.InternalFault,
        ),
    },
    openapi_extra=POSTED_VISITS,
)
async def post_visits(request: Request, key: CurrentKey) -> Response:
    """Post many visits in one request: less work for each than one request a visit.

    The parts of a visit are those of `POST /v1/visits`, each with the visit's name before it: `P-0001/context`,
    `P-0001/image`. A visit that is refused has its problem, and refuses no other.
    """
    service = service_of(request)
    if not key.may_post:
        raise Forbidden
    started = time.monotonic()
    outcomes = await accept_visits(service, key, request)
    service.metrics.stages.labels("intake").observe(time.monotonic() - started)
    rows = {name: outcome.row for name, outcome in outcomes.items() if isinstance(outcome, Accepted)}
    wait_s, applied = prefer(request)
    rows = await _waited_for(service, request, rows, wait_s)
    language = language_of(request)

    def items() -> Iterator[PostedVisit]:
        for name, outcome in outcomes.items():
            if isinstance(outcome, ServiceError):
                yield PostedVisit(name=name, problem=problem_document(outcome, language, request.url.path))
            else:
                yield PostedVisit(name=name, visit=visit_view(rows[name], language))

    content = await asyncio.to_thread(lambda: PostedVisits(items=list(items())).model_dump_json())
    headers = {"Content-Language": language, "Vary": "Accept-Language"}
    if applied:
        headers["Preference-Applied"] = applied
    return Response(content, 200, headers, JSONResponse.media_type)


async def _waited_for(
    service: Service, request: Request, rows: dict[str, VisitRow], wait_s: float
) -> dict[str, VisitRow]:
    """The visits as they are when all are finished, or when ``wait_s`` have passed."""
    unfinished = [row.id for row in rows.values() if row.status == "accepted"]
    if not unfinished or wait_s <= 0:
        return rows
    await asyncio.gather(*(service.work.wait(each, wait_s, request.is_disconnected) for each in unfinished))
    elsewhere = [row.id for row in rows.values() if row.status == "accepted"]  # taken from the database, not finished
    if not elsewhere:
        return rows

    def load(session: Session) -> dict[str, VisitRow]:
        return {row.id: row for row in session.scalars(select(VisitRow).where(VisitRow.id.in_(elsewhere)))}

    found = await service.database.read(load)
    return {name: found.get(row.id, row) for name, row in rows.items()}
