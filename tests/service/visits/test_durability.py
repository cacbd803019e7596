"""Accepted means durable: killed at any moment, started again, every accepted visit is finished once."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from service.storage.database import Database
from tests.service.serving import until, visit_files


def post(served, name, image=b"an image"):
    """Post and leave at once; the visit's id, or ``None`` where no answer came."""
    with served.client(Prefer="respond-async") as client:
        try:
            answer = client.post("/v1/visits", files=visit_files(image, person={"id": name}))
        except httpx.TransportError:
            return None
    assert answer.status_code in (201, 202), answer.text
    return answer.json()["id"]


def visit(served, visit_id):
    with served.client() as client:
        return client.get(f"/v1/visits/{visit_id}").json()


def all_finished(served, ids):
    with served.client() as client:
        return all(client.get(f"/v1/visits/{each}").json()["status"] != "accepted" for each in ids)


def test_every_accepted_visit_is_finished_once_though_processes_are_killed(new_process, new_database):
    process = new_process(database_url=new_database(), seconds=0.05)
    chance = random.Random(7)
    accepted = {}
    for round_ in range(3):
        process.start()
        with ThreadPoolExecutor(4) as pool:
            names = [f"P-{round_}-{i}" for i in range(12)]
            answers = [(name, pool.submit(post, process.served, name)) for name in names]
            enough = chance.randint(1, 6)
            until(lambda: sum(each.done() for _, each in answers) >= enough, 20)  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.1))
            process.kill()
            accepted |= {name: answer.result() for name, answer in answers if answer.result()}
    process.start()
    assert accepted
    until(lambda: all_finished(process.served, accepted.values()), 20)
    seen = {name: visit(process.served, visit_id) for name, visit_id in accepted.items()}
    assert {each["status"] for each in seen.values()} == {"complete"}
    assert all(each["person"]["id"] == name for name, each in seen.items())
    time.sleep(0.5)
    assert {name: visit(process.served, visit_id) for name, visit_id in accepted.items()} == seen, "finished twice"
    process.stop()
    log = process.log.read_text()
    finished = Counter(line.split('"visit": "')[1][:36] for line in log.splitlines() if "visit_finished" in line)
    assert max(finished.values()) == 1
    assert "visit_taken_over" not in log


def test_a_visit_that_is_interrupted_again_and_again_is_finished_with_all_its_files(new_process, new_database):
    process = new_process(database_url=new_database())
    process.start()
    ids = [post(process.served, "labs", b""), post(process.served, "slow", b"SLOW 2")]
    for _ in range(6):
        begun = len(process.events())
        until(lambda: len(process.events()) > begun or all_finished(process.served, ids), 20)  # noqa: B023
        process.kill()
        process.start()
    until(lambda: all_finished(process.served, ids), 20)
    for each in ids:
        found = visit(process.served, each)
        assert found["status"] == "complete"
        assert all(one["accepted"] for one in found["inputs"])


def test_another_process_takes_over_the_visits_of_a_stopped_one_at_once(new_process):
    first = new_process(seconds=5, SANGLOC_LEASE_SECONDS="600")
    first.start()
    second = new_process(SANGLOC_LEASE_SECONDS="600")
    ids = [post(first.served, f"T-{i}") for i in range(3)]
    first.kill()
    started = time.monotonic()
    second.start()
    until(lambda: all_finished(second.served, ids), 20)
    assert time.monotonic() - started < 15


def test_without_a_shared_data_folder_the_end_of_the_lease_decides(new_process, postgres, tmp_path):
    url = postgres()
    store = f"file://{tmp_path}/files"
    machines = [
        new_process(
            tmp_path / name, database_url=url, seconds=seconds, SANGLOC_LEASE_SECONDS="1.5", SANGLOC_STORE_URL=store
        )
        for name, seconds in (("a", 6), ("b", 0.0))
    ]
    first, second = (each.start() for each in machines)
    held = post(first.served, "M-1")
    time.sleep(2.5)
    assert visit(second.served, held)["status"] == "accepted", "taken from a living process"
    first.kill()
    until(lambda: all_finished(second.served, [held]), 10)


def test_two_processes_share_the_work_and_no_visit_is_assessed_twice(new_process, new_database):
    url = new_database()
    # a lease longer than a loaded machine can stall a process: this is about sharing, not about taking over
    one = {"database_url": url, "seconds": 0.1, "SANGLOC_CONCURRENT_VISITS": "2", "SANGLOC_LEASE_SECONDS": "30"}
    first, second = new_process(**one), new_process(**one)
    first.start(wait=False)
    second.start()
    until(first._answers, 30)
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda i: post(first.served, f"S-{i}"), range(16)))
    until(lambda: all_finished(second.served, ids), 20)
    ends = [each for each in first.events() if each["event"] == "end"]
    assert Counter(each["person"] for each in ends) == Counter({f"S-{i}": 1 for i in range(16)})
    assert len({each["pid"] for each in ends}) == 2, "the second process had no part in it"


def test_a_stopping_process_finishes_its_visits_or_gives_them_back(new_process):
    process = new_process(SANGLOC_DRAIN_SECONDS="1.5")
    process.start()
    quick, slow = post(process.served, "Q", b"SLOW 1"), post(process.served, "L", b"SLOW 20")
    assert process.stop() == 0
    process.start()
    assert visit(process.served, quick)["status"] == "complete"
    assert visit(process.served, slow)["status"] == "accepted"
    assert sum(each["event"] == "end" for each in process.events()) == 1
    until(lambda: sum(each["event"] == "begin" for each in process.events()) >= 3, 5)


def test_a_waiting_client_is_asked_to_come_back_when_the_service_stops(new_process):
    process = new_process()
    process.start()
    with ThreadPoolExecutor(1) as pool, process.served.client() as client:
        answer = pool.submit(client.post, "/v1/visits", files=visit_files(b"SLOW 20"))
        until(process.events, 10)
        started = time.monotonic()
        process.process.terminate()
        assert answer.result().status_code == 202
        assert time.monotonic() - started < 3


def test_the_log_names_no_person(new_process):
    process = new_process()
    process.start()
    with process.served.client() as client:
        client.post("/v1/visits", files=visit_files(b"FAULT", person={"id": "SECRET-1"}, referrer={"name": "SECRET-2"}))
        client.post("/v1/visits", files=[("image", ("SECRET-3.png", b"x"))], headers={"Idempotency-Key": "SECRET-4"})
        client.post("/v1/visits", files=visit_files(person={"id": "SECRET-5", "age_years": "SECRET-6"}))
        client.get("/v1/visits", params={"cursor": "SECRET-7"})
        client.get("/SECRET-8")
        client.get("/v1/visits/SECRET-9")
        client.get("/v1/visits", headers={"Authorization": "Bearer SECRET-10"})
        metrics = client.get("/metrics").text
    process.stop()
    log = process.log.read_text()
    assert "visit_fault" in log
    assert "SECRET" not in log
    assert "SECRET" not in metrics
    assert "admin-key" not in log


def test_sqlite_is_durable(new_process):
    process = new_process()
    process.start()
    with sqlite3.connect(process.folder / "sangloc.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    database = Database(f"sqlite:///{process.folder}/sangloc.db")
    with database.engine.connect() as other:
        assert other.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    database.close()


def test_processes_that_start_together_migrate_once(new_process, new_database):
    url = new_database()
    processes = [new_process(database_url=url).start(wait=False) for _ in range(3)]
    for each in processes:
        until(each._answers, 30)
