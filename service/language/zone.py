"""The time zone in which people read times, by its IANA name, which is shown beside each time; and hours of its day."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
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


@dataclass(frozen=True)
class Hours:
    """Hours of each day, from one full hour to another one, over midnight where the second is smaller."""

    first: int
    last: int

    @classmethod
    def of(cls, text: str) -> Hours:
        """Read hours such as ``22-5``; ``0-24`` are all of them.

        Raises
        ------
        ValueError
        """
        match = re.fullmatch(r"(\d{1,2})-(\d{1,2})", text, re.ASCII)
        hours = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if hours.first > 23 or hours.last > 24 or hours.first == hours.last:
            raise ValueError("it has to be two different hours of a day, such as 22-5; all hours are 0-24")
        return hours

    def include(self, at: datetime, zone: tzinfo = UTC) -> bool:
        """Whether a moment is in these hours in ``zone``."""
        hour = at.astimezone(zone).hour
        if self.first < self.last:
            return self.first <= hour < self.last
        return hour >= self.first or hour < self.last

    def seconds_until(self, at: datetime, zone: tzinfo = UTC) -> float:
        """How long after a moment these hours begin; 0 in them."""
        if self.include(at, zone):
            return 0.0
        now = at.astimezone(zone)
        begin = now.replace(hour=self.first, minute=0, second=0, microsecond=0)
        return ((begin if begin > now else begin + timedelta(days=1)) - now).total_seconds()
