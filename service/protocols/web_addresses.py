"""Addresses that secrets are sent to: https, or http that does not leave this machine."""

from __future__ import annotations

from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_ADDRESS = 500


def check_confidential(address: str, *, may_be_http: bool = True) -> str:
    """``address``, if what is sent there can be read by nobody on the way.

    Parameters
    ----------
    may_be_http
        Whether http to this machine is allowed too.

    Raises
    ------
    ValueError
        It is no such address, or has a user, a fragment, a space or a control character in it.

    References
    ----------
    RFC 8252, section 8.3: http to the loopback interface stays on the machine.
    """
    found = urlsplit(address)
    if not address.isprintable() or " " in address or len(address) > MAX_ADDRESS:
        raise ValueError("it has to be an address of at most 500 characters, without spaces")
    if found.scheme != "https" and not (may_be_http and found.scheme == "http" and found.hostname in LOOPBACK):
        raise ValueError("it has to begin with https://")
    if not found.hostname or found.port == 0 or "@" in found.netloc or "\\" in address or "#" in address:
        raise ValueError("it has to name a host, without user or fragment")
    return address
