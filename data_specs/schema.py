"""The base of every document that comes in, goes out or is stored."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


class Schema(BaseModel):
    """Members by name and type; an unknown member is refused, and none changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _written_day(value: Any) -> Any:
    return _with_day(value, "date_parsing")


def _written_moment(value: Any) -> Any:
    return _with_day(value, "datetime_parsing")


def _with_day(value: Any, fault: Literal["date_parsing", "datetime_parsing"]) -> Any:
    """The value unchanged: pydantic would read a text with a number as seconds since 1970.

    Raises
    ------
    PydanticCustomError
        It is a number, or a text that does not begin with a day.
    """
    if isinstance(value, int | float | bytes) or (isinstance(value, str) and not _DAY.match(value)):
        raise PydanticCustomError(fault, "it has to be written as in RFC 3339")
    return value


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
Day = Annotated[date, BeforeValidator(_written_day)]
"""``YYYY-MM-DD`` (RFC 3339, section 5.6, full-date)."""
Moment = Annotated[datetime, BeforeValidator(_written_moment)]
"""``YYYY-MM-DDThh:mm:ssZ`` (RFC 3339, section 5.6, date-time); without an offset, or a day alone, is taken too."""
