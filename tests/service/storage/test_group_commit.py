"""Group commit: writes that wait together are committed together; a failed write fails alone."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.storage.group_commit import MAX_WRITES, GroupCommit

ROWS = Table("rows", MetaData(), Column("id", Integer, primary_key=True))


class Recorded:
    """A database that notes how many rows each committed transaction brought, and can be held up."""

    def __init__(self, path):
        self.engine = create_engine(f"sqlite:///{path}")
        ROWS.metadata.create_all(self.engine)
        self.commits = []
        self.go_on = threading.Event()
        self.go_on.set()

    @contextmanager
    def transaction(self):
        self.go_on.wait(10)
        with Session(self.engine) as session, session.begin():
            before = self.count(session)
            yield session
            brought = self.count(session) - before
        self.commits.append(brought)

    def count(self, session):
        return session.execute(select(func.count()).select_from(ROWS)).scalar_one()

    def all(self):
        with Session(self.engine) as session:
            return self.count(session)


@pytest.fixture
def database(tmp_path):
    return Recorded(tmp_path / "rows.db")


def add(number):
    def work(session):
        session.execute(insert(ROWS), {"id": number})
        return number

    return work


async def while_held(database, writes):
    """Outcomes of ``writes``, all of which wait while a first one is held up."""
    writer = GroupCommit(database.transaction)
    try:
        database.go_on.clear()
        first = asyncio.create_task(writer.run(add(-1)))
        await asyncio.sleep(0.05)
        tasks = [asyncio.create_task(writer.run(work)) for work in writes]
        await asyncio.sleep(0.05)
        database.go_on.set()
        assert await first == -1
        return await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await asyncio.to_thread(writer.close)


async def test_writes_that_wait_together_are_committed_together(database):
    assert await while_held(database, [add(n) for n in range(10)]) == list(range(10))
    assert database.commits == [1, 10]


async def test_the_size_of_a_group_is_limited(database):
    await while_held(database, [add(n) for n in range(MAX_WRITES + 5)])
    assert database.commits == [1, MAX_WRITES, 5]


async def test_a_failed_write_fails_alone_and_nothing_is_written_twice(database):
    outcomes = await while_held(database, [add(0), add(1), add(-1), add(2)])  # -1 is there already
    assert [isinstance(each, IntegrityError) for each in outcomes] == [False, False, True, False]
    assert database.commits == [1, 1, 1, 1]
    assert database.all() == 4


async def test_a_write_whose_caller_has_left_is_not_made(database):
    writer = GroupCommit(database.transaction)
    database.go_on.clear()
    first = asyncio.create_task(writer.run(add(0)))
    await asyncio.sleep(0.05)
    left = asyncio.create_task(writer.run(add(1)))
    await asyncio.sleep(0.05)
    left.cancel()
    await asyncio.sleep(0)
    database.go_on.set()
    await first
    await asyncio.to_thread(writer.close)
    assert database.all() == 1


async def test_closing_makes_the_waiting_writes_and_accepts_no_more(database):
    writer = GroupCommit(database.transaction)
    database.go_on.clear()
    tasks = [asyncio.create_task(writer.run(add(n))) for n in range(3)]
    await asyncio.sleep(0.05)
    database.go_on.set()
    await asyncio.to_thread(writer.close)
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    with pytest.raises(RuntimeError):
        await writer.run(add(9))
    assert database.all() == 3
