"""The page that a browser gets where the database, the store or the service is away for the moment.

References
----------
htmx, response headers: ``HX-Reswap`` and ``HX-Reselect`` say what is done with an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.responses import Response

from data_specs.problems import message
from service.api.refusals import STATUS, note_unavailable, problem_response
from service.errors import Unavailable
from service.language.choice import language_of
from service.pages.frame import page

NOT_PAGES = ("/v1/", "/v2/", "/dicomweb/", "/metrics")
"""Paths that programs ask for."""


def add_outage_page(app: FastAPI) -> None:
    """Answer browsers with a page, and programs with a problem document."""

    async def answered(request: Request, error: Exception) -> Response:
        assert isinstance(error, Unavailable)  # noqa: S101  registered for this class
        return outage_page(request, error) if _is_for_a_page(request) else problem_response(error, request)

    app.add_exception_handler(Unavailable, answered)


def _is_for_a_page(request: Request) -> bool:
    wants_html = "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers
    return wants_html and not request.url.path.startswith(NOT_PAGES)


def outage_page(request: Request, error: Unavailable, carried: Sequence[tuple[str, str]] = ()) -> Response:
    """The page that says so. ``carried`` are the fields of a form that was sent, with which it can be sent again."""
    note_unavailable(error, request)
    language = language_of(request)
    sentence = message(error.code, language, found=error.found, expected=error.expected)
    response = page(request, "outage.html", STATUS[type(error)].value, key=None, sentence=sentence, carried=carried)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if "hx-request" in request.headers:
        # what was typed into a form stays; a part that renews itself stays as it was
        response.headers["HX-Reswap"] = "none" if request.method == "GET" else "afterbegin show:top"
        response.headers["HX-Reselect"] = ".outage"
    return response
