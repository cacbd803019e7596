"""``/v1/statistics``: screening, refusals, turn-around times, agreement, referrals without an outcome; JSON and CSV."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from data_specs.schema import Moment
from service import errors
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.followup.statistics import Statistics, Table, as_csv, statistics
from service.keys import Key
from service.state import service_of
from service.visits.listing import in_utc

DAYS = 365
MAX_DAYS = 3660

router = APIRouter(
    prefix="/v1/statistics",
    tags=["follow-up"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)


@dataclass(frozen=True, slots=True)
class Period:
    """The visits that are counted. ``since`` is used instead of ``days`` where it is given."""

    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Visits received in the last days, so many")] = DAYS
    since: Annotated[Moment | None, Query(description="Received at or after this time, instead of `days`")] = None
    before: Annotated[Moment | None, Query(description="Received before this time")] = None
    site: Annotated[str | None, Query(max_length=100)] = None


@router.get("")
async def get_statistics(request: Request, key: CurrentKey, period: Annotated[Period, Depends()]) -> Statistics:
    """Statistics of the visits that the key may see."""
    return await _statistics(request, key, period)


@router.get(
    "/{table}.csv",
    response_class=Response,
    responses={200: {"description": "The table", "content": {"text/csv": {}}}},
)
async def get_statistics_table(
    request: Request, key: CurrentKey, table: Table, period: Annotated[Period, Depends()]
) -> Response:
    """One of the tables as CSV, for a spreadsheet."""
    found = await _statistics(request, key, period)
    headers = {"Content-Disposition": f'attachment; filename="{table}.csv"'}
    return Response(as_csv(found, table), 200, headers, "text/csv; charset=utf-8")


async def _statistics(request: Request, key: Key, period: Period) -> Statistics:
    now = datetime.now(UTC)
    since = now - timedelta(days=period.days) if period.since is None else in_utc(period.since, "since")
    before = None if period.before is None else in_utc(period.before, "before")
    return await statistics(service_of(request), key, since, now, before=before, site=period.site)
