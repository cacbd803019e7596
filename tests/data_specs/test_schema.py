"""Days and times are read as they are written, and a number is neither."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from data_specs.schema import Day, Moment

NUMBERS = ["0", "0.5", "86400", "1795219200", "-1", "1e9", "20261121", ""]


@pytest.mark.parametrize(
    "value", [*NUMBERS, 0, 86400.0, True, b"86400", "2026-1-1", "2026-02-30", "2026-11-21T00:00:00Z", "21/11/2026"]
)
def test_what_is_no_day(value):
    with pytest.raises(ValidationError):
        TypeAdapter(Day).validate_python(value)


@pytest.mark.parametrize("value", [*NUMBERS, 0, 86400.0, True, b"86400", "2026-02-30T00:00:00Z", "08:00:00Z"])
def test_what_is_no_time(value):
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(value)


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_one(strict):
    assert TypeAdapter(Day).validate_json('"2026-11-21"', strict=strict) == date(2026, 11, 21)
    assert TypeAdapter(Day).validate_python(date(2026, 11, 21)) == date(2026, 11, 21)
    assert TypeAdapter(Moment).validate_python("2026-11-21T08:00:00Z", strict=strict) == datetime(
        2026, 11, 21, 8, tzinfo=UTC
    )
    assert TypeAdapter(Moment).validate_python("2026-11-21", strict=strict) == datetime(2026, 11, 21)
