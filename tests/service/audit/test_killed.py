"""Processes on one PostgreSQL are killed while they write and look: the chain stays whole, and nothing is missing."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
from sqlalchemy import select

from service.audit.proof import compare_rows, prove, stored_entries
from service.storage.database import Database
from service.storage.tables import VISITS
from tests.service.serving import until, visit_files

PROCESSES, CLIENTS, KILLS = 3, 2, 6


class Asker:
    """Clients that post visits and look at them until they are told to stop; what was answered is kept."""

    def __init__(self, processes):
        self._processes = processes
        self.stopping = threading.Event()
        self.posted, self.looked = set(), set()

    def ask(self, number):
        n = 0
        while not self.stopping.is_set():
            n += 1
            served = self._processes[(number + n) % PROCESSES].served
            try:
                with served.client(Prefer="respond-async") as client:
                    files = visit_files(f"film {number} {n}".encode(), person={"id": f"VN-{number}-{n}"})
                    made = client.post("/v1/visits", files=files)
                    if made.status_code not in (201, 202):
                        continue
                    visit = made.json()["id"]
                    self.posted.add(visit)
                    for path in (f"/v1/visits/{visit}", f"/visits/{visit}"):
                        seen = client.get(path)
                        if seen.status_code == 200:
                            self.looked.add((visit, seen.headers["x-request-id"]))
            except httpx.TransportError:
                time.sleep(0.05)  # the process was killed


def test_processes_that_are_killed_leave_one_whole_chain_with_every_visit_and_look(new_process, postgres):
    url = postgres()
    processes = [new_process(database_url=url, seconds=0.01) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    asker, chance = Asker(processes), random.Random(2026)
    with ThreadPoolExecutor(PROCESSES * CLIENTS) as pool:
        asked = [pool.submit(asker.ask, number) for number in range(PROCESSES * CLIENTS)]
        for kill in range(KILLS):
            before = len(asker.looked)
            until(lambda: len(asker.looked) > before + 5, 60)  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.1))
            processes[kill % PROCESSES].kill()
            processes[kill % PROCESSES].start()
        asker.stopping.set()
        for each in asked:
            each.result(60)
    database = Database(url)
    try:
        until(lambda: not unfinished(database), 60)
        with database.snapshot() as connection:
            proof = prove(stored_entries(connection))
            compare_rows(connection, proof)
            entries = [stored.entry for stored in stored_entries(connection)]
            there = set(connection.execute(select(VISITS.c.id)).scalars())
    finally:
        database.close()
    assert proof.faults == []
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    for action in ("visit_posted", "visit_assessed"):
        counted = Counter(entry.visit for entry in entries if entry.action == action)
        assert set(counted) == there, "an entry and its change are one transaction"
        assert set(counted.values()) == {1}
    assert len(asker.posted) > KILLS
    assert asker.posted <= there
    looked = {(e.visit, json.loads(e.detail)["request"]) for e in entries if e.action == "visit_read"}
    assert asker.looked <= looked, "what was shown is in the log"


def unfinished(database):
    with database.transaction() as session:
        return session.scalar(select(VISITS.c.id).where(VISITS.c.completed_at.is_(None)).limit(1))
