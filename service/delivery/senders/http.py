"""HTTP requests to destinations: certificates are verified, time and size are bounded, redirects are not followed.

References
----------
RFC 9110, sections 10.2.3 (Retry-After), 15.5 (4xx), 15.6 (5xx); RFC 8470, section 5.2 (425); RFC 6585, section 4 (429).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from service.delivery.message import INSIDE, NotDelivered
from service.delivery.outside import LookUp, NotOutside
from service.delivery.senders.outside_http import OutsideTransport

MAX_ANSWER_BYTES = 16_384
"""An answer is read up to here, so that its connection can be used again; after more the connection is closed."""
CONNECT_S = 10.0
MAX_RETRY_AFTER_S = 86_400.0
MAY_PASS = frozenset({401, 403, 408, 425, 429})
"""4xx that the same request may not get again: after a while, or once an administrator has corrected the token."""


def new_client(connections: int, look_up: LookUp | None = None) -> httpx.AsyncClient:
    """A client with the machine's own certificate authorities; it ignores proxies and other environment variables.

    Parameters
    ----------
    look_up
        Gives the addresses that a host may be connected to; ``None``: any of its addresses.
    """
    context = ssl.create_default_context()
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=16, keepalive_expiry=30)
    return httpx.AsyncClient(
        verify=context,
        transport=None if look_up is None else OutsideTransport(context, limits, look_up),
        follow_redirects=False,
        trust_env=False,
        limits=limits,
        headers={"User-Agent": "sangloc"},
    )


async def status_of(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    timeout_s: float,
) -> tuple[int, httpx.Headers]:
    """As :func:`answer_of`, without the content.

    Raises
    ------
    NotDelivered
        There was no answer.
    """
    status, given, _ = await answer_of(
        client, method, url, headers=headers, content=content, timeout_s=timeout_s, at_most=MAX_ANSWER_BYTES
    )
    return status, given


async def answer_of(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    timeout_s: float,
    at_most: int,
) -> tuple[int, httpx.Headers, bytes]:
    """Send a request; status, headers and content of the answer.

    Parameters
    ----------
    timeout_s
        For the whole exchange, even if the other side sends slowly.
    at_most
        Bytes of the content that are read; of a longer answer the rest is missing.

    Raises
    ------
    NotDelivered
        There was no answer.
    """
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream(
                method,
                url,
                headers=dict(headers),
                content=content,
                timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            ) as response,
        ):
            read = bytearray()
            async for piece in response.aiter_raw():
                read += piece
                if len(read) > at_most:
                    break
            return response.status_code, response.headers, bytes(read[:at_most])
    except (TimeoutError, httpx.TimeoutException):
        raise NotDelivered("timeout") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        raise NotDelivered("address", permanent=True) from None
    except (httpx.HTTPError, OSError) as error:
        raise NotDelivered(reason_of(error)) from None


def authorization(secret: str | None) -> dict[str, str]:
    """The ``Authorization`` header: a secret with a space is one already (``Basic …``), any other is a bearer token."""
    if not secret:
        return {}
    return {"Authorization": secret if " " in secret else f"Bearer {secret}"}


def expect_success(status: int, headers: Mapping[str, str]) -> None:
    """Check a status.

    Raises
    ------
    NotDelivered
        It is not 2xx. Most of 4xx are permanent; a redirect is not, and is not followed.
    """
    if 200 <= status < 300:
        return
    permanent = 400 <= status < 500 and status not in MAY_PASS
    raise NotDelivered(f"http_{status}", permanent, None if permanent else retry_after_s(headers))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds, from either of its two forms; ``None`` if it is absent or cannot be read."""
    given = headers.get("retry-after", "").strip()[:40]
    if given.isascii() and given.isdigit():
        seconds = float(given)
    else:
        try:
            at = parsedate_to_datetime(given)
            seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)


def reason_of(error: BaseException) -> str:
    """Why no answer came, as the code of :class:`NotDelivered`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "tls"
        if isinstance(cause, NotOutside):
            return INSIDE
        cause = cause.__cause__ or cause.__context__
    return "unreachable" if isinstance(error, httpx.ConnectError) else "broken_off"
