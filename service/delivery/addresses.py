"""Which web addresses reports may be sent to.

An admin may name any. A site's key may name only addresses on the internet, by verified TLS: a request to an address
inside our own network could reach what the site itself cannot reach. What a name leads to is known only when it is
connected to, so it is checked there (:mod:`service.delivery.outside`).
"""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from service.delivery.message import Options

_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


def check_web_address(address: str, options: Options, is_admin: bool, *, may_have_query: bool = False) -> None:
    """Check an address: https, without a password or a fragment.

    An admin may also use http to this machine, and to any other if ``options`` allow it.

    Raises
    ------
    ValueError
        Nothing is sent to such an address.
    """
    found = urlsplit(address)
    host, port = found.hostname, found.port
    may_be_http = is_admin and (options.allow_http or _LOOPBACK.fullmatch(host or "") is not None)
    if found.scheme not in (("https", "http") if may_be_http else ("https",)) or not host or port == 0:
        raise ValueError("no https address")
    if not is_admin and names_inside(host):
        raise ValueError("an address inside our own network")
    if " " in address or "\\" in address or "@" in found.netloc or "#" in address:
        raise ValueError("more than an address")
    if "?" in address and not may_have_query:
        raise ValueError("a query")


def names_inside(host: str) -> bool:
    """Whether a host is inside as far as its text shows: no name is looked up (:mod:`service.delivery.outside` does).

    References
    ----------
    WHATWG URL Standard, "ends in a number": 127.1, 0x7f.1 and 2130706433 are addresses to a resolver.
    """
    host = host.rstrip(".")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return re.fullmatch(r"localhost|[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]) is not None
    return is_inside(address)


def is_inside(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is this machine, in a private network, or for a special purpose: all that is not on the
    internet, and all that only passes on to such an address.

    References
    ----------
    IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), which ``is_global`` follows; RFC 4291, section 2.4
    (all global unicast addresses in use are in 2000::/3).
    """
    carried = _carried(address)
    if carried is not None:
        return is_inside(carried)
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return True
    return not address.is_global or address.is_multicast or any(address in each for each in _ALSO_INSIDE)


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to an IPv6 address are passed on to; ``None`` if there is none."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052, section 2.1: the last 32 bits are the IPv4 address. In the prefix for local use, 64:ff9b:1::/48 (RFC 8215),
only the network itself knows where it stands; those addresses are outside of 2000::/3, and so inside for us."""
_ALSO_INSIDE = (
    ipaddress.ip_network("192.0.0.0/24"),  # RFC 6890: protocol assignments; two of them are the nearest NAT itself
    ipaddress.ip_network("192.88.99.0/24"),  # RFC 7526: relays of 6to4, no longer used
    ipaddress.ip_network("2001::/23"),  # RFC 2928: protocol assignments, Teredo (RFC 4380) among them
    ipaddress.ip_network("3fff::/20"),  # RFC 9637: documentation
)
"""What ``is_global`` of some versions of Python does not know."""
