"""Answers of the provider: JSON objects, read within bounds of time and size, and kept for a while.

References
----------
RFC 9110, section 12.5.3 (``identity``): a compressed answer of few bytes could be many.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import httpx

from service.errors import ProviderUnavailable

ANSWER_S = 5.0
"""For one whole exchange, even if the provider sends slowly."""
MAX_BYTES = 256_000
"""Of an answer; descriptions and key sets of providers have fewer than 20,000."""
KEPT_S = 3600.0
ANEW_S = 60.0
"""A kept answer may be asked for anew when it is so old: a key that is not in it may be new, or may be invented."""
AGAIN_S = 5.0
"""After a failure the provider is left alone for so long."""
CONNECTIONS = 8

T = TypeVar("T")


def new_client() -> httpx.AsyncClient:
    """A client with the machine's own certificate authorities; it follows no redirect and uses no proxy."""
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        follow_redirects=False,
        trust_env=False,
        timeout=ANSWER_S,
        limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=2, keepalive_expiry=30),
        headers={"User-Agent": "sangloc", "Accept": "application/json", "Accept-Encoding": "identity"},
    )


async def ask(
    client: httpx.AsyncClient,
    url: str,
    form: Mapping[str, str] | None = None,
    authorization: tuple[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object that the provider answers: to a GET, or to a POST of ``form``.

    Raises
    ------
    ProviderUnavailable
        There was no answer in time, or it was too large or no JSON object.
    """
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            client.stream(
                "GET" if form is None else "POST",
                url,
                data=None if form is None else dict(form),
                auth=None if authorization is None else httpx.BasicAuth(*authorization),
            ) as response,
        ):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProviderUnavailable("compressed")
            content = bytearray()
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > MAX_BYTES:
                    raise ProviderUnavailable("too_large")
    except (TimeoutError, httpx.TimeoutException):
        raise ProviderUnavailable("timeout") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
        raise ProviderUnavailable("unreachable") from None
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ProviderUnavailable("not_json" if response.is_success else f"http_{response.status_code}")
    return response.status_code, answer


class Kept(Generic[T]):
    """One answer of the provider, which requests that come at the same time wait for together.

    Parameters
    ----------
    fetch
        Gets it; raises ``ProviderUnavailable``.
    """

    def __init__(self, fetch: Callable[[], Awaitable[T]]) -> None:
        self._fetch = fetch
        self._lock = asyncio.Lock()
        self._fetched_at = self._failed_at = float("-inf")
        self._failure: object = ""
        self.value: T | None = None
        """The last answer; ``None`` before the first."""

    async def get(self, *, anew: bool = False) -> T:
        """The answer, at most ``KEPT_S`` old, or with ``anew`` at most ``ANEW_S``.

        Raises
        ------
        ProviderUnavailable
            It could not be fetched, now or a moment ago.
        """
        async with self._lock:
            now = time.monotonic()
            if self.value is not None and now - self._fetched_at < (ANEW_S if anew else KEPT_S):
                return self.value
            if now - self._failed_at < AGAIN_S:
                raise ProviderUnavailable(self._failure)
            try:
                self.value = await self._fetch()
            except ProviderUnavailable as error:
                self._failed_at, self._failure = time.monotonic(), error.found
                raise
            self._fetched_at = time.monotonic()
            return self.value
