"""What was decided beside the server is in the log once, with the digest of its line."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json

import pytest

from service.audit import decisions as module
from service.audit.decisions import follow, lines_gone, read_decisions
from service.audit.proof import prove, stored_entries
from service.settings import Settings
from service.storage.database import Database
from service.storage.migrate import migrate

LINE = {
    "at": "2026-01-02T03:04:05Z",
    "action": "promote",
    "name": "lung",
    "from": "1.0.0",
    "to": "1.1.0",
    "who": "SECRET",
    "why": "SECRET",
}


@pytest.fixture
def database(tmp_path, new_database):
    settings = Settings(data_dir=tmp_path, database_url=new_database())
    made = Database(settings.database)
    migrate(settings, made)
    yield made
    made.close()


def log_of(database):
    with database.snapshot() as connection:
        found = list(stored_entries(connection))
    assert prove(found).faults == []
    return [each.entry for each in found]


async def until_there(database, count):
    async with asyncio.timeout(10):
        while len(log_of(database)) < count:  # noqa: ASYNC110  another task of the service's own writes it
            await asyncio.sleep(0.01)


async def test_each_decision_is_followed_once_by_all_processes(database, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLLOW_EVERY_S", 0.02)
    bundles = tmp_path / "bundles"
    (bundles / "releases").mkdir(parents=True)
    lines = [json.dumps(LINE), json.dumps({**LINE, "action": "rollback"})]
    (bundles / "registry.jsonl").write_text(lines[0] + "\n", "utf-8")
    other = Database(database.engine.url.render_as_string(hide_password=False))  # as another process has it
    following = [asyncio.create_task(follow(each, bundles)) for each in (database, other)]
    await until_there(database, 1)
    with (bundles / "registry.jsonl").open("a", encoding="utf-8") as log:
        log.write(lines[1] + "\n")
    await until_there(database, 2)
    (bundles / "releases" / "7.json").write_text("{}", "utf-8")
    await until_there(database, 3)
    await asyncio.sleep(0.2)
    for task in following:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    other.close()
    found = log_of(database)
    assert {each.action for each in found} == {"bundle_decided", "release_in_force"}
    noted = [json.loads(each.detail) for each in found]
    assert {each["sha256"] for each in noted if "decision" in each} == {
        hashlib.sha256(line.encode()).hexdigest() for line in lines
    }
    assert len(noted) == 3
    assert "SECRET" not in str(found)
    with database.snapshot() as connection:
        assert lines_gone(connection, bundles) == []
    (bundles / "registry.jsonl").write_text(lines[0] + "\n", "utf-8")
    with database.snapshot() as connection:
        assert len(lines_gone(connection, bundles)) >= 1


def test_a_line_that_cannot_be_read_is_followed_too(tmp_path):
    (tmp_path / "registry.jsonl").write_text('{"half": \n[1]\n', "utf-8")
    assert [each.about for each in read_decisions(tmp_path)] == [{"decision": "unreadable"}] * 2


def test_a_folder_without_decisions_has_none(tmp_path):
    assert read_decisions(tmp_path) == []
