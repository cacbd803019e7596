"""The chain: appended with what it records, one for all processes, refused to be changed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import time

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from service.audit.proof import prove, stored_entries
from service.errors import StorageUnavailable
from service.settings import Settings
from service.storage.audit import ACTOR, AUDIT, BEFORE_THE_FIRST, Actor, acting_as, head_of, note
from service.storage.database import Database
from service.storage.migrate import migrate
from tests.conftest import ROOT

VISIT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def settings(tmp_path, new_database):
    return Settings(data_dir=tmp_path, database_url=new_database())


@pytest.fixture
def database(settings):
    made = Database(settings.database)
    migrate(settings, made)
    yield made
    made.close()


def proof_of(database, heads=()):
    with database.snapshot() as connection:
        return prove(stored_entries(connection), heads)


def entries(database):
    with database.snapshot() as connection:
        return [stored.entry for stored in stored_entries(connection)]


def test_an_entry_is_digested_as_it_is_written_in_the_document(database):
    """By hand, without the code of the service: what the reference says gives the digest."""
    with database.transaction(write=True) as session:
        note(
            session, "visit_read", "00000000-0000-4000-8000-000000000000", actor=Actor("key-1", "doctor"), route="Phổi"
        )
    with database.transaction() as session:
        row = session.execute(select(AUDIT)).one()
    at = row.at.isoformat(timespec="microseconds")
    entry = [1, at, "key-1", "doctor", "visit_read", VISIT, '{"route":"Phổi"}']
    content = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
    assert row.digest == hashlib.sha256(f"{64 * '0'}\n{content}".encode()).hexdigest()
    assert at.endswith("+00:00")


def test_what_is_rolled_back_is_not_in_the_log(database):
    with contextlib.suppress(RuntimeError), database.transaction(write=True) as session:
        note(session, "key_made", key="1")
        raise RuntimeError
    assert entries(database) == []
    with database.transaction(write=True) as session:
        note(session, "key_made", key="2")
    assert [each.number for each in entries(database)] == [1]


async def test_a_write_that_fails_takes_nothing_of_those_beside_it_away(database):
    """Writes that share a transaction are tried one by one when one of them fails."""

    def work(session, name):
        note(session, "key_made", key=name)
        if name == "bad":
            raise ValueError(name)

    tried = [database.write(lambda session, name=name: work(session, name)) for name in ("a", "bad", "b", "c")]
    outcomes = await asyncio.gather(*tried, return_exceptions=True)
    assert [type(each) for each in outcomes] == [type(None), ValueError, type(None), type(None)]
    assert sorted(json.loads(each.detail)["key"] for each in entries(database)) == ["a", "b", "c"]
    assert proof_of(database).faults == []


async def test_what_is_written_is_of_whoever_asked(database):
    async def ask(name):
        ACTOR.set(Actor(name, "doctor"))
        await database.write(lambda session: note(session, "question_asked", question=name))

    await asyncio.gather(*(asyncio.create_task(ask(f"key-{n}")) for n in range(20)))
    await database.write(lambda session: note(session, "visit_assessed"))
    found = entries(database)
    assert len(found) == 21
    assert all(each.actor == json.loads(each.detail)["question"] for each in found[:20])
    assert (found[20].actor, found[20].role) == ("service", "service")


def test_a_command_acts_under_its_name(database):
    with acting_as("retention"), database.transaction(write=True) as session:
        note(session, "rows_deleted")
    assert entries(database)[0].actor == "command:retention"
    assert ACTOR.get().id == "service"


@pytest.mark.parametrize(
    "change", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit", "DELETE FROM audit WHERE number = 1"]
)
def test_the_database_refuses_to_change_an_entry(database, change):
    with database.transaction(write=True) as session:
        note(session, "key_made", key="1")
    with pytest.raises((DBAPIError, StorageUnavailable)), database.transaction(write=True) as session:
        session.execute(text(change))
    assert len(entries(database)) == 1


def test_postgresql_refuses_to_empty_the_log(database):
    if database.is_sqlite:
        return  # it has no TRUNCATE
    with database.transaction(write=True) as session:
        note(session, "key_made", key="1")
    with pytest.raises(DBAPIError, match="append-only"), database.transaction(write=True) as session:
        session.execute(text("TRUNCATE audit"))


WRITER = """
import asyncio, sys
from service.settings import Settings
from service.storage.audit import note
from service.storage.database import Database
database = Database(sys.argv[1])
async def work():
    async def one(n):
        await database.write(lambda session: note(session, "visit_posted", n=n, who=sys.argv[2]))
    for start in range(0, int(sys.argv[3]), 10):
        await asyncio.gather(*(one(start + n) for n in range(10)))
        print(start + 10, flush=True)
asyncio.run(work())
database.close()
"""


def writer(database, name, count):
    url = database.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", WRITER, url, name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_one_chain(database):
    with writer(database, "a", 200) as one, writer(database, "b", 200) as other:
        assert (one.wait(120), other.wait(120)) == (0, 0)
    proof = proof_of(database)
    assert (proof.faults, proof.head.number) == ([], 400)
    who = [json.loads(each.detail)["who"] for each in entries(database)]
    assert who.count("a") == who.count("b") == 200


def test_a_chain_is_whole_whenever_its_writers_are_killed(database):
    for round_ in range(4):
        with writer(database, "a", 100_000) as one, writer(database, "b", 100_000) as other:
            said = one.stdout.readline(), other.stdout.readline()
            time.sleep(0.05 * round_)
            one.kill()
            other.kill()
            assert all(said)
        proof = proof_of(database)
        assert proof.faults == []
        assert proof.head.number >= 20 * (round_ + 1), "what was answered is there"


def test_the_head_is_the_last_entry(database):
    with database.transaction() as session:
        assert head_of(session) == (0, BEFORE_THE_FIRST)
    for n in range(3):
        with database.transaction(write=True) as session:
            note(session, "key_made", key=str(n))
    with database.transaction() as session:
        head = head_of(session)
    assert head == proof_of(database).head
    assert head.number == 3
