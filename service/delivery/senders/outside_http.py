"""HTTP to destinations that a site's key named: each connection goes to an address that ``outside`` has checked.

TLS still verifies the name, and connections are kept by name: only the address of the socket is replaced.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence

import httpcore
import httpx

from service.delivery.outside import LookUp, outside_addresses


class OutsideBackend(httpcore.AsyncNetworkBackend):
    """Opens the connections of an HTTP client to checked addresses only."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's own argument
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._look_up(host)
        except OSError as error:  # TimeoutError is one
            raise httpcore.ConnectError from error
        for address in addresses:
            try:
                return await self._plain.connect_tcp(
                    address, port, _share(timeout, addresses), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        raise httpcore.ConnectError


class OutsideBlockingBackend(httpcore.NetworkBackend):
    """As :class:`OutsideBackend`, for a client that blocks."""

    def __init__(self, look_up: Callable[[str], Sequence[str]]) -> None:
        self._look_up = look_up
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._look_up(host)
        except OSError as error:
            raise httpcore.ConnectError from error
        for address in addresses:
            try:
                return self._plain.connect_tcp(address, port, _share(timeout, addresses), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        raise httpcore.ConnectError


def _share(timeout: float | None, addresses: Sequence[str]) -> float | None:
    return None if timeout is None else timeout / len(addresses)


class OutsideTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport over :class:`OutsideBackend`; httpx has no argument for that."""

    def __init__(self, context: ssl.SSLContext, limits: httpx.Limits, look_up: LookUp) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=OutsideBackend(look_up),
        )


class OutsideBlockingTransport(httpx.HTTPTransport):
    """As :class:`OutsideTransport`, for a client that blocks."""

    def __init__(self, context: ssl.SSLContext, look_up: Callable[[str], Sequence[str]] = outside_addresses) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=OutsideBlockingBackend(look_up))
