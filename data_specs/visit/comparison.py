"""A person's visit compared with their earlier ones: changes in each finding, the course of eGFR, heart rate, QTc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from data_specs.person import years_between
from data_specs.schema import Schema
from data_specs.visit.assessment import Assessment, FoundFinding
from data_specs.visit.contract import Organ, Priority
from data_specs.vocabulary import term_of

WITH_COURSE = ("egfr", "heart_rate", "qtc_interval")
"""Measured findings whose course over the visits is shown."""
MIN_SLOPE_DAYS = 90
"""Days between the first and the last value from which on a slope is given.

References
----------
KDIGO 2024, section 1.1.3: what is chronic lasts for at least three months.
"""
RELIABLE_SLOPE_DAYS, RELIABLE_SLOPE_VALUES = 365, 3
"""Days between the first and the last value, and number of values, below which a slope is called provisional.

References
----------
Levey A.S. et al., Change in albuminuria and GFR as end points for clinical trials in early stages of CKD (NKF-FDA-EMA
workshop), Am J Kidney Dis 2020;75:84-104: over a shorter time, a slope shows mostly how much single values vary.
"""

Turn = Literal["new", "gone", "still", "still_not"]


class Change(Schema):
    """One finding in an earlier visit (``then``) and in this one (``now``): probabilities, or values of one unit.

    Parameters
    ----------
    difference
        ``now`` minus ``then``; ``None`` where a value is a word.
    turn
        How the finding changed between positive and negative; ``None`` where one of the two is undecided.
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
    """An earlier visit, and what changed from then to now."""

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
        Slope of the least-squares line in ``unit`` per year; ``None`` where the values cover too short a time.
    provisional
        Whether there are too few values, or over too short a time, to rely on the slope.
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
class AssessedVisit:
    """A finished visit: its id, its day, the version of its report, what was found."""

    id: str
    on: date
    version: int
    found: Assessment


def compare(now: AssessedVisit, earlier: Sequence[AssessedVisit]) -> Comparison:
    """``now`` compared with each earlier visit, and the courses over all of them."""
    latest_first = sorted(earlier, key=lambda visit: visit.on, reverse=True)
    return Comparison(
        earlier=tuple(_earlier_visit(visit, now) for visit in latest_first),
        courses=tuple(found for name in WITH_COURSE if (found := course(name, [*latest_first, now]))),
    )


def _earlier_visit(then: AssessedVisit, now: AssessedVisit) -> EarlierVisit:
    before, after = _findings(then.found), _findings(now.found)
    changes = (_change(organ, before[name][1], found) for name, (organ, found) in after.items() if name in before)
    versions = {model.name: model.version for model in then.found.models}
    return EarlierVisit(
        id=then.id,
        on=then.on,
        version=then.version,
        priority=then.found.priority,
        changes=tuple(change for change in changes if change is not None),
        different_bundles=tuple(
            DifferentBundle(name=model.name, then=versions[model.name], now=model.version)
            for model in now.found.models
            if versions.get(model.name, model.version) != model.version
        ),
    )


def _findings(found: Assessment) -> dict[str, tuple[Organ, FoundFinding]]:
    """Findings by name; a change over the visits is none that changes."""
    return {
        finding.name: (name, finding)
        for name, organ in found.organs.items()
        for finding in organ.findings
        if not term_of(finding.name).signed
    }


def _change(organ: Organ, then: FoundFinding, now: FoundFinding) -> Change | None:
    before, after = (found.probability if found.value is None else found.value for found in (then, now))
    if before is None or after is None or then.unit != now.unit or (then.value is None) != (now.value is None):
        return None
    numbers = isinstance(before, float | int) and isinstance(after, float | int)
    return Change(
        finding=now.name,
        organ=organ,
        unit=now.unit,
        then=before,
        now=after,
        difference=float(after) - float(before) if numbers else None,
        turn=_turn(then.positive, now.positive),
    )


def _turn(then: bool | None, now: bool | None) -> Turn | None:
    if then is None or now is None:
        return None
    return ("still" if now else "gone") if then else ("new" if now else "still_not")


def course(name: str, visits: Sequence[AssessedVisit]) -> Course | None:
    """A measured finding over the visits, in whatever order these come; ``None`` with fewer than two values."""
    points, unit = [], None
    for visit in sorted(visits, key=lambda visit: visit.on):
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
        per_year=_slope_per_year(points) if days >= MIN_SLOPE_DAYS else None,
        provisional=days < RELIABLE_SLOPE_DAYS or len(points) < RELIABLE_SLOPE_VALUES,
    )


def _slope_per_year(points: Sequence[tuple[date, float]]) -> float:
    years = np.array([years_between(points[0][0], on) for on, _ in points])
    values = np.array([value for _, value in points])
    centred = years - years.mean()
    return float(centred @ (values - values.mean()) / (centred @ centred))
