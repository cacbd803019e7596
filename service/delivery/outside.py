"""Connections to destinations that a site's key named: the name is resolved once, all its addresses are checked, and
only what was checked is connected to.

A check of the name alone is not enough. A name can lead to an address inside our own network, and can lead elsewhere
when it is resolved a second time. TLS still verifies the name, because only the socket's address is replaced.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

from service.delivery.addresses import is_inside
from service.delivery.message import INSIDE, NotDelivered

MAX_ADDRESSES = 4
"""Addresses of one name that are tried; all of them are checked."""

Resolve = Callable[[str], Sequence[str]]
LookUp = Callable[[str], Awaitable[Sequence[str]]]
"""The checked addresses of a host, as :func:`outside_addresses` finds them."""


class NotOutside(OSError):
    """A host has an address inside our own network."""


def resolve(host: str) -> list[str]:
    """All addresses of a host, by the machine's resolver. It blocks.

    Raises
    ------
    OSError
        The resolver knows none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # it cannot be a host's name
        raise OSError("no host's name") from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def outside_addresses(host: str, resolve: Resolve = resolve) -> list[str]:
    """The addresses of a host, if each of them is on the internet. It blocks.

    One address inside refuses them all: which one is connected to would be left to the order of the answer.

    Raises
    ------
    NotOutside
    OSError
        There is no address.
    """
    addresses = [ip_address(each) for each in resolve(host)]
    if not addresses:
        raise OSError("no address")
    if any(map(is_inside, addresses)):
        raise NotOutside
    addresses.sort(key=lambda each: each.version)  # IPv4 first: many networks have no way to IPv6
    return [str(each) for each in addresses[:MAX_ADDRESSES]]


def outside_address(host: str) -> str:
    """The first of :func:`outside_addresses`, for senders that take one. It blocks.

    Raises
    ------
    NotDelivered
        The host is inside, or has no address.
    """
    try:
        return outside_addresses(host)[0]
    except NotOutside:
        raise NotDelivered(INSIDE) from None
    except OSError:
        raise NotDelivered("unreachable") from None
