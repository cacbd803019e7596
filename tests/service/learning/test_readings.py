"""Cases given, read, given again and counted, on a real database without a server."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from data_specs.visit.teaching import Case, NewReading
from service.delivery.health_book.clock import list_due
from service.delivery.health_book.table import Clock
from service.delivery.message import HEALTH_BOOK
from service.errors import CaseWasRead, Forbidden, NoCaseNow, NotFound
from service.exchange.queue import waiting
from service.keys import Key
from service.learning import progress, readings
from service.learning.readings import NextCase
from service.storage.database import Database, insert_rows
from service.storage.tables import Base, CaseRow, DestinationRow, KeyRow, ReadingRow, VisitRow
from service.visits.stored import load_shown, load_visit, visible

SITE = "teaching: six"
ADMIN = Key("bootstrap", "admin", "admin")
ME, OTHER = (Key(f"K-{n}", "doctor", SITE, f"T-{n}", f"BS. Học Viên {n}") for n in range(2))


@pytest.fixture
def parts(tmp_path, new_database):
    """The database of a service with six cases, three of them with pneumonia."""
    database = Database(new_database() or f"sqlite:///{tmp_path / 'sangloc.db'}")
    Base.metadata.create_all(database.engine)
    now = datetime.datetime.now(datetime.UTC)
    found = Assessment(organs={}, inputs=[], models=[], priority="urgent", priority_reasons=[])
    with database.transaction(write=True) as session:
        for n in range(6):
            visit = finished(SITE, found, now)
            known = Case(outcomes={"pneumonia": n < 3}, machine={"pneumonia": 0.8})
            case = CaseRow(visit_id=visit.id, set_digest="a" * 64, known=known.model_dump_json())
            insert_rows(session, visit, case)
        for key in (ME, OTHER):
            row = KeyRow(id=key.id, hash=key.id, role=key.role, site=SITE, doctor_id=key.doctor_id, label=key.label)
            row.created_at = now
            insert_rows(session, row)
    yield SimpleNamespace(database=database)
    database.close()


def finished(site, found, now):
    visit = VisitRow(id=str(uuid.uuid4()), site=site, key_id="import", context=Context().model_dump_json())
    visit.status, visit.priority, visit.received_at, visit.version = "complete", "urgent", now, 1
    visit.body_hash, visit.attempts, visit.faults = "0" * 64, 0, 0
    visit.assessment = found.model_dump_json()
    return visit


def said(is_there, confidence):
    named = [{"finding": "pneumonia", "verdict": "add"}] if is_there else []
    return NewReading.model_validate({"judgements": named, "confidence": {"pneumonia": confidence}})


def has_it(parts, visit):
    with parts.database.transaction() as session:
        return Case.model_validate_json(session.get(CaseRow, visit).known).outcomes["pneumonia"]


async def read_one(parts, *, right):
    """Read the next case; what was signed, and what is known."""
    given = await readings.give(parts, ME, NextCase())
    assert await readings.give(parts, ME, NextCase(finding="pneumonia")) == given, "until it is signed, the same"
    blind = await load_shown(parts, ME, given.visit)
    assert (blind.blind, blind.priority, blind.read_assessment().priority) == (True, "unassessed", "unassessed")
    there = has_it(parts, given.visit) is right
    return there, await readings.sign(parts, ME, given.id, said(there, 5 if there else 1))


def test_six_cases_one_of_them_wrong(parts):
    async def read_all():
        done = [await read_one(parts, right=n != 1) for n in range(6)]
        assert len({each.visit for _, each in done}) == 6
        assert [each.result.again_on is None for _, each in done] == [True, False, True, True, True, True]
        with pytest.raises(NoCaseNow):
            await readings.give(parts, ME, NextCase())
        with parts.database.transaction(write=True) as session:
            for row in session.scalars(select(ReadingRow)):
                row.signed_at -= datetime.timedelta(days=1.1)
        again = await readings.give(parts, ME, NextCase())
        assert (again.visit, again.number) == (done[1][1].visit, 2)
        signed = await readings.sign(parts, ME, again.id, said(has_it(parts, again.visit), 5))
        assert signed.result.again_on - signed.result.signed_at == datetime.timedelta(days=2)
        return await progress.progress(parts, ME), await progress.hard_cases(parts, ADMIN)

    mine, cases = asyncio.run(read_all())
    assert (mine.cases, mine.again, mine.packages) == (6, 1, ("a" * 64,))
    pneumonia = next(each for each in mine.figures if each.finding == "pneumonia")
    assert sorted((pneumonia.sensitivity.n, pneumonia.specificity.n)) == [2, 3]
    assert pneumonia.kappa.value == pytest.approx(2 / 3, abs=1e-3)
    assert pneumonia.brier.value == pytest.approx((5 * 0.01 + 0.81) / 6, abs=1e-3)
    assert [each.wrong for each in cases].count(1) == 1


def test_what_was_signed_stays_and_is_shown_to_nobody_else(parts):
    async def read():
        there, done = await read_one(parts, right=True)
        assert await readings.sign(parts, ME, done.id, said(there, 5 if there else 1)) == done
        with pytest.raises(CaseWasRead):
            await readings.sign(parts, ME, done.id, said(not there, 3))
        with pytest.raises(NotFound):
            await readings.sign(parts, OTHER, done.id, said(there, 3))
        shown = await load_shown(parts, ME, done.visit)
        assert (shown.blind, shown.priority) == (False, "urgent")
        with pytest.raises(Forbidden):
            await load_shown(parts, OTHER, done.visit)
        for key in (ME, ADMIN):
            with pytest.raises(Forbidden):
                await load_visit(parts, key, done.visit)

    asyncio.run(read())
    with parts.database.transaction() as session:
        assert session.scalars(visible(select(VisitRow.id), ADMIN)).all() == []


def test_nobody_waits_for_a_case(parts):
    """What a node has to send, and what a health book has to get, is the one visit of the clinic."""
    now = datetime.datetime.now(datetime.UTC)
    visit = finished("commune", Assessment(organs={}, inputs=[], models=[]), now)
    book = DestinationRow(
        id="B-1", kind=HEALTH_BOOK, address="https://book.example", language="vi", options="{}", may_be_inside=False
    )
    book.created_at = now - datetime.timedelta(days=1)
    with parts.database.transaction(write=True) as session:
        insert_rows(session, visit, book)
        assert [(each.step, each.visits) for each in waiting(session)] == [(0, 1)]
        due = list_due(session, SimpleNamespace(clock=Clock(hours=24, arrived="saved", watched_days=30)), 100)
    assert [each.visit for each in due] == [visit.id]
