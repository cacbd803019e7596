"""A device's films week by week, as the page draws them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict

from service.drift.samples import Sample, SeenFilm, quantiles, sample_of

SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""What is kept of a number: these quantiles of its values."""


class Week(BaseModel):
    """Films of one week: quantiles (:data:`SHARES`) by number, and how many of how many by what is counted."""

    model_config = ConfigDict(frozen=True)

    numbers: dict[str, list[float]]
    counts: dict[str, tuple[int, int]]


def week_of(films: Sequence[SeenFilm]) -> Week:
    return as_week(sample_of(films))


def as_week(sample: Sample) -> Week:
    """A sample as a week has it."""
    numbers = {name: quantiles(values, SHARES) for name, values in sample.numbers.items() if values}
    return Week(numbers=numbers, counts=sample.counts)


def monday_of(moment: datetime) -> date:
    """The Monday of the week of a moment, UTC."""
    day = moment.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def start_of(monday: date) -> datetime:
    return datetime.combine(monday, time(), UTC)
