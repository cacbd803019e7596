"""Statistics of screening, signing and asking, over the visits of a period that the key may see."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from itertools import combinations
from typing import Literal

import numpy as np

from data_specs.visit.contract import VISIBLE
from service.followup.agreement import kappa
from service.followup.cells import csv_lines
from service.followup.reads import ReadVisit, read_visits
from service.followup.screening import (
    ByFinding,
    Refusal,
    Row,
    Screening,
    by_device,
    by_finding,
    by_reason,
    interval,
    screening,
)
from service.keys import Key
from service.parts import Parts
from service.visits.filters import Filter

Table = Literal["turnaround", "agreement", "unheard", "screening", "findings", "refusals", "devices"]
Reader = Literal["machine", "referrer", "specialist"]
READERS: tuple[Reader, ...] = ("machine", "referrer", "specialist")


class Turnaround(Row):
    """Of one site: numbers of visits and questions, and the time to result, signature and answer (median, p90)."""

    site: str
    visits: int
    signed: int
    sign_hours_median: float | None
    sign_hours_p90: float | None
    asked: int
    answered: int
    answer_hours_median: float | None
    answer_hours_p90: float | None
    complete_seconds_median: float | None
    complete_seconds_p90: float | None


class Agreement(Row):
    """Two readers on one finding, over the visits that both have read.

    Parameters
    ----------
    both, first_only, second_only, neither
        Visits on which both readers say that the finding is present, only the first, only the second, neither.
    share, low, high
        Share of visits on which they agree, with its 95 % interval (Wilson).
    kappa
        Cohen's kappa; ``None`` if both always give the same one answer, so that agreement by chance is complete.
    """

    finding: str
    first: Reader
    second: Reader
    visits: int
    both: int
    first_only: int
    second_only: int
    neither: int
    share: float
    low: float
    high: float
    kappa: float | None


class Unheard(Row):
    """A visit whose latest signed advice is to refer the person, and which has no outcome yet."""

    visit: str
    site: str
    referred_at: datetime
    days: int


class Statistics(Row):
    since: datetime
    before: datetime | None
    site: str | None
    turnaround: tuple[Turnaround, ...]
    agreement: tuple[Agreement, ...]
    unheard: tuple[Unheard, ...]
    screening: tuple[Screening, ...]
    findings: tuple[ByFinding, ...]
    refusals: tuple[Refusal, ...]
    devices: tuple[Refusal, ...]


async def statistics(
    parts: Parts,
    key: Key,
    since: datetime,
    now: datetime,
    *,
    before: datetime | None = None,
    site: str | None = None,
) -> Statistics:
    """Statistics of the finished visits of a period, of one site or of all that ``key`` may see."""
    reads = await read_visits(parts, key, Filter(since=since, before=before, site=site))
    return await asyncio.to_thread(_counted, reads, since, before, site, now)


def _counted(
    reads: Sequence[ReadVisit], since: datetime, before: datetime | None, site: str | None, now: datetime
) -> Statistics:
    # A specialist who reads a visit blind may learn its times, but not what others say of it.
    shown = [read for read in reads if not read.blind]
    return Statistics(
        since=since,
        before=before,
        site=site,
        turnaround=_turnaround(reads),
        agreement=_agreement(shown),
        unheard=_unheard(shown, now),
        screening=screening(shown),
        findings=by_finding(shown),
        refusals=by_reason(reads),
        devices=by_device(reads),
    )


_KINDS: dict[Table, type[Row]] = {
    "turnaround": Turnaround,
    "agreement": Agreement,
    "unheard": Unheard,
    "screening": Screening,
    "findings": ByFinding,
    "refusals": Refusal,
    "devices": Refusal,
}


def as_csv(found: Statistics, table: Table) -> str:
    """One of the tables as CSV. The first line holds the names of the columns."""
    rows: Sequence[Row] = getattr(found, table)
    return csv_lines(list(_KINDS[table].model_fields), [row.model_dump() for row in rows])


def _turnaround(reads: Sequence[ReadVisit]) -> tuple[Turnaround, ...]:
    by_site: dict[str, list[ReadVisit]] = defaultdict(list)
    for read in reads:
        by_site[read.site].append(read)
    return tuple(_of_site(site, visits) for site, visits in sorted(by_site.items()))


def _of_site(site: str, visits: Sequence[ReadVisit]) -> Turnaround:
    completing = [3600 * _hours(read.received_at, read.completed_at) for read in visits if read.completed_at]
    signing = [_hours(read.received_at, read.opinions[0].signed_at) for read in visits if read.opinions]
    questions = [question for read in visits for question in read.questions]
    answering = [_hours(asked, closed) for asked, closed in questions if closed is not None]
    return Turnaround(
        site=site,
        visits=len(visits),
        complete_seconds_median=_percentile(completing, 50),
        complete_seconds_p90=_percentile(completing, 90),
        signed=len(signing),
        sign_hours_median=_percentile(signing, 50),
        sign_hours_p90=_percentile(signing, 90),
        asked=len(questions),
        answered=len(answering),
        answer_hours_median=_percentile(answering, 50),
        answer_hours_p90=_percentile(answering, 90),
    )


def _hours(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() / 3600


def _percentile(hours: Sequence[float], percent: float) -> float | None:
    return round(float(np.percentile(hours, percent)), 2) if hours else None


def _agreement(reads: Sequence[ReadVisit]) -> tuple[Agreement, ...]:
    pairs: dict[tuple[str, Reader, Reader], list[tuple[bool, bool]]] = defaultdict(list)
    for read in reads:
        readings = _readings(read)
        for first, second in combinations([reader for reader in READERS if reader in readings], 2):
            spoken_of = set(readings[first])
            if first != "machine":  # of what it has no verdict on, the machine does not say that it is absent
                spoken_of |= set(readings[second])
            for finding in sorted(spoken_of):
                pair = readings[first].get(finding, False), readings[second].get(finding, False)
                pairs[finding, first, second].append(pair)
    return tuple(_pair(*names, answers) for names, answers in sorted(pairs.items()))


def _readings(read: ReadVisit) -> dict[Reader, dict[str, bool]]:
    """For each reader of a visit: is the finding present? A doctor's latest opinion counts.

    Only findings count that can be seen on a film or a trace: nobody reads a risk or a measured value without the
    machine.
    """
    machine = {name: positive for name, positive in read.machine.items() if name in VISIBLE}
    readings: dict[Reader, dict[str, bool]] = {"machine": machine}
    for opinion in read.opinions:
        readings[opinion.author.role] = opinion.answers(machine)
    return readings


def _pair(finding: str, first: Reader, second: Reader, pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    n = len(pairs)
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    first_only, second_only = pairs.count((True, False)), pairs.count((False, True))
    low, high = interval(both + neither, n)
    beyond_chance = kappa(both, first_only, second_only, neither)
    return Agreement(
        finding=finding,
        first=first,
        second=second,
        visits=n,
        both=both,
        first_only=first_only,
        second_only=second_only,
        neither=neither,
        share=round((both + neither) / n, 3),
        low=low,
        high=high,
        kappa=beyond_chance[0] if beyond_chance else None,
    )


def _unheard(reads: Sequence[ReadVisit], now: datetime) -> tuple[Unheard, ...]:
    """Referred visits without an outcome, the longest waiting first."""
    found = []
    for read in reads:
        advised = [each for each in read.opinions if each.advice is not None]
        if advised and advised[-1].advice == "refer" and not read.outcomes:
            at = advised[-1].signed_at
            found.append(Unheard(visit=read.id, site=read.site, referred_at=at, days=(now - at).days))
    return tuple(sorted(found, key=lambda row: row.referred_at))
