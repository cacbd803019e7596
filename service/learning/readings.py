"""A trainee is given a case, reads it blind, signs, and is shown what is known of it."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from data_specs.schema import Schema
from data_specs.visit.teaching import LEARNT, Basis, Case, NewReading, SpecialistSaid, teaches
from service.errors import CaseWasRead, FieldFault, Forbidden, InvalidRequest, NoCaseNow, NotFound
from service.keys import Key
from service.learning.choice import Difficulty, Wish, choose, due
from service.learning.records import StoredCase, answers, asked_about, cases_of, errors_of, signed_of
from service.parts import Parts
from service.storage.audit import note
from service.storage.database import database_now, insert_rows
from service.storage.tables import VISITS, KeyRow, ReadingRow, VisitRow
from service.visits.stored import load_shown

Verdict = Literal["right", "missed", "added"]


class NextCase(Schema):
    """What to read next: cases in which the truth of ``finding`` is known, of one difficulty; left out, any."""

    finding: str | None = None
    difficulty: Difficulty | None = None


class Compared(Schema):
    """One finding: what is true, by whom, and what the trainee says.

    Parameters
    ----------
    specialists
        How many specialists at home say that it is there, and how many speak of it.
    machine
        Its probability by the machine at home.
    """

    finding: str
    there: bool
    by: Basis
    said: bool
    verdict: Verdict
    confidence: int | None
    specialists: tuple[int, int]
    machine: float | None


class Result(Schema):
    """What is known of a case that was read.

    Parameters
    ----------
    again_on
        When the case is given again; ``None``: it is not.
    """

    signed_at: datetime
    reading: NewReading
    compared: tuple[Compared, ...]
    specialists: tuple[SpecialistSaid, ...]
    again_on: datetime | None


class Reading(Schema):
    """A case that a trainee was given.

    Parameters
    ----------
    number
        1 for the first time; later ones do not count.
    asked
        Findings about which a confidence is asked for: those whose truth is known somewhere in the package.
    result
        ``None`` until it was signed.
    """

    id: str
    visit: str
    number: int
    given_at: datetime
    asked: tuple[str, ...]
    result: Result | None = None


def expect_trainee(key: Key) -> None:
    """Refuse whoever is no doctor of a teaching site.

    Raises
    ------
    Forbidden
    """
    if not (key.role == "doctor" and teaches(key.site)):
        raise Forbidden


async def give(parts: Parts, key: Key, wanted: NextCase) -> Reading:
    """Give the trainee a case: the one that they have not signed yet, else the next.

    Raises
    ------
    Forbidden
    InvalidRequest
        The finding is none that somebody can learn to see.
    NoCaseNow
        Nothing fits, or what fits comes again later.
    """
    expect_trainee(key)
    if wanted.finding is not None and wanted.finding not in LEARNT:
        raise InvalidRequest(FieldFault("finding", "field_invalid", " | ".join(LEARNT)))
    wish = Wish(wanted.finding, wanted.difficulty)

    def look(session: Session) -> tuple[Reading | None, str | None, datetime | None]:
        cases = cases_of(session, key.site)
        if (row := _open(session, key)) is not None:
            return _view(session, row), None, None
        own = signed_of(session, cases, key.id)
        errors = errors_of(cases, signed_of(session, cases))
        chosen = choose(cases, errors, own, wish, database_now(session), f"{key.id}:{len(own)}")
        return None, chosen, min(due(cases, own).values(), default=None)

    given, chosen, later = await parts.database.read(look)
    if given is not None:
        return given
    if chosen is None:
        raise NoCaseNow("", later.strftime("%Y-%m-%d") if later else "—")

    def write(session: Session) -> Reading:
        session.get(KeyRow, key.id, with_for_update=True)  # of two requests the second sees what the first was given
        if (row := _open(session, key)) is not None:
            return _view(session, row)
        if session.scalars(select(VISITS.c.id).where(VISITS.c.id == chosen).with_for_update()).first() is None:
            raise NotFound
        before = select(func.count()).where(ReadingRow.key_id == key.id, ReadingRow.visit_id == chosen)
        row = ReadingRow(
            id=str(uuid.uuid4()),
            visit_id=chosen,
            key_id=key.id,
            number=1 + session.execute(before).scalar_one(),
            given_at=database_now(session),
        )
        insert_rows(session, row)
        note(session, "case_given", chosen, reading=row.id)
        return _view(session, row)

    return await parts.database.write(write)


async def sign(parts: Parts, key: Key, reading_id: str, new: NewReading) -> Reading:
    """Sign what the trainee says of the case that they were given; the same once more changes nothing.

    Raises
    ------
    NotFound
        This key was not given such a reading.
    CaseWasRead
        It was signed before, and said something else.
    """
    expect_trainee(key)

    def write(session: Session) -> Reading:
        row = session.get(ReadingRow, reading_id, with_for_update=True)
        if row is None or row.key_id != key.id:
            raise NotFound
        if row.reading is None:
            row.signed_at, row.reading = database_now(session), new.model_dump_json()
            session.flush()
            note(session, "case_read", row.visit_id, reading=row.id)
        elif NewReading.model_validate_json(row.reading) != new:
            raise CaseWasRead
        return _view(session, row)

    return await parts.database.write(write)


async def reading_of(parts: Parts, key: Key, reading_id: str) -> tuple[Reading, VisitRow]:
    """A reading of this key, and the visit of its case: without findings while it is not signed.

    Raises
    ------
    NotFound, Forbidden
    """
    expect_trainee(key)

    def read(session: Session) -> Reading | None:
        row = session.get(ReadingRow, reading_id)
        return None if row is None or row.key_id != key.id else _view(session, row)

    found = await parts.database.read(read)
    if found is None:
        raise NotFound
    return found, await load_shown(parts, key, found.visit)


def _open(session: Session, key: Key) -> ReadingRow | None:
    query = select(ReadingRow).where(ReadingRow.key_id == key.id, ReadingRow.signed_at.is_(None))
    return session.scalars(query).one_or_none()


def _view(session: Session, row: ReadingRow) -> Reading:
    cases = cases_of(session, session.scalars(select(VISITS.c.site).where(VISITS.c.id == row.visit_id)).one())
    stored = cases[row.visit_id]
    asked = asked_about(each for each in cases.values() if each.package == stored.package)
    result = None if row.reading is None else _result(session, row, cases, stored.case)
    return Reading(id=row.id, visit=row.visit_id, number=row.number, given_at=row.given_at, asked=asked, result=result)


def _result(session: Session, row: ReadingRow, cases: dict[str, StoredCase], case: Case) -> Result:
    assert row.reading is not None  # noqa: S101  the caller looked
    assert row.signed_at is not None  # noqa: S101
    reading = NewReading.model_validate_json(row.reading)
    said = answers(case, reading)
    return Result(
        signed_at=row.signed_at,
        reading=reading,
        compared=tuple(
            Compared(
                finding=name,
                there=known.there,
                by=known.by,
                said=said[name].said,
                verdict=_verdict(there=known.there, said=said[name].said),
                confidence=said[name].confidence,
                specialists=known.specialists,
                machine=known.machine,
            )
            for name, known in case.known.items()
        ),
        specialists=case.specialists,
        again_on=due(cases, signed_of(session, [row.visit_id], row.key_id)).get(row.visit_id),
    )


def _verdict(*, there: bool, said: bool) -> Verdict:
    if there is said:
        return "right"
    return "missed" if there else "added"
