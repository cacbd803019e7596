"""The time zone in which people read times: by its IANA name, which is shown beside each time."""

from __future__ import annotations

import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SAME_AS_UTC = frozenset({"", "UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu"})


def zone_named(name: str) -> tzinfo:
    """The zone of an IANA name such as ``Asia/Ho_Chi_Minh``; UTC for an empty one.

    Raises
    ------
    ValueError
        There is no such zone on this machine.
    """
    if name in SAME_AS_UTC:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise ValueError("it has to be the IANA name of a time zone, such as Asia/Ho_Chi_Minh") from None


def machine_zone(localtime: Path = Path("/etc/localtime")) -> str:
    """Name of this machine's zone: of ``TZ``, or of the file that the link ``localtime`` leads to, or UTC."""
    linked = localtime.resolve().as_posix().partition("/zoneinfo/")[2] if localtime.is_symlink() else ""
    for name in (os.environ.get("TZ", "").removeprefix(":"), linked):
        try:
            if name:
                zone_named(name)
                return name
        except ValueError:
            continue
    return "UTC"


def day_and_time(at: datetime, zone: tzinfo = UTC) -> str:
    """A moment with the name of its zone, written alike in all languages (ISO 8601)."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M} {getattr(zone, 'key', 'UTC')}"
