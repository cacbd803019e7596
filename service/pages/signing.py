"""Signing on a visit's page: look over who signs and what, sign, and read the report that was made of it.

Each step works without script. What is refused comes back with everything that was typed, also where the session has
ended: the login then carries the opinion.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from data_specs.visit.opinion import NewOpinion, Opinion
from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.api.refusals import STATUS
from service.api.session import OneOrigin, keep_cookie, open_session, page_key
from service.errors import Forbidden, NotFound, ServiceError, TooManyWrongKeys, Unavailable, VersionChanged
from service.followup import actions as followup
from service.keys import Key
from service.language.choice import language_of
from service.language.texts import text
from service.pages.frame import onward, page, to_login
from service.pages.opinion import Typed, typed_of
from service.pages.refused import refused_page
from service.pages.visit import refusal, visit_response
from service.report.html import Bar, content_security_policy
from service.report.issue import issue, opinions_of
from service.report.render import page_with_bar
from service.state import Service, service_of
from service.visits.stored import load_visit

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.post("/visits/{visit_id}/sign")
async def sign(request: Request, visit_id: str) -> Response:
    """The first step shows who signs and what; the second, ``confirmed``, signs. ``change`` goes back to the form."""
    form = await request.form()
    typed = Typed.of(form)
    try:
        key = await page_key(request)
        if key is None:
            return _ended(request, visit_id, typed)
        return await _answer(request, key, visit_id, form, typed)
    except Unavailable as error:  # the visit could not be read either; a page with script has kept the form
        return refused_page(error, request, () if "hx-request" in request.headers else typed.fields)


async def _answer(request: Request, key: Key, visit_id: str, form: FormData, typed: Typed) -> Response:
    """The next step; or the page with the form as it was typed, and why it was refused."""
    try:
        return await _step(request, key, visit_id, form, typed)
    except Unavailable:
        raise
    except ServiceError as error:
        problem, status = refusal(request, error), STATUS[type(error)].value
        return await visit_response(request, key, visit_id, problem=problem, typed=typed, status_code=status)


async def _step(request: Request, key: Key, visit_id: str, form: FormData, typed: Typed) -> Response:
    service = service_of(request)
    if "change" in form:
        return await visit_response(request, key, visit_id, typed=typed)
    followup.author_of(key)  # whether the key may sign at all, before its name is asked for
    author = followup.author_of(key, typed.name(key))
    new: NewOpinion = typed.opinion()
    if "confirmed" not in form:
        await followup.signable(service, key, visit_id, version=typed.read)
        return await visit_response(request, key, visit_id, typed=typed, review=(author, new))
    try:
        opinion = await followup.sign(service, key, visit_id, new, version=typed.read, name=author.name)
    except VersionChanged:
        if not await _is_signed(service, key, visit_id, typed.read, new):
            raise
        return onward(request, f"/visits/{visit_id}/report?signed={typed.read}")
    return onward(request, f"/visits/{visit_id}/report?signed={opinion.number}")


async def _is_signed(service: Service, key: Key, visit_id: str, number: int, new: NewOpinion) -> bool:
    """Whether this very opinion was signed: the answer was lost on the way, or the button was pressed twice."""
    row = await load_visit(service, key, visit_id)
    opinions = await service.database.read(lambda session: opinions_of(session, row.id))
    return any(each.number == number and is_by(key, each) and typed_of(each) == typed_of(new) for each in opinions)


def _ended(
    request: Request, visit_id: str, typed: Typed, *, refused: bool = False, too_often: bool = False
) -> Response:
    """The login of a session that has ended. A page with script has kept the opinion itself, and only goes there."""
    here = f"/visits/{visit_id}"
    if "hx-request" in request.headers:
        return to_login(request, f"{here}#sign")
    return page(
        request,
        "login.html",
        429 if too_often else 401,
        key=None,
        action=f"{here}/sign-in",
        carried=typed.fields,
        next=here,
        refused=refused or too_often,
        too_often=too_often,
        has_provider=service_of(request).provider is not None,
        end_session=None,
    )


@router.post("/visits/{visit_id}/sign-in", dependencies=[OneOrigin])
async def sign_in(request: Request, visit_id: str) -> Response:
    """Open a session, and go on with the opinion that the login carried."""
    form = await request.form()
    typed = Typed.of(form)
    try:
        opened = await open_session(request, str(form.get("key", "")))
    except TooManyWrongKeys:
        return _ended(request, visit_id, typed, too_often=True)
    if opened is None:
        return _ended(request, visit_id, typed, refused=True)
    key, cookie = opened
    return keep_cookie(request, await visit_response(request, key, visit_id, typed=typed), cookie)


@router.get("/visits/{visit_id}/report")
async def report(request: Request, visit_id: str, signed: int = 0) -> Response:
    """The latest report under a bar that leads back; after ``signed``, the bar confirms the signature."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    service, language = service_of(request), language_of(request)
    try:
        row = await load_visit(service, key, visit_id)
        if row.blind or row.status == "accepted":
            return RedirectResponse(f"/visits/{visit_id}", 303)
        made = await issue(service, row.id)
    except (NotFound, Forbidden):
        return page(request, "missing.html", 404, key=key)
    content = await page_with_bar(service, made, language, _bar(key, made, signed, language))
    return HTMLResponse(
        content,
        headers={
            "Cache-Control": "no-store",
            "Content-Language": language,
            "Content-Security-Policy": f"{content_security_policy()}; frame-ancestors 'none'",
        },
    )


def _bar(key: Key, report: Report, signed: int, language: Language) -> Bar:
    own = [each for each in report.opinions if each.number == signed and is_by(key, each)]
    note = text("signed_as", language, name=own[0].author.name, version=signed + 1) if own else ""
    back = "/questions" if key.role == "specialist" else "/worklist"
    here = f"/visits/{report.visit}"
    links = {here: text("back_to_visit", language), back: text(back.strip("/"), language)}
    return Bar(note, {**links, f"/v1{here}/report.pdf": "PDF"})


def is_by(key: Key, opinion: Opinion) -> bool:
    """Whether the person of ``key`` signed the opinion."""
    return (opinion.author.id, opinion.author.facility) == (key.doctor_id, key.site)
