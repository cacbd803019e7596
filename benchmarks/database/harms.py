"""What harms the queues: a snapshot that somebody holds, and leases that are extended a million times.

Each harm is done to a copy of a database, through the service's own code.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, select, text
from tqdm import tqdm

from benchmarks.chaos.postgres import Cluster
from benchmarks.database.asked import Scene, intake
from benchmarks.database.first import First
from benchmarks.database.made import copy_of
from benchmarks.database.plans import explained
from benchmarks.report import Cell
from benchmarks.waits import REPORTED_S
from service.storage.tables import VISITS, VisitRow
from service.visits.leases import Lease

AT_ONCE = 8
CLAIMS = 20
"""How often a claim is timed at each moment."""
LEASED = 200
QUEUES = ("visits", "deliveries", "exchanges")
PARAMETERS = (
    "fillfactor",
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_analyze_scale_factor",
)
"""Storage parameters of the queues' tables."""
SETTLED = (
    "UPDATE visits SET status = 'complete', completed_at = received_at WHERE status = 'accepted'",
    "UPDATE deliveries SET state = 'delivered', delivered_at = due_at WHERE state = 'waiting'",
    "VACUUM (ANALYZE) visits, deliveries",
)
"""Nothing waits at the beginning."""
SIZES = text(
    "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE oid = 'visits'::regclass "
    "OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'visits'::regclass)"
)


@dataclass(frozen=True)
class Moment:
    """The queue of visits at one moment: the time and the pages of a claim that finds nothing, and dead rows."""

    when: str
    jobs: int
    claim_ms: float
    claim_pages: int
    delivery_pages: int
    dead_visits: int
    dead_deliveries: int

    def cells(self) -> list[Cell]:
        return list(astuple(self))


@contextmanager
def harmed(cluster: Cluster, first: First, visits: int, *before: str) -> Iterator[tuple[Scene, Engine]]:
    """A copy of the database with so many visits, in which nothing waits, and an engine in which each statement stands
    alone.

    Parameters
    ----------
    before
        Statements that are run first.
    """
    with ExitStack() as closing:
        url = closing.enter_context(copy_of(cluster, visits))
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        closing.callback(engine.dispose)
        _run(engine, *before, *SETTLED)
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        scene = Scene.of(url, first, folder)
        closing.callback(scene.close)
        yield scene, engine


# ---------------------------------------------------------------- a snapshot that is held
def held_snapshot(cluster: Cluster, first: First, visits: int, jobs: int, *, held: bool) -> list[Moment]:
    """Pass jobs through the queues while a transaction that was begun before holds its snapshot, or none does."""
    with harmed(cluster, first, visits) as (scene, engine), asyncio.Runner() as runner:
        moments = [runner.run(_look(scene, engine, "before", 0))]
        holder = create_engine(scene.service.database.engine.url, isolation_level="REPEATABLE READ")
        forgotten = holder.connect()
        if held:
            forgotten.execute(text("SELECT count(*) FROM visits WHERE status = 'accepted'"))
        for done in (jobs // 10, jobs // 2, jobs):
            runner.run(pass_jobs(scene, done - moments[-1].jobs))
            moments.append(runner.run(_look(scene, engine, "held" if held else "not held", done)))
        forgotten.close()
        holder.dispose()
        runner.run(pass_jobs(scene, AT_ONCE))  # a server process notices the end when the next transaction has written
        moments.append(runner.run(_look(scene, engine, "released", jobs + AT_ONCE)))
        _report(scene)
        _run(engine, "VACUUM visits, deliveries")
        moments.append(runner.run(_look(scene, engine, "vacuumed", jobs + AT_ONCE)))
        return moments


async def pass_jobs(scene: Scene, jobs: int) -> None:
    """Visits that come, are claimed, finished and delivered, some at a time."""
    database = scene.service.database
    with database.transaction() as session:
        found = session.scalars(select(VisitRow).where(VISITS.c.assessment.is_not(None)).limit(1)).one()
    assessment = found.read_assessment()
    assert assessment is not None  # noqa: S101
    for _ in tqdm(range(0, jobs, AT_ONCE), unit="× 8 jobs", mininterval=5):
        await asyncio.gather(*(intake(scene) for _ in range(AT_ONCE)))
        await scene.leases.waiting((), AT_ONCE)
        leases: list[Lease] = await scene.leases.take((), AT_ONCE)
        await asyncio.gather(*(scene.leases.finish(each, "complete", assessment) for each in leases))
        await scene.deliveries.due()
        taken = await scene.deliveries.take({scene.destination: AT_ONCE}, ())
        await asyncio.gather(*(scene.deliveries.delivered(each) for each in taken))


async def _look(scene: Scene, engine: Engine, when: str, jobs: int) -> Moment:
    times = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        await scene.leases.waiting((), AT_ONCE)
        times.append(1000 * (time.perf_counter() - began))
    with explained(scene.service.database.engine) as of_claim:
        await scene.leases.waiting((), AT_ONCE)
    with explained(scene.service.database.engine) as of_delivery:
        await scene.deliveries.due()
    await asyncio.sleep(REPORTED_S)
    dead = {name: _stat(engine, name, "n_dead_tup") for name in QUEUES}
    return Moment(
        when, jobs, statistics.median(times), of_claim.pages, of_delivery.pages, dead["visits"], dead["deliveries"]
    )


# ---------------------------------------------------------------- leases that are extended
@dataclass(frozen=True)
class Bloat:
    """What a million changes of leases leave behind.

    Parameters
    ----------
    hot
        Share of the changes that touched no index.
    table_mb, indexes_mb
        How much larger table and indexes became, 10^6 bytes.
    given_back_mb
        By how much ``REINDEX`` made the indexes smaller.
    """

    updates: int
    seconds: float
    hot: float
    table_mb: float
    indexes_mb: float
    given_back_mb: float


def lease_updates(cluster: Cluster, first: First, visits: int, updates: int, *before: str) -> Bloat:
    """Extend the leases of :data:`LEASED` visits again and again.

    Parameters
    ----------
    before
        Statements that set the storage parameters of the tables.
    """
    with harmed(cluster, first, visits, *before) as (scene, engine), asyncio.Runner() as runner:

        async def lease() -> list[str]:
            for _ in range(LEASED):
                await intake(scene)
            return [each.row.id for each in await scene.leases.take((), LEASED)]

        ids = runner.run(lease())
        _report(scene)
        at_first, hot = _sizes(engine), _stat(engine, "visits", "n_tup_hot_upd")
        began, n = time.perf_counter(), _stat(engine, "visits", "n_tup_upd")

        async def extend() -> None:
            for _ in tqdm(range(updates // LEASED), unit=f"× {LEASED} leases", mininterval=5):
                await scene.leases.extend(ids)

        runner.run(extend())
        seconds = time.perf_counter() - began
        _report(scene)
        after = _sizes(engine)
        changed = _stat(engine, "visits", "n_tup_upd") - n
        hot = _stat(engine, "visits", "n_tup_hot_upd") - hot
        _run(engine, "REINDEX TABLE visits")
        again = _sizes(engine)
        grown = {name: (after[name] - size) / 1e6 for name, size in at_first.items()}
        return Bloat(
            updates=changed,
            seconds=seconds,
            hot=hot / max(1, changed),
            table_mb=grown.pop("visits"),
            indexes_mb=sum(grown.values()),
            given_back_mb=sum(after[name] - again[name] for name in grown) / 1e6,
        )


def _report(scene: Scene) -> None:
    """Have PostgreSQL count what the service has changed: a server process tells the last of it when it ends."""
    scene.service.database.engine.dispose()
    time.sleep(REPORTED_S)


def _sizes(engine: Engine) -> dict[str, int]:
    """Bytes of the table of visits and of each of its indexes."""
    with engine.connect() as connection:
        return {name: size for name, size in connection.execute(SIZES)}


def _stat(engine: Engine, table: str, column: str) -> int:
    """A figure of ``pg_stat_user_tables``."""
    with engine.connect() as connection:
        query = text(f"SELECT {column} FROM pg_stat_user_tables WHERE relname = :table")
        return int(connection.execute(query, {"table": table}).scalar_one())


def _run(engine: Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def as_json(found: list[Moment] | Bloat) -> Any:
    return asdict(found) if isinstance(found, Bloat) else [asdict(each) for each in found]
