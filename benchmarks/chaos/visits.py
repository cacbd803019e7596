"""Visits of known outcome, and clients that post them while a server is harmed."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.asking import Answer, Client, Lost, all_closed
from benchmarks.chaos.record import Figures
from benchmarks.chaos.seeds import data_folder
from benchmarks.files import CONTEXT, EXPLICIT, J2K, MARK, SAMPLES, Body, dicom, multipart, numbered, png, recording

FILM_PX = 256
DOCTOR = "D-1"
ADULT = {**CONTEXT, "referrer": {"id": DOCTOR}}
LABS = [{"name": "creatinine", "value": 118, "unit": "umol/L"}, {"name": "urine_acr", "value": 9.6, "unit": "mg/mmol"}]
REAL_FILM = "cxr/dicom/chest/SIIM_CR_chest_mono2_8bit_JPEGbaseline.dcm"
OFTEN = {"labs": 4, "PNG": 3, "JPEG": 3, "truncated PNG": 2}
"""Kinds that cost little are posted more often than the others."""
ASK_AGAIN_S = 0.2
GIVE_UP_S = 120.0
AT_ONCE = "respond-async"
"""A client that does not wait for the findings (RFC 7240, section 4.1)."""
PROBABILITY = 0.01
"""By how much a probability may differ from that of a run without harm: rows are batched differently."""


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
    sources
        The addresses of loopback from which they connect, one client after the other.
    give_up_s
        A visit that no server takes for so long was never accepted.
    context
        With it, they speak TLS, to a proxy.
    phase
        A word for what is done meanwhile, under which the times of accepted posts that do not wait for the findings
        are kept; empty: they are not kept.
    """

    figures: Figures
    ports: Sequence[int]
    key: str
    bodies: Mapping[str, Body]
    seed: int
    sources: Sequence[str] = ("127.0.0.1",)
    give_up_s: float = GIVE_UP_S
    context: ssl.SSLContext | None = None
    phase: str = ""
    accepted: dict[str, Accepted] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    _next: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def posting(self, n_clients: int) -> Iterator[None]:
        """Post meanwhile; at the end every client learns what became of its last visit."""
        threads = [threading.Thread(target=self._post_all, args=(k,), name=f"client-{k}") for k in range(n_clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()

    def _post_all(self, k: int) -> None:
        source = self.sources[k % len(self.sources)]
        with all_closed(
            *(Client(port, self.key, source=source, timeout_s=60, context=self.context) for port in self.ports)
        ) as clients:
            by_port = {client.port: client for client in clients}
            while not self.ended.is_set():
                with self._lock:
                    number, self._next = self._next, self._next + 1
                self.post(number, by_port)

    def post(self, number: int, clients: Mapping[int, Client]) -> Answer | None:
        """Post the visit of this number, again where no answer or a temporary refusal came; its last answer."""
        chance = random.Random(self.seed << 32 | number)  # noqa: S311
        kind = chance.choices(list(self.bodies), [OFTEN.get(name, 1) for name in self.bodies])[0]
        body, key = self.bodies[kind], f"{self.seed}-{number}"
        content = numbered(body.content, number)
        prefer = chance.choice((AT_ONCE, "wait=5", "wait=20"))
        headers = headers_of(body, key, prefer)
        first = time.perf_counter()
        while (began := time.perf_counter()) - first < self.give_up_s:
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
                    if self.phase and prefer == AT_ONCE:
                        self.figures.took(f"accepted {self.phase}", time.perf_counter() - began)
                        self.figures.took(f"accepted at last {self.phase}", time.perf_counter() - first)
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
