"""The outermost layer of the application, for all requests.

It limits the size and the time of a body, records in the audit log what an answer shows before it is sent, answers a
fault of the service with a problem document, and adds security headers, one line of log, and the counters. If a request
is answered before its whole body was read, the connection is closed, after a short time in which the client can read
the answer.
"""

from __future__ import annotations

import asyncio
import time
import uuid

import structlog
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.http1 import SPARE
from service.api.refusals import Answer
from service.audit.routes import look_of, shown_visits
from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    Busy,
    FieldFault,
    InternalFault,
    InvalidRequest,
    NotFound,
    ServiceError,
    StorageUnavailable,
    UnsupportedMediaType,
)
from service.logs import where_it_failed
from service.state import Service
from service.storage.audit import ACTOR, SERVICE

VISITS, BULK = "/v1/visits", "/v1/visits/bulk"
MODELS, STOW = "/v2/models/", "/dicomweb/studies"
POST_PAGE, UPLOADS = "/post", "/v1/uploads/"
ANSWERS_PAGE = "/export/answers"
ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Also when all connections but the spare ones are in use."""
BUSY_RETRY_S = 5
SMALL_BODY_BYTES = 100_000
"""For all bodies except posted visits, DICOM objects, uploads, tensors and packages of answers."""
LINGER_S = 2.0
LINGER_BYTES = 4_000_000
"""How long, and how many bytes, the rest of a body is read after the answer: closing the connection at once could
destroy the answer before the client has read it (RFC 9112, section 9.6)."""

CLIENT_LEFT = 499
"""For the log and the counters: the client closed the connection before its request was complete."""

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

log = structlog.get_logger()


class Edge:
    """ASGI middleware around the whole application; ``answer`` gives a refusal its form."""

    def __init__(self, app: ASGIApp, service: Service, answer: Answer) -> None:
        self._app = app
        self._service = service
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Exchange(self._app, self._service, self._answer, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, app: ASGIApp, service: Service, refused: Answer, scope: Scope, receive: Receive, send: Send
    ) -> None:
        settings = service.settings
        self._app, self._service, self._refused = app, service, refused
        self._method = scope["method"]
        # answered like a GET; the server leaves the content out (RFC 9110, section 9.3.2)
        self._scope = {**scope, "method": "GET"} if self._method == "HEAD" else scope
        self._receive, self._send = receive, send
        self._headers = Headers(scope=scope)
        path = scope["path"]
        is_large = scope["method"] == "POST" and (
            path in (VISITS, BULK, POST_PAGE, ANSWERS_PAGE, STOW) or path.startswith((MODELS, f"{STOW}/"))
        )
        is_large |= scope["method"] in ("PATCH", "POST") and path.startswith(UPLOADS)
        self._limit = settings.max_upload_bytes if is_large else SMALL_BODY_BYTES
        self._limit_text = f"{settings.max_upload_mb} MB" if is_large else f"{SMALL_BODY_BYTES // 1000} kB"
        self._n_bytes = 0
        self._deadline: float | None = None
        self._pause_s = settings.idle_seconds
        """How long the client may still pause; the bytes that it sends add to it."""
        self._body_ended = not self._announces_body()
        self._refusal: ServiceError | None = None
        self._status = 0
        self._request_id = uuid.uuid4().hex
        self._is_spare = SPARE in scope.get("state", {})

    def _announces_body(self) -> bool:
        return "transfer-encoding" in self._headers or self._declared() > 0

    def _declared(self) -> int:
        length = self._headers.get("content-length", "0")
        return int(length) if length.isascii() and length.isdigit() else 0

    async def run(self) -> None:
        started = time.monotonic()
        ACTOR.set(SERVICE)  # a request that was sent behind another one on its connection begins in that one's context
        try:
            if self._is_spare and self._scope["path"] not in ALWAYS_ANSWERED:
                self._refusal = Busy("", f"{BUSY_RETRY_S} s", retry_after_s=BUSY_RETRY_S)
            elif self._declared() > self._limit:
                self._refusal = BodyTooLarge("", self._limit_text)
            elif "\0" in self._scope["path"]:  # no such address exists, and PostgreSQL cannot look it up
                self._refusal = NotFound()
            elif b"%00" in self._scope["query_string"] and self._scope["path"].startswith("/v1/"):
                self._refusal = InvalidRequest(FieldFault("query", "field_invalid", "≠ U+0000"))
            elif charset := self._other_charset():
                self._refusal = UnsupportedMediaType(f"charset={charset[:20]}", "charset=utf-8")
            else:
                await self._app(self._scope, self._bounded_receive, self._finishing_send)
        except ServiceError as error:
            self._refusal = self._refusal or error
        except ClientDisconnect:
            self._status = CLIENT_LEFT
        except Exception as error:
            log.error("request_fault", request=self._request_id, route=self._route(), **where_it_failed(error))
            self._refusal = InternalFault()
        if self._refusal is not None and not self._status:
            request = Request(self._scope)
            await self._refused(self._refusal, request)(self._scope, self._receive, self._answer)
        self._record(time.monotonic() - started)

    # ------------------------------------------------------------------ what comes in
    def _other_charset(self) -> str:
        """The charset that a form names, if it is not UTF-8: Python would decode the form by any codec of this name.

        References
        ----------
        RFC 7578, section 4.6: the media type of a form has no such parameter.
        """
        said = self._headers.get("content-type", "")
        if "charset" not in said.lower():
            return ""
        kind, options = parse_options_header(said)
        charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
        return charset if kind == b"multipart/form-data" and charset not in ("utf-8", "utf8", "us-ascii") else ""

    async def _bounded_receive(self) -> Message:
        if self._body_ended:
            return await self._receive()
        settings = self._service.settings
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + settings.body_seconds
        try:
            async with asyncio.timeout(min(self._pause_s, self._deadline - now)):
                message = await self._receive()
        except TimeoutError:
            needed = f"≤ {settings.body_seconds:g} s, ≥ {settings.body_min_bytes_per_second:g} B/s"
            raise self._refuse(BodyTooSlow("", needed)) from None
        # only the time in which the client is waited for: the service's own work on a body is not the client's
        earned_s = len(message.get("body", b"")) / settings.body_min_bytes_per_second
        self._pause_s = min(settings.idle_seconds, self._pause_s - (time.monotonic() - now) + earned_s)
        self._note(message)
        if self._n_bytes > self._limit:
            raise self._refuse(BodyTooLarge("", self._limit_text))
        return message

    def _note(self, message: Message) -> None:
        self._n_bytes += len(message.get("body", b""))
        self._body_ended = message["type"] == "http.disconnect" or not message.get("more_body", False)

    def _refuse(self, error: ServiceError) -> ServiceError:
        self._refusal = error
        return error

    # ------------------------------------------------------------------ what goes out
    async def _finishing_send(self, message: Message) -> None:
        if self._refusal is not None and not self._status:
            return  # the framework's own answer to a body that could not be read; ours follows
        if message["type"] == "http.response.start" and ACTOR.get() != SERVICE:
            try:
                await self._record_look(message["status"])
            except StorageUnavailable as error:  # nothing is shown of which there may be no record
                self._refusal = error
                return
        await self._answer(message)

    async def _record_look(self, status: int) -> None:
        """Record what this answer shows, before it is shown.

        Raises
        ------
        DatabaseUnavailable
            As :meth:`service.audit.looks.Looks.record`.
        """
        action = look_of(self._scope["method"], self._route(), status)
        if action is None:
            return
        about = {"route": self._route(), "request": self._request_id, "status": None if status == 200 else status}
        visits = shown_visits(self._scope) or (None,)
        await asyncio.gather(*(self._service.looks.record(action, visit, **about) for visit in visits))

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._add_headers(MutableHeaders(raw=message.setdefault("headers", [])))
            await self._send(message)
        elif message["type"] == "http.response.body" and not message.get("more_body", False) and not self._body_ended:
            await self._send({**message, "more_body": True})
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        if self._scope["path"].startswith("/static/") and self._status < 400:
            versioned = self._scope["query_string"].startswith(b"v=")
            age = "max-age=31536000, immutable" if versioned else "max-age=3600"
            headers.setdefault("cache-control", f"public, {age}")
        headers.setdefault("cache-control", "no-store")
        headers["x-request-id"] = self._request_id
        if self._is_spare or not self._body_ended:
            headers["connection"] = "close"

    async def _linger(self) -> None:
        enough = self._n_bytes + LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while not self._body_ended and self._n_bytes < enough:
                    self._note(await self._receive())
        except TimeoutError:
            pass  # the client has had its time to read the answer

    def _route(self) -> str:
        route = self._scope.get("route")
        return str(getattr(route, "path", "other"))

    def _record(self, seconds: float) -> None:
        method = self._method if self._method in _METHODS else "other"
        route = self._route()
        self._service.metrics.requests.labels(method, route, str(self._status)).inc()
        self._service.metrics.latency.labels(method, route).observe(seconds)
        log.info(
            "request",
            request=self._request_id,
            method=method,
            route=route,
            status=self._status,
            ms=round(seconds * 1000, 1),
            n_bytes=self._n_bytes,
        )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
