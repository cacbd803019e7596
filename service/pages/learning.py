"""``/learning``: trainees read cases on the templates of the visit's page and see how they do; admins see them all."""

from __future__ import annotations

from functools import partial
from typing import Annotated, get_args

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from data_specs.visit.contract import ORGANS, visible_findings
from data_specs.visit.opinion import Advice, Author
from data_specs.visit.teaching import LEARNT, NewReading, teaches
from data_specs.vocabulary import Language
from service.api.refusals import STATUS
from service.api.session import page_key
from service.audit.routes import shows
from service.errors import Forbidden, NotFound, ServiceError, StorageUnavailable
from service.followup.actions import author_of
from service.keys import Key
from service.language.choice import language_of
from service.language.texts import NARROW_SPACE
from service.learning import readings
from service.learning.choice import DIFFICULTIES
from service.learning.progress import Progress, hard_cases, progress, readers
from service.learning.readings import NextCase, Reading
from service.learning.records import cases_of
from service.learning.words import estimate, name_of, plain, rate
from service.pages.frame import onward, page, to_login
from service.pages.opinion import Typed, checked
from service.pages.pictures import films, traces
from service.pages.visit import refusal
from service.report.sheet import posted_values
from service.state import service_of
from service.storage.tables import VisitRow
from service.visits.stored import load_shown, visit_view

MOST_CASES = 200
"""That the admins' page shows; ``/v1/learning/cases`` has all."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/learning")
async def learning(request: Request) -> Response:
    """For a trainee what to read next, and their figures; for an admin all trainees, and which cases are hard."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    return await _home(request, key)


async def _home(
    request: Request, key: Key, *, problem: str | None = None, status_code: int = 200, wanted: NextCase | None = None
) -> Response:
    service = service_of(request)
    words = _words(language_of(request))
    if key.role == "admin":
        cases = await hard_cases(service, key)
        found = await readers(service, key)
        return page(request, "teaching.html", key=key, found=found, cases=cases[:MOST_CASES], all=len(cases), **words)
    if key.role != "doctor" or not teaches(key.site):
        return page(request, "missing.html", 404, key=key)
    return page(
        request,
        "learning.html",
        status_code,
        key=key,
        found=await progress(service, key),
        certificate="/v1/learning/certificate.pdf",
        offered=await _offered(request, key),
        difficulties=DIFFICULTIES,
        wanted=wanted or NextCase(),
        problem=problem,
        **words,
    )


@router.get("/learning/readers/{reader}")
async def reader_page(request: Request, reader: str) -> Response:
    """For an admin: the figures of one trainee."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    try:
        if key.role != "admin":
            raise Forbidden
        found: Progress = await progress(service_of(request), key, reader)
    except (NotFound, Forbidden):
        return page(request, "missing.html", 404, key=key)
    certificate = f"/v1/learning/certificate.pdf?reader={found.reader}"
    words = _words(language_of(request))
    return page(request, "learning.html", key=key, found=found, certificate=certificate, problem=None, **words)


@router.post("/learning/next")
async def give(
    request: Request, finding: Annotated[str, Form()] = "", difficulty: Annotated[str, Form()] = ""
) -> Response:
    """Go to the next case."""
    key = await page_key(request)
    if key is None:
        return to_login(request, "/learning")
    try:
        wanted: NextCase = checked(NextCase, {"finding": finding or None, "difficulty": difficulty or None})
        given = await readings.give(service_of(request), key, wanted)
    except StorageUnavailable:
        raise
    except ServiceError as error:
        return await _home(request, key, problem=refusal(request, error), status_code=STATUS[type(error)].value)
    return onward(request, f"/learning/readings/{given.id}")


@router.get("/learning/readings/{reading_id}")
async def read(request: Request, reading_id: str) -> Response:
    """A case as in the clinic, blind until it is signed; then with what is known of it."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    return await _case(request, key, reading_id)


@router.post("/learning/readings/{reading_id}")
async def sign(request: Request, reading_id: str) -> Response:
    """As on a visit's page: the first step shows who signs and what, ``confirmed`` signs, ``change`` goes back."""
    key = await page_key(request)
    if key is None:
        return to_login(request, f"/learning/readings/{reading_id}")
    form = await request.form()
    typed = Typed.of(form)
    try:
        if "change" in form:
            return await _case(request, key, reading_id, typed=typed)
        author = author_of(key, typed.name(key))
        new = typed.reading()
        if "confirmed" not in form:
            return await _case(request, key, reading_id, typed=typed, review=(author, new))
        await readings.sign(service_of(request), key, reading_id, new)
    except StorageUnavailable:
        raise
    except ServiceError as error:
        problem, status = refusal(request, error), STATUS[type(error)].value
        return await _case(request, key, reading_id, typed=typed, problem=problem, status_code=status)
    return onward(request, f"/learning/readings/{reading_id}")


@router.get("/learning/cases/{visit_id}")
async def case(request: Request, visit_id: str) -> Response:
    """For an admin: a case with what is known of it."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    service = service_of(request)
    try:
        if key.role != "admin":
            raise Forbidden
        row = await load_shown(service, key, visit_id)
        found = await service.database.read(lambda session: cases_of(session, row.site).get(row.id))
        if found is None:
            raise NotFound
    except (NotFound, Forbidden):
        return page(request, "missing.html", 404, key=key)
    return _case_page(request, key, row, known=found.case)


async def _case(
    request: Request,
    key: Key,
    reading_id: str,
    *,
    typed: Typed | None = None,
    review: tuple[Author, NewReading] | None = None,
    problem: str | None = None,
    status_code: int = 200,
) -> Response:
    try:
        reading, row = await readings.reading_of(service_of(request), key, reading_id)
    except (NotFound, Forbidden):
        return page(request, "missing.html", 404, key=key)
    return _case_page(
        request, key, row, reading=reading, typed=typed, review=review, problem=problem, status_code=status_code
    )


def _case_page(
    request: Request,
    key: Key,
    row: VisitRow,
    *,
    reading: Reading | None = None,
    known: object = None,
    typed: Typed | None = None,
    review: tuple[Author, NewReading] | None = None,
    problem: str | None = None,
    status_code: int = 200,
) -> Response:
    language = language_of(request)
    visit = visit_view(row, language)
    shows(request.scope, [row.id])
    return page(
        request,
        "case.html",
        status_code,
        key=key,
        visit=visit,
        values=posted_values(row.read_context(), language),
        blind=row.blind,
        films=films(visit, language),
        traces=traces(visit, language),
        known=known,
        typed=typed or Typed(visit.version),
        review=review,
        addable=[name for organ in ORGANS for name in visible_findings(organ)],
        advices=get_args(Advice),
        problem=problem,
        **({"reading": reading} if reading is not None else {}),
        **_words(language),
    )


def _words(language: Language) -> dict[str, object]:
    """Functions for figures in the reader's language."""
    return {
        "named": partial(name_of, language=language),
        "rate": partial(rate, language=language),
        "estimate": partial(estimate, language=language),
        "plain": partial(plain, language=language),
        "fifth": partial(_fifth, language=language),
    }


def _fifth(step: int, language: Language) -> str:
    """A step of confidence as the probabilities that it stands for."""
    return f"{20 * (step - 1)}–{20 * step}{NARROW_SPACE if language == 'fr' else ''}%"


async def _offered(request: Request, key: Key) -> list[str]:
    """The findings that can be chosen: those whose truth is known in a case of the site."""

    def look(session: Session) -> set[str]:
        return {name for each in cases_of(session, key.site).values() for name in each.case.known}

    known = await service_of(request).database.read(look)
    return [name for name in LEARNT if name in known]
