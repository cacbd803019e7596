"""The page of a visit with its forms, and the specialist's worklist of questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, get_args

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from data_specs.visit.comparison import Comparison
from data_specs.visit.contract import ORGANS, Finding, Visit, visible_findings
from data_specs.visit.followup import OUTCOMES, History, NewOutcome, NewReferral
from data_specs.visit.opinion import Advice, Author, NewOpinion
from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.api.refusals import STATUS, problem_document
from service.api.session import page_key
from service.delivery.health_book.table import book_of
from service.errors import Forbidden, NotFound, ServiceError, StorageUnavailable
from service.followup import actions as followup
from service.followup.history import history_of
from service.followup.questions import list_questions
from service.incidents.actions import KINDS, list_incidents
from service.incidents.deadlines import read_deadlines
from service.keys import PERSONS, Key
from service.language.choice import language_of
from service.pages.frame import page, to_login
from service.pages.opinion import Typed, checked, typed_of
from service.pages.paper import paper_asked
from service.pages.pictures import PriorFilm, films, traces
from service.report.issue import issue
from service.report.sheet import posted_values
from service.sites import with_specialists
from service.state import Service, service_of
from service.storage.tables import VisitRow
from service.visits.earlier import compare_with_earlier, day_of
from service.visits.stored import load_visit, visit_view

Action = Callable[[Service, Key], Awaitable[object]]
"""What a form of the page asks for; raises a ``ServiceError`` if it is refused."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True, slots=True)
class VisitSidebar:
    """What the page shows next to the assessment: opinions and questions, the latest report, earlier visits.

    ``prior`` are the films of earlier visits that were used, latest first, for comparison.
    """

    history: History
    report: Report | None
    comparison: Comparison
    prior: tuple[PriorFilm, ...]


async def load_sidebar(service: Service, key: Key, row: VisitRow, language: Language) -> VisitSidebar:
    book = book_of(service.settings)
    history = await service.database.read(lambda session: history_of(session, key, row, book))
    finished = row.status == "complete" and not row.blind
    report = await issue(service, row.id, row.version) if finished else None
    compared, earlier = await compare_with_earlier(service, key, row)
    priors = (
        PriorFilm(day_of(visit), film)
        for visit in earlier
        for film in films(visit_view(visit, language), language)
        if not film.refused
    )
    return VisitSidebar(history, report, compared, tuple(priors))


async def visit_response(
    request: Request,
    key: Key,
    visit_id: str,
    *,
    problem: str | None = None,
    typed: Typed | None = None,
    review: tuple[Author, NewOpinion] | None = None,
    status_code: int = 200,
) -> Response:
    """The visit's page.

    Parameters
    ----------
    problem
        Why a form that was sent from it was refused.
    typed
        What stands in the opinion's form; nothing by default.
    review
        The opinion that is about to be signed, and who signs: shown instead of the form.
    """
    service, language = service_of(request), language_of(request)
    try:
        row = await load_visit(service, key, visit_id)
    except (NotFound, Forbidden):
        return page(request, "missing.html", 404, key=key)
    visit, context = visit_view(row, language), row.read_context()
    sidebar = await load_sidebar(service, key, row, language)
    judged = _judged(visit)
    may_raise = key.role in (*PERSONS, "admin")
    return page(
        request,
        "visit.html",
        status_code,
        key=key,
        visit=visit,
        site=row.site,
        context=context,
        values=posted_values(context, language),
        blind=row.blind,
        films=films(visit, language),
        traces=traces(visit, language),
        sidebar=sidebar,
        paper=paper_asked(f"/visits/{visit.id}", request.query_params),
        may_sign=_may_sign(key, sidebar.history),
        judged=judged,
        typed=(typed or Typed(visit.version)).seen_with(judged),
        typed_of=typed_of,
        review=review,
        addable=_addable(visit),
        advices=get_args(Advice),
        outcomes=OUTCOMES,
        hospitals=await service.database.read(with_specialists) if key.role == "doctor" else {},
        incidents=await list_incidents(service, key, visit=visit_id) if may_raise else [],
        may_raise=may_raise,
        incident_kinds=KINDS,
        deadlines=read_deadlines(service.settings.incident_deadlines),
        problem=problem,
    )


def _may_sign(key: Key, history: History) -> bool:
    """Whether the key may sign this visit: a specialist only if a question about it was asked to them."""
    asked = (
        referral.to_site in (None, key.site) and (referral.closed_at is None or referral.answered_by is not None)
        for referral in history.referrals
    )
    return key.may_sign and (key.role != "specialist" or any(asked))


def _judged(visit: Visit) -> list[Finding]:
    """The model's findings on films and traces with which a doctor can agree or disagree."""
    return [
        finding
        for organ in ORGANS
        if organ in visit.organs
        for finding in visit.organs[organ].findings
        if finding.name in visible_findings(organ) and finding.positive is not None
    ]


def _addable(visit: Visit) -> list[str]:
    """Findings that a doctor may add, because the model has not judged them."""
    judged = {each.name for each in _judged(visit)}
    return [name for organ in ORGANS for name in visible_findings(organ) if name not in judged]


# ---------------------------------------------------------------------- forms of a visit's page
@router.post("/visits/{visit_id}/ask")
async def ask(
    request: Request,
    visit_id: str,
    question: Annotated[str, Form()] = "",
    to_site: Annotated[str, Form()] = "",
    blind: Annotated[str, Form()] = "",
) -> Response:
    async def action(service: Service, key: Key) -> None:
        asked = {"question": question, "to_site": to_site.strip() or None, "blind": bool(blind) or None}
        await followup.ask(service, key, visit_id, checked(NewReferral, asked))

    return await run_and_return(request, visit_id, action, "questions")


@router.post("/visits/{visit_id}/withdraw/{referral_id}")
async def withdraw(request: Request, visit_id: str, referral_id: str) -> Response:
    return await run_and_return(
        request, visit_id, lambda service, key: followup.withdraw(service, key, visit_id, referral_id), "questions"
    )


@router.post("/visits/{visit_id}/outcome")
async def outcome(
    request: Request,
    visit_id: str,
    finding: Annotated[str, Form()] = "",
    outcome: Annotated[str, Form()] = "",
    source: Annotated[str, Form()] = "",
) -> Response:
    async def action(service: Service, key: Key) -> None:
        new = checked(NewOutcome, {"finding": finding, "outcome": outcome, "source": source})
        await followup.record_outcome(service, key, visit_id, new)

    return await run_and_return(request, visit_id, action, "outcome")


async def run_and_return(request: Request, visit_id: str, action: Action, section: str) -> Response:
    """Run the action and return to a section of the visit's page, or show the page with the reason of a refusal."""
    key = await page_key(request)
    if key is None:
        return to_login(request, f"/visits/{visit_id}")
    try:
        await action(service_of(request), key)
    except StorageUnavailable:  # the page with the reason could not be read either
        raise
    except ServiceError as error:
        status = STATUS[type(error)].value
        return await visit_response(request, key, visit_id, problem=refusal(request, error), status_code=status)
    return RedirectResponse(f"/visits/{visit_id}#{section}", 303)


def refusal(request: Request, error: ServiceError) -> str:
    """Why a form was refused, as a sentence."""
    return problem_document(error, language_of(request), request.url.path).detail


# ---------------------------------------------------------------------- questions
@router.get("/questions")
async def questions(request: Request, state: str = "open") -> Response:
    """The questions to specialists that the key may see."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    language = language_of(request)
    found = await list_questions(service_of(request), key, state="closed" if state == "closed" else "open")
    asked = [(referral, visit_view(row, language)) for referral, row in found]
    return page(request, "questions.html", key=key, asked=asked, state=state)
