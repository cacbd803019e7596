"""IP addresses of callers, as lists of peers are held to them."""

from __future__ import annotations

import ipaddress


def plain_address(text: str) -> str | None:
    """An IP address in its one spelling, an IPv4 address that came over IPv6 as itself; ``None`` where it is none."""
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
