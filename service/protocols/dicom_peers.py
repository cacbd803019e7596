"""Application entities by name: who may call (``AE_TITLE@HOST=SITE``), and who is called (``AE_TITLE@HOST:PORT``)."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

from service.protocols.addresses import plain_address

AE_TITLE = r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?"
"""1 … 16 characters of ASCII without backslash and without spaces at its ends (DICOM PS3.5, table 6.2-1, AE)."""
MAX_SITE = 100
LOOK_UP_AGAIN_S = 60.0
_CALLER = re.compile(rf"(?P<ae_title>{AE_TITLE})@(?P<host>[^@=,\s]+)=(?P<site>[^\s,](?:[^,]*[^\s,])?)")
_ADDRESS = re.compile(rf"(?P<ae_title>{AE_TITLE})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\s]+):(?P<port>[0-9]{{1,5}})")


@dataclass(frozen=True, slots=True)
class Caller:
    """One that may call, from one host; what it sends belongs to ``site``."""

    ae_title: str
    host: str
    site: str


@dataclass(frozen=True, slots=True)
class Address:
    """One that is called."""

    ae_title: str
    host: str
    port: int


def read_callers(text: str) -> tuple[Caller, ...]:
    """``AE_TITLE@HOST=SITE``, separated by commas.

    Raises
    ------
    ValueError
        An entry is not one, or one AE title and host belong to two sites; the message names the entry by its place.
    """
    callers: dict[tuple[str, str], Caller] = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        found = _CALLER.fullmatch(entry)
        if found is None or len(found["site"]) > MAX_SITE:
            raise ValueError(f"entry {number} has to be AE_TITLE@HOST=SITE")
        caller = Caller(found["ae_title"], found["host"].strip("[]"), found["site"])
        if callers.setdefault((caller.ae_title, caller.host), caller) != caller:
            raise ValueError(f"entry {number} gives a peer that was given before to another site")
    return tuple(callers.values())


def read_address(text: str) -> Address:
    """``AE_TITLE@HOST:PORT``.

    Raises
    ------
    ValueError
        It is not one.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ValueError("it has to be AE_TITLE@HOST:PORT")
    return Address(found["ae_title"], found["host"].strip("[]"), int(found["port"]))


class Callers:
    """Which site a caller belongs to. It may look names up, and then blocks: to be used from a thread."""

    def __init__(self, callers: tuple[Caller, ...]) -> None:
        self._callers = callers
        self._looked_up: dict[str, tuple[float, frozenset[str]]] = {}

    def site_of(self, ae_title: str, address: str) -> str | None:
        """The site of an AE title that calls from an IP address; ``None``: it is not one that may."""
        for each in self._callers:
            if each.ae_title == ae_title and plain_address(address) in self._addresses(each.host):
                return each.site
        return None

    def _addresses(self, host: str) -> frozenset[str]:
        """Of a host; a name that was looked up is looked up again after a while, since its addresses change."""
        literal = plain_address(host)
        if literal is not None:
            return frozenset([literal])
        known = self._looked_up.get(host)
        if known is None or time.monotonic() - known[0] > LOOK_UP_AGAIN_S:
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                found = []
            addresses = (plain_address(str(each[4][0])) for each in found)
            known = self._looked_up[host] = (time.monotonic(), frozenset(each for each in addresses if each))
        return known[1]
