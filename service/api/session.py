"""The key of a request: from its header, or from the session that a browser opened with a key.

A session has a random cookie, which is stored as a hash, and ends when its key is revoked. The cookie is ``HttpOnly``
and ``SameSite=Strict``; a request that changes something by its cookie alone must also come from this origin. So must
the forms that open and end a session, because a browser sends them without a cookie too: another site could sign a
person in with a key of its choice, and see what they post.

References
----------
W3C Fetch Metadata Request Headers, section 2.4 (``Sec-Fetch-Site``); RFC 6454, section 7 (``Origin``).
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from service.errors import Forbidden, TooManyWrongKeys, Unauthorised
from service.keys import Key, hash_secret
from service.protocols.peers import network_of
from service.state import service_of
from service.storage.audit import ACTOR, Actor

COOKIE = "session"
UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
MAX_SECRET = 512

router = APIRouter(include_in_schema=False)


async def current_key(request: Request) -> Key:
    """The key of the request.

    Raises
    ------
    Unauthorised
        There is no key, or it is unknown.
    TooManyWrongKeys, Busy
        As :meth:`service.keys.Keys.find`.
    Forbidden
        The request has a cookie and does not come from this origin.
    """
    key = await page_key(request)
    if key is None:
        raise Unauthorised
    return key


CurrentKey = Annotated[Key, Depends(current_key)]


async def admin_key(key: CurrentKey) -> Key:
    """As :func:`current_key`, for operations that only an admin may use."""
    if key.role != "admin":
        raise Forbidden
    return key


AdminKey = Annotated[Key, Depends(admin_key)]


async def page_key(request: Request) -> Key | None:
    """As :func:`current_key`, but ``None`` without a known key: a page then shows the login.

    What the request does is in the audit log under the key.
    """
    key = await _known_key(request)
    if key is not None:
        ACTOR.set(Actor(key.id, key.role))
    return key


async def _known_key(request: Request) -> Key | None:
    service = service_of(request)
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, secret = header.partition(" ")
        secret = secret.strip()
        is_key = scheme.lower() == "bearer" and len(secret) <= MAX_SECRET
        return await service.keys.find(secret, client_network(request)) if is_key else None
    cookie = request.cookies.get(COOKIE)
    if not cookie or len(cookie) > MAX_SECRET:
        return None
    if request.method in UNSAFE and not from_this_origin(request):
        raise Forbidden
    return await service.sessions.find(cookie, client_network(request))


def client_network(request: Request) -> str:
    """The network that a request comes from; behind a trusted proxy, the one that the proxy names."""
    return network_of(request.client.host if request.client else "")


def from_this_origin(request: Request) -> bool:
    """Whether a page of this service, or the person and no page, sent the request, by the headers of the browser.

    ``same-site`` is another origin: other hosts of a hospital's domain are other applications. ``none`` is the person,
    who typed the address or sent a form again; a page cannot cause it. ``Origin`` decides for older browsers.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site == "same-origin":
        return True
    if site not in (None, "none"):
        return False
    if origin is None:
        return site == "none"
    return urlsplit(origin).netloc == request.headers.get("host")


def refuse_other_origins(request: Request) -> None:
    """Refuse a form of another origin. What is sent without a word on its origin is from no browser.

    Raises
    ------
    Forbidden
    """
    says_origin = {"sec-fetch-site", "origin"} & set(request.headers)
    if says_origin and not from_this_origin(request):
        raise Forbidden


OneOrigin = Depends(refuse_other_origins)


@router.post("/login", dependencies=[OneOrigin])
async def login(
    request: Request, key: Annotated[str, Form(max_length=MAX_SECRET)] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Open a session with a key, and redirect to ``next``, an address of this service.

    With a wrong key the page is shown again, and says so; after too many, it says when to try again.
    """
    onward = next if is_local(next) else "/"
    try:
        opened = await open_session(request, key)
        failed = "" if opened else "1"
    except TooManyWrongKeys:
        opened, failed = None, "often"
    if opened is None:
        return RedirectResponse(f"/login?failed={failed}&next={quote(onward, safe='')}", 303)
    return keep_cookie(request, RedirectResponse(onward, 303), opened[1])


async def open_session(request: Request, secret: str) -> tuple[Key, str] | None:
    """A session with the key of ``secret``: the key, and the session's cookie. ``None`` if the key is not known.

    Raises
    ------
    TooManyWrongKeys, Busy
        As :meth:`service.keys.Keys.find`.
    """
    service, secret = service_of(request), secret.strip()
    if len(secret) > MAX_SECRET:
        return None
    key = await service.keys.find(secret, client_network(request))
    service.metrics.sign_ins.labels("key", "refused" if key is None else "opened").inc()
    if key is None:
        return None
    ACTOR.set(Actor(key.id, key.role))
    return key, await open_with(request, hash_secret(secret))


async def open_with(request: Request, key_hash: str) -> str:
    """A session for the browser of the request, with the key of this hash; its cookie."""
    agent = request.headers.get("user-agent", "")
    return await service_of(request).sessions.open(key_hash, client_network(request), agent)


def keep_cookie(request: Request, response: Response, cookie: str) -> Response:
    """``response``, with which a browser keeps the session's cookie."""
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(service_of(request).settings.session_hours * 3600),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout", dependencies=[OneOrigin])
async def logout(request: Request) -> RedirectResponse:
    """End the session. Whoever signed in by the provider is offered to end their session there too."""
    cookie, by_provider = request.cookies.get(COOKIE), False
    if cookie:
        if not from_this_origin(request):
            raise Forbidden
        by_provider = await service_of(request).sessions.close(cookie)
    response = RedirectResponse("/login?ended=provider" if by_provider else "/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def is_local(address: str) -> bool:
    """Whether an address is a path of this service, and a browser does not read it as another host."""
    return address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
