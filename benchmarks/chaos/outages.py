"""The database is stopped and started again while clients post: each is asked to come again, and nothing is lost."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from benchmarks.chaos.audit import audit, lines_of_audit
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.postgres import cluster, installed
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import running
from benchmarks.chaos.visits import Load, expected_outcomes, kinds
from benchmarks.report import Line

OUTAGES = 30
CLIENTS = 6
OUT_S, BETWEEN_S = (0.5, 4.0), (1.0, 4.0)
DONE_S = 120.0
POSTED = ("labs", "PNG", "JPEG", "truncated PNG", "several")
HOW: tuple[Literal["fast", "immediate"], ...] = ("fast", "immediate")


def run(plan: Plan, figures: Figures) -> None:
    """Stop and start PostgreSQL until there were enough outages, or the time is over."""
    programs = installed()
    if programs is None:
        figures.note("PostgreSQL or its driver is not installed: no outage was tried")
        return
    figures.counts["runs"] += 1
    seed = plan.seed + figures.counts["runs"]
    chance = random.Random(seed)  # noqa: S311
    goal = plan.amount(OUTAGES)
    bodies = {name: body for name, body in kinds().items() if name in POSTED}
    with (
        cluster(programs) as database,
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), settings={"SANGLOC_DATABASE_URL": database.url}, errors=plan.errors) as (server,),
        tqdm(total=goal, initial=figures.counts["outages"], desc="outages", unit="outage") as bar,
    ):
        key = server.key("site", "clinic")
        with server.client(key) as client:
            expected = expected_outcomes(client, bodies)
        load = Load(figures, [server.port], key, bodies, seed)
        plan.begin()
        with load.posting(CLIENTS):
            while plan.left_s > 0 and figures.counts["outages"] < goal:
                time.sleep(chance.uniform(*BETWEEN_S))
                database.stop(HOW[figures.counts["outages"] % len(HOW)])
                time.sleep(chance.uniform(*OUT_S))
                database.start()
                figures.counts["outages"] += 1
                bar.update()
                plan.keep()
            time.sleep(BETWEEN_S[0])
        figures.counts["server ended"] += not server.pid
        if server.pid:
            audit(figures, server, database.url, load, expected, limit_s=DONE_S)


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts = figures.counts
    if not counts["runs"]:
        return [Line("outages of the database", None, at_least=plan.amount(OUTAGES), note="; ".join(figures.notes))]
    return [
        Line("outages of the database", float(counts["outages"]), at_least=plan.amount(OUTAGES)),
        Line("visits accepted", float(counts["accepted"]), note=figures.listed("answer ")),
        *lines_of_audit(figures),
        figures.none("requests without an answer", "answers lost"),
        figures.none("servers that ended", "server ended"),
    ]
