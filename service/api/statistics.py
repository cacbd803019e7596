"""``/v1/statistics``: turn-around times, agreement, and persons who were referred and have no outcome; JSON and CSV."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from service import errors
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.followup.statistics import Statistics, Table, as_csv, statistics
from service.state import service_of

DAYS = 365
MAX_DAYS = 3660

router = APIRouter(
    prefix="/v1/statistics",
    tags=["follow-up"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)
Days = Annotated[int, Query(ge=1, le=MAX_DAYS, description="Visits received in the last days, so many")]


@router.get("")
async def get_statistics(request: Request, key: CurrentKey, days: Days = DAYS) -> Statistics:
    """Statistics of the visits that the key may see."""
    now = datetime.now(UTC)
    return await statistics(service_of(request), key, now - timedelta(days=days), now)


@router.get(
    "/{table}.csv",
    response_class=Response,
    responses={200: {"description": "The table", "content": {"text/csv": {}}}},
)
async def get_statistics_table(request: Request, key: CurrentKey, table: Table, days: Days = DAYS) -> Response:
    """One of the tables as CSV, for a spreadsheet."""
    now = datetime.now(UTC)
    found = await statistics(service_of(request), key, now - timedelta(days=days), now)
    headers = {"Content-Disposition": f'attachment; filename="{table}.csv"'}
    return Response(as_csv(found, table), 200, headers, "text/csv; charset=utf-8")
