"""Signing in by the OpenID provider, as a browser goes through it.

The way back from the provider is a request from another site, with which a browser sends no cookie that is
``SameSite=Strict``. So what was begun is remembered in a cookie of its own, ``Lax`` and for ten minutes; and the answer
to that request sets the session's cookie on a page of this service, from which the browser then goes on by itself: that
step is this site's own, and brings the session's cookie.

References
----------
RFC 6265bis, sections 5.2 (same-site and cross-site requests, redirects included) and 4.1.3.2 (``__Host-``: no other
host of the domain can set such a cookie). HTML, section 4.2.5.3 (``http-equiv=refresh``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from service.api.session import client_network, is_local, keep_cookie, open_with
from service.errors import NotFound, ProviderUnavailable, ServiceError, SignInRefused
from service.pages.frame import page
from service.pages.refused import refused
from service.protocols.web_addresses import check_confidential
from service.provider.begun import Begun, is_answer_to
from service.provider.persons import admit, dismiss, hash_of_person
from service.state import service_of

if TYPE_CHECKING:
    from service.provider.sign_in import Provider

BEGUN_S = 600
"""How long a person may take at the provider."""
CALLBACK = "login/provider/callback"

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
log = structlog.get_logger()


@router.get("/login/provider")
async def begin(request: Request, next: str = "/") -> Response:
    """Send the browser to the provider; it comes back to ``next``, an address of this service."""
    provider = _provider(request)
    begun = Begun.new(next if is_local(next) else "/")
    try:
        response = RedirectResponse(await provider.begin(begun, _redirect_uri(request)), 303)
    except ProviderUnavailable as error:
        raise _told(request, error) from None
    response.set_cookie(
        _cookie(request),
        begun.cookie,
        max_age=BEGUN_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


@router.get("/login/provider/callback")
async def callback(request: Request) -> Response:
    """Open a session for the person whom the provider has signed in, and go on."""
    provider, answer = _provider(request), dict(request.query_params)
    begun = Begun.of_cookie(request.cookies.get(_cookie(request), ""))
    if begun is None or not is_answer_to(begun, answer.get("state", "")):
        raise _counted(request, SignInRefused("not_begun"))
    try:
        cookie = await _opened(request, provider, begun, answer)
    except SignInRefused as error:
        response = refused(_counted(request, error), request)
    except ProviderUnavailable as error:
        response = refused(_told(request, error), request)
    else:
        service_of(request).metrics.sign_ins.labels("provider", "opened").inc()
        onward = begun.onward if is_local(begun.onward) else "/"
        response = keep_cookie(request, page(request, "signed_in.html", key=None, onward=onward), cookie)
    response.delete_cookie(_cookie(request), secure=request.url.scheme == "https", httponly=True, samesite="lax")
    return response


async def _opened(request: Request, provider: Provider, begun: Begun, answer: dict[str, str]) -> str:
    """The cookie of a new session of the person that the answer is about."""
    database = service_of(request).database
    claims = await provider.finish(answer, begun, _redirect_uri(request), client_network(request))
    person_hash = hash_of_person(provider.issuer, claims["sub"])
    try:
        person = provider.roles.person_of(claims)
    except SignInRefused:
        await dismiss(database, person_hash)
        raise
    await admit(database, person_hash, person)
    return await open_with(request, person_hash)


def _provider(request: Request) -> Provider:
    provider = service_of(request).provider
    if provider is None:
        raise NotFound
    return provider


def _redirect_uri(request: Request) -> str:
    """Where the provider sends the browser back: the address under which this browser knows the service.

    The provider compares it with those that were registered there, so that no other can be brought in.
    """
    try:
        return check_confidential(f"{request.base_url}{CALLBACK}")
    except ValueError:
        raise SignInRefused("needs_https") from None


def _cookie(request: Request) -> str:
    return "__Host-sign_in" if request.url.scheme == "https" else "sign_in"


def _counted(request: Request, error: SignInRefused) -> ServiceError:
    """Count a refused sign-in; after too many from one network, the refusal that says so."""
    service = service_of(request)
    service.metrics.sign_ins.labels("provider", error.found).inc()
    log.warning("sign_in_refused", reason=error.found, claim=error.expected)
    try:
        service.keys.count_wrong(client_network(request))
    except ServiceError as too_many:
        return too_many
    return error


def _told(request: Request, error: ProviderUnavailable) -> ProviderUnavailable:
    service_of(request).metrics.sign_ins.labels("provider", error.code).inc()
    log.error("provider_unavailable", cause=error.found)
    return error
