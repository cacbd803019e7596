"""Damaged posts at every door of a running server: no answer is a fault of the service, and nobody waits for them."""

from __future__ import annotations

import itertools
import random
import re
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.chaos.asking import Answer, Client, Lost
from benchmarks.chaos.audit import drafts_left, rows, sqlite_of, wait_until_done
from benchmarks.chaos.doors import Doors, Request
from benchmarks.chaos.mutations import EXTREMES, Material, mutated
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.readers import Inputs
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import Server, running
from benchmarks.chaos.watching import health_watched, memory_watched
from benchmarks.chaos.wires import MLLP_END, order_frame, say, store_conversation
from benchmarks.files import EXPLICIT, MARK, dicom, digits
from benchmarks.report import Line
from benchmarks.serving import KEY, free_port

POSTS = 20_000
CLIENTS = 6
BODY, HEADERS, PATH, RAW = 0.3, 0.15, 0.03, 0.02
"""Shares of the requests whose body, headers or path is damaged, or which are sent as damaged bytes."""
WIRE_EVERY = 25
"""Of so many posts, one goes to the DICOM and one to the HL7 listener instead."""
DONE_S = 180.0
HEALTH_MS, MEMORY_MB = 100, 900
ODD_VALUES = (
    "",
    " ",
    "0",
    "-1",
    "1e9",
    "9" * 30,
    "x" * 8000,
    "é" * 50,
    "\t",
    ";;;,,,",
    "*/*",
    "=" * 300,
    "bytes=0-",
    "gzip",
)
SETTINGS = {
    "SANGLOC_IDLE_SECONDS": "3",  # a wrong Content-Length is waited for
    "SANGLOC_BODY_SECONDS": "20",
}


@dataclass
class _Knocking:
    """Clients that post, one thread each."""

    plan: Plan
    figures: Figures
    server: Server
    doors: Doors
    seed: int
    wires: Callable[[random.Random], None]

    def __post_init__(self) -> None:
        self._numbers = itertools.count(self.figures.counts["posts"])
        self._lock = threading.Lock()
        self._goal = self.plan.amount(POSTS)

    def run(self) -> None:
        threads = [threading.Thread(target=self._knock, name=f"client-{k}") for k in range(CLIENTS)]
        with tqdm(
            total=self._goal, initial=self.figures.counts["posts"], desc="http", unit="post", mininterval=1
        ) as self._bar:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _knock(self) -> None:
        with self.server.client(timeout_s=60) as client:
            self._knock_with(client)

    def _knock_with(self, client: Client) -> None:
        while self.plan.left_s > 0 and self.figures.counts["posts"] < self._goal:
            with self._lock:
                number = next(self._numbers)
            chance = random.Random(self.seed << 40 | number)  # noqa: S311
            if number % WIRE_EVERY == 0:
                self.wires(chance)
                with self._lock:
                    self.figures.counts["conversations"] += 1
            self.doors.knock(chance, number, partial(self._send, client, chance))
            with self._lock:
                self.plan.keep()

    def _send(self, client: Client, chance: random.Random, request: Request) -> Answer | None:
        damaged = damage(request, chance)
        if chance.random() < RAW:
            self._say_raw(damaged, chance)
            return None
        answer = asked(client, damaged) or asked(client, damaged)  # the server may close what was idle meanwhile
        with self._lock:
            self._note(damaged, answer)
        return answer

    def _say_raw(self, request: Request, chance: random.Random) -> None:
        lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}"]
        lines += [f"{name}: {value}" for name, value in {"Authorization": f"Bearer {KEY}", **request.headers}.items()]
        lines += [f"Content-Length: {len(request.body)}", "", ""]
        whole = "\r\n".join(lines).encode("utf-8", "replace") + request.body[:2000]
        answer = say(self.server.port, [mutated(Material.of(whole), chance, [])])
        with self._lock:
            self.figures.counts["posts"] += 1
            self.figures.counts["damaged on the wire"] += 1
            self._bar.update()
            if re.match(rb"HTTP/1\.1 50[0-24-69]", answer):
                self._fault(request, answer[:12].decode("latin-1"))

    def _note(self, request: Request, answer: Answer | None) -> None:
        counts = self.figures.counts
        counts["posts"] += 1
        self._bar.update()
        if answer is None:
            counts["no answer"] += 1
            self._fault(request, "no answer")
            return
        counts[f"answer {answer.status}"] += 1
        if answer.fault:
            self._fault(request, answer.fault)
        if answer.status in (201, 202) and request.path in ("/v1/visits", "/v1/uploads/visit"):
            self.doors.visits.append(answer.json["id"])
            counts["accepted"] += 1
        elif answer.status == 303 and (location := answer.headers.get("location", "")).startswith("/visits/"):
            self.doors.visits.append(location.rpartition("/")[2])
            counts["accepted"] += 1

    def _fault(self, request: Request, what: str) -> None:
        path = re.sub(r"[0-9a-f-]{30,}", "ID", request.path)[:60]
        name = f"wrong answer: {what} ({request.method} {path})"
        self.figures.counts["wrong answers"] += 1
        self.figures.counts[name] += 1
        if self.figures.counts[name] <= 3:
            about = {"part": "http", "what": what, "method": request.method, "path": request.path}
            self.plan.save("http", request.body, {**about, "headers": dict(request.headers)})


def asked(client: Client, request: Request) -> Answer | None:
    """The answer to a request; ``None`` where none came."""
    try:
        return client.ask(request.method, request.path, request.body, request.headers)
    except Lost:
        return None


# ---------------------------------------------------------------- damage
def damage(request: Request, chance: random.Random) -> Request:
    """The request with damage in its body, its headers or its path, or as it is."""
    if chance.random() < BODY:
        request = replace(request, body=mutated(Material.of(request.body), chance, []))
    if chance.random() < HEADERS:
        request = replace(request, headers=_damaged_headers(request.headers, chance))
    if chance.random() < PATH:
        at = int(chance.random() * len(request.path))
        odd = chance.choice(("/", "//", "%00", "%ff", "?", "?a=%00", "..", "%2e%2e/", "x" * 3000, "%F0%9F%98%80", ";"))
        request = replace(request, path=request.path[:at] + odd + request.path[at:])
    return request


def _damaged_headers(headers: Mapping[str, str], chance: random.Random) -> dict[str, str]:
    damaged = dict(headers)
    names = [*headers, "Content-Encoding", "Prefer", "Accept", "Accept-Language", "Idempotency-Key", "Range", "Expect"]
    if chance.random() < 0.1:
        names.append("Content-Length")
    name = chance.choice(names)
    value = damaged.get(name, "")
    at = int(chance.random() * (len(value) + 1))
    damaged[name] = chance.choice(
        (
            *ODD_VALUES,
            str(chance.choice(EXTREMES)),
            value[:at],
            value[:at] + chance.choice('";=,-\\') + value[at:],
            value * 2,
        )
    )
    if name == "Content-Length" and not damaged[name].isdigit():
        damaged.pop(name)
    return {name: value.encode("latin-1", "replace").decode("latin-1") for name, value in damaged.items()}


# ---------------------------------------------------------------- the run
def run(plan: Plan, figures: Figures) -> None:
    """Post until there were enough posts, or the time is over."""
    inputs = Inputs(plan.seed)
    dicom_port, hl7_port = free_port(), free_port()
    listeners = {
        "SANGLOC_DICOM_PORT": str(dicom_port),
        "SANGLOC_DICOM_PEERS": "CHAOS@127.0.0.1=clinic",
        "SANGLOC_HL7_PORT": str(hl7_port),
        "SANGLOC_HL7_PEERS": "127.0.0.1=clinic",
        "SANGLOC_DICOM_GATHER_SECONDS": "1",
    }
    film = dicom(EXPLICIT, 256).replace(MARK, digits(1))
    at = film.index(b"\x08\x00\x16\x00UI")
    conversation = store_conversation(film[at:])

    def wires(chance: random.Random) -> None:
        which = int(chance.random() * len(conversation))
        parts = list(conversation)
        parts[which] = mutated(Material.of(parts[which]), chance, [])
        say(dicom_port, parts)
        say(hl7_port, [mutated(Material.of(order_frame(str(int(chance.random() * 1e6)))), chance, [])], MLLP_END)

    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), settings={**SETTINGS, **listeners}, errors=plan.errors) as (server,),
    ):
        pid = server.pid
        doors = Doors(inputs, _session(server), f"http://127.0.0.1:{server.port}")
        plan.begin()
        with memory_watched(figures, lambda: [pid]), health_watched(figures, server.port):
            _Knocking(plan, figures, server, doors, plan.seed, wires).run()
        figures.counts["server ended"] += server.pid != pid
        if server.pid:
            _look_at_listeners(figures, dicom_port, hl7_port, conversation)
            wait_until_done(sqlite_of(server), DONE_S)
        _look_at_visits(figures, server, doors.visits)


def _session(server: Server) -> str:
    """The cookie of a session."""
    with server.client("") as client:
        body = urllib.parse.urlencode({"key": KEY}).encode()
        answer = client.ask("POST", "/login", body, {"Content-Type": "application/x-www-form-urlencoded"})
    return answer.headers["set-cookie"].partition(";")[0]


def _look_at_listeners(figures: Figures, dicom_port: int, hl7_port: int, conversation: list[bytes]) -> None:
    """A good object and a good order are still taken."""
    said = say(dicom_port, conversation)
    figures.counts["listener silent"] += not said.startswith(b"\x02") or b"\x06\0" not in said
    figures.counts["listener silent"] += b"|AA|" not in say(hl7_port, [order_frame("last")], MLLP_END)


def _look_at_visits(figures: Figures, server: Server, visits: list[str]) -> None:
    statuses = dict(rows(sqlite_of(server), "SELECT id, status FROM visits"))
    figures.counts["lost"] += sum(id_ not in statuses for id_ in visits)
    figures.counts["unfinished"] += sum(status == "accepted" for status in statuses.values())
    figures.counts["drafts left"] += drafts_left(server)
    figures.counts["failed"] += sum(status == "failed" for status in statuses.values())


def again(about: dict[str, Any], content: bytes) -> str:
    """The answer of a new server to a saved request."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), settings=SETTINGS) as (server,),
        server.client() as client,
    ):
        headers = about["headers"]
        if "Cookie" in headers:
            headers |= {"Cookie": _session(server), "Origin": f"http://127.0.0.1:{server.port}"}
        answer = asked(client, Request(about["method"], about["path"], headers, content))
    return "no answer" if answer is None else f"{answer.status} {answer.body[:500].decode(errors='replace')}"


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts, none = figures.counts, figures.none
    return [
        Line("damaged posts", float(counts["posts"]), at_least=plan.amount(POSTS), note=figures.listed("answer ")),
        none("answers against the contract", "wrong answers", figures.listed("wrong answer: ")),
        none("accepted visits lost", "lost", f"of {counts['accepted']}"),
        none("visits not finished", "unfinished"),
        none("visits failed", "failed"),
        none("drafts left", "drafts left"),
        none("servers that ended", "server ended"),
        none(
            "listeners that answer no more", "listener silent", f"{counts['conversations']} DICOM and HL7 conversations"
        ),
        figures.times_line("health", "/healthz meanwhile, ms", HEALTH_MS),
        Line("/healthz without 200", float(figures.total("health ", but="health ok")), at_most=0),
        figures.memory_line("peak memory of the server, PSS, MB", MEMORY_MB),
    ]
