"""``/normals``: films that a certificate calls normal, looked at and signed together; and the stop of a certificate.

A doctor sees the films that they may sign, all of them on the page. The first step shows once more what is signed, by
whom and with which bound; the second one signs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from starlette.datastructures import FormData

from data_specs.planning.normals import per_1000
from data_specs.visit.contract import Visit
from data_specs.visit.opinion import Author
from data_specs.vocabulary import Language, display
from service.api.refusals import STATUS
from service.api.session import page_key
from service.errors import FieldFault, InvalidRequest, ServiceError, Unavailable
from service.followup.actions import author_of
from service.followup.batch import AT_ONCE, Offer, offer, overview, sign_batch
from service.keys import Key
from service.language.choice import language_of
from service.language.texts import text
from service.pages.frame import onward, page, to_login
from service.pages.opinion import Typed
from service.pages.pictures import Film, films
from service.pages.visit import refusal
from service.state import service_of
from service.visits.normals import Certified
from service.visits.stored import visit_view

SEEN_PX = 512
"""Longest side of a film on the page; a link leads to the whole film."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True, slots=True)
class Shown:
    """A visit of the page with its films."""

    visit: Visit
    films: list[Film]


@dataclass(frozen=True, slots=True)
class Review:
    """What is about to be signed, and by whom."""

    author: Author
    signer: str
    visits: list[str]
    left: list[str]


@router.get("/normals")
async def normals(request: Request, signed: int = 0, left: int = 0) -> Response:
    """The films that may be signed together; for an admin, the certificates of all sites."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if key.role not in ("doctor", "admin"):
        return page(request, "missing.html", 404, key=key)
    return await _page(request, key, signed=signed, left=left)


@router.post("/normals")
async def sign(request: Request) -> Response:
    """The first step shows what is signed; the second, ``confirmed``, signs. ``change`` goes back to the films."""
    form = await request.form()
    key = await page_key(request)
    if key is None:
        return to_login(request, "/normals")
    if key.role != "doctor":
        return page(request, "missing.html", 404, key=key)
    try:
        return await _step(request, key, form)
    except Unavailable:
        raise
    except ServiceError as error:
        status = STATUS[type(error)].value
        return await _page(request, key, problem=refusal(request, error), form=form, status_code=status)


async def _step(request: Request, key: Key, form: FormData) -> Response:
    if "change" in form:
        return await _page(request, key, form=form)
    author = author_of(key, Typed.of(form).name(key))
    seen, left = _named(form, "visit"), _named(form, "left")
    visits = [each for each in seen if each not in left]
    if not visits:
        raise InvalidRequest(FieldFault("visit", "field_missing"))
    service, language = service_of(request), language_of(request)
    found = await offer(service, key)
    if "confirmed" not in form:
        review = Review(author, str(form.get("signer") or ""), visits, left)
        return await _page(request, key, review=review, form=form)
    said = _said(found.holding, len(visits), language) if found.holding else ""
    signed, not_signed = await sign_batch(service, key, visits, said, name=author.name)
    return onward(request, f"/normals?{urlencode({'signed': len(signed), 'left': len(not_signed)})}")


async def _page(
    request: Request,
    key: Key,
    *,
    signed: int = 0,
    left: int = 0,
    review: Review | None = None,
    form: FormData | None = None,
    problem: str | None = None,
    status_code: int = 200,
) -> Response:
    service, language = service_of(request), language_of(request)
    found = await offer(service, key) if key.role == "doctor" else Offer(None, None, None, (), 0)
    views = [visit_view(row, language) for row in found.visits]
    shown = [Shown(visit, films(visit, language)) for visit in views]
    if review is not None:
        shown = [each for each in shown if each.visit.id in review.visits]
    return page(
        request,
        "normals.html",
        status_code,
        key=key,
        offer=found,
        bounds=_bounds(found.holding) if found.holding else {},
        shown=shown,
        review=review,
        ticked=_named(form, "left") if form is not None else [],
        signer=str(form.get("signer") or "") if form is not None else "",
        signed_now=max(0, signed),
        left_now=max(0, left),
        problem=problem,
        seen_px=SEEN_PX,
        certificates=await overview(service) if key.role == "admin" else [],
        bounds_of=_bounds,
        decides=lambda holding: _decides(holding, language),
    )


def _named(form: FormData, name: str) -> list[str]:
    """The visits that a form names, each once."""
    return list(dict.fromkeys(str(value)[:36] for value in form.getlist(name)))[:AT_ONCE]


def _said(holding: Certified, n: int, language: Language) -> str:
    """What the opinion on each film of a batch says."""
    return text("normals_said", language, films=n, digest=holding.digest[:12], **_bounds(holding))


def _decides(holding: Certified, language: Language) -> str:
    """The finding whose probability decides, with its ages."""
    said = holding.certificate
    name = display(said.finding, language)
    if said.age_years is None:
        return name
    low, high = said.age_years
    return f"{name} ({text('age_years', language, age=f'{low:g}–{high - 1:g}')})"


def _bounds(holding: Certified) -> dict[str, int]:
    """The bounds as natural frequencies, rounded up."""
    said = holding.certificate
    return {
        "abnormal": per_1000(said.abnormal_at_most),
        "missed": per_1000(said.missed_at_most),
        "confidence": math.floor(100 * said.confidence),
    }
