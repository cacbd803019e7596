"""Several server processes on one PostgreSQL and one S3, behind the proxy, while all of these are harmed.

Nothing is lost, nothing is done twice, and no answer is wrong: leases, deliveries, uploads, gathering and sessions work
across the processes.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

from benchmarks.chaos.arriving import Arriving, lines_of_arriving
from benchmarks.chaos.asking import all_closed
from benchmarks.chaos.audit import audit, audit_deliveries, lines_of_audit, lines_of_deliveries
from benchmarks.chaos.beside import beside
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import Server
from benchmarks.chaos.signing import BrowserSession, audit_sessions, audit_signatures, signing
from benchmarks.chaos.sink import Sink
from benchmarks.chaos.thin_link import ThinLink
from benchmarks.chaos.visits import DOCTOR, Load, expected_outcomes, kinds
from benchmarks.cluster import Cluster, missing
from benchmarks.report import Line

KILLS, DATABASE_OUTAGES, STORE_OUTAGES, ACCEPTED = 60, 8, 4, 1000
"""Of the full campaign."""
PROCESSES, CLIENTS, UPLOADERS, ARCHIVES, SESSIONS = 3, 8, 2, 1, 4
SOURCES = tuple(f"127.0.0.{n}" for n in range(2, 26))
"""Addresses of clients: the proxy sends each of them to a process of its own choice."""
BETWEEN_S = (2.0, 8.0)
"""Between two kills."""
START_AGAIN_S = 1.0
"""A process that has ended is started again after this time at most."""
CALM_SHARE = 0.15
"""Of the time, before anything is harmed."""
DATABASE_OUT_S, STORE_OUT_S, PAUSE_S = (0.5, 5.0), 60.0, 15.0
POSTED = ("labs", "PNG", "JPEG", "truncated PNG", "WFDB", "DICOM ECG", "DICOM", "several")
SITE = "clinic"
DONE_S = 240.0
SETTINGS = {"SANGLOC_DICOM_GATHER_SECONDS": "2"}
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
NOT_NOW = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
    % (len(SLOW_DOWN), SLOW_DOWN)
)
"""Amazon S3 API reference, 'Error responses': the code that asks for patience."""


def run(plan: Plan, figures: Figures) -> None:
    """Harm all of them until the time is over."""
    if lacking := missing():
        figures.note(f"{lacking}: several processes were not tried")
        return
    seed = plan.seed + figures.counts["runs"]
    figures.counts["runs"] += 1
    links: list[ThinLink] = []

    def through_link(port: int) -> str:
        links.append(ThinLink(port))
        return links[0].address

    bodies = {name: body for name, body in kinds().items() if name in POSTED}
    with (
        Sink() as sink,
        Cluster(PROCESSES, settings=SETTINGS, s3_by=through_link, errors=plan.errors) as cluster,
        ExitStack() as stack,
    ):
        first = cluster.servers[0]
        key, doctor = first.key("site", SITE), first.key("doctor", SITE, doctor_id=DOCTOR)
        with cluster.client() as admin:
            sink.register(admin)
        with cluster.client(key) as client:
            expected = expected_outcomes(client, bodies)
        load = Load(
            figures, [cluster.port], key, bodies, seed,
            sources=SOURCES, give_up_s=DONE_S, context=cluster.context, phase="in calm",
        )  # fmt: skip
        arriving = Arriving(load, lambda: [cluster.client(key, source=source, timeout_s=60) for source in SOURCES])
        browsers = stack.enter_context(
            all_closed(*(cluster.client("", source=source, timeout_s=20) for source in SOURCES[:SESSIONS]))
        )
        sessions = [BrowserSession(figures, browser, cluster.address, doctor) for browser in browsers]
        signed: list[str] = []
        plan.begin()
        with (
            load.posting(CLIENTS),
            arriving.going_on(UPLOADERS, ARCHIVES),
            signing(load, [session.ask for session in sessions], signed),
        ):
            time.sleep(CALM_SHARE * plan.seconds)
            load.phase = "under harm"
            with _killing(plan, figures, cluster.servers, random.Random(seed)):  # noqa: S311
                _harm_what_is_behind(plan, figures, cluster, links[0], random.Random(seed + 1))  # noqa: S311
            load.phase = ""
        _wait_until_ready(figures, cluster.servers)
        with all_closed(*(server.client("", timeout_s=20) for server in cluster.servers)) as clients:
            audit_sessions(figures, sessions, clients)
        with first.client() as admin:
            arriving.audit(figures, cluster.postgres.url, admin, DONE_S)
        audit(figures, first, cluster.postgres.url, load, expected, limit_s=DONE_S)
        audit_deliveries(figures, cluster.postgres.url, sink)
        audit_signatures(figures, cluster.postgres.url, signed)
        for link in links:
            link.close()


@contextmanager
def _killing(plan: Plan, figures: Figures, servers: Sequence[Server], chance: random.Random) -> Iterator[None]:
    """Kill a process every few seconds meanwhile, and start again whichever has ended, as systemd does.

    The last one that is ready is spared: where a start takes longer than the time between two kills, none would be
    ready otherwise.
    """
    ended = threading.Event()

    def kill_some() -> None:
        next_kill = time.monotonic()
        while not ended.wait(min(START_AGAIN_S, 0.05 * plan.seconds)):
            _start_those_that_ended(figures, servers)
            if time.monotonic() < next_kill:
                continue
            ready = [server for server in servers if _is_ready(server)]
            victim = chance.choice([server for server in servers if ready != [server]])
            victim.kill()
            victim.start()
            figures.counts["kills"] += 1
            next_kill = time.monotonic() + chance.uniform(*BETWEEN_S)

    with beside(ended, kill_some):
        yield


def _is_ready(server: Server) -> bool:
    """Whether it was ready since it was last started."""
    return server.has_said('"event": "ready"')


def _start_those_that_ended(figures: Figures, servers: Sequence[Server]) -> None:
    for server in servers:
        if not server.pid:
            figures.counts["ended after they were ready" if _is_ready(server) else "ended while they started"] += 1
            server.start()


def _wait_until_ready(figures: Figures, servers: Sequence[Server]) -> None:
    """Wait for all, and start again those that an outage has kept from starting."""
    end = time.monotonic() + DONE_S
    while time.monotonic() < end and not all(map(_is_ready, servers)):
        _start_those_that_ended(figures, servers)
        time.sleep(START_AGAIN_S)
    figures.counts["starts failed"] += sum(not _is_ready(server) for server in servers)


def _harm_what_is_behind(plan: Plan, figures: Figures, cluster: Cluster, link: ThinLink, chance: random.Random) -> None:
    """Stop and start the database, and make the store fail, one after the other, until the time is over."""
    pause_s, store_out_s = min(PAUSE_S, 0.1 * plan.seconds), min(STORE_OUT_S, 0.2 * plan.seconds)

    def database(how: str) -> Callable[[], None]:
        def stop_and_start() -> None:
            cluster.postgres.stop("fast" if how == "fast" else "immediate")
            time.sleep(chance.uniform(*DATABASE_OUT_S))
            cluster.postgres.start()
            figures.counts["database outages"] += 1

        return stop_and_start

    def store() -> None:
        for harm in chance.sample([lambda: link.answer(NOT_NOW), link.refuse, link.hold], 3):
            harm()
            time.sleep(store_out_s / 3)
            link.mend()
        figures.counts["store outages"] += 1

    harms = itertools.cycle([store, database("fast"), database("immediate")])
    with tqdm(desc="outages", unit="outage", mininterval=1) as bar:
        while plan.left_s > 0:
            next(harms)()
            bar.update()
            plan.keep()
            time.sleep(max(0.0, min(pause_s, plan.left_s)))


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts, none = figures.counts, figures.none
    if not counts["runs"]:
        return [Line("kill -9 of a process", None, at_least=plan.amount(KILLS), note="; ".join(figures.notes))]
    return [
        Line("kill -9 of a process", float(counts["kills"]), at_least=plan.amount(KILLS), note=f"of {PROCESSES}"),
        Line("outages of the database", float(counts["database outages"]), at_least=plan.amount(DATABASE_OUTAGES)),
        Line("outages of the store", float(counts["store outages"]), at_least=plan.amount(STORE_OUTAGES)),
        Line(
            "visits accepted", float(counts["accepted"]), at_least=plan.amount(ACCEPTED), note=figures.listed("answer ")
        ),
        *lines_of_audit(figures),
        *lines_of_arriving(figures),
        none("processes that did not start again", "starts failed"),
        none("processes that ended by themselves", "ended after they were ready"),
        Line("starts that ended during an outage", float(counts["ended while they started"])),
        *lines_of_deliveries(figures),
        none("signatures lost", "signatures lost", f"of {counts['signed']}"),
        none("sessions lost", "sessions lost", f"of {counts['sessions']}; {figures.listed('session answer ')}"),
        none("sessions that went on after they were ended", "sessions that went on"),
        *(_times(figures, phase) for phase in ("in calm", "under harm")),
        *(_times(figures, phase, " at last") for phase in ("in calm", "under harm")),
    ]


def _times(figures: Figures, phase: str, at_last: str = "") -> Line:
    """The 99th percentile of the time of accepted posts, as a row."""
    name = f"accepted{at_last} {phase}"
    p50, p99, top = (figures.percentile_ms(name, percent) for percent in (50, 99, 100))
    since = "from the first attempt, " if at_last else ""
    note = "" if p50 is None else f"p50 {p50:.0f}, longest {top:.0f}, n {figures.times[name].total()}"
    return Line(f"accepting a visit {phase}, {since}p99, ms", p99, note=note)
