"""The statistics: each table with a chart beside it, drawn on the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from data_specs.vocabulary import Language, display
from service.api.session import page_key
from service.followup.screening import Refusal
from service.followup.statistics import Statistics, statistics
from service.language.choice import language_of
from service.language.texts import number, opening, percent, text, texts
from service.pages.chosen import Chosen
from service.pages.frame import page, to_login
from service.state import service_of
from service.visits.filters import sites

PERIODS_DAYS = (30, 365)
MOST_BARS = 12
"""Of a chart; the table beside it has every row."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart. ``length``, ``low`` and ``high`` are shares of the chart's width."""

    label: str
    shown: str
    length: float
    low: float | None = None
    high: float | None = None


@router.get("/statistics")
async def figures(request: Request, days: int = PERIODS_DAYS[-1]) -> Response:
    """Statistics of the last days, or of the days that were chosen."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    service, now, chosen = service_of(request), datetime.now(UTC), Chosen.of(request.query_params)
    by_days = not (chosen.from_day or chosen.to_day)
    days = days if days in PERIODS_DAYS else PERIODS_DAYS[-1]
    since, before = (now - timedelta(days=days), None) if by_days else chosen.days(now, PERIODS_DAYS[-1])
    found = await statistics(service, key, since, now, before=before, site=chosen.site)
    asked = {"site": chosen.site, **({"days": days} if by_days else {"since": _stamp(since), "before": _stamp(before)})}
    return page(
        request,
        "statistics.html",
        key=key,
        found=found,
        chosen=replace(chosen, q=None),
        sites=await sites(service, key),
        days=days if by_days else None,
        periods=PERIODS_DAYS,
        query=urlencode({name: value for name, value in asked.items() if value is not None}),
        charts=charts(found, language_of(request)),
        reason_of=lambda code: _reason(code, language_of(request)),
    )


def charts(found: Statistics, language: Language) -> dict[str, list[Bar]]:
    """The bars of each chart; none where there is nothing to show."""
    steps = ("visits", "assessed", "flagged", "recalled", "confirmed")
    sums = {step: sum(getattr(row, step) for row in found.screening) for step in steps}
    slowest = max((row.sign_hours_p90 or 0 for row in found.turnaround), default=0)
    return {
        "screening": [
            Bar(text(f"step_{step}", language), str(sums[step]), sums[step] / sums["visits"]) for step in steps
        ]
        if sums["visits"]
        else [],
        "findings": [
            Bar(
                opening(display(row.finding, language)),
                f"{row.flagged} / {row.judged}",
                row.flagged / row.judged,
            )
            for row in found.findings[:MOST_BARS]
        ],
        "ppv": [
            Bar(opening(display(row.finding, language)), percent(row.ppv, language), row.ppv, row.low, row.high)
            for row in found.findings
            if row.ppv is not None
        ][:MOST_BARS],
        "refusals": _refused(found.refusals, language, is_reason=True),
        "devices": _refused(found.devices, language, is_reason=False),
        "turnaround": [
            Bar(
                row.site,
                f"{number(row.sign_hours_median, language)} / {number(row.sign_hours_p90, language)}",
                row.sign_hours_median / slowest,
                row.sign_hours_median / slowest,
                row.sign_hours_p90 / slowest,
            )
            for row in found.turnaround
            if slowest and row.sign_hours_median is not None and row.sign_hours_p90 is not None
        ][:MOST_BARS],
        "agreement": [
            Bar(
                f"{opening(display(row.finding, language))} · {text(f'reader_{row.first}', language)} – "
                f"{text(f'reader_{row.second}', language)}",
                f"{row.both + row.neither} / {row.visits}",
                row.share,
                row.low,
                row.high,
            )
            for row in found.agreement[:MOST_BARS]
        ],
    }


def _refused(rows: Sequence[Refusal], language: Language, *, is_reason: bool) -> list[Bar]:
    return [
        Bar(_reason(row.name, language) if is_reason else row.name, f"{row.refused} / {row.files}", row.share)
        for row in rows[:MOST_BARS]
    ]


def _reason(code: str, language: Language) -> str:
    """The reason of a refusal in a few words."""
    return text(f"refused_{code if f'refused_{code}' in texts() else 'other'}", language)


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
