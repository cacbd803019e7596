"""A person's earlier visits beside this one: what changed in each finding, and where eGFR, heart rate and QTc go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from data_specs.schema import Schema
from data_specs.visit.assessment import Assessment, FoundFinding
from data_specs.visit.contract import Organ, Priority

TRENDS = ("egfr", "heart_rate", "qtc_interval")
"""Measured findings whose course over the visits is shown."""
DAYS_PER_YEAR = 365.25
SHORTEST_SLOPE_DAYS = 90
"""Between the first and last of the values, below which no slope is told.

References
----------
KDIGO 2024, section 1.1.3: chronicity is a matter of three months at least.
"""
FIRM_SLOPE_DAYS, FIRM_SLOPE_VALUES = 365, 3
"""From this span and number on a slope is not called provisional.

References
----------
Levey A.S. et al., Change in albuminuria and GFR as end points for clinical trials in early stages of CKD (NKF-FDA-EMA
workshop), Am J Kidney Dis 2020;75:84-104: slopes over shorter spans are dominated by the variation of single values.
"""

Turn = Literal["new", "gone", "still", "still_not"]


class Change(Schema):
    """One finding then and now: probabilities, or values of the same unit.

    Parameters
    ----------
    difference
        Now less then; ``None`` where a value is a word.
    turn
        How its side of the threshold changed; ``None`` where none decides.
    """

    finding: str
    organ: Organ
    unit: str | None
    then: float | str
    now: float | str
    difference: float | None
    turn: Turn | None


class DifferentBundle(Schema):
    """Two visits that were computed with different versions: a change may be the model's, not the person's."""

    name: str
    then: str
    now: str


class EarlierVisit(Schema):
    id: str
    on: date
    version: int
    priority: Priority
    changes: tuple[Change, ...]
    different_bundles: tuple[DifferentBundle, ...]


class Course(Schema):
    """A measured finding over the visits, oldest first.

    Parameters
    ----------
    per_year
        Slope of the least-squares line in ``unit`` per year; ``None`` where the values lie too close together.
    provisional
        Fewer values, or over a shorter time, than a slope needs to mean much.
    """

    finding: str
    unit: str | None
    points: tuple[tuple[date, float], ...]
    per_year: float | None
    provisional: bool


class Comparison(Schema):
    """Earlier visits, latest first, and the courses over all of them."""

    earlier: tuple[EarlierVisit, ...]
    courses: tuple[Course, ...]


@dataclass(frozen=True, slots=True)
class Assessed:
    """A finished visit: its id, its day, its report's version, what was found."""

    id: str
    on: date
    version: int
    found: Assessment


def compare(now: Assessed, earlier: Sequence[Assessed]) -> Comparison:
    """The comparison of ``now`` with each earlier visit, and the courses over them all."""
    latest_first = sorted(earlier, key=lambda each: each.on, reverse=True)
    return Comparison(
        earlier=tuple(_beside(each, now) for each in latest_first),
        courses=tuple(course for name in TRENDS if (course := _course(name, [*reversed(latest_first), now]))),
    )


def _beside(then: Assessed, now: Assessed) -> EarlierVisit:
    before, after = _findings(then.found), _findings(now.found)
    changes = (_change(organ, before[name][1], found) for name, (organ, found) in after.items() if name in before)
    versions = {each.name: each.version for each in then.found.models}
    return EarlierVisit(
        id=then.id,
        on=then.on,
        version=then.version,
        priority=then.found.priority,
        changes=tuple(change for change in changes if change is not None),
        different_bundles=tuple(
            DifferentBundle(name=each.name, then=versions[each.name], now=each.version)
            for each in now.found.models
            if versions.get(each.name, each.version) != each.version
        ),
    )


def _findings(found: Assessment) -> dict[str, tuple[Organ, FoundFinding]]:
    return {each.name: (name, each) for name, organ in found.organs.items() for each in organ.findings}


def _change(organ: Organ, then: FoundFinding, now: FoundFinding) -> Change | None:
    before, after = (each.probability if each.value is None else each.value for each in (then, now))
    if before is None or after is None or then.unit != now.unit or (then.value is None) != (now.value is None):
        return None
    both = isinstance(before, float | int) and isinstance(after, float | int)
    return Change(
        finding=now.name,
        organ=organ,
        unit=now.unit,
        then=before,
        now=after,
        difference=float(after) - float(before) if both else None,
        turn=_turn(then.positive, now.positive),
    )


def _turn(then: bool | None, now: bool | None) -> Turn | None:
    if then is None or now is None:
        return None
    return ("still" if now else "gone") if then else ("new" if now else "still_not")


def _course(name: str, visits: Sequence[Assessed]) -> Course | None:
    points, unit = [], None
    for visit in visits:
        found = _findings(visit.found).get(name)
        if found is not None and isinstance(found[1].value, float | int):
            points.append((visit.on, float(found[1].value)))
            unit = found[1].unit
    if len(points) < 2:
        return None
    days = (points[-1][0] - points[0][0]).days
    return Course(
        finding=name,
        unit=unit,
        points=tuple(points),
        per_year=_slope_per_year(points) if days >= SHORTEST_SLOPE_DAYS else None,
        provisional=days < FIRM_SLOPE_DAYS or len(points) < FIRM_SLOPE_VALUES,
    )


def _slope_per_year(points: Sequence[tuple[date, float]]) -> float:
    years = np.array([(on - points[0][0]).days / DAYS_PER_YEAR for on, _ in points])
    values = np.array([value for _, value in points])
    centred = years - years.mean()
    return float(centred @ (values - values.mean()) / (centred @ centred))
