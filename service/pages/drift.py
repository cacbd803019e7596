"""``/drift``: alarms about devices whose films have changed, and each device week by week, for admins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from data_specs.vocabulary import Language, display
from service.api.refusals import STATUS
from service.api.session import page_key
from service.drift import actions
from service.drift.actions import DeviceView, NewReference, Silence
from service.drift.samples import CODE, DISAGREED, LOGIT, REFUSED, Kind, kind_of
from service.drift.weeks import SHARES, Week
from service.errors import FieldFault, InvalidRequest, ServiceError, StorageUnavailable
from service.keys import Key
from service.language.choice import language_of
from service.language.texts import NARROW_SPACE, number, opening, text, texts
from service.pages.frame import page, to_login
from service.pages.opinion import checked
from service.pages.visit import refusal
from service.state import service_of

WIDTH, HEIGHT = 320.0, 90.0
KINDS: tuple[Kind, ...] = ("comes_in", "sees", "says", "agrees")
LOW, MIDDLE, HIGH = SHARES.index(0.05), SHARES.index(0.5), SHARES.index(0.95)
SILENT_DAYS = 28
"""What the form of a silence offers first."""
MAX_WORD = 200
SHARES_OF = (REFUSED, DISAGREED, "saturated", "gate_lung_area")
"""Beside the codes, what is a share and shown as a percentage."""
LEAST_P = 1e-6
"""A p below it is told as one that is smaller."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True, slots=True)
class Chart:
    """One number or share of a device over its weeks, in a field of :data:`WIDTH` and :data:`HEIGHT`.

    Parameters
    ----------
    line, band
        Points of the medians (or shares) and of the outline from the 5th to the 95th percentile, as SVG writes them.
    before
        Height of the reference's median (or share); ``None`` where it has none.
    latest, was
        The last week's, and the reference's, in words.
    """

    name: str
    words: str
    kind: Kind
    line: str
    band: str
    before: float | None
    bottom: str
    top: str
    latest: str
    was: str


@router.get("/drift")
async def drift(request: Request, site: str = "", device: str = "") -> Response:
    """All devices and alarms, or one device with its charts."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    return await _page(request, key, site[:MAX_WORD], device[:MAX_WORD])


@router.post("/drift/alarms/{alarm_id}/silence")
async def silence(
    request: Request, alarm_id: str, reason: Annotated[str, Form()] = "", until: Annotated[str, Form()] = ""
) -> Response:
    """Silence an alarm to the end of a day; the page again where that was refused."""

    async def write(key: Key) -> str:
        asked = checked(Silence, {"reason": reason, "until": _end_of(until)})
        await actions.silence(service_of(request), key, alarm_id, asked)
        return "/drift"

    return await _changed(request, write)


@router.post("/drift/references")
async def new_reference(
    request: Request,
    site: Annotated[str, Form()] = "",
    device: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Compare a device with its films from now on; the page again where that was refused."""

    async def write(key: Key) -> str:
        asked = checked(NewReference, {"site": site, "device": device, "reason": reason})
        await actions.new_reference(service_of(request), key, asked)
        return f"/drift?{urlencode({'site': site, 'device': device})}"

    return await _changed(request, write)


async def _changed(request: Request, write: Callable[[Key], Awaitable[str]]) -> Response:
    """Change something, and go where ``write`` says."""
    key = await page_key(request)
    if key is None:
        return to_login(request, "/drift")
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    try:
        address = await write(key)
    except StorageUnavailable:
        raise
    except ServiceError as error:
        status = STATUS[type(error)].value
        return await _page(request, key, problem=refusal(request, error), status_code=status)
    return RedirectResponse(address, 303)


async def _page(
    request: Request, key: Key, site: str = "", device: str = "", *, problem: str | None = None, status_code: int = 200
) -> Response:
    service, language = service_of(request), language_of(request)
    devices = await actions.list_devices(service)
    alarms = await actions.list_alarms(service, is_open=True)
    is_known = any((each.site, each.device) == (site, device) for each in devices)
    shown = await actions.device_view(service, site, device) if is_known else None
    now = datetime.now(UTC)
    return page(
        request,
        "drift.html",
        status_code,
        key=key,
        devices=devices,
        alarms=[each for each in alarms if shown is None or (each.site, each.device) == (site, device)],
        is_silenced=lambda alarm: alarm.silenced_until is not None and alarm.silenced_until > now,
        n_open=Counter((each.site, each.device) for each in alarms),
        shown=shown,
        charts=charts(shown, language) if shown else {},
        words=lambda name: words_of(name, language),
        written=lambda name, value: written(name, value, language),
        chance=lambda p: chance(p, language),
        address=lambda each: f"/drift?{urlencode({'site': each.site, 'device': each.device})}",
        size=(WIDTH, HEIGHT),
        until=(now + timedelta(days=SILENT_DAYS)).date().isoformat(),
        problem=problem,
    )


def charts(device: DeviceView, language: Language) -> dict[Kind, list[Chart]]:
    """The charts of a device, by what they are about; none of what has been seen in fewer than two weeks."""
    names = dict.fromkeys(name for week in (device.reference, *device.weeks) for name in (*week.numbers, *week.counts))
    found: dict[Kind, list[Chart]] = {kind: [] for kind in KINDS}
    for name in names:
        chart = _chart(name, device.reference, device.weeks, language)
        if chart is not None:
            found[chart.kind].append(chart)
    return {kind: drawn for kind, drawn in found.items() if drawn}


def _chart(name: str, reference: Week, weeks: Sequence[Week], language: Language) -> Chart | None:
    points = [_ends(name, week) for week in weeks]
    shown = [(place, ends) for place, ends in enumerate(points) if ends is not None]
    if len(shown) < 2:
        return None
    before = _ends(name, reference)
    every = [value for _, ends in shown for value in ends] + list(before or ())
    bottom, top = min(every), max(every)
    if bottom == top:
        bottom, top = bottom - 0.5, top + 0.5
    step = WIDTH / (len(weeks) - 1)

    def height(value: float) -> float:
        return HEIGHT * (1 - (value - bottom) / (top - bottom))

    def line(end: int) -> list[str]:
        return [f"{step * place:.1f},{height(ends[end]):.1f}" for place, ends in shown]

    return Chart(
        name=name,
        words=words_of(name, language),
        kind=kind_of(name),
        line=" ".join(line(1)),
        band=" ".join([*line(0), *reversed(line(2))]),
        before=None if before is None else height(before[1]),
        bottom=written(name, bottom, language),
        top=written(name, top, language),
        latest=written(name, shown[-1][1][1], language),
        was="—" if before is None else written(name, before[1], language),
    )


def _ends(name: str, week: Week) -> tuple[float, float, float] | None:
    """The 5th, 50th and 95th percentile of a number, or a share three times; ``None`` where the week has neither."""
    if name in week.numbers:
        values = week.numbers[name]
        return values[LOW], values[MIDDLE], values[HIGH]
    n, of = week.counts.get(name, (0, 0))
    if name.startswith(CODE) and not of:
        of = week.counts.get(REFUSED, (0, 0))[1]  # of all films: a code that none has is not listed
    return (n / of,) * 3 if of else None


def words_of(name: str, language: Language) -> str:
    """What a number or share is, in words; a code that has none is shown as it is."""
    if name.startswith(LOGIT):
        finding, _, ages = name.removeprefix(LOGIT).partition(" ")
        return f"{opening(display(finding, language))} {ages}".strip()
    if name.startswith(CODE):
        code = name.removeprefix(CODE)
        if f"drift_code_{code}" in texts():
            return text(f"drift_code_{code}", language)
        return text(f"refused_{code}", language) if f"refused_{code}" in texts() else code
    return text(f"drift_name_{name}", language) if f"drift_name_{name}" in texts() else name


def written(name: str, value: float, language: Language) -> str:
    """A number as the page writes it; a share as a percentage."""
    is_share = name.startswith(CODE) or name in SHARES_OF
    if not is_share:
        return number(value, language)
    space = NARROW_SPACE if language == "fr" else ""
    return f"{_decimal(f'{100 * value:.1f}', language)}{space}%"


def chance(p: float, language: Language) -> str:
    """A p in plain figures; one that is smaller than any that has to be told apart, as that."""
    shown = f"p = {p:.6f}" if p >= LEAST_P else f"p < {LEAST_P:.6f}"
    return _decimal(shown.replace(" ", "\u00a0"), language)


def _decimal(shown: str, language: Language) -> str:
    """A number with the language's decimal mark."""
    return shown if language == "en" else shown.replace(".", ",")


def _end_of(day: str) -> str:
    """The end of a day, UTC, as the API takes it.

    Raises
    ------
    InvalidRequest
    """
    try:
        end = datetime.combine(date.fromisoformat(day.strip()), time(23, 59, 59), UTC)
    except ValueError:
        raise InvalidRequest(FieldFault("until", "field_invalid", "YYYY-MM-DD")) from None
    return end.isoformat()
