"""A look is in the log before it is shown; while nothing can be written it is recorded later, within bounds."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from service.audit import looks as module
from service.audit.looks import Looks
from service.audit.proof import prove, stored_entries
from service.errors import DatabaseUnavailable
from service.metrics import Metrics
from service.settings import Settings
from service.storage.database import Database
from service.storage.migrate import migrate
from tests.service.serving import visit_files


@pytest.fixture
def database(tmp_path, new_database):
    settings = Settings(data_dir=tmp_path, database_url=new_database())
    made = Database(settings.database)
    migrate(settings, made)
    yield made
    made.close()


class Away:
    """A database that takes no writes until it is told to."""

    def __init__(self, database):
        self._database = database
        self.is_away = True

    async def write(self, work):
        if self.is_away:
            raise DatabaseUnavailable("readonly")
        return await self._database.write(work)


def log_of(database):
    with database.snapshot() as connection:
        found = list(stored_entries(connection))
    assert prove(found).faults == []
    return [each.entry for each in found]


async def test_many_looks_are_written_before_they_return(database):
    looks = Looks(database, Metrics(), lambda: 0)
    looks.start()
    await asyncio.gather(*(looks.record("visit_read", None, n=n) for n in range(500)))
    assert sorted(json.loads(each.detail)["n"] for each in log_of(database)) == list(range(500))
    await looks.drain()


async def test_while_nothing_can_be_written_a_look_waits_two_seconds_and_is_recorded_later(database, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.2)
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    away = Away(database)
    looks = Looks(away, Metrics(), lambda: 0)
    looks.start()
    started = time.monotonic()
    await looks.record("visit_read", None, n=1)
    assert 0.2 <= time.monotonic() - started < 2
    await looks.record("visit_read", None, n=2)
    assert log_of(database) == []
    away.is_away = False
    await looks.record("visit_read", None, n=3)
    details = [json.loads(each.detail) for each in log_of(database)]
    assert [each["n"] for each in details] == [1, 2, 3]
    assert "at" in details[1], "a look that is recorded later says when it was"
    await looks.drain()


async def test_with_too_many_that_wait_nothing_more_is_shown(database, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    away = Away(database)
    looks = Looks(away, Metrics(), lambda: 0)
    looks.start()
    for n in range(5):
        await looks.record("visit_read", None, n=n)
    with pytest.raises(DatabaseUnavailable):
        await looks.record("visit_read", None, n=5)
    away.is_away = False
    await looks.drain()
    assert len(log_of(database)) == 5, "what waited is written at the end"


async def test_what_is_being_written_at_the_end_is_in_the_log_once(database):
    looks = Looks(database, Metrics(), lambda: 0)
    looks.start()
    asked = [asyncio.create_task(looks.record("visit_read", None, n=n)) for n in range(300)]
    for _ in range(3):  # turns of the loop: the records are asked for, and their transaction begins
        await asyncio.sleep(0)
    await looks.drain()
    await asyncio.gather(*asked)
    assert sorted(json.loads(each.detail)["n"] for each in log_of(database)) == list(range(300))


async def test_refused_sign_ins_are_one_entry(database):
    looks = Looks(database, Metrics(), iter([7, 0]).__next__)
    looks.start()
    await looks.drain()
    (entry,) = log_of(database)
    assert (entry.action, json.loads(entry.detail)) == ("sign_ins_refused", {"count": 7})


async def test_refused_sign_ins_of_an_outage_are_counted_after_it(database, monkeypatch):
    monkeypatch.setattr(module, "COUNT_EVERY_S", 0.05)
    away = Away(database)
    refused = [7, 2]
    looks = Looks(away, Metrics(), lambda: refused.pop(0) if refused else 0)
    looks.start()
    while refused:  # noqa: ASYNC110  the service's own task takes them
        await asyncio.sleep(0.01)
    away.is_away = False
    await looks.drain()
    assert sum(json.loads(each.detail)["count"] for each in log_of(database)) == 9


def test_what_cannot_be_recorded_is_answered_with_503_and_shows_nothing(served, monkeypatch):
    with served.client() as admin:
        files = visit_files(b"an image", person={"id": "VN-SECRET"})
        visit = admin.post("/v1/visits", files=files, headers={"Prefer": "wait=20"}).json()["id"]
        assert "VN-SECRET" in admin.get(f"/v1/visits/{visit}").text
        monkeypatch.setattr(module, "MOST_WAITING", 0)
        for path in (f"/v1/visits/{visit}", f"/visits/{visit}", "/worklist", f"/v1/visits/{visit}/inputs/0"):
            refused = admin.get(path)
            assert refused.status_code == 503, path
            assert "VN-SECRET" not in refused.text
        assert admin.get("/healthz").status_code == 200


def test_a_killed_process_has_shown_nothing_that_is_not_in_the_log(new_process, new_database):
    url = new_database()
    process = new_process(database_url=url).start()
    answered = []
    for _ in range(3):
        with process.served.client() as admin:
            made = admin.post("/v1/visits", files=visit_files(), headers={"Prefer": "wait=20"}).json()["id"]
            answered += [(made, admin.get(f"/v1/visits/{made}").headers["x-request-id"]) for _ in range(5)]
        process.kill()
        process.start()
    database = Database(url or f"sqlite:///{process.folder}/sangloc.db")
    try:
        entries = log_of(database)
    finally:
        database.close()
    looked = {(each.visit, json.loads(each.detail)["request"]) for each in entries if each.action == "visit_read"}
    assert set(answered) <= looked
