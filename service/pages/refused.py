"""Refusals as a browser shows them: a page in the reader's language, with a way back. Programs get a problem document.

A request is a browser's where it accepts ``text/html``. The addresses that programs use are a page only for a browser
that opens them in a window, as a doctor does with the link to a report.

References
----------
W3C Fetch Metadata Request Headers, section 2.2 (``Sec-Fetch-Mode: navigate``).
htmx, response headers: ``HX-Reswap`` and ``HX-Reselect`` say what is done with an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response

from data_specs.vocabulary import Language
from service.api.refusals import note_unavailable, problem_document, problem_response, refusal_headers
from service.errors import MethodNotAllowed, ServiceError, Unauthorised
from service.language.choice import language_of
from service.language.texts import text
from service.pages.frame import page, to_login

NOT_PAGES = ("/v1/", "/v2/", "/dicomweb/", "/metrics")
"""Paths that programs ask for."""
NEVER_PAGES = ("/v2/", "/dicomweb/", "/metrics")
"""Those of them that no page links to."""


def refused(error: ServiceError, request: Request) -> Response:
    """The refusal as a page for a browser, as a problem document for a program."""
    if not _is_for_a_page(request):
        return problem_response(error, request)
    if isinstance(error, Unauthorised):
        return to_login(request)
    return refused_page(error, request)


def _is_for_a_page(request: Request) -> bool:
    headers, path = request.headers, request.url.path
    if "text/html" not in headers.get("accept", "") and "hx-request" not in headers:
        return False
    is_opened = headers.get("sec-fetch-mode") == "navigate" and not path.startswith(NEVER_PAGES)
    return is_opened or not path.startswith(NOT_PAGES)


def refused_page(error: ServiceError, request: Request, carried: Sequence[tuple[str, str]] = ()) -> Response:
    """The page that says so. ``carried`` are the fields of a form that was sent, with which it can be sent again."""
    note_unavailable(error, request)
    language = language_of(request)
    document = problem_document(error, language, request.url.path)
    only_forms = isinstance(error, MethodNotAllowed)
    response = page(
        request,
        "refused.html",
        document.status,
        key=None,
        title=_title(document.status, language),
        sentence=text("refused_only_forms", language) if only_forms else document.detail,
        carried=carried,
        may_be_sent_again=request.method == "POST",
    )
    response.headers.update(refusal_headers(error, request))
    if "hx-request" in request.headers:
        # what was typed into a form stays; a part that renews itself stays as it was
        response.headers["HX-Reswap"] = "none" if request.method == "GET" else "afterbegin show:top"
        response.headers["HX-Reselect"] = ".refused"
    return response


def _title(status: int, language: Language) -> str:
    match status:
        case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED | HTTPStatus.GONE:
            return text("not_found_title", language)
        case HTTPStatus.FORBIDDEN:
            return text("refused_title_forbidden", language)
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return text("refused_title_later", language)
        case _:
            return text("refused_title", language)
