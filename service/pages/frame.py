"""What all pages share: rendering of templates in the reader's language, and the redirect to the login."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_specs.visit.context import Person
from data_specs.visit.contract import ORGANS, Finding, OperatingPoint
from data_specs.vocabulary import LANGUAGES, Language, display, is_reassuring
from service.keys import Key
from service.language.choice import COOKIE, language_of
from service.language.texts import (
    age,
    ago,
    category_words,
    likelihood,
    measured,
    moment,
    opening,
    percent,
    signed,
    text,
    verdict,
)
from service.pages.navigation import administration_of, places_of
from service.release.kept import numbers
from service.report.words import how_soon, say, source_of
from service.state import service_of
from service.visits.normals import all_certified

HERE = Path(__file__).parent


def to_login(request: Request, back: str | None = None) -> Response:
    """Redirect to the login, and from there ``back``, to this address by default."""
    here = back or request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return onward(request, f"/login?{urlencode({'next': here})}")


def onward(request: Request, address: str) -> Response:
    """Redirect to another page, also where htmx asked for a part of this one (its response header ``HX-Redirect``)."""
    if "hx-request" in request.headers and request.method == "POST":
        return Response(status_code=204, headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def page(request: Request, template: str, status_code: int = 200, /, *, key: Key | None, **values: Any) -> Response:
    """Render ``template`` in the reader's language, for the reader who signed in with ``key``."""
    asked = request.query_params.get("lang")
    if asked in LANGUAGES:
        return _remember_language(request, asked)
    language = language_of(request)
    functions: dict[str, Any] = {
        "t": lambda key, **filled: text(key, language, **filled),
        "percent": partial(percent, language=language),
        "measured": partial(measured, language=language),
        "verdict": partial(verdict, language=language),
        "category": partial(category_words, language=language),
        "likelihood": partial(likelihood, language=language),
        "moment": partial(moment, language=language),
        "ago": partial(ago, now=datetime.now(UTC), language=language),
        "said": lambda key, **filled: say(key, language, **filled),
        "how_soon": partial(how_soon, language=language),
        "source_of": partial(source_of, language=language),
        "signed": partial(signed, language=language),
        "term": lambda name: display(name, language),
        "person": partial(_person, language=language),
        "in_words": partial(_in_words, language=language),
        "with_language": partial(_address, request),
    }
    service = service_of(request)
    is_node = service.upstream is not None
    has_nodes = not is_node and key is not None and key.role == "admin" and bool(numbers(service.settings.bundles))
    sites, has_health_book = all_certified(service.settings.bundles), service.settings.health_book is not None
    common = {
        "key": key,
        "has_health_book": has_health_book,
        "places": places_of(key, is_node=is_node, has_nodes=has_nodes, certified=sites) if key else [],
        "administration": administration_of(key, has_health_book=has_health_book) if key else [],
        "language": language,
        "organs": ORGANS,
        "path": request.url.path,
        "here": _address(request),
    }
    html = _templates().get_template(template).render({**common, **functions, **values})
    headers = {"Cache-Control": "no-store", "Content-Language": language, "Vary": "Accept-Language, Cookie"}
    return HTMLResponse(html, status_code, headers=headers)


def _remember_language(request: Request, language: str) -> Response:
    """Set a cookie for a year, and redirect to the address without ``lang``."""
    response = RedirectResponse(_address(request), 303)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, language, max_age=365 * 86_400, samesite="lax", secure=secure)
    return response


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(opening=opening)
    environment.tests.update(judged=_judged, flagged=is_flagged)
    environment.globals.update(static=_static, tone=_tone, by_weight=by_weight)
    return environment


@cache
def _static(name: str) -> str:
    """Address of a static file, which changes with its content, so that browsers may keep it for a year."""
    digest = hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:12]}"


def _address(request: Request, language: str | None = None) -> str:
    """The address of this page; with ``language``, in that language."""
    asked = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
    if language is not None:
        asked.append(("lang", language))
    return f"{request.url.path}?{urlencode(asked)}" if asked else request.url.path


def _person(person: Person, language: Language) -> str:
    sex = text(f"sex_{person.sex or 'unknown'}", language)
    return f"{age(person.age_years, language)} · {sex}"


def _in_words(point: OperatingPoint, language: Language) -> str:
    """Sensitivity and specificity as natural frequencies ("of 100 people"), which readers understand better.

    References
    ----------
    Gigerenzer G., Edwards A., Simple tools for understanding risks, BMJ 2003;327:741-744.
    """
    found = None if point.sensitivity is None else round(100 * point.sensitivity)
    cleared = None if point.specificity is None else round(100 * point.specificity)
    if found is not None and cleared is not None:
        return text("threshold_both", language, found=found, cleared=cleared)
    if found is not None:
        return text("threshold_found", language, found=found)
    return text("threshold_cleared", language, cleared=cleared) if cleared is not None else ""


def _tone(finding: Finding) -> str:
    """Colour of a finding's row: ``positive`` for a finding that needs attention, ``quiet`` for all others.

    A negative result gets no colour of its own, because it does not exclude a disease.
    """
    return "positive" if is_flagged(finding) else "quiet"


def _judged(finding: Finding) -> bool:
    """Whether a finding has a verdict, or says why it has none; visits of earlier versions state no use."""
    return finding.positive is not None or finding.use is not None


def is_flagged(finding: Finding) -> bool:
    """Whether a finding needs attention; a reassuring one that is positive does not."""
    return bool(finding.positive) and not is_reassuring(finding.name)


def by_weight(findings: Iterable[Finding]) -> list[Finding]:
    """Flagged findings first, clear ones before those to be confirmed; otherwise in the model's order."""

    def weight(finding: Finding) -> int:
        if is_flagged(finding):
            return 0 if finding.strength == "strong" else 1
        return 2 if finding.strength == "undecided" else 3

    return sorted(findings, key=weight)
