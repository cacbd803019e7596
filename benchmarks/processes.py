"""``processes``: 1, 2 and 4 server processes on one PostgreSQL and one S3, behind the proxy.

Two kinds of visit are posted: films, whose networks cost most, and laboratory values alone, so that the database is the
limit. What is measured is the CPU time of each part for one visit, what PostgreSQL waits for, and rates.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, create_engine, text
from tqdm import tqdm

from benchmarks.chaos import postgres
from benchmarks.chaos.proxy import Proxy
from benchmarks.clients import Load, Outcome, send
from benchmarks.cluster import Cluster, missing
from benchmarks.figures import CoreTime
from benchmarks.files import LABS, MARK, Body, multipart, one_file, png
from benchmarks.report import Report, table
from benchmarks.serving import KEY
from benchmarks.waits import Watched, watched

OUT = Path(__file__).parent / "out"
CLIENTS, SOURCES = 32, 64
"""The proxy sends all of one address to one process: the clients have many addresses."""
IDLE_S = 3.0
HEALTH_S = 6.0
"""After so long the proxy has seen which processes are ready (``deploy/Caddyfile``)."""
PARTS = ("servers", "PostgreSQL", "S3", "proxy")
POSTGRES = {"shared_buffers": "512MB"}


def _labs() -> Body:
    context = {"person": {"age_years": 61, "sex": "female"}, "referrer": {"name": MARK.decode()}, "labs": LABS}
    return multipart([], "kidney", context)


VISITS: Mapping[str, Body] = {"film": one_file(png(), "f.png", "image/png", raw=False), "labs": _labs()}


@dataclass
class Turn:
    """What was measured of one kind of visit with so many processes, once.

    Parameters
    ----------
    core_ms
        Of each part for one visit, beyond what the part spends while nothing is posted.
    """

    outcome: Outcome
    core_ms: dict[str, float]
    watched: Watched


@dataclass
class Measured:
    """The turns of one kind of visit with so many processes."""

    turns: list[Turn] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    """Core-milliseconds per second of all parts while nothing is posted."""

    def median(self, part: str) -> float:
        """Core-milliseconds of a part for one visit."""
        return statistics.median(turn.core_ms[part] for turn in self.turns)

    @property
    def rate_per_s(self) -> float:
        return statistics.median(turn.outcome.rate_per_s for turn in self.turns)

    @property
    def failed(self) -> int:
        return sum(turn.outcome.failed for turn in self.turns)

    @property
    def watched(self) -> Watched:
        return sum((turn.watched for turn in self.turns), Watched())


class Running:
    """A cluster of which some processes run at a time, each number of them behind a proxy of its own."""

    def __init__(self, cluster: Cluster, folder: Path, numbers: Sequence[int], closing: ExitStack) -> None:
        self._cluster, self.running = cluster, max(numbers)
        self._proxies = {n: Proxy(folder / str(n), [each.port for each in cluster.servers[:n]]) for n in numbers}
        for proxy in self._proxies.values():
            closing.callback(proxy.stop)
            proxy.start()
        self._numbers = 0

    def have(self, n: int) -> None:
        """Start and stop processes until ``n`` run."""
        servers = self._cluster.servers
        for server in servers[n : self.running]:
            server.stop()
        for server in servers[self.running : n]:
            server.start()
            server.wait()
        if n != self.running:
            time.sleep(HEALTH_S)
        self.running = n

    def post(self, body: Body, load_s: float, clients: int, engine: Engine, idle: Mapping[str, float]) -> Turn:
        """Post visits through the proxy.

        Parameters
        ----------
        idle
            As :meth:`idle` found it.
        """
        proxy = self._proxies[self.running]
        self._numbers += 1_000_000
        headers = {
            "Host": "localhost",
            "Authorization": f"Bearer {KEY}",
            "Content-Type": body.content_type,
            "Prefer": "wait=110",
        }
        load = Load(
            proxy.port, body.path, headers, expect=f'"{body.organ}":{{"status":"assessed"', clients=clients,
            seconds=load_s, first_number=self._numbers, authority=str(proxy.authority), sources=SOURCES,
        )  # fmt: skip
        began, before = time.perf_counter(), self._core_time()
        with watched(engine) as seen:
            outcome = send(load, body)
        spent, seconds = self._spent_ms(before), time.perf_counter() - began
        core_ms = {
            part: (spent[part] - idle[part] * seconds) / outcome.done if outcome.done else math.nan for part in PARTS
        }
        return Turn(outcome, core_ms, seen)

    def idle(self) -> dict[str, float]:
        """Core-milliseconds per second of each part while nothing is posted."""
        before = self._core_time()
        time.sleep(IDLE_S)
        return {part: ms / IDLE_S for part, ms in self._spent_ms(before).items()}

    def _core_time(self) -> dict[str, list[tuple[int, CoreTime]]]:
        """What each process of each part has used until now."""
        pids = {
            "servers": [each.pid for each in self._cluster.servers[: self.running]],
            "PostgreSQL": [self._cluster.postgres.pid],
            "S3": [self._cluster.s3.pid],
            "proxy": [self._proxies[self.running].pid],
        }
        return {part: [(pid, CoreTime.of(pid)) for pid in of_part] for part, of_part in pids.items()}

    @staticmethod
    def _spent_ms(before: Mapping[str, Sequence[tuple[int, CoreTime]]]) -> dict[str, float]:
        return {part: sum(then.ms_per(CoreTime.of(pid), 1) for pid, then in each) for part, each in before.items()}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure in turns, and print the tables."""
    options = _parse(arguments)
    if why := missing():
        raise SystemExit(why)
    numbers: list[int] = options.processes
    found = {kind: {n: Measured() for n in numbers} for kind in VISITS}
    settings = {"SANGLOC_SESSION": "onnxruntime:fp32", "SANGLOC_CONNECTIONS_PER_ADDRESS": "1000"}
    with ExitStack() as closing:
        folder = Path(closing.enter_context(TemporaryDirectory()))
        cluster = closing.enter_context(
            Cluster(max(numbers), with_proxy=False, settings=settings, postgres_settings={**POSTGRES, **preloaded()})
        )
        engine = create_engine(cluster.postgres.url, isolation_level="AUTOCOMMIT")
        closing.callback(engine.dispose)
        running = Running(cluster, folder, numbers, closing)
        for body in VISITS.values():
            running.post(body, min(3.0, options.seconds), options.clients, engine, dict.fromkeys(PARTS, 0.0))  # warm
        forget_statements(engine)
        for turn in tqdm(range(options.rounds), unit="turn"):
            for n in numbers if turn % 2 == 0 else reversed(numbers):
                running.have(n)
                idle = running.idle()
                for kind, body in VISITS.items():
                    measured = found[kind][n]
                    measured.turns.append(running.post(body, options.seconds, options.clients, engine, idle))
                    measured.idle.append(sum(idle.values()))
        statements = top_statements(engine)
    figures = {"clients": options.clients, "seconds": options.seconds, "rounds": options.rounds}
    figures |= {kind: report(kind, by_n) for kind, by_n in found.items()}
    figures["statements"] = statements
    Report("processes", options.out).end(figures)
    return figures


def report(kind: str, by_n: Mapping[int, Measured]) -> dict[str, Any]:
    """Print the tables of one kind of visit; its figures."""
    first = next(iter(by_n.values()))
    columns = (
        "processes",
        "visits/s",
        "ratio",
        *(f"{part} core-ms" for part in PARTS),
        "together",
        "ratio",
        "idle ms/s",
        "failed",
    )
    rows, figures = [], {}
    for n, measured in by_n.items():
        core_ms = {part: measured.median(part) for part in PARTS}
        together, at_first = sum(core_ms.values()), sum(first.median(part) for part in PARTS)
        idle = statistics.median(measured.idle)
        rate, seen = measured.rate_per_s / first.rate_per_s, measured.watched
        rows.append(
            [str(n), measured.rate_per_s, rate, *core_ms.values(), together, together / at_first, idle, measured.failed]
        )
        figures[str(n)] = {
            "rate_per_s": measured.rate_per_s,
            "core_ms": core_ms,
            "idle_ms_per_s": idle,
            "failed": measured.failed,
            "latency_ms": {f"p{p}": [turn.outcome.latency_ms(p) for turn in measured.turns] for p in (50, 99)},
            "database": {"per_s": seen.per_s, "samples": seen.samples, "waits": dict(seen.waits.most_common())},
        }
    table(f"{kind}: visits of one {kind} each, medians", columns, rows)
    names = ("commits", "rows written", "rows read", "waits for locks", "waits for the log", "busy on average")
    waits = [[str(n), *(measured.watched.per_s[name] for name in names)] for n, measured in by_n.items()]
    table(f"{kind}: PostgreSQL, per second; 'busy' and waits are server processes at a time", ("", *names), waits)
    last = list(by_n.values())[-1]
    figures["derived"] = {}
    if min(last.median("PostgreSQL"), last.median("servers")) <= 0:  # a run so short that idle time outweighs it
        return figures
    derived = last.median("servers") / last.median("PostgreSQL")
    rate = 1000 / last.median("PostgreSQL")
    print(
        f"Derived, not measured: one core of PostgreSQL carries {rate:.0f} such visits per second, "
        f"which is what {derived:.0f} cores of server processes post."
    )
    figures["derived"] = {"visits_per_s_of_one_core_of_postgresql": rate, "cores_of_servers_for_it": derived}
    return figures


def preloaded() -> dict[str, str]:
    """The setting with which PostgreSQL counts its statements, where it has what that needs."""
    programs = postgres.installed()
    library = "pg_stat_statements"
    if programs is None or not (programs.parent / "lib" / f"{library}.so").exists():
        return {}
    return {"shared_preload_libraries": library}


def forget_statements(engine: Engine) -> None:
    """Count the statements from now on."""
    if preloaded():
        with engine.connect() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
            connection.execute(text("SELECT pg_stat_statements_reset()"))


def top_statements(engine: Engine, at_most: int = 12) -> list[dict[str, Any]]:
    """The statements that took most of PostgreSQL's time; none where it does not count them."""
    if not preloaded():
        return []
    query = (
        "SELECT left(regexp_replace(query, '\\s+', ' ', 'g'), 160), calls, total_exec_time, mean_exec_time, wal_bytes "
        "FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT :n"
    )
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(query), {"n": at_most})]
    table("statements by time", ("", "calls", "ms", "ms each"), [[q[:100], n, ms, each] for q, n, ms, each, _ in rows])
    return [{"query": q, "calls": n, "ms": ms, "ms_each": each, "wal_bytes": int(wal)} for q, n, ms, each, wal in rows]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks processes", description=__doc__)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4], help="numbers of them, rising")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="connections of the closed loop (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="alternations; medians are reported (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of JSON (default: %(default)s)")
    return parser.parse_args(arguments)
