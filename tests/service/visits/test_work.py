"""Slots: which visit gets one, and which waits in the database for one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from inference.readers.pool import ReadersFailed
from service.errors import StorageUnavailable
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


def visit(visit_id):
    return VisitRow(
        id=visit_id, site="s", key_id="k", context="{}", status="accepted", priority="unassessed", body_hash="",
        received_at=datetime.now(UTC), attempts=0, faults=0, inputs=[],
    )  # fmt: skip


class OutageThenFine(StandIn):
    """An engine whose store, then whose readers are away for a moment."""

    def __init__(self):
        super().__init__()
        self.outages = [StorageUnavailable("EIO"), ReadersFailed(), StorageUnavailable("EIO"), ReadersFailed()]

    async def assess(self, inputs, context, site):
        if self.outages:
            raise self.outages.pop()
        return await super().assess(inputs, context, site)


async def never():
    return False


async def test_a_visit_waits_for_its_files_and_is_not_failed_for_it(work, monkeypatch):
    monkeypatch.setattr("service.visits.work.RETRY_S", 0.01)
    await work._database.write(lambda session: session.add(visit("waits")))
    work.start(OutageThenFine())
    await work.wait("waits", 20, left=never)
    found = await work._database.read(lambda session: session.get(VisitRow, "waits"))
    assert (found.status, found.faults, found.attempts) == ("complete", 0, 1)
