"""Real outages: PostgreSQL stopped and started, SQLite locked and not writable, a disk that is full."""

from __future__ import annotations

import asyncio
import io
import math
import os
import resource
import sqlite3
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from data_specs.problems import message
from service.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull, StorageUnavailable
from service.receive.uploads import _append
from service.storage import database as database_module
from service.storage.database import Database
from service.storage.drafts import HELD_BYTES, Drafts
from service.storage.store import FolderStore
from service.storage.tables import ArrivalRow, VisitRow
from tests.data_specs.cxr_made import phantom
from tests.service.orthanc import free_port, listens
from tests.service.page_fixture import made_film
from tests.service.receive.dicom.made import PEERS, associate, film, parsed
from tests.service.receive.test_uploads import PIECE, TUS, begun, offset
from tests.service.serving import serving, settings_for, until, visit_files

LARGE_FILM = phantom(rows=600, columns=600)
LARGE = os.urandom(3 * HELD_BYTES)
NO_WAIT = {"Prefer": "respond-async"}


def refused(answer, code):
    """Check a refusal because of an outage: its status, when to try again, and the sentence."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["detail"]) == (code, message(code, "en"))


def metrics(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def stored(served, table=VisitRow):
    with served.app.state.service.database.transaction() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def finished(client, ids):
    return all(client.get(f"/v1/visits/{each}").json()["status"] == "complete" for each in ids)


# ---------------------------------------------------------------------- PostgreSQL is away
def test_a_database_that_is_away_is_said_so_at_every_door(own_postgres, tmp_path):
    settings = settings_for(tmp_path, database_url=own_postgres.new_database(), lease_seconds=1)
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
        assert site.get("/healthz").status_code == 200
        ready = site.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "database_unavailable")
        told = metrics(site)
        assert math.isnan(told["sangloc_visits_unfinished",])
        assert told["sangloc_unavailable_total", "database_unavailable"] == 8
        page = site.get("/worklist", headers={"Accept": "text/html", "Accept-Language": "vi"})
        assert (page.status_code, page.headers["retry-after"]) == (503, "10")
        assert message("database_unavailable", "vi") in page.text
        assert stored_files(tmp_path / "files") == 1, "nothing of a refused visit is left"
        own_postgres.start()
        assert site.get("/readyz").status_code == 200
        again = site.post("/v1/visits", files=visit_files(b"first"), headers=once)
        assert again.status_code == 201
        assert stored(served) == 2
        assert offset(site, upload) == 0


def stored_files(folder):
    return sum(path.is_file() for path in folder.rglob("*"))


def test_visits_in_work_are_finished_after_an_outage_without_a_restart(own_postgres, tmp_path):
    settings = settings_for(tmp_path, database_url=own_postgres.new_database(), lease_seconds=1)
    with serving(settings) as served, served.client() as client:
        ids = []
        for i in range(8):
            files = visit_files(b"SLOW 0.5", person={"id": f"P-{i}"})
            ids.append(client.post("/v1/visits", files=files, headers=NO_WAIT).json()["id"])
        own_postgres.stop()
        time.sleep(3)  # the outage is longer than a lease, and than each visit takes
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
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.post, "/v1/visits", files=visit_files())
            until(lambda: own_postgres.value(committing) == 1, 20)
            own_postgres.stop()
            refused(answer.result(), "outcome_unknown")
        own_postgres.start()


def test_an_accepted_visit_is_accepted_though_it_cannot_be_read_again(own_postgres, tmp_path):
    settings = settings_for(tmp_path, database_url=own_postgres.new_database())
    with serving(settings) as served, served.client() as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/v1/visits", files=visit_files(b"SLOW 1"), headers={"Prefer": "wait=2"})
        until(lambda: stored(served) == 1, 10)
        own_postgres.stop()
        assert answer.result().status_code == 202
        own_postgres.start()
        until(lambda: finished(client, [answer.result().json()["id"]]), 20)


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


# ---------------------------------------------------------------------- a full disk
@contextmanager
def full(folder, leave=0):
    """Fill the disk of a folder, but for about ``leave`` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            while True:
                free = os.statvfs(folder)
                if free.f_bavail * free.f_frsize - size < leave:
                    break
                file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink(missing_ok=True)


def zipped(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.png", content)
    return out.getvalue()


def test_a_full_disk_is_said_so_at_every_door_and_leaves_no_draft(small_disk, tmp_path):
    """The database is on another disk here, so that the files themselves are what does not fit."""
    port, small = free_port(), made_film(64)
    settings = settings_for(
        small_disk,
        database_url=f"sqlite:///{tmp_path}/sangloc.db",
        min_free_mb=0,
        dicom_port=port,
        dicom_peers=PEERS,
        dicom_gather_seconds=0.3,
    )
    with serving(settings) as served, served.client() as client:
        until(lambda: listens(port), 10)
        drafts = served.app.state.service.store.drafts
        visit = client.post("/v1/visits", files=visit_files()).json()["id"]
        where = begun(client, len(LARGE))
        related = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
        part = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        with full(small_disk):
            for answer in (
                client.post("/v1/visits", files=visit_files(LARGE)),
                client.post("/v1/visits", files=visit_files(b"small, and kept in memory until it is stored")),
                client.post("/v1/visits", files=[("image", (f"{i}.png", LARGE)) for i in range(3)]),
                client.post("/v1/visits", content=LARGE, headers={"Content-Type": "image/png"}),
                client.post("/v1/visits", content=zipped(a=small), headers={"Content-Type": "application/zip"}),
                client.post("/dicomweb/studies", content=part + LARGE + b"\r\n--b--\r\n", headers=related),
            ):
                refused(answer, "storage_full")
                assert list(drafts.iterdir()) == []
            stow = client.post("/dicomweb/studies", content=part + film() + b"\r\n--b--\r\n", headers=related)
            assert (stow.status_code, stow.headers["retry-after"]) == (503, "10")
            assert stow.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]
            assert stored_by_dicom(port, film()) == [(0xA700, "storage_full")]
            assert stored_by_dicom(port, film(values=LARGE_FILM)) == [(0xA700, "storage_full")]
            until(lambda: list(drafts.iterdir()) == [], 5)
            page = client.post("/post", files=[("image", ("a.png", LARGE))], data={"token": "t"})
            assert (page.status_code, page.headers["retry-after"]) == (503, "10")
            assert message("storage_full", "en") in page.text
            assert client.get(f"/v1/visits/{visit}/inputs/0").content == b"an image", "reading goes on"
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]["store"]) == (503, "storage_full")
            assert list(drafts.iterdir()) == []
        with full(small_disk, leave=HELD_BYTES):
            patch = client.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=LARGE)
            refused(patch, "upload_stopped")
        so_far = offset(client, where)
        assert 0 < so_far < len(LARGE)
        rest = client.patch(where, headers={**PIECE, "Upload-Offset": str(so_far)}, content=LARGE[so_far:])
        assert rest.status_code == 204
        made = client.post("/v1/uploads/visit", json={"uploads": [where.rpartition("/")[2]]})
        assert client.get(f"{made.headers['location']}/inputs/0").content == LARGE
        assert stored_by_dicom(port, film()) == [(0, None)]
        assert (stored(served, ArrivalRow), client.get("/readyz").status_code) == (1, 200)


def stored_by_dicom(port, *objects):
    """Status and ErrorComment of each object that is sent."""
    association = associate(port, *objects)
    answers = [association.send_c_store(parsed(each)) for each in objects]
    association.release()
    return [(answer.Status, answer.get("ErrorComment")) for answer in answers]


def test_what_is_accepted_before_the_disk_of_the_database_is_full_is_finished(small_disk, tmp_path):
    settings = settings_for(
        tmp_path / "data", database_url=f"sqlite:///{small_disk}/sangloc.db", min_free_mb=0, lease_seconds=1
    )
    with serving(settings) as served, served.client(**NO_WAIT) as client:
        kept, full_answers = [], []
        with full(small_disk, leave=300_000):
            for number in range(600):
                files = visit_files(b"SLOW 0.2", person={"id": f"P-{number}"})
                answer = client.post("/v1/visits", files=files, headers={"Idempotency-Key": f"k-{number}"})
                if answer.status_code in (201, 202):
                    kept.append(answer.json()["id"])
                else:
                    full_answers.append(answer)
                if len(full_answers) == 5:
                    break
            assert kept
            assert {each.json()["code"] for each in full_answers} <= {"storage_full", "outcome_unknown"}
            assert len(full_answers) == 5
            assert client.get("/v1/visits?limit=1").status_code == 200
        until(lambda: finished(client, kept), 30)
        unknown = sum(each.json()["code"] == "outcome_unknown" for each in full_answers)
        assert len(kept) <= stored(served) <= len(kept) + unknown
        assert client.get("/readyz").status_code == 200


@contextmanager
def no_file_larger_than(n_bytes):
    """The kernel refuses to let a file of this process grow further, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [len(LARGE), HELD_BYTES // 2])
def test_a_draft_that_cannot_be_written_is_removed(tmp_path, size):
    store = FolderStore(tmp_path)
    drafts = Drafts(store.drafts)
    with no_file_larger_than(1000):
        with pytest.raises(StorageFull):
            _write_and_put(store, drafts, LARGE[:size])
        drafts.remove()
    assert stored_files(tmp_path) == 0


def _write_and_put(store, drafts, content):
    draft = drafts.new()
    draft.write(content)
    store.put(draft)


def test_what_is_written_of_a_piece_counts(tmp_path):
    path = tmp_path / "upload"
    path.touch()
    with no_file_larger_than(1000):
        assert _append(path, 0, LARGE[:600]) == 600
        with pytest.raises(StorageFull):
            _append(path, 600, LARGE[600:2000])
    at = _append(path, None, b"", durable=True)
    assert (at, path.read_bytes()) == (1000, LARGE[:1000])


def test_other_errors_of_a_disk_are_no_lack_of_room(tmp_path):
    store = FolderStore(tmp_path)
    store.drafts.rmdir()
    for harmed in (store.probe, lambda: _write_and_put(store, Drafts(store.drafts), b"")):
        with pytest.raises(StorageUnavailable) as outage:
            harmed()
        assert type(outage.value) is StorageUnavailable
