"""``/v1/visits/{id}/opinions``, ``…/referrals``, ``…/outcomes`` and ``/v1/referrals``: what doctors add to a visit."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from data_specs.visit.comparison import Comparison
from data_specs.visit.contract import Visit
from data_specs.visit.followup import History, NewOutcome, NewReferral, RecordedOutcome, Referral
from data_specs.visit.opinion import NewOpinion, Opinion
from service import errors
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.delivery.health_book.table import book_of
from service.followup import actions as followup
from service.followup.history import history_of
from service.followup.questions import list_questions
from service.language.choice import language_of
from service.sites import with_specialists
from service.state import service_of
from service.visits.earlier import comparison
from service.visits.stored import load_visit, visit_view

router = APIRouter(
    prefix="/v1",
    tags=["follow-up"],
    responses=problem_responses(
        errors.Unauthorised, errors.Forbidden, errors.NotFound, errors.InvalidRequest, errors.InternalFault
    ),
)
VisitId = Annotated[str, Path(max_length=36, description="The visit's id")]
_CONFLICTS = problem_responses(errors.NotFinished, errors.VersionChanged, errors.AlreadyAsked)


class SignedOpinion(NewOpinion):
    """An opinion to sign. ``version`` is the version of the report that its author has read."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)]


class Question(BaseModel):
    """A referral, and its visit."""

    model_config = ConfigDict(extra="forbid")

    referral: Referral
    visit: Visit


class QuestionList(BaseModel):
    items: list[Question]


class Hospital(BaseModel):
    """A site that can answer a question, and the names that its specialists sign with."""

    site: str
    specialists: list[str]


class HospitalList(BaseModel):
    items: list[Hospital]


@router.get("/visits/{visit_id}/history")
async def get_history(request: Request, key: CurrentKey, visit_id: VisitId) -> History:
    """Opinions, referrals, outcomes and deliveries of a visit."""
    service = service_of(request)
    row = await load_visit(service, key, visit_id)
    book = book_of(service.settings)
    return await service.database.read(lambda session: history_of(session, key, row, book))


@router.get("/visits/{visit_id}/comparison")
async def get_comparison(request: Request, key: CurrentKey, visit_id: VisitId) -> Comparison:
    """The visit compared with the person's earlier ones at the same site: changes, and the course of values."""
    return await comparison(service_of(request), key, visit_id)


@router.post("/visits/{visit_id}/opinions", status_code=201, responses=_CONFLICTS)
async def post_opinion(request: Request, key: CurrentKey, visit_id: VisitId, signed: SignedOpinion) -> Opinion:
    """Sign the findings as they are, or with what the doctor confirms, rejects or adds. Makes a new report version."""
    new = NewOpinion(**signed.model_dump(exclude={"version"}))
    return await followup.sign(service_of(request), key, visit_id, new, version=signed.version)


@router.post("/visits/{visit_id}/referrals", status_code=201, responses=_CONFLICTS)
async def post_referral(request: Request, key: CurrentKey, visit_id: VisitId, question: NewReferral) -> Referral:
    """Ask a specialist for a second opinion."""
    return await followup.ask(service_of(request), key, visit_id, question)


@router.delete("/visits/{visit_id}/referrals/{referral_id}", status_code=204)
async def delete_referral(
    request: Request, key: CurrentKey, visit_id: VisitId, referral_id: Annotated[str, Path(max_length=36)]
) -> Response:
    """Withdraw a question that has no answer yet."""
    await followup.withdraw(service_of(request), key, visit_id, referral_id)
    return Response(status_code=204)


@router.post("/visits/{visit_id}/outcomes", status_code=201, responses=_CONFLICTS)
async def post_outcome(request: Request, key: CurrentKey, visit_id: VisitId, outcome: NewOutcome) -> RecordedOutcome:
    """Record the later outcome of a finding."""
    return await followup.record_outcome(service_of(request), key, visit_id, outcome)


@router.get("/referrals")
async def get_referrals(
    request: Request,
    key: CurrentKey,
    state: Literal["open", "closed"] = "open",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> QuestionList:
    """Questions that the key may see: the specialist's worklist, the most urgent first, then the oldest."""
    service, language = service_of(request), language_of(request)
    found = await list_questions(service, key, state=state, limit=limit)
    return QuestionList(items=[Question(referral=referral, visit=visit_view(row, language)) for referral, row in found])


@router.get("/specialists")
async def get_specialists(request: Request, key: CurrentKey) -> HospitalList:
    """The sites that a doctor may ask: what `to_site` of a question may be."""
    if key.role not in ("doctor", "admin"):
        raise errors.Forbidden
    found = await service_of(request).database.read(with_specialists)
    return HospitalList(items=[Hospital(site=site, specialists=list(names)) for site, names in found.items()])
