"""Posts visits of known outcome while a server is harmed, and checks afterwards that each was kept and done once."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy

from benchmarks.chaos.asking import Answer, Client, Lost
from benchmarks.chaos.record import Figures
from benchmarks.chaos.seeds import data_folder
from benchmarks.chaos.servers import Server
from benchmarks.chaos.sink import Sink
from benchmarks.files import CONTEXT, EXPLICIT, J2K, MARK, SAMPLES, Body, dicom, multipart, numbered, png, recording
from benchmarks.report import Line

FILM_PX = 256
DOCTOR = "D-1"
ADULT = {**CONTEXT, "referrer": {"id": DOCTOR}}
LABS = [{"name": "creatinine", "value": 118, "unit": "umol/L"}, {"name": "urine_acr", "value": 9.6, "unit": "mg/mmol"}]
REAL_FILM = "cxr/dicom/chest/SIIM_CR_chest_mono2_8bit_JPEGbaseline.dcm"
OFTEN = {"labs": 4, "PNG": 3, "JPEG": 3, "truncated PNG": 2}
"""Kinds that cost little are posted more often than the others."""
ASK_AGAIN_S = 0.2
GIVE_UP_S = 120.0
PROBABILITY = 0.01
"""By how much a probability may differ from that of a run without harm: rows are batched differently."""
PAGE = 200


# ---------------------------------------------------------------- what is posted
def kinds() -> dict[str, Body]:
    """One visit of each kind, small so that it is read quickly; each has a place for its number."""
    film, header, signal = png(FILM_PX), *recording()
    wfdb = [("ecg", "E07517.hea", header), ("ecg", "E07517.mat", signal)]
    marked = {**ADULT, "labs": LABS, "referrer": {"id": DOCTOR, "name": MARK.decode()}}
    made = {
        "PNG": _one("f.png", film),
        "JPEG": _one("f.jpg", _numbered_jpeg((SAMPLES / "film-abnormal.jpg").read_bytes())),
        "DICOM": _one("f.dcm", dicom(EXPLICIT, FILM_PX)),
        "JPEG 2000": _one("f.dcm", dicom(J2K, FILM_PX)),
        "truncated PNG": _one("f.png", film[: len(film) // 2] + MARK),
        "WFDB": multipart(wfdb, "cardiac", ADULT),
        "DICOM ECG": multipart([("ecg", "e.dcm", _padded((SAMPLES / "recording.dcm").read_bytes()))], "cardiac", ADULT),
        "labs": multipart([], "kidney", marked),
        "several": multipart(
            [("image", "f.png", film), ("image", "g.png", png(FILM_PX, "film-abnormal")), *wfdb], "lung", marked
        ),
    }
    data = data_folder()
    if data is not None and (data / REAL_FILM).is_file():
        made["real DICOM"] = _one("f.dcm", _padded((data / REAL_FILM).read_bytes()))
    return made


def _one(name: str, content: bytes) -> Body:
    return multipart([("image", name, content)], "lung", ADULT)


def _numbered_jpeg(content: bytes) -> bytes:
    """With a comment for the number (ITU-T T.81, section B.2.4.5)."""
    return content[:2] + b"\xff\xfe" + (len(MARK) + 2).to_bytes(2, "big") + MARK + content[2:]


def _padded(content: bytes) -> bytes:
    """With the number in Data Set Trailing Padding (DICOM PS3.10, section 7.2), explicit little endian."""
    return content + b"\xfc\xff\xfc\xffOB\0\0" + len(MARK).to_bytes(4, "little") + MARK


# ---------------------------------------------------------------- what comes of it
@dataclass(frozen=True)
class Outcome:
    """What a visit came to, without what differs by chance: ids, times, digits of probabilities."""

    facts: Any
    probabilities: tuple[float, ...]

    @classmethod
    def of(cls, visit: Mapping[str, Any]) -> Outcome:
        organs = {
            name: [
                organ["status"],
                organ["category"],
                [reason["code"] for reason in organ["reasons"]],
                [[found["name"], found["positive"]] for found in organ["findings"]],
            ]
            for name, organ in sorted((visit.get("organs") or {}).items())
        }
        inputs = [[each["accepted"], [problem["code"] for problem in each["problems"]]] for each in visit["inputs"]]
        probabilities = tuple(
            found["probability"] or 0.0
            for _, organ in sorted((visit.get("organs") or {}).items())
            for found in organ["findings"]
        )
        return cls([visit["status"], visit["priority"], organs, inputs], probabilities)

    def agrees(self, other: Outcome) -> bool:
        return (
            self.facts == other.facts
            and len(self.probabilities) == len(other.probabilities)
            and all(abs(a - b) <= PROBABILITY for a, b in zip(self.probabilities, other.probabilities, strict=True))
        )


def headers_of(body: Body, key: str, prefer: str) -> dict[str, str]:
    return {"Content-Type": body.content_type, "Idempotency-Key": key, "Prefer": prefer}


def expected_outcomes(client: Client, bodies: Mapping[str, Body]) -> dict[str, Outcome]:
    """What each kind of visit comes to while nothing is harmed.

    Raises
    ------
    RuntimeError
        A visit was not assessed.
    """
    found = {}
    for name, body in bodies.items():
        answer = client.ask(
            "POST", "/v1/visits", numbered(body.content, 0), headers_of(body, f"first {name}", "wait=110")
        )
        if answer.status != 201:
            raise RuntimeError(f"{name}: {answer.status} {answer.body[:500]!r}")
        found[name] = Outcome.of(answer.json)
    return found


# ---------------------------------------------------------------- the load
@dataclass(frozen=True)
class Accepted:
    """A visit that a server has said to have accepted."""

    kind: str
    id: str


@dataclass
class Load:
    """Clients that post visits, each under a key of its own, and ask again until they know what became of it.

    Parameters
    ----------
    source
        The address of loopback from which they connect.
    give_up_s
        A visit that no server takes for so long was never accepted.
    """

    figures: Figures
    ports: Sequence[int]
    key: str
    bodies: Mapping[str, Body]
    seed: int
    source: str = "127.0.0.1"
    give_up_s: float = GIVE_UP_S
    accepted: dict[str, Accepted] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    _next: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def posting(self, n_clients: int) -> Iterator[None]:
        """Post meanwhile; at the end every client learns what became of its last visit."""
        threads = [threading.Thread(target=self._post_all, name=f"client-{k}") for k in range(n_clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()

    def _post_all(self) -> None:
        clients = {port: Client(port, self.key, source=self.source, timeout_s=60) for port in self.ports}
        while not self.ended.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            self.post(number, clients)

    def post(self, number: int, clients: Mapping[int, Client]) -> Answer | None:
        """Post the visit of this number, again where no answer or a temporary refusal came; its last answer."""
        chance = random.Random(self.seed << 32 | number)  # noqa: S311
        kind = chance.choices(list(self.bodies), [OFTEN.get(name, 1) for name in self.bodies])[0]
        body, key = self.bodies[kind], f"{self.seed}-{number}"
        content = numbered(body.content, number)
        headers = headers_of(body, key, chance.choice(("respond-async", "wait=5", "wait=20")))
        end = time.monotonic() + self.give_up_s
        while time.monotonic() < end:
            began = time.perf_counter()
            try:
                answer = clients[chance.choice(self.ports)].ask("POST", "/v1/visits", content, headers)
            except Lost:
                self._count("answers lost")
                time.sleep(ASK_AGAIN_S)
                continue
            self._note(answer, time.perf_counter() - began)
            if answer.status in (201, 202):
                with self._lock:
                    self.accepted[key] = Accepted(kind, answer.json["id"])
                return answer
            if answer.status < 500 and answer.status != 429:
                self._count("refused wrongly")
                return answer
            time.sleep(ASK_AGAIN_S)
        self._count("never accepted")
        return None

    def _note(self, answer: Answer, seconds: float) -> None:
        with self._lock:
            self.figures.counts[f"answer {answer.status}"] += 1
            self.figures.took("answer", seconds)
            if answer.fault:
                self.figures.counts[f"wrong answer: {answer.fault}"] += 1
                self.figures.counts["wrong answers"] += 1

    def _count(self, name: str) -> None:
        with self._lock:
            self.figures.counts[name] += 1


# ---------------------------------------------------------------- the audit
def rows(database_url: str, query: str) -> list[Any]:
    """The rows of a query, on a connection of its own."""
    engine = sqlalchemy.create_engine(database_url, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        return list(connection.execute(sqlalchemy.text(query)).all())


def sqlite_of(server: Server) -> str:
    return f"sqlite:///{server.data / 'sangloc.db'}"


def drafts_left(server: Server) -> int:
    """How many files are left of bodies that were being received."""
    return sum(path.is_file() for path in (server.data / "files" / "drafts").rglob("*"))


def wait_until_done(database_url: str, limit_s: float) -> None:
    """Wait until no visit and no delivery is left to do, or the time is over."""
    visits = "SELECT count(*) FROM visits WHERE status = 'accepted'"
    left = f"SELECT ({visits}), (SELECT count(*) FROM deliveries WHERE state = 'waiting')"  # noqa: S608
    end = time.monotonic() + limit_s
    while time.monotonic() < end and rows(database_url, left)[0] != (0, 0):
        time.sleep(0.2)


def audit(
    figures: Figures, server: Server, database_url: str, load: Load, expected: Mapping[str, Outcome], *, limit_s: float
) -> None:
    """Count what was accepted, and of it what was lost, done twice, not done, or done wrongly."""
    wait_until_done(database_url, limit_s)
    found = rows(database_url, "SELECT id, idempotency_key, status FROM visits WHERE idempotency_key IS NOT NULL")
    statuses = {id_: status for id_, _, status in found}
    count_kept(figures, found, load.accepted)
    outcomes = _all_outcomes(server, load.key)
    for each in load.accepted.values():
        outcome = outcomes.get(each.id)
        if outcome is not None and statuses.get(each.id) == "complete" and not outcome.agrees(expected[each.kind]):
            figures.counts["wrong results"] += 1
            figures.note(f"{each.kind}: {json.dumps(outcome.facts)[:400]}")


def count_kept(figures: Figures, found: Sequence[tuple[str, str, str]], accepted: Mapping[str, Accepted]) -> None:
    """Compare what was accepted with the visits of the database.

    Parameters
    ----------
    found
        Id, key and status of each visit.
    accepted
        By key.
    """
    ids: dict[str, set[str]] = {}
    for id_, key, _ in found:
        ids.setdefault(key, set()).add(id_)
    known = {id_ for id_, _, _ in found}
    counts = figures.counts
    counts["accepted"] += len(accepted)
    counts["lost"] += sum(each.id not in known for each in accepted.values())
    counts["double"] += sum(len(of_key) > 1 for of_key in ids.values())
    counts["double"] += sum(len(ids.get(key, set()) - {each.id}) > 0 for key, each in accepted.items())
    counts["unfinished"] += sum(status == "accepted" for _, _, status in found)
    counts["failed"] += sum(status == "failed" for _, _, status in found)


def _all_outcomes(server: Server, key: str) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    cursor = ""
    with server.client(key) as client:
        while True:
            page = client.ask("GET", f"/v1/visits?limit={PAGE}" + (f"&cursor={cursor}" if cursor else "")).json
            found |= {visit["id"]: Outcome.of(visit) for visit in page["items"]}
            cursor = page["next"]
            if not cursor:
                return found


def lines_of_audit(figures: Figures) -> list[Line]:
    """What was kept and done of what was accepted, as rows of the table."""
    none = figures.none
    return [
        none("answers against the contract", "wrong answers", figures.listed("wrong answer: ")),
        none("accepted visits lost", "lost"),
        none("visits done twice", "double"),
        none("visits not finished", "unfinished"),
        none("visits failed", "failed"),
        none("visits refused wrongly", "refused wrongly"),
        none(
            "visits never accepted",
            "never accepted",
            f"{figures.counts['answers lost']} answers lost and asked for again",
        ),
        none("results unlike those without harm", "wrong results"),
    ]


def audit_deliveries(figures: Figures, database_url: str, sink: Sink) -> None:
    """Count deliveries: each version of each report arrives under one key, the versions of a visit in their order."""
    counts = figures.counts
    issued = rows(database_url, "SELECT visit_id, version FROM reports")
    versions = {
        (id_, number)
        for id_, version, status in rows(database_url, "SELECT id, version, status FROM visits")
        if status != "accepted"
        for number in range(1, version + 1)
    }
    keys: dict[tuple[str, int], Counter[str]] = {}
    for each in list(sink.received):
        keys.setdefault((each.visit, each.version), Counter())[each.key] += 1
    last: Counter[str] = Counter()
    for visit, version in keys:  # in the order in which each arrived first
        counts["out of order"] += version < last[visit]
        last[visit] = max(last[visit], version)
    counts["reports"] += len(versions)
    counts["not delivered"] += len(versions - keys.keys())
    counts["delivered though not issued"] += len(keys.keys() - versions)
    counts["delivered twice"] += sum(len(each) > 1 for each in keys.values())
    counts["attempts repeated"] += sum(each.total() - 1 for each in keys.values())
    counts["double"] += len(issued) - len(set(issued))
