"""How trainees do, and which cases are hard: computed from the readings whenever somebody asks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.schema import Schema
from data_specs.visit.teaching import teaches
from service.errors import Forbidden, NotFound
from service.keys import Key
from service.learning.choice import Difficulty, band, difficulty
from service.learning.figures import Answers, Block, Figures, blocks, by_finding, peers
from service.learning.readings import expect_trainee
from service.learning.records import Signed, StoredCase, answers, asked_about, cases_of, errors_of, signed_of
from service.parts import Parts
from service.storage.tables import KeyRow, ReadingRow


class Progress(Schema):
    """A trainee's first readings of a period.

    Parameters
    ----------
    reader, name, site
        Their key's id, the person's name, and the teaching site.
    first, last
        When the first and the last of them were signed.
    cases, again
        First readings, which count, and later ones of the same cases, which do not.
    packages
        Digests of the packages that the cases came with.
    """

    reader: str
    name: str
    site: str
    first: datetime | None
    last: datetime | None
    cases: int
    again: int
    figures: tuple[Figures, ...]
    blocks: tuple[Block, ...]
    packages: tuple[str, ...]


class CaseProgress(Schema):
    """A case: what is there, how many trainees have read it, how many erred, how hard it is."""

    visit: str
    site: str
    package: str
    present: tuple[str, ...]
    absent: tuple[str, ...]
    read: int
    wrong: int
    value: float
    difficulty: Difficulty


async def progress(
    parts: Parts,
    key: Key,
    reader: str | None = None,
    *,
    since: datetime | None = None,
    before: datetime | None = None,
) -> Progress:
    """Figures of a trainee, beside their peers: their own, or of ``reader`` for an admin.

    Raises
    ------
    Forbidden
        Somebody else's figures are for admins alone.
    NotFound
        No such trainee.
    """
    if key.role != "admin":
        expect_trainee(key)
        if reader not in (None, key.id):
            raise Forbidden

    def read(session: Session) -> tuple[KeyRow | None, Mapping[str, StoredCase], Sequence[Signed], Sequence[Signed]]:
        row = session.get(KeyRow, reader or key.id)
        if row is None or row.role != "doctor" or not teaches(row.site):
            return None, {}, (), ()
        cases = cases_of(session, row.site)
        return row, cases, signed_of(session, cases, row.id), signed_of(session, cases)

    row, cases, own, firsts = await parts.database.read(read)
    if row is None:
        raise NotFound
    own = [each for each in own if (since is None or each.at >= since) and (before is None or each.at < before)]
    return await asyncio.to_thread(_progress, row, cases, own, firsts)


async def readers(parts: Parts, key: Key) -> list[Progress]:
    """Figures of all trainees who have read a case, by site and name.

    Raises
    ------
    Forbidden
        They are for admins alone.
    """
    _expect_admin(key)

    def read(session: Session) -> tuple[Sequence[KeyRow], Mapping[str, StoredCase], dict[str, list[Signed]]]:
        cases = cases_of(session)
        ids = select(ReadingRow.key_id).where(ReadingRow.signed_at.is_not(None)).distinct()
        rows = session.scalars(select(KeyRow).where(KeyRow.id.in_(ids)).order_by(KeyRow.site, KeyRow.label, KeyRow.id))
        found = rows.all()
        return found, cases, {row.id: signed_of(session, cases, row.id) for row in found}

    rows, cases, own = await parts.database.read(read)
    return await asyncio.to_thread(lambda: [_progress(row, cases, own[row.id], ()) for row in rows])


async def hard_cases(parts: Parts, key: Key) -> list[CaseProgress]:
    """All cases, the hardest first.

    Raises
    ------
    Forbidden
        They are for admins alone: they say what is true of them.
    """
    _expect_admin(key)

    def read(session: Session) -> tuple[Mapping[str, StoredCase], Sequence[Signed]]:
        cases = cases_of(session)
        return cases, signed_of(session, cases)

    cases, firsts = await parts.database.read(read)
    return await asyncio.to_thread(_hard, cases, firsts)


def _hard(cases: Mapping[str, StoredCase], firsts: Sequence[Signed]) -> list[CaseProgress]:
    errors = errors_of(cases, firsts)
    made = [_case(each, errors.get(each.visit, [])) for each in cases.values()]
    return sorted(made, key=lambda case: (-case.value, case.visit))


def _case(stored: StoredCase, errors: Sequence[frozenset[str]]) -> CaseProgress:
    value = difficulty(stored.case, errors)
    return CaseProgress(
        visit=stored.visit,
        site=stored.site,
        package=stored.package,
        present=tuple(name for name, known in stored.case.known.items() if known.there),
        absent=tuple(name for name, known in stored.case.known.items() if not known.there),
        read=len(errors),
        wrong=sum(map(bool, errors)),
        value=round(value, 3),
        difficulty=band(value),
    )


def _progress(
    row: KeyRow, cases: Mapping[str, StoredCase], own: Sequence[Signed], firsts: Sequence[Signed]
) -> Progress:
    """``firsts``: of everybody at the site, where peers are wanted."""
    counted = [each for each in own if each.number == 1]
    read = _answers(cases, counted)
    others: dict[str, list[Signed]] = defaultdict(list)
    for each in firsts:
        if each.key_id != row.id:
            others[each.key_id].append(each)
    theirs = [_answers(cases, each) for each in others.values()]
    order = asked_about(cases.values())
    made = by_finding(read, order)
    return Progress(
        reader=row.id,
        name=row.label or row.doctor_id or row.id,
        site=row.site,
        first=counted[0].at if counted else None,
        last=counted[-1].at if counted else None,
        cases=len(counted),
        again=len(own) - len(counted),
        figures=tuple(each.model_copy(update={"peers": peers(each.finding, theirs)}) for each in made),
        blocks=blocks(read, [each.at for each in counted], order),
        packages=tuple(sorted({cases[each.visit].package for each in counted})),
    )


def _answers(cases: Mapping[str, StoredCase], signed: Sequence[Signed]) -> Answers:
    return [answers(cases[each.visit].case, each.reading) for each in signed]


def _expect_admin(key: Key) -> None:
    if key.role != "admin":
        raise Forbidden
