"""Statistics of signing and asking: turnaround by site, agreement between readers, referrals without an outcome.

They cover only the visits that the key may see.
"""

from __future__ import annotations

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
from service.followup.cells import csv_lines
from service.keys import Key
from service.parts import Parts
from service.storage.tables import OpinionRow, OutcomeRow, ReferralRow, VisitRow
from service.visits.stored import seen_by, visible

Table = Literal["turnaround", "agreement", "unheard"]
Reader = Literal["machine", "referrer", "specialist"]
READERS: tuple[Reader, ...] = ("machine", "referrer", "specialist")
MAX_VISITS = 20_000
"""Latest visits of the period that are counted. A district has some thousands a year."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Turnaround(_Row):
    """Of one site: numbers of visits and questions, and hours to signature and answer (median, 90th percentile)."""

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


class Unheard(_Row):
    """A visit whose latest signed advice is to refer the person, and which has no outcome yet."""

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
class _ReadVisit:
    """A visit with its opinions in order."""

    row: VisitRow
    opinions: Sequence[Opinion]


async def statistics(parts: Parts, key: Key, since: datetime, now: datetime) -> Statistics:
    """Statistics of the finished visits that ``key`` may see and that were received at ``since`` or later."""
    query = visible(select(VisitRow).where(VisitRow.received_at >= since, VisitRow.status != "accepted"), key)
    query = query.order_by(VisitRow.received_at.desc()).limit(MAX_VISITS)

    def read(session: Session) -> Statistics:
        visits = seen_by(session, key, query)
        chosen = select(query.with_only_columns(VisitRow.id).subquery().c.id)
        opinions = defaultdict(list)
        signed = select(OpinionRow).where(OpinionRow.visit_id.in_(chosen)).order_by(OpinionRow.number)
        for opinion in session.scalars(signed):
            opinions[opinion.visit_id].append(Opinion.model_validate_json(opinion.opinion))
        questions = session.scalars(select(ReferralRow).where(ReferralRow.visit_id.in_(chosen))).all()
        with_outcome = set(session.scalars(select(OutcomeRow.visit_id).where(OutcomeRow.visit_id.in_(chosen))))
        reads = [_ReadVisit(row, opinions[row.id]) for row in visits]
        # A specialist who reads a visit blind may learn its times, but not what others say of it.
        shown = [read for read in reads if not read.row.blind]
        return Statistics(
            since=since,
            turnaround=_turnaround(reads, questions),
            agreement=_agreement(shown),
            unheard=_unheard(shown, with_outcome, now),
        )

    return await parts.database.read(read)


def as_csv(found: Statistics, table: Table) -> str:
    """One of the tables as CSV. The first line holds the names of the columns."""
    rows: Sequence[_Row] = getattr(found, table)
    kinds: dict[Table, type[_Row]] = {"turnaround": Turnaround, "agreement": Agreement, "unheard": Unheard}
    return csv_lines(list(kinds[table].model_fields), [row.model_dump() for row in rows])


def _turnaround(reads: Sequence[_ReadVisit], questions: Iterable[ReferralRow]) -> tuple[Turnaround, ...]:
    site_of = {read.row.id: read.row.site for read in reads}
    visits_by_site: dict[str, list[_ReadVisit]] = defaultdict(list)
    questions_by_site: dict[str, list[ReferralRow]] = defaultdict(list)
    for read in reads:
        visits_by_site[read.row.site].append(read)
    for question in questions:
        if question.closed_at is None or question.answered_by is not None:  # not withdrawn
            questions_by_site[site_of[question.visit_id]].append(question)
    return tuple(_of_site(site, visits_by_site[site], questions_by_site[site]) for site in sorted(visits_by_site))


def _of_site(site: str, visits: Sequence[_ReadVisit], questions: Sequence[ReferralRow]) -> Turnaround:
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


def _agreement(reads: Sequence[_ReadVisit]) -> tuple[Agreement, ...]:
    pairs: dict[tuple[str, Reader, Reader], list[tuple[bool, bool]]] = defaultdict(list)
    for read in reads:
        readings = _readings(read)
        for first, second in combinations([reader for reader in READERS if reader in readings], 2):
            for finding in sorted(readings[first].keys() | readings[second].keys()):
                pair = readings[first].get(finding, False), readings[second].get(finding, False)
                pairs[finding, first, second].append(pair)
    return tuple(_pair(*names, answers) for names, answers in sorted(pairs.items()))


def _readings(read: _ReadVisit) -> dict[Reader, dict[str, bool]]:
    """For each reader of a visit: is the finding present? A doctor's latest opinion counts.

    A doctor who saw the machine's findings and does not judge one agrees with the machine. A doctor who read blind and
    does not name a finding says that it is absent.
    """
    found = read.row.read_assessment()
    machine = {
        finding.name: finding.positive
        for organ in (found.organs.values() if found else ())
        for finding in organ.findings
        if finding.positive is not None
    }
    readings: dict[Reader, dict[str, bool]] = {"machine": machine}
    for opinion in read.opinions:
        answers = dict.fromkeys(machine, False) if opinion.blind else dict(machine)
        for judgement in opinion.judgements:
            answers[judgement.finding] = judgement.says(machine.get(judgement.finding, False))
        readings[opinion.author.role] = answers
    return readings


def _pair(finding: str, first: Reader, second: Reader, pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    from scipy.stats import binomtest  # noqa: PLC0415  slow to load, and this page is rarely asked for

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
    """Cohen's kappa: agreement beyond chance.

    References
    ----------
    Cohen J., A coefficient of agreement for nominal scales, Educ Psychol Meas 1960;20:37-46, equation 1.
    """
    n = both + first_only + second_only + neither
    observed = (both + neither) / n
    chance = ((both + first_only) * (both + second_only) + (neither + first_only) * (neither + second_only)) / n**2
    return None if chance == 1 else round((observed - chance) / (1 - chance), 3)


def _unheard(reads: Sequence[_ReadVisit], with_outcome: set[str], now: datetime) -> tuple[Unheard, ...]:
    """Referred visits without an outcome, the longest waiting first."""
    found = []
    for read in reads:
        advised = [each for each in read.opinions if each.advice is not None]
        if advised and advised[-1].advice == "refer" and read.row.id not in with_outcome:
            at = advised[-1].signed_at
            found.append(Unheard(visit=read.row.id, site=read.row.site, referred_at=at, days=(now - at).days))
    return tuple(sorted(found, key=lambda row: row.referred_at))
