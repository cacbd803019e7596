"""The base of every document that comes in, goes out or is stored."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter
from pydantic_core import PydanticCustomError


class Schema(BaseModel):
    """Members by name and type; an unknown member is refused, and none changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _written_day(value: Any) -> Any:
    """The day of a text; pydantic itself would take a text with a number as seconds since 1970."""
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise PydanticCustomError("date_parsing", "it has to be YYYY-MM-DD")
    return _ANY_DAY.validate_python(value)


def _written_moment(value: Any) -> Any:
    """As :func:`_written_day`, for a time that begins with its day."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _DAY.match(value):
        raise PydanticCustomError("datetime_parsing", "it has to be YYYY-MM-DDThh:mm:ssZ")
    return _ANY_MOMENT.validate_python(value)


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ANY_DAY, _ANY_MOMENT = TypeAdapter(date), TypeAdapter(datetime)
Day = Annotated[date, BeforeValidator(_written_day)]
"""``YYYY-MM-DD`` (RFC 3339, section 5.6, full-date)."""
Moment = Annotated[datetime, BeforeValidator(_written_moment)]
"""``YYYY-MM-DDThh:mm:ssZ`` (RFC 3339, section 5.6, date-time); without an offset, or a day alone, is taken too."""
