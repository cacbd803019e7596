"""Real outages of the database: PostgreSQL stopped and started, SQLite locked and not writable."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from data_specs.problems import message
from service.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull, StorageUnavailable
from service.protocols import mllp
from service.storage import database as database_module
from service.storage.database import Database
from service.storage.outages import commit_outages, database_outages
from tests.service.orthanc import free_port
from tests.service.receive.hl7.made import order
from tests.service.receive.test_uploads import PIECE, TUS, begun, offset
from tests.service.serving import serving, settings_for, told, until, visit_files
from tests.service.storage.outages import NO_WAIT, finished, refused, stored, stored_files


# ---------------------------------------------------------------------- PostgreSQL is away
def test_a_database_that_is_away_is_said_so_at_every_door(own_postgres, tmp_path):
    port = free_port()
    hl7 = {"hl7_port": port, "hl7_peers": "127.0.0.1=xa"}
    settings = settings_for(tmp_path, database_url=own_postgres.new_database(), lease_seconds=1, **hl7)
    with serving(settings) as served, served.client(served.key("site", "xa")) as site:
        upload = begun(site, 10)
        visit = site.post("/v1/visits", files=visit_files()).json()["id"]
        own_postgres.stop()
        once = {"Idempotency-Key": "once"}
        for answer in (
            site.post("/v1/visits", files=visit_files(b"first"), headers=once),
            site.post("/v1/uploads", headers={**TUS, "Upload-Length": "10"}),
            site.patch(upload, headers={**PIECE, "Upload-Offset": "0"}, content=b"0123456789"),
            site.post("/v1/uploads/visit", json={"uploads": []}),
            site.post("/dicomweb/studies", content=b"", headers={"Content-Type": "multipart/related"}),
            site.get("/v1/visits"),
            site.get(f"/v1/visits/{visit}"),
            site.post(f"/v1/visits/{visit}/opinions", json={"version": 1}),
        ):
            refused(answer, "database_unavailable")
        assert ordered(port) == ("AR", "207"), "the code after which an order is sent again"
        assert site.get("/healthz").status_code == 200
        ready = site.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "database_unavailable")
        counts = told(served)
        for name in ("visits_unfinished", "visits_oldest_seconds", "arrivals_oldest_seconds"):
            assert math.isnan(counts[f"sangloc_{name}",])
        assert counts["sangloc_unavailable_total", "database_unavailable"] == 8
        page = site.get("/worklist", headers={"Accept": "text/html", "Accept-Language": "vi"})
        assert (page.status_code, page.headers["retry-after"]) == (503, "10")
        assert message("database_unavailable", "vi") in page.text
        assert stored_files(tmp_path / "files") == 1, "nothing of a refused visit is left"
        own_postgres.start()
        assert site.get("/readyz").status_code == 200
        assert ordered(port) == ("AA", "")
        again = site.post("/v1/visits", files=visit_files(b"first"), headers=once)
        assert again.status_code == 201
        assert stored(served) == 2
        assert offset(site, upload) == 0


def ordered(port):
    """Send an order by HL7 v2; the codes of its acknowledgement."""
    answer = asyncio.run(mllp.send("127.0.0.1", port, order(), timeout_s=30))
    return answer.code, answer.error


def test_visits_in_work_are_finished_after_an_outage_without_a_restart(own_postgres, tmp_path):
    settings = settings_for(tmp_path, database_url=own_postgres.new_database(), lease_seconds=1)
    with serving(settings) as served, served.client() as client:
        ids = []
        for i in range(8):
            files = visit_files(b"SLOW 0.5", person={"id": f"P-{i}"})
            ids.append(client.post("/v1/visits", files=files, headers=NO_WAIT).json()["id"])
        own_postgres.stop()
        time.sleep(2)  # the outage is longer than a lease, and than each visit takes
        own_postgres.start()
        until(lambda: finished(client, ids), 30)
        assert client.post("/v1/visits", files=visit_files()).status_code == 201
        assert stored(served) == 9


def test_what_is_accepted_while_the_database_restarts_is_kept_and_nothing_else(own_postgres, tmp_path):
    """The same request is sent until it is accepted, as a client does; each becomes one visit."""
    settings = settings_for(tmp_path, database_url=own_postgres.new_database(), lease_seconds=1)
    with serving(settings) as served, served.client() as client:
        answered = []

        def post(number):
            headers = {**NO_WAIT, "Idempotency-Key": f"key-{number}"}
            while True:
                answer = client.post("/v1/visits", files=visit_files(f"film {number}".encode()), headers=headers)
                answered.append(answer)
                if answer.status_code != 503:
                    return answer.json()["id"]
                assert answer.json()["code"] in ("database_unavailable", "outcome_unknown"), answer.text
                assert "retry-after" in answer.headers
                time.sleep(0.1)

        with ThreadPoolExecutor(4) as pool:
            posted = [pool.submit(post, number) for number in range(60)]
            for number in (10, 30):
                until(lambda: sum(each.done() for each in posted) >= number, 30)  # noqa: B023
                own_postgres.stop()
                until(lambda: answered[-1].status_code == 503, 30)
                own_postgres.start()
            ids = {each.result(60) for each in posted}
        assert len(ids) == 60
        assert {each.status_code for each in answered} <= {201, 202, 503}
        until(lambda: finished(client, ids), 30)
        assert stored(served) == 60


def test_a_full_disk_of_the_database_server_leaves_nothing_half_kept(own_postgres, tmp_path):
    settings = settings_for(tmp_path, database_url=own_postgres.new_database())
    with serving(settings) as served, served.client() as client:
        with served.app.state.service.database.transaction(write=True) as session:
            full = "BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END"
            session.execute(text(f"CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ {full} $$"))
            for table in ("inputs", "uploads"):
                session.execute(text(f"CREATE TRIGGER f BEFORE INSERT ON {table} EXECUTE FUNCTION fill()"))
        refused(client.post("/v1/visits", files=visit_files()), "storage_full")
        refused(client.post("/v1/uploads", headers={**TUS, "Upload-Length": "10"}), "storage_full")
        assert stored_files(tmp_path / "uploads") == 0
        assert stored(served) == 0
        assert client.post("/v1/visits", files={"context": (None, "{}")}).status_code == 201


def test_where_the_commit_is_not_confirmed_the_outcome_is_said_to_be_unknown(own_postgres, tmp_path):
    url = own_postgres.new_database()
    with serving(settings_for(tmp_path, database_url=url)) as served, served.client() as client:
        with served.app.state.service.database.transaction(write=True) as session:
            for statement in (
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$",
                "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON visits DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION wait()",
            ):
                session.execute(text(statement))
        committing = "SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'"
        form = {"token": "b00c", "creatinine": "88", "creatinine_unit": "umol/L"}

        def posted(path, **given):
            """What is answered where the database ends while it commits."""
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(client.post, path, **given)
                until(lambda: own_postgres.value(committing) == 1, 20)
                own_postgres.stop()
                found = answer.result()
            own_postgres.start()
            return found

        refused(posted("/v1/visits", files=visit_files()), "outcome_unknown")
        page = posted("/post", data=form).text
        assert message("outcome_unknown", "en") in page
        assert 'value="b00c"' in page, "sent again, the form is a repetition"


def test_an_accepted_visit_is_accepted_though_it_cannot_be_read_again(own_postgres, tmp_path):
    settings = settings_for(tmp_path, database_url=own_postgres.new_database(), drain_seconds=0)
    with serving(settings) as served, served.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/v1/visits", files=visit_files(b"SLOW 20"), headers={"Prefer": "wait=1"})
        until(lambda: stored(served) == 1, 10)
        own_postgres.stop()
        assert answer.result().status_code == 202
        own_postgres.start()
        assert client.get(answer.result().headers["location"]).json()["status"] == "accepted"


def test_a_process_ends_in_order_though_the_database_is_away(own_postgres, new_process):
    process = new_process(database_url=own_postgres.new_database(), SANGLOC_DRAIN_SECONDS="0.5").start()
    with process.served.client(**NO_WAIT) as client:
        client.post("/v1/visits", files=visit_files(b"SLOW 20"))
        own_postgres.stop()
    assert process.stop() == 0
    assert "leases_not_given_back" in process.log.read_text()
    own_postgres.start()


async def test_a_statement_that_is_wrong_is_no_outage(new_database, tmp_path):
    database = Database(new_database() or f"sqlite:///{tmp_path}/a.db")
    for run in (database.read, database.write):
        with pytest.raises(SQLAlchemyError):
            await run(lambda session: session.execute(text("SELECT * FROM nothing")))
    database.close()


# ---------------------------------------------------------------------- SQLite
@contextmanager
def locked(file):
    with sqlite3.connect(file) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
    other.close()


def test_a_locked_database_is_said_so_at_once_and_reading_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 500)
    with serving(settings_for(tmp_path)) as served, served.client() as client:
        visit = client.post("/v1/visits", files=visit_files()).json()["id"]
        with locked(tmp_path / "sangloc.db"), ThreadPoolExecutor(12) as pool:
            started = time.monotonic()
            posted = [pool.submit(client.post, "/v1/visits", files=visit_files()) for _ in range(12)]
            for answer in posted:
                refused(answer.result(), "database_unavailable")
            assert time.monotonic() - started < 12 * 0.5, "each write has waited for the lock by itself"
            assert client.get(f"/v1/visits/{visit}").status_code == 200
            assert client.get("/readyz").json()["checks"]["database"] == "database_unavailable"
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/visits", files=visit_files()).status_code == 201
        assert stored(served) == 2


async def test_a_database_that_cannot_be_written_can_be_read(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE sessions (hash)")
    made.close()
    database = Database(f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true")
    assert (await database.read(lambda session: session.execute(text("SELECT * FROM sessions")))).all() == []
    with pytest.raises(DatabaseUnavailable):
        await database.probe()
    database.close()


async def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "a.db").write_bytes(b"no database" * 1000)
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda session: session.execute(text("SELECT 1")))
    database.close()


@pytest.mark.parametrize(("run", "kind"), [("read", DatabaseUnavailable), ("write", OutcomeUnknown)])
async def test_nobody_waits_without_end(tmp_path, monkeypatch, run, kind):
    monkeypatch.setattr(database_module, "ANSWER_S", 0.1)
    database = Database(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(kind):
        await getattr(database, run)(lambda _: time.sleep(0.5))
    await asyncio.to_thread(database.close)


# ---------------------------------------------------------------------- what is an outage, and what it leaves open
def raised(context, error):
    with pytest.raises((DBAPIError, StorageUnavailable)) as found, context():
        raise error
    return type(found.value)


@pytest.mark.parametrize(
    ("code", "before", "in_commit"),
    [
        (sqlite3.SQLITE_FULL, StorageFull, StorageFull),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, DatabaseUnavailable, DatabaseUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, DatabaseUnavailable, OutcomeUnknown),
        (sqlite3.SQLITE_ERROR, OperationalError, OperationalError),
    ],
)
def test_errors_of_sqlite(code, before, in_commit):
    cause = sqlite3.OperationalError()
    cause.sqlite_errorcode, cause.sqlite_errorname = code, str(code)
    error = OperationalError("", {}, cause)
    assert (raised(database_outages, error), raised(commit_outages, error)) == (before, in_commit)


@pytest.mark.parametrize(
    ("state", "before", "in_commit"),
    [
        ("53100", StorageFull, StorageFull),
        ("57P03", DatabaseUnavailable, DatabaseUnavailable),
        ("25006", DatabaseUnavailable, DatabaseUnavailable),
        ("40001", DatabaseUnavailable, DatabaseUnavailable),
        ("54000", DBAPIError, DBAPIError),
        ("42P01", DBAPIError, DBAPIError),
        ("57P01", DatabaseUnavailable, OutcomeUnknown),
    ],
)
def test_errors_of_postgresql(state, before, in_commit):
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    cause = psycopg.errors.lookup(state)("")
    lost = state == "57P01"
    error = DBAPIError.instance("", {}, cause, psycopg.Error, connection_invalidated=lost)
    for context, kind in ((database_outages, before), (commit_outages, in_commit)):
        assert issubclass(raised(context, error), kind)
