"""Who may send orders, and for which site: ``HOST=SITE``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from service.protocols.addresses import plain_address

RESOLVE_SECONDS = 5.0
"""For the addresses of one peer that is listed by name."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A host, by address or by name, and the site that its orders are for."""

    host: str
    site: str


def read_peers(text: str) -> tuple[Peer, ...]:
    """The peers of ``HOST=SITE`` entries separated by commas.

    Raises
    ------
    ValueError
        An entry is not of that form, or names a host again; the message says which by its place.
    """
    peers: list[Peer] = []
    for n, entry in enumerate((each.strip() for each in text.split(",")) if text.strip() else (), 1):
        host, equals, site = (each.strip() for each in entry.partition("="))
        if not (equals and host and site) or len(site) > 100 or any(each.isspace() for each in host):
            raise ValueError(f"entry {n} is not HOST=SITE")
        host = host.removeprefix("[").removesuffix("]")
        host = plain_address(host) or host.lower()
        if host in {peer.host for peer in peers}:
            raise ValueError(f"entry {n} names a host that an earlier one names too")
        peers.append(Peer(host, site))
    return tuple(peers)


def check_listening(hl7_port: int, hl7_peers: str) -> None:
    """Whether the two settings can be listened under.

    Raises
    ------
    ValueError
        The peers cannot be read, or there is a port and nobody who may call.
    """
    if not read_peers(hl7_peers) and hl7_port:
        raise ValueError("with an HL7 port, say who may call: HOST=SITE, separated by commas")


async def site_of(caller: str, peers: tuple[Peer, ...]) -> str | None:
    """The site of the peer that calls from this address; names are looked up anew, as addresses change."""
    address = plain_address(caller)
    for peer in peers:
        if plain_address(peer.host):
            if peer.host == address:
                return peer.site
            continue
        with suppress(OSError, UnicodeError):
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(peer.host, None)
            if address in {plain_address(str(each[4][0])) for each in found}:
                return peer.site
    return None
