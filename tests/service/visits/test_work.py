"""Slots: which visit gets one, and which waits in the database for one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from service.parts import Parts
from service.storage.migrate import migrate
from service.storage.tables import VisitRow
from service.visits.work import Work
from tests.service.serving import settings_for
from tests.service.standin import StandIn


@pytest.fixture
async def work(tmp_path):
    settings = settings_for(tmp_path, concurrent_visits=2)
    parts = Parts.open(settings)
    migrate(settings, parts.database)
    work = Work(parts)
    yield work
    await work.drain()
    parts.database.close()


async def test_a_visit_that_comes_while_others_are_looked_for_finds_a_slot_free(work, monkeypatch):
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def waiting(running, at_most):
        looking.set()
        await go_on.wait()
        return 0

    monkeypatch.setattr(work._leases, "waiting", waiting)
    work.start(StandIn())
    await asyncio.wait_for(looking.wait(), 5)
    assert work.reserve_slot(), "it would wait for the next look, half a second later"
    assert work.reserve_slot()
    assert not work.reserve_slot(), "there are two slots"
    for _ in range(2):
        work.start_in_slot(None)
    go_on.set()


async def test_no_slot_is_free_before_there_is_an_engine(work):
    assert not work.reserve_slot()
    work.start(StandIn())
    assert work.reserve_slot()
    work.start_in_slot(None)


def visit(visit_id, attempts=0, after_s=0):
    return VisitRow(
        id=visit_id, site="s", key_id="k", context="{}", status="accepted", priority="unassessed", body_hash="",
        received_at=datetime.now(UTC) + timedelta(seconds=after_s), attempts=attempts, faults=0, inputs=[],
    )  # fmt: skip
