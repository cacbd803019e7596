"""Refusals as HTTP answers: one table of status codes, one form of answer.

References
----------
RFC 9457 (Problem Details for HTTP APIs): ``application/problem+json`` with ``type``, ``title``, ``status``, ``detail``,
``instance``, and the extension members ``code`` and ``errors``.
RFC 9110, section 15.5.9 (408) for a body that does not arrive in time, 15.6.4 (503) for a service that is busy.
RFC 6585, section 4 (429).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from data_specs.person import MAX_AGE_YEARS
from data_specs.problems import message
from data_specs.vocabulary import Language
from service import errors
from service.errors import FieldFault, InvalidRequest, MethodNotAllowed, NotFound, ServiceError
from service.faults import field_faults
from service.language.choice import language_of
from service.state import service_of

STATUS: dict[type[ServiceError], HTTPStatus] = {
    errors.Unauthorised: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.SignInRefused: HTTPStatus.FORBIDDEN,
    errors.KeyOfProvider: HTTPStatus.CONFLICT,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.ModelUnknown: HTTPStatus.NOT_FOUND,
    errors.MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    errors.IdempotencyConflict: HTTPStatus.CONFLICT,
    errors.NotFinished: HTTPStatus.CONFLICT,
    errors.VersionChanged: HTTPStatus.CONFLICT,
    errors.AlreadyAsked: HTTPStatus.CONFLICT,
    errors.NotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.NoCaseNow: HTTPStatus.CONFLICT,
    errors.CaseWasRead: HTTPStatus.CONFLICT,
    errors.VisitDiffers: HTTPStatus.CONFLICT,
    errors.FileDiffers: HTTPStatus.CONFLICT,
    errors.OffsetMismatch: HTTPStatus.CONFLICT,
    errors.UploadUnfinished: HTTPStatus.CONFLICT,
    errors.UploadGone: HTTPStatus.GONE,
    errors.TooManyUploads: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TusVersion: HTTPStatus.PRECONDITION_FAILED,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TooManyWrongKeys: HTTPStatus.TOO_MANY_REQUESTS,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Busy: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ProviderUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFull: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UploadStopped: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.OutcomeUnknown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.InternalFault: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ModelFault: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.StoredFileMissing: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.StoredFileDamaged: HTTPStatus.INTERNAL_SERVER_ERROR,
}

MEDIA_TYPE = "application/problem+json"
PROTOCOL = "/v2"
"""Path of the Open Inference Protocol: errors are ``{"error": "…"}``, and a request that cannot be used gets 400."""


class FieldProblem(BaseModel):
    """One field that cannot be used."""

    field: str
    code: str
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457 problem document. ``code`` is stable; the sentences are in the language of the request."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldProblem] = []


def problem_document(error: ServiceError, language: Language, instance: str) -> ProblemDocument:
    status = STATUS[type(error)]
    faults = error.faults if isinstance(error, InvalidRequest) else ()
    sentences = [each.sentence(language) for each in faults]
    return ProblemDocument(
        type=f"urn:sangloc:problem:{error.code}",
        title=status.phrase,
        status=status.value,
        detail=message(error.code, language, found=error.found, expected=sentences[0] if sentences else error.expected),
        instance=instance,
        code=error.code,
        errors=[
            FieldProblem(field=each.field, code=each.code, message=f"{sentence}.")
            for each, sentence in zip(faults, sentences, strict=True)
        ],
    )


def problem_response(error: ServiceError, request: Request) -> Response:
    """The refusal as a response, in the language of the request."""
    language = language_of(request)
    document = problem_document(error, language, request.url.path)
    note_unavailable(error, request)
    headers = {"Content-Language": language, "Vary": "Accept-Language", **refusal_headers(error, request)}
    if request.url.path == PROTOCOL or request.url.path.startswith(f"{PROTOCOL}/"):
        return JSONResponse({"error": document.detail}, _protocol_status(type(error)), headers)
    content = document.model_dump(mode="json", exclude={"errors"} if not document.errors else None)
    return JSONResponse(content, document.status, headers, MEDIA_TYPE)


def refusal_headers(error: ServiceError, request: Request) -> dict[str, str]:
    """What HTTP asks for beside the status, in whatever form the refusal is answered."""
    status = STATUS[type(error)]
    headers: dict[str, str] = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="sangloc"'
    if status == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(_methods(request))
    return headers


def note_unavailable(error: ServiceError, request: Request) -> None:
    """Count an answer with 503 by its code."""
    if isinstance(error, errors.Unavailable):
        service_of(request).metrics.unavailable.labels(error.code).inc()


def _protocol_status(kind: type[ServiceError]) -> HTTPStatus:
    return HTTPStatus.BAD_REQUEST if kind is InvalidRequest else STATUS[kind]


Answer = Callable[[ServiceError, Request], Response]
"""A refusal in the form that the client understands."""


def add_refusals(app: FastAPI, answer: Answer) -> None:
    """Answer every refusal of ``app`` by ``answer``, also those of the framework."""

    async def of_service(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)  # noqa: S101  registered for this class
        return answer(error, request)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return answer(InvalidRequest(*field_faults(error.errors(), model=_body_model(request))), request)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return answer(_of_framework(error, request.method), request)

    app.add_exception_handler(ServiceError, of_service)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)


def _body_model(request: Request) -> Any:
    """What the body of a request is read as, so that a refusal can name its fields; ``None`` where it has no model."""
    body = getattr(request.scope.get("route"), "body_field", None)
    return body.field_info.annotation if body is not None else None


def _methods(request: Request) -> list[str]:
    """All methods of an address; the framework names only those of one route (RFC 9110, section 10.2.1)."""
    if request.url.path.startswith("/static/"):  # a mounted application, which matches every method
        return ["GET", "HEAD"]
    routes = request.app.routes
    offered = [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return sorted({*offered, "HEAD"}) if "GET" in offered else offered


def _of_framework(error: HTTPException, method: str) -> ServiceError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(method)
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return InvalidRequest(FieldFault("body", "body_malformed", "JSON"))
    return errors.InternalFault()


_FOR_EXAMPLE: dict[type[ServiceError], tuple[str, str]] = {
    errors.ModelUnknown: ("lungs", "cxr_gate, lung, cardiac, kidney"),
    errors.MethodNotAllowed: ("PUT", ""),
    errors.BodyTooSlow: ("", "≤ 600 s, ≥ 500 B/s"),
    errors.VersionChanged: ("2", "1"),
    errors.NoCaseNow: ("", "2026-12-01"),
    errors.NotAcceptable: ("text/plain", "application/json"),
    errors.OffsetMismatch: ("65536", "0"),
    errors.UploadUnfinished: ("65536", "5000000"),
    errors.TooManyUploads: ("", "50"),
    errors.TusVersion: ("", "1.0.0"),
    errors.BodyTooLarge: ("", "64 MB"),
    errors.UnsupportedMediaType: ("text/plain", "application/json"),
    errors.TooManyWrongKeys: ("", "60 s"),
    errors.QueueFull: ("", "5 s"),
    errors.Busy: ("", "5 s"),
    errors.ModelFault: ("overflow", ""),
}
"""What was found and what was expected in the example of a refusal."""


def problem_responses(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the refusals of a route by status, with an example of each code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        if kind is InvalidRequest:
            fault = FieldFault("context.person.age_years", "field_invalid", f"≤ {MAX_AGE_YEARS}", "540")
            error: ServiceError = InvalidRequest(fault)
        else:
            error = kind(*_FOR_EXAMPLE.get(kind, ("", "")))
        document = problem_document(error, "en", "/v1/visits")
        example = document.model_dump(mode="json", exclude={"errors"} if not document.errors else None)
        content = {
            "schema": {"$ref": "#/components/schemas/ProblemDocument"},
            "examples": {kind.code: {"value": example}},
        }
        response = {"description": f"{document.title} (`{kind.code}`)", "content": {MEDIA_TYPE: content}}
        known = responses.get(document.status)
        responses[document.status] = with_refusal(known, response) if known else response
    return responses


def with_refusal(known: dict[str, Any], further: dict[str, Any]) -> dict[str, Any]:
    """For OpenAPI: a response that is ``known``, or a ``further`` refusal of the same status."""
    ((code, example),) = further["content"][MEDIA_TYPE]["examples"].items()
    if f"`{code}`" in known["description"]:
        return known
    content = known.get("content", {})
    problem = content.get(MEDIA_TYPE, further["content"][MEDIA_TYPE])
    problem = {**problem, "examples": {**problem.get("examples", {}), code: example}}
    description = f"{known['description']}, or `{code}`"
    return {**known, "description": description, "content": {**content, MEDIA_TYPE: problem}}


def protocol_responses(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the refusals of a route of the Open Inference Protocol."""
    schema = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {
        _protocol_status(kind).value: {
            "description": f"`{kind.code}`",
            "content": {"application/json": {"schema": schema}},
        }
        for kind in kinds
    }
