"""Cases and readings as the tables have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.visit.teaching import LEARNT, Case, NewReading
from service.storage.tables import IS_CASE, CaseRow, ReadingRow, VisitRow


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case that can be read. ``package``: the digest of the package that it came with."""

    visit: str
    site: str
    package: str
    case: Case


@dataclass(frozen=True, slots=True)
class Signed:
    """A reading that was signed. ``number``: 1 for the first time that this trainee read the case."""

    visit: str
    key_id: str
    number: int
    at: datetime
    reading: NewReading


@dataclass(frozen=True, slots=True)
class Answer:
    """What is true of one finding, and what a trainee says of it."""

    there: bool
    said: bool
    confidence: int | None = None


ANY = "any"
"""Whether any of the findings is there whose truth is known: the case as a whole."""


def cases_of(session: Session, site: str | None = None) -> dict[str, StoredCase]:
    """Cases that are assessed and of which something is known, by visit; of one teaching site, or of all."""
    query = select(CaseRow.visit_id, VisitRow.site, CaseRow.set_digest, CaseRow.known)
    query = query.join(VisitRow, VisitRow.id == CaseRow.visit_id).where(VisitRow.status == "complete", IS_CASE)
    if site is not None:
        query = query.where(VisitRow.site == site)
    found = (
        StoredCase(visit, where, package, Case.model_validate_json(known))
        for visit, where, package, known in session.execute(query.order_by(CaseRow.visit_id))
    )
    return {each.visit: each for each in found if each.case.known}


def signed_of(session: Session, cases: Iterable[str], key_id: str | None = None) -> list[Signed]:
    """The signed readings of these cases in order; of one trainee, all of theirs, else the first ones of everybody."""
    query = select(
        ReadingRow.visit_id, ReadingRow.key_id, ReadingRow.number, ReadingRow.signed_at, ReadingRow.reading
    ).where(ReadingRow.signed_at.is_not(None))
    query = query.where(ReadingRow.number == 1 if key_id is None else ReadingRow.key_id == key_id)
    wanted = set(cases)
    return [
        Signed(visit, key, number, at, NewReading.model_validate_json(document))
        for visit, key, number, at, document in session.execute(query.order_by(ReadingRow.signed_at, ReadingRow.id))
        if visit in wanted and at is not None and document is not None
    ]


def answers(case: Case, reading: NewReading) -> dict[str, Answer]:
    """What a trainee says of each finding whose truth is known, and of the case as a whole."""
    of_findings = {
        name: Answer(known.there, name in reading.seen, reading.confidence.get(name))
        for name, known in case.known.items()
    }
    whole = Answer(case.has_finding, any(each.said for each in of_findings.values()))
    return {ANY: whole, **of_findings}


def wrong(case: Case, reading: NewReading) -> frozenset[str]:
    """The findings that a trainee missed or saw where they are not."""
    return frozenset(
        name for name, each in answers(case, reading).items() if name != ANY and each.there is not each.said
    )


def errors_of(cases: Mapping[str, StoredCase], firsts: Sequence[Signed]) -> dict[str, list[frozenset[str]]]:
    """What was wrong in each first reading, by case."""
    found: dict[str, list[frozenset[str]]] = defaultdict(list)
    for each in firsts:
        if each.number == 1:
            found[each.visit].append(wrong(cases[each.visit].case, each.reading))
    return found


def asked_about(cases: Iterable[StoredCase]) -> tuple[str, ...]:
    """The findings whose truth is known in any of the cases, so that the question says nothing of one case."""
    known = {name for each in cases for name in each.case.known}
    return tuple(name for name in LEARNT if name in known)
