"""``/planning``: what each threshold of a finding finds, misses and costs, for the admins of a programme.

Everything that was stated is in the address, so that a link is a saved plan; nothing is stored.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import ValidationError

from data_specs.bundle import BundleManifest
from data_specs.planning.consequences import MONEY, SHARES, Consequences, Figure, plan
from data_specs.planning.performance import Performance, performances
from data_specs.planning.programme import ALL_CASES, Prevalence, Programme
from data_specs.planning.table import a_few, as_csv
from data_specs.problems import message
from data_specs.vocabulary import Language, display, is_reassuring
from inference.bundles.registry import finding_key, read_registry
from service.api.session import page_key
from service.faults import BETWEEN, field_faults
from service.language.choice import language_of
from service.language.texts import NARROW_SPACE, opening
from service.pages.curves import HEIGHT, WIDTH, Curve, curve
from service.pages.frame import page, to_login
from service.state import service_of

COSTS = ("currency", "screening", "recall_visit", "confirmatory_test", "tests_per_recall", "treatment_start")
FIELDS = ("finding", "people", "prevalence", *COSTS)
COLUMNS = ("sensitivity", "specificity", "recalled", "found", "missed", "tests", "ppv", "npv", "cost_per_case", "total")
CHARTS = ("recalled", "missed", "cost_per_case")
DRAWS = 4000
"""Fewer than on the command line, for a page that is waited for: the ends of an interval vary by a hundredth of it."""
PLANNED = "screened"
MARKS = {"en": {}, "fr": str.maketrans(",.", NARROW_SPACE + ","), "vi": str.maketrans(",.", ".,")}
"""How a language writes the comma between three digits and the decimal point of ``1,234.5``."""
MAX_FIELD = 200

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True, slots=True)
class Offered:
    """Cases of a finding that can be planned from."""

    bundle: str
    finding: str
    group: str
    performance: Performance


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan at one prevalence, and its curves by figure."""

    found: Consequences
    curves: Mapping[str, Curve]


@router.get("/planning")
async def planning(request: Request) -> Response:
    """The form, and the plan where it is filled in."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    offered = await asyncio.to_thread(_offered, service_of(request).settings.bundles)
    given, wrong, programme = _read(request, offered)
    chosen = offered.get(given.get("finding", ""))
    planned = await asyncio.to_thread(_planned, programme, chosen) if programme and chosen else []
    return page(
        request,
        "planning.html",
        422 if wrong else 200,
        key=key,
        offered=_by_finding(offered),
        given=given,
        wrong=wrong,
        chosen=chosen,
        programme=programme,
        recalls_below=chosen is not None and is_reassuring(chosen.finding.partition(" ")[0]),
        planned=planned,
        costs=COSTS,
        charts=CHARTS,
        columns=COLUMNS,
        money=MONEY,
        size=(WIDTH, HEIGHT),
        a_few=a_few,
        query=request.url.query,
        **_written(language_of(request)),
    )


@router.get("/planning.csv")
async def planning_table(request: Request) -> Response:
    """The same plan as CSV, with every threshold; the form again where it cannot be made."""
    key = await page_key(request)
    if key is None:
        return to_login(request)
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    offered = await asyncio.to_thread(_offered, service_of(request).settings.bundles)
    given, _, programme = _read(request, offered)
    if programme is None:
        return await planning(request)
    planned = await asyncio.to_thread(_planned, programme, offered[given["finding"]])
    content = as_csv((each.found for each in planned), programme.costs.currency)
    headers = {"Content-Disposition": 'attachment; filename="planning.csv"', "Cache-Control": "no-store"}
    return Response(content, 200, headers, "text/csv; charset=utf-8")


def _offered(bundles: Path) -> dict[str, Offered]:
    """What can be planned: findings of the bundles in service and in the shadow, by bundle, column and group."""
    registry = read_registry(bundles)
    found: dict[str, Offered] = {}
    for name in registry.versions:
        for version in dict.fromkeys((registry.in_service(name), registry.shadow(name))):
            if version not in registry.versions[name]:
                continue
            folder = registry.folder_of(name, version)
            try:
                manifest = BundleManifest.model_validate_json((folder / "screening.json").read_bytes())
            except (OSError, ValueError):  # the version is being copied; it is offered when it is complete
                continue
            for spec in manifest.findings:
                if spec.roc:
                    for group, performance in performances(spec).items():
                        chosen = f"{folder.name}/{spec.column}/{group}"
                        found[chosen] = Offered(folder.name, finding_key(spec), group, performance)
    return found


def _by_finding(offered: Mapping[str, Offered]) -> dict[tuple[str, str], dict[str, Offered]]:
    """What can be planned, by bundle and finding."""
    found: dict[tuple[str, str], dict[str, Offered]] = {}
    for chosen, each in offered.items():
        found.setdefault((each.bundle, each.finding), {})[chosen] = each
    return found


def _read(request: Request, offered: Mapping[str, Offered]) -> tuple[dict[str, str], dict[str, str], Programme | None]:
    """What the address states, why fields of it cannot be used, and the programme that it describes."""
    language = language_of(request)
    given = {name: request.query_params[name].strip()[:MAX_FIELD] for name in FIELDS if name in request.query_params}
    if not given:
        return {}, {}, None
    stated: dict[str, Any] = {name: value for name, value in given.items() if value}
    population = {name: stated[name] for name in ("people", "prevalence") if name in stated}
    wrong: dict[str, str] = {}
    if not given.get("finding"):
        wrong["finding"] = message("field_missing", language)
    elif given["finding"] not in offered:  # a link of before a promotion names the bundle of that time
        bundles = BETWEEN.join(sorted({each.bundle for each in offered.values()}))
        wrong["finding"] = message("field_invalid", language, expected=bundles)
    try:
        programme = Programme.model_validate(
            {
                "costs": {name: stated[name] for name in COSTS if name in stated},
                "populations": {PLANNED: population | {"cases": ALL_CASES}},
            }
        )
    except ValidationError as error:
        for fault in field_faults(error.errors(include_url=False)):
            wrong.setdefault(fault.field.rpartition(".")[2], fault.sentence(language))
        return given, wrong, None
    return given, wrong, None if wrong else programme


def _planned(programme: Programme, offered: Offered) -> list[Planned]:
    found = plan(programme, {ALL_CASES: offered.performance}, draws=DRAWS)
    return [Planned(each, _curves(each)) for each in found]


def _curves(found: Consequences) -> dict[str, Curve]:
    decides = found.performance.decides
    drawn = {name: curve(found.rows, name, decides, by_factors=name == "cost_per_case") for name in CHARTS}
    return {name: each for name, each in drawn.items() if each is not None}


def _written(language: Language) -> dict[str, Any]:
    """How the template writes numbers."""

    def decimals(value: float, digits: int) -> str:
        return f"{value:,.{digits}f}".translate(MARKS[language])

    def amount(value: float) -> str:
        """With groups of three digits and, below 100, decimals."""
        return decimals(value, 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2)

    def interval(figure: Figure, name: str) -> tuple[str, str, str] | None:
        """The figure and its interval, ``None`` where it is not defined; an NPV, near 100 %, has two decimals."""
        if math.isnan(figure.value):
            return None
        ends = (figure.value, figure.low, figure.high)
        digits = 2 if name == "npv" else 1
        value, low, high = (decimals(100 * each, digits) if name in SHARES else amount(each) for each in ends)
        return value, low, high

    def prevalence(of: Prevalence) -> str:
        return str(of).translate(MARKS[language])

    def title(finding: str) -> str:
        name, space, ages = finding.partition(" ")
        return f"{opening(display(name, language))}{space}{ages}"

    return {
        "amount": amount,
        "decimals": decimals,
        "interval": interval,
        "prevalence": prevalence,
        "finding_title": title,
    }
