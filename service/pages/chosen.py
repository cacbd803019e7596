"""What the reader of the worklist has chosen. It is all in the address, so that a link is a saved filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, get_args
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from data_specs.schema import Day
from data_specs.visit.contract import Priority, Status
from service.keys import Key
from service.visits.filters import MAX_SEARCH, Asked, Filter
from service.visits.worklist import Order

RECENT_DAYS = 7
"""The worklist begins with visits of this many days, unless a search or a period asks for others."""
FURTHEST_MINUTES = 14 * 60
"""Of a time zone from UTC."""
_DAY: TypeAdapter[date] = TypeAdapter(Day)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The members of the address, each ``None`` where it is missing or not one of those offered.

    Parameters
    ----------
    period
        ``all``: no limit.
    from_day, to_day
        First and last day of arrival, in a zone that is ``offset`` minutes ahead of UTC.
    """

    q: str | None = None
    priority: Priority | None = None
    status: Status | None = None
    period: str | None = None
    from_day: date | None = None
    to_day: date | None = None
    offset: int | None = None
    site: str | None = None
    signed: str | None = None
    asked: Asked | None = None
    order: Order | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Chosen:
        """What the query of an address says. What it does not offer is ignored."""

        def one_of(name: str, offered: tuple[Any, ...]) -> Any:
            return query.get(name) if query.get(name) in offered else None

        def words(name: str, longest: int) -> str | None:
            return query.get(name, "").replace("\0", "").strip()[:longest] or None

        from_day, to_day = _day(query.get("from")), _day(query.get("to"))
        return cls(
            q=words("q", MAX_SEARCH),
            priority=one_of("priority", get_args(Priority)),
            status=one_of("status", get_args(Status)),
            period=one_of("period", ("all",)),
            from_day=from_day,
            to_day=to_day,
            offset=_offset(query.get("offset", "")) if from_day or to_day else None,
            site=words("site", 100),
            signed=one_of("signed", ("yes", "no")),
            asked=one_of("asked", get_args(Asked)),
            order=one_of("order", get_args(Order)),
        )

    @property
    def narrowed(self) -> bool:
        """Whether anything but the priority and the order is chosen."""
        return replace(self, priority=None, order=None, period=None) != Chosen()

    @property
    def recent(self) -> bool:
        """Whether only the latest days are shown."""
        return not (self.period or self.from_day or self.to_day or self.q)

    def filter(self, now: datetime) -> Filter:
        zone = timezone(timedelta(minutes=self.offset or 0))
        since = now - timedelta(days=RECENT_DAYS) if self.recent else _midnight(self.from_day, zone)
        return Filter(
            search=self.q or "",
            priority=self.priority,
            status=self.status,
            since=since,
            before=None if self.to_day is None else _midnight(self.to_day, zone, days=1),
            site=self.site,
            signed=None if self.signed is None else self.signed == "yes",
            asked=self.asked,
        )

    def days(self, now: datetime, longest: int) -> tuple[datetime, datetime | None]:
        """Begin and end of the chosen days; ``longest`` days before their end, or before now, where no begin is chosen.

        An end that has not come yet is none.
        """
        chosen = replace(self, period="all").filter(now)
        before = chosen.before if chosen.before is None or chosen.before < now else None
        return chosen.since or _days_before(before or now, longest), before

    def address(self, path: str = "/worklist", *, cursor: str | None = None, **change: Any) -> str:
        """Address of the worklist with this choice, and some of it changed."""
        new = replace(self, **change)
        members = {
            {"from_day": "from", "to_day": "to"}.get(name, name): str(getattr(new, name))
            for name in self.__slots__
            if getattr(new, name) is not None
        }
        if cursor is not None:
            members["cursor"] = cursor
        return f"{path}?{urlencode(members)}" if members else path


def ready_made(key: Key) -> list[tuple[str, Chosen]]:
    """Choices that are one click away: their name, and what they choose."""
    urgent = ("urgent", Chosen(priority="urgent", signed="no", period="all"))
    unsigned = ("unsigned", Chosen(status="complete", signed="no", period="all"))
    if key.role == "specialist":
        return [("asked_of_me", Chosen(asked="open", period="all")), urgent]
    waiting = ("waiting", Chosen(asked="open", period="all"))
    return [urgent, unsigned, waiting, ("answered", Chosen(asked="answered", period="all"))]


def _day(text: str | None) -> date | None:
    try:
        return _DAY.validate_python(text)
    except ValidationError:
        return None


def _offset(text: str) -> int | None:
    sign, digits = text[:1], text.lstrip("+-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 3 or int(digits) > FURTHEST_MINUTES:
        return None
    return -int(digits) if sign == "-" else int(digits)


def _midnight(day: date | None, zone: timezone, days: int = 0) -> datetime | None:
    """The beginning of the day, or of one that comes ``days`` later; ``None`` where UTC has no such time."""
    try:
        return (
            datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) + timedelta(days=days) if day else None
        )
    except OverflowError:
        return None


def _days_before(moment: datetime, days: int) -> datetime:
    try:
        return moment - timedelta(days=days)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
