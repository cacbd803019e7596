"""Other systems by address: who may call (``[AE_TITLE@]HOST=SITE``), and who is called (``[AE_TITLE@]HOST:PORT``).

DICOM peers have an AE title, HL7 v2 peers have none.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from dataclasses import dataclass

from data_specs.visit.teaching import teaches

AE_TITLE = r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?"
"""1 … 16 characters of ASCII without backslash and without spaces at its ends (DICOM PS3.5, table 6.2-1, AE)."""
MAX_SITE = 100
LOOK_UP_S = 5.0
"""How long the addresses of one name are waited for."""
LOOK_UP_AGAIN_S = 60.0
"""How long a look-up, or its failure, holds: addresses change, and not every caller may cost a query."""

_CALLER = r"(?P<host>[^@=,\s]+)\s*=\s*(?P<site>[^\s,](?:[^,]*[^\s,])?)"
_CALLED = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s@:/?#\[\]]+):(?P<port>[0-9]{1,5})"
_WITH_AE_TITLE = rf"(?P<ae_title>{AE_TITLE})@"


# ---------------------------------------------------------------- who may call
@dataclass(frozen=True, slots=True)
class Caller:
    """A system that may call.

    Parameters
    ----------
    ae_title
        Its AE title; empty for HL7 v2.
    host
        An IP address in its usual spelling, or a name in lower case.
    site
        The site that what it sends belongs to.
    """

    ae_title: str
    host: str
    site: str


def read_callers(text: str, *, with_ae_title: bool) -> tuple[Caller, ...]:
    """The callers of a setting: ``AE_TITLE@HOST=SITE`` or ``HOST=SITE``, separated by commas.

    Raises
    ------
    ValueError
        An entry has another form, or gives a caller of an earlier entry to another site. The message names the entry
        by its place.
    """
    if not text.strip():
        return ()
    form = "AE_TITLE@HOST=SITE" if with_ae_title else "HOST=SITE"
    pattern = re.compile(_WITH_AE_TITLE + _CALLER if with_ae_title else _CALLER)
    callers: dict[tuple[str, str], Caller] = {}
    for number, entry in enumerate(text.split(","), 1):
        found = pattern.fullmatch(entry.strip())
        if found is None or len(found["site"]) > MAX_SITE:
            raise ValueError(f"entry {number} has to be {form}")
        host = found["host"].removeprefix("[").removesuffix("]")
        if teaches(found["site"]):
            raise ValueError(f"entry {number} names a teaching site, to which nothing is sent")
        ae_title = found["ae_title"] if with_ae_title else ""
        caller = Caller(ae_title, _ip_address(host) or host.lower(), found["site"])
        if callers.setdefault((caller.ae_title, caller.host), caller) != caller:
            raise ValueError(f"entry {number} gives a caller of an earlier entry to another site")
    return tuple(callers.values())


class Callers:
    """Which site a caller belongs to. Names are looked up here, and their addresses kept for a while."""

    def __init__(self, callers: tuple[Caller, ...]) -> None:
        self._callers = callers
        self._addresses: dict[str, tuple[float, frozenset[str]]] = {}
        self._lock = threading.Lock()

    def site_of(self, address: str, ae_title: str = "") -> str | None:
        """The site of a caller with this IP address and AE title; ``None`` if it is not listed.

        It blocks while a name is looked up: call it from a thread.
        """
        called_from = _ip_address(address)
        listed = [caller for caller in self._callers if caller.ae_title == ae_title]
        for caller in listed:  # addresses first, so that they never wait for a name
            if caller.host == called_from:
                return caller.site
        for caller in listed:
            if _ip_address(caller.host) is None and called_from in self._addresses_of(caller.host):
                return caller.site
        return None

    def _addresses_of(self, name: str) -> frozenset[str]:
        with self._lock:  # callers that come at the same time share one look-up
            asked_at, addresses = self._addresses.get(name, (None, frozenset[str]()))
            if asked_at is None or time.monotonic() - asked_at > LOOK_UP_AGAIN_S:
                addresses = _look_up(name)
                self._addresses[name] = (time.monotonic(), addresses)
            return addresses


def _look_up(name: str) -> frozenset[str]:
    """All IP addresses of a host; none if the resolver does not know it or does not answer in time."""
    found: list[str] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # UnicodeError: it cannot be a host's name
            return
        found.extend(str(answer[4][0]) for answer in answers)

    # a thread of its own, because getaddrinfo has no time-out and must not keep the process from ending
    thread = threading.Thread(target=ask, name="look-up", daemon=True)
    thread.start()
    thread.join(LOOK_UP_S)
    return frozenset(address for address in map(_ip_address, found) if address)


def _ip_address(text: str) -> str | None:
    """An IP address in its usual spelling, an IPv4 address within IPv6 as IPv4; ``None`` if it is not an address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


IPV6_CLIENT_BITS = 64
"""One subscriber has at least these first bits of an IPv6 address for itself, and may use all addresses within them
(RFC 6177, section 2)."""


def network_of(address: str) -> str:
    """What clients are counted by: an IPv4 address, or the first 64 bits of an IPv6 address.

    What is not an address counts as one client, under the empty name.
    """
    known = _ip_address(address)
    if known is None or ":" not in known:
        return known or ""
    return str(ipaddress.IPv6Network((known, IPV6_CLIENT_BITS), strict=False))


PREFIX_BITS = {4: 24, 6: 48}
"""What is kept of an address that is written down: enough to tell a hospital's network from another, too little to tell
one device from its neighbours. RFC 6177, section 2: a site has up to the last 80 bits of IPv6 for itself."""


def prefix_of(address: str) -> str:
    """The network around an address, or around a network as :func:`network_of` names it; empty where it is neither."""
    known = _ip_address(address.partition("/")[0])
    if known is None:
        return ""
    version = ipaddress.ip_address(known).version
    return str(ipaddress.ip_network((known, PREFIX_BITS[version]), strict=False))


# ---------------------------------------------------------------- who is called
@dataclass(frozen=True, slots=True)
class AEAddress:
    """A DICOM application entity that is called."""

    ae_title: str
    host: str
    port: int


def read_ae_address(text: str) -> AEAddress:
    """``AE_TITLE@HOST:PORT``.

    Raises
    ------
    ValueError
        It has another form.
    """
    found = re.fullmatch(_WITH_AE_TITLE + _CALLED, text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError("it has to be AE_TITLE@HOST:PORT")
    return AEAddress(found["ae_title"], found["host"].strip("[]"), int(found["port"]))


def read_host_and_port(text: str) -> tuple[str, int]:
    """``HOST:PORT``.

    Raises
    ------
    ValueError
        It has another form.
    """
    found = re.fullmatch(_CALLED, text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError("it has to be HOST:PORT")
    return found["host"].strip("[]"), int(found["port"])
