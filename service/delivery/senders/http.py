"""Requests to destinations: verified, bounded in time and in what is read, never led anywhere else.

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

from service.delivery.message import NotDelivered

MAX_ANSWER_BYTES = 16_384
"""Read of an answer, so that its connection can be used again; of a longer one the connection is closed."""
CONNECT_S = 10.0
MAX_RETRY_AFTER_S = 86_400.0
HEALS = frozenset({401, 403, 408, 425, 429})
"""4xx that the same request may outlive: time, or an administrator who mends a token."""


def new_client(connections: int) -> httpx.AsyncClient:
    """A client that trusts whom the machine trusts, follows no redirect, and takes nothing from the environment."""
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=16, keepalive_expiry=30),
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
    """Status and headers of the answer; its content is read away, up to a bound, and looked at by nobody.

    Parameters
    ----------
    timeout_s
        For the whole exchange, however slowly the other side trickles.

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
            n_bytes = 0
            async for piece in response.aiter_raw():
                n_bytes += len(piece)
                if n_bytes > MAX_ANSWER_BYTES:
                    break
            return response.status_code, response.headers
    except (TimeoutError, httpx.TimeoutException):
        raise NotDelivered("timeout") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        raise NotDelivered("address", permanent=True) from None
    except (httpx.HTTPError, OSError) as error:
        raise NotDelivered("tls" if _of_tls(error) else _WORDS.get(type(error), "broken_off")) from None


def expect_success(status: int, headers: Mapping[str, str]) -> None:
    """Raise what a status that is no success means for the next attempt.

    Raises
    ------
    NotDelivered
        A 4xx is permanent where the same request will meet with the same; a redirect, never followed, is not.
    """
    if 200 <= status < 300:
        return
    permanent = 400 <= status < 500 and status not in HEALS
    raise NotDelivered(f"http_{status}", permanent, None if permanent else retry_after_s(headers))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds, whichever of its two forms it has; ``None`` where it cannot be read."""
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


_WORDS: dict[type[BaseException], str] = {httpx.ConnectError: "unreachable"}


def _of_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
