"""How the loop goes: turn-around by site, who agrees with whom, and whom nobody has heard of since.

Only what the asking key may see is counted.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.opinion import Opinion
from service.keys import Key
from service.parts import Parts
from service.storage.tables import OpinionRow, OutcomeRow, ReferralRow, VisitRow
from service.visits.stored import seen_by, visible

Table = Literal["turnaround", "agreement", "unheard"]
Reader = Literal["machine", "referrer", "specialist"]
READERS: tuple[Reader, ...] = ("machine", "referrer", "specialist")
MOST_VISITS = 20_000
"""The latest so many of the period; a district has some thousands a year."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turnaround(_Row):
    """Of one site: how many visits and questions, and in how many hours half and nine tenths of them were answered."""

    site: str
    visits: int
    signed: int
    sign_hours_median: float | None
    sign_hours_p90: float | None
    asked: int
    answered: int
    answer_hours_median: float | None
    answer_hours_p90: float | None


class Agreement(_Row):
    """Two readers on one finding, over the visits that both have read.

    Parameters
    ----------
    share, low, high
        Share of visits on which they say the same, with its 95 % interval (Wilson).
    kappa
        Cohen's; ``None`` where both always say the same one thing, so that chance explains everything.
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


class Unheard(_Row):
    """A visit whose last signed advice was to refer the person, without any outcome recorded since."""

    visit: str
    site: str
    referred_at: datetime
    days: int


class Statistics(_Row):
    since: datetime
    turnaround: tuple[Turnaround, ...]
    agreement: tuple[Agreement, ...]
    unheard: tuple[Unheard, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """A visit with its opinions in order."""

    row: VisitRow
    opinions: Sequence[Opinion]


async def statistics(parts: Parts, key: Key, since: datetime, now: datetime) -> Statistics:
    """Over the finished visits that ``key`` may see and that were received since then."""
    query = visible(select(VisitRow).where(VisitRow.received_at >= since, VisitRow.status != "accepted"), key)
    query = query.order_by(VisitRow.received_at.desc()).limit(MOST_VISITS)

    def read(session: Session) -> Statistics:
        visits = seen_by(session, key, query)
        chosen = select(query.with_only_columns(VisitRow.id).subquery().c.id)
        signed = defaultdict(list)
        opinions = select(OpinionRow).where(OpinionRow.visit_id.in_(chosen)).order_by(OpinionRow.number)
        for each in session.scalars(opinions):
            signed[each.visit_id].append(Opinion.model_validate_json(each.opinion))
        asked = session.scalars(select(ReferralRow).where(ReferralRow.visit_id.in_(chosen))).all()
        known = set(session.scalars(select(OutcomeRow.visit_id).where(OutcomeRow.visit_id.in_(chosen))))
        reads = [_Read(row, signed[row.id]) for row in visits]
        shown = [read for read in reads if not read.row.blind]  # who reads blind learns times, and what nobody says
        return Statistics(
            since=since,
            turnaround=_turnaround(reads, asked),
            agreement=_agreement(shown),
            unheard=_unheard(shown, known, now),
        )

    return await parts.database.read(read)


def as_csv(found: Statistics, table: Table) -> str:
    """One of the tables, its first line the names of its columns."""
    rows: Sequence[_Row] = getattr(found, table)
    kinds: dict[Table, type[_Row]] = {"turnaround": Turnaround, "agreement": Agreement, "unheard": Unheard}
    out = io.StringIO()
    writer = csv.DictWriter(out, list(kinds[table].model_fields), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.model_dump().items()} for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    """A site's name that begins like a formula would be one to a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def _turnaround(reads: Sequence[_Read], asked: Iterable[ReferralRow]) -> tuple[Turnaround, ...]:
    site_of = {read.row.id: read.row.site for read in reads}
    visits: dict[str, list[_Read]] = defaultdict(list)
    questions: dict[str, list[ReferralRow]] = defaultdict(list)
    for read in reads:
        visits[read.row.site].append(read)
    for each in asked:
        if each.closed_at is None or each.answered_by is not None:  # a withdrawn question waits for nobody
            questions[site_of[each.visit_id]].append(each)
    return tuple(_of_site(site, visits[site], questions[site]) for site in sorted(visits))


def _of_site(site: str, visits: Sequence[_Read], questions: Sequence[ReferralRow]) -> Turnaround:
    signing = [_hours(read.row.received_at, read.opinions[0].signed_at) for read in visits if read.opinions]
    answering = [_hours(each.asked_at, each.closed_at) for each in questions if each.closed_at is not None]
    return Turnaround(
        site=site,
        visits=len(visits),
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


def _agreement(reads: Sequence[_Read]) -> tuple[Agreement, ...]:
    said: dict[tuple[str, Reader, Reader], list[tuple[bool, bool]]] = defaultdict(list)
    for read in reads:
        readings = _readings(read)
        for first, second in combinations([each for each in READERS if each in readings], 2):
            for finding in sorted(readings[first].keys() | readings[second].keys()):
                pair = readings[first].get(finding, False), readings[second].get(finding, False)
                said[finding, first, second].append(pair)
    return tuple(_pair(*names, pairs) for names, pairs in sorted(said.items()))


def _readings(read: _Read) -> dict[Reader, dict[str, bool]]:
    """What each reader of a visit says of each finding, a doctor by their last opinion.

    Who signs without a word on a finding says what the machine said, which was before their eyes; who read blind and
    names no finding says that there is none.
    """
    found = read.row.read_assessment()
    machine = {
        each.name: each.positive
        for organ in (found.organs.values() if found else ())
        for each in organ.findings
        if each.positive is not None
    }
    readings: dict[Reader, dict[str, bool]] = {"machine": machine}
    for opinion in read.opinions:
        stance = dict.fromkeys(machine, False) if opinion.blind else dict(machine)
        for judgement in opinion.judgements:
            stance[judgement.finding] = judgement.says(machine.get(judgement.finding, False))
        readings[opinion.author.role] = stance
    return readings


def _pair(finding: str, first: Reader, second: Reader, pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    from scipy.stats import binomtest  # noqa: PLC0415  takes a while to load, for a page that is rarely asked for

    n = len(pairs)
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    first_only, second_only = pairs.count((True, False)), pairs.count((False, True))
    interval = binomtest(both + neither, n).proportion_ci(method="wilson")
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
        low=round(float(interval.low), 3),
        high=round(float(interval.high), 3),
        kappa=_kappa(both, first_only, second_only, neither),
    )


def _kappa(both: int, first_only: int, second_only: int, neither: int) -> float | None:
    """Agreement beyond chance.

    References
    ----------
    Cohen J., A coefficient of agreement for nominal scales, Educ Psychol Meas 1960;20:37-46, equation 1.
    """
    n = both + first_only + second_only + neither
    seen = (both + neither) / n
    chance = ((both + first_only) * (both + second_only) + (neither + first_only) * (neither + second_only)) / n**2
    return None if chance == 1 else round((seen - chance) / (1 - chance), 3)


def _unheard(reads: Sequence[_Read], known: set[str], now: datetime) -> tuple[Unheard, ...]:
    """Longest waiting first."""
    found = []
    for read in reads:
        advised = [each for each in read.opinions if each.advice is not None]
        if advised and advised[-1].advice == "refer" and read.row.id not in known:
            at = advised[-1].signed_at
            found.append(Unheard(visit=read.row.id, site=read.row.site, referred_at=at, days=(now - at).days))
    return tuple(sorted(found, key=lambda each: each.referred_at))
