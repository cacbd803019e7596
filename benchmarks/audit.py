"""``audit``: what the audit log costs a visit and a look, how many entries a second it takes, and its proof.

Visits are posted in turns to two servers that differ in nothing but the log. Laboratory values alone are the smallest
visit there is, so that the log's share of it is the largest. Entries are appended by several processes at a time, which
follow each other; beside them the same transactions without an entry.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from tqdm import tqdm

from benchmarks.chaos import postgres
from benchmarks.clients import Load, Outcome, send
from benchmarks.figures import CoreTime, median_ratio
from benchmarks.processes import VISITS
from benchmarks.report import Cell, Report, table
from benchmarks.serving import KEY, Server, serving
from service.audit.proof import compare_rows, prove, stored_entries
from service.settings import Settings
from service.storage.audit import SERVICE, note
from service.storage.database import Database, insert_rows
from service.storage.migrate import migrate
from service.storage.tables import OrderRow

OUT = Path(__file__).parent / "out"
LOOK = "a list looked at"
WAYS = ("with the log", "without it")
WRITERS_AT_ONCE = 8
"""Transactions of one process at a time, as many as the service has threads for them."""
ENTRIES_AT_ONCE = 500
SETTINGS = {"SANGLOC_SESSION": "onnxruntime:fp32"}
DATABASES = ("SQLite", "PostgreSQL")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure in turns, and print the tables."""
    options = _parse(arguments)
    programs = postgres.installed()
    if programs is None:
        raise SystemExit("PostgreSQL (initdb) or its driver (the extra 'postgres') is not installed")
    figures: dict[str, Any] = {"seconds": options.seconds, "rounds": options.rounds, "entries": options.entries}
    figures |= {kind: {} for kind in DATABASES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sangloc-audit-")))
        cluster = stack.enter_context(postgres.cluster(programs))
        for kind in DATABASES if options.visits else ():
            found = _visits_and_looks(kind, cluster, options)
            figures[kind]["visits"] = {name: asdict(each) for name, each in found.items()}
            table(
                f"{kind}: core-ms of server and database, and median latency, of one visit or look",
                ("", *(f"core-ms {way}" for way in WAYS), "ratio", *(f"ms {way}" for way in WAYS), "ratio", "failed"),
                [[name, *each.cells()] for name, each in found.items()],
            )
        for kind in DATABASES:
            figures[kind]["entries"] = _entries(kind, cluster, folder, options)
        for kind in DATABASES:
            figures[kind]["proof"] = _proof(kind, cluster, folder, options.entries)
    table(
        f"one transaction an entry, {WRITERS_AT_ONCE} at a time in each process: transactions a second",
        ("", *WAYS, "ratio", *(f"core-ms {way}" for way in WAYS)),
        [
            [f"{kind}, processes: {n}", *each.values()]
            for kind in DATABASES
            for n, each in figures[kind]["entries"].items()
        ],
    )
    table(
        f"the proof of {options.entries} entries",
        ("", "s", "entries/s", "bytes of an entry, with indexes"),
        [[kind, *(figures[kind]["proof"][name] for name in ("s", "per_s", "bytes"))] for kind in DATABASES],
    )
    Report("audit", options.out).end(figures)
    return figures


# ---------------------------------------------------------------- visits and looks
@dataclass
class Measured:
    """What one kind of visit, or a look, has cost with the log and without, one value a round.

    Parameters
    ----------
    core_ms
        Core-milliseconds of the server and of PostgreSQL.
    """

    core_ms: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    p50_ms: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    failed: int = 0

    def cells(self) -> list[Cell]:
        """Medians of both ways and of their ratios."""
        cells: list[Cell] = []
        for of in (self.core_ms, self.p50_ms):
            values = [of[way] for way in WAYS]
            cells += [*map(statistics.median, values), median_ratio(*values)]
        return [*cells, self.failed]


def _visits_and_looks(kind: str, cluster: postgres.Cluster, options: argparse.Namespace) -> dict[str, Measured]:
    found = {name: Measured() for name in (*VISITS, LOOK)}
    with ExitStack() as stack:
        servers = {way: stack.enter_context(_server(way, new_address(kind, cluster))) for way in WAYS}
        pid = cluster.pid if kind == "PostgreSQL" else 0
        for turn in tqdm(range(-1, options.rounds), unit="turn", desc=kind, mininterval=5):  # the first warms up
            for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                for name, measured in found.items():
                    seconds = options.seconds if turn >= 0 else 1.0
                    outcome, core_ms = _ask(servers[way], name, pid, clients=options.clients, seconds=seconds)
                    if turn >= 0:
                        measured.core_ms[way].append(core_ms)
                        measured.p50_ms[way].append(outcome.latency_ms(50))
                        measured.failed += outcome.failed
    return found


def _ask(server: Server, name: str, pid: int, **load: Any) -> tuple[Outcome, float]:
    """Post visits of a kind, or look at a list; the outcome, and the core-milliseconds of server and database for each.

    Parameters
    ----------
    pid
        Of PostgreSQL; 0 where the database is in the server.
    """
    databases = CoreTime.of(pid) if pid else None
    if name == LOOK:
        before = server.core_time()
        headers = {"Authorization": f"Bearer {KEY}"}
        outcome = send(Load(server.port, "/v1/visits?limit=1", headers, expect='"items":[{', **load))
        core_ms = before.ms_per(server.core_time(), outcome.done)
    else:
        outcome, core_ms = server.post(VISITS[name], **load)
    if databases is not None:
        core_ms += databases.ms_per(CoreTime.of(pid), outcome.done)
    return outcome, core_ms


@contextmanager
def _server(way: str, address: str) -> Iterator[Server]:
    settings = {**SETTINGS, **({"SANGLOC_DATABASE_URL": address} if address else {})}
    before = () if way == WAYS[0] else (sys.executable, "-m", "benchmarks.unlogged")
    with serving(settings=settings, before=before) as server:
        yield server


def new_address(kind: str, cluster: postgres.Cluster) -> str:
    """The address of an empty database; empty for SQLite, which lies in the server's folder."""
    if kind == "SQLite":
        return ""
    name = f"audit_{uuid.uuid4().hex[:12]}"
    engine = create_engine(cluster.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return cluster.url_of(name)


# ---------------------------------------------------------------- entries
def _entries(
    kind: str, cluster: postgres.Cluster, folder: Path, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Transactions a second of so many processes, each with an entry or without, and core-milliseconds of each."""
    found: dict[str, dict[str, float]] = {}
    spawned = multiprocessing.get_context("spawn")
    pid = cluster.pid if kind == "PostgreSQL" else 0
    for n in options.processes if kind == "PostgreSQL" else options.processes[:1]:
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        core_ms: dict[str, list[float]] = {way: [] for way in WAYS}
        address = made(kind, cluster, folder)
        with ProcessPoolExecutor(n, mp_context=spawned) as pool:
            list(pool.map(write_orders, [address] * n, [True] * n, [0.2] * n))  # the processes start
            for turn in range(options.rounds):
                for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                    before = CoreTime.of(pid) if pid else None
                    done = list(pool.map(write_orders, [address] * n, [way == WAYS[0]] * n, [options.seconds] * n))
                    count, cpu_s = sum(each for each, _ in done), sum(each for _, each in done)
                    rates[way].append(count / options.seconds)
                    of_database = before.ms_per(CoreTime.of(pid), count) if before else 0.0
                    core_ms[way].append(1000 * cpu_s / count + of_database)
        found[str(n)] = {way: statistics.median(rates[way]) for way in WAYS}
        found[str(n)]["ratio"] = median_ratio(rates[WAYS[0]], rates[WAYS[1]])
        found[str(n)] |= {f"core-ms {way}": statistics.median(core_ms[way]) for way in WAYS}
    return found


def write_orders(address: str, with_entry: bool, seconds: float) -> tuple[int, float]:
    """Write orders, one a transaction, for so many seconds; how many were written, and CPU seconds of this process."""
    before = time.process_time()
    count = asyncio.run(_write_orders(address, with_entry, seconds))
    return count, time.process_time() - before


async def _write_orders(address: str, with_entry: bool, seconds: float) -> int:
    end, count = time.monotonic() + seconds, 0

    def work(session: Session) -> None:
        now = datetime.now(UTC)
        insert_rows(session, OrderRow(site="x", accession_number=uuid.uuid4().hex, context="{}", received_at=now))
        if with_entry:
            note_one(session)

    async def write() -> None:
        nonlocal count
        while time.monotonic() < end:
            await database.write(work)
            count += 1

    with closing(Database(address)) as database:
        await asyncio.gather(*(write() for _ in range(WRITERS_AT_ONCE)))
    return count


def note_one(session: Session) -> None:
    """Note what the service notes of an assessed visit with three files."""
    models = ["lung 1.4.0", "cardiac 1.2.2", "kidney 1.1.0"]
    inputs = ["1" * 64, "2" * 64, "3" * 64]
    given = {"outcome": "assessed", "assessment": "0" * 64, "models": models, "inputs": inputs}
    note(session, "visit_assessed", str(uuid.uuid4()), actor=SERVICE, **given)


def made(kind: str, cluster: postgres.Cluster, folder: Path) -> str:
    """The address of a new database with the service's tables."""
    settings = Settings(data_dir=folder / uuid.uuid4().hex, database_url=new_address(kind, cluster))
    settings.data_dir.mkdir()
    with closing(Database(settings.database)) as database:
        migrate(settings, database)
    return settings.database


# ---------------------------------------------------------------- the proof
def _proof(kind: str, cluster: postgres.Cluster, folder: Path, entries: int) -> dict[str, float]:
    with closing(Database(made(kind, cluster, folder))) as database:
        before = _size(database)
        for start in range(0, entries, ENTRIES_AT_ONCE):
            with database.transaction(write=True) as session:
                for _ in range(min(ENTRIES_AT_ONCE, entries - start)):
                    note_one(session)
        began = time.perf_counter()
        with database.snapshot() as connection:
            proof = prove(stored_entries(connection))
            compare_rows(connection, proof)
        seconds = time.perf_counter() - began
        grown = _size(database) - before
    assert (proof.faults, proof.entries) == ([], entries)  # noqa: S101
    return {"s": seconds, "per_s": entries / seconds if seconds else math.nan, "bytes": grown / entries}


def _size(database: Database) -> int:
    """Bytes of the log on the disk, with its indexes."""
    query = "SELECT pg_total_relation_size('audit')"
    if database.is_sqlite:
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    with database.transaction() as session:
        return int(session.execute(text(query)).scalar_one())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks audit", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="alternations; medians are reported (%(default)s)")
    parser.add_argument(
        "--visits", action=argparse.BooleanOptionalAction, default=True, help="post visits to two servers (%(default)s)"
    )
    parser.add_argument("--clients", type=int, default=8, help="connections of the closed loop (%(default)s)")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 4], help="that append (%(default)s)")
    parser.add_argument("--entries", type=int, default=100_000, help="that are proved (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of JSON (default: %(default)s)")
    return parser.parse_args(arguments)
