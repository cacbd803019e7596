"""Leases in the database: the compare-and-set that makes 'once' true, over both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from data_specs.visit.assessment import Assessment
from service.storage.database import Database
from service.storage.migrate import migrate
from service.storage.owner import Owner
from service.storage.tables import InputRow, VisitRow
from service.visits.leases import Leases
from tests.service.serving import settings_for

OUTCOME = Assessment(organs={}, inputs=[], models=[], priority="unassessed", priority_reasons=[])


@pytest.fixture
def database(tmp_path, new_database):
    settings = settings_for(tmp_path, database_url=new_database())
    database = Database(settings.database)
    migrate(settings, database)
    yield database
    database.close()


@pytest.fixture
def two(database, tmp_path):
    """Two processes' leases that last for no time at all: each is free for the other at once."""
    owners = Owner(tmp_path), Owner(tmp_path)
    yield [Leases(database, owner, 0.0) for owner in owners]
    for owner in owners:
        owner.close()


async def add_visit(database, visit_id="v"):
    row = VisitRow(
        id=visit_id,
        site="s",
        key_id="k",
        context="{}",
        status="accepted",
        priority="unassessed",
        received_at=datetime.now(UTC),
        body_hash="",
        attempts=0,
        faults=0,
        inputs=[InputRow(visit_id=visit_id, index=0, field="image", filename="f", sha256="0", n_bytes=1)],
    )
    await database.write(lambda session: session.add(row))


async def stored(database, visit_id="v"):
    return await database.read(lambda session: session.get(VisitRow, visit_id))


async def test_a_process_that_comes_back_late_changes_nothing(database, two):
    first, second = two
    await add_visit(database)
    (late,) = await first.take([])
    (current,) = await second.take([])
    assert (late.attempt, current.attempt) == (1, 2)
    assert await first.finish(late, "complete", OUTCOME) is None
    await first.put_back(late, 0)
    assert (await stored(database)).faults == 0
    assert await second.finish(current, "complete", OUTCOME) is not None
    assert await second.finish(current, "failed", OUTCOME) is None
    assert (await stored(database)).status == "complete"


async def test_an_earlier_attempt_of_the_same_process_is_late_too(database, two):
    first, _ = two
    await add_visit(database)
    (late,), (current,) = await first.take([]), await first.take([])
    assert await first.finish(late, "complete", OUTCOME) is None
    assert await first.finish(current, "complete", OUTCOME) is not None


async def test_what_is_given_back_was_no_attempt(database, two):
    first, second = two
    await add_visit(database)
    await first.take([])
    await first.give_all_back()
    (taken,) = await second.take([])
    assert taken.attempt == 1


async def test_a_fault_is_counted(database, two):
    first, _ = two
    await add_visit(database)
    await first.put_back(*await first.take([]), 0)
    (lease,) = await first.take([])
    assert (lease.attempt, lease.row.faults) == (2, 1)


async def test_only_visits_that_are_worked_on_keep_their_lease(database, tmp_path):
    owner = Owner(tmp_path)
    leases = Leases(database, owner, 60.0)
    await add_visit(database, "kept")
    await add_visit(database, "lost")
    await leases.take([])
    await leases.take([])
    before = {name: (await stored(database, name)).lease_until for name in ("kept", "lost")}
    await asyncio.sleep(0.01)
    await leases.extend(["kept"])
    assert (await stored(database, "kept")).lease_until > before["kept"]
    assert (await stored(database, "lost")).lease_until == before["lost"]
    owner.close()


async def test_a_visit_is_taken_by_one_process_only(database, tmp_path):
    owners = [Owner(tmp_path) for _ in range(6)]
    many = [Leases(database, owner, 60.0) for owner in owners]
    for i in range(4):
        await add_visit(database, f"v{i}")
    taken = await asyncio.gather(*(each.take([]) for each in many))
    names = [lease.row.id for leases in taken for lease in leases]
    assert len(names) == len(set(names))
    while leases := await many[0].take([]):
        names += [lease.row.id for lease in leases]
    assert sorted(names) == ["v0", "v1", "v2", "v3"]
    for owner in owners:
        owner.close()


async def test_several_are_taken_at_once_oldest_first(database, two):
    first, second = two
    for i in range(2):
        await add_visit(database, f"old{i}")
    await first.take([], 2)  # a lease that ends at once: the same as if the process had stopped
    for i in range(3):
        await add_visit(database, f"new{i}")
    taken = [[lease.row.id for lease in await second.take(running, 3)] for running in ([], ["old0"], ["old0", "old1"])]
    assert taken == [["old0", "old1", "new0"], ["old1", "new0", "new1"], ["new0", "new1", "new2"]]
