"""Which web addresses reports may be sent to.

An admin may name any. A site's key may name only addresses on the internet, by verified TLS: a request to an address
inside our own network could reach what the site itself cannot reach.
"""

from __future__ import annotations

import ipaddress
import re
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
    if not is_admin and is_inside(host):
        raise ValueError("an address inside our own network")
    if " " in address or "\\" in address or "@" in found.netloc or "#" in address:
        raise ValueError("more than an address")
    if "?" in address and not may_have_query:
        raise ValueError("a query")


def is_inside(host: str) -> bool:
    """Whether a host is this machine or in a private network, as far as its text shows: no name is looked up.

    References
    ----------
    WHATWG URL Standard, "ends in a number": 127.1, 0x7f.1 and 2130706433 are addresses to a resolver.
    """
    host = host.rstrip(".")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return re.fullmatch(r"localhost|[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]) is not None
    return not (getattr(address, "ipv4_mapped", None) or address).is_global
