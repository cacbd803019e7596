"""Server processes, readers and zygotes are killed while clients post: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.chaos.asking import all_closed
from benchmarks.chaos.audit import audit, audit_deliveries, lines_of_audit, lines_of_deliveries, sqlite_of
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import Server, kill_quietly, running
from benchmarks.chaos.signing import audit_signatures, signing
from benchmarks.chaos.sink import Sink
from benchmarks.chaos.visits import DOCTOR, Load, expected_outcomes, kinds
from benchmarks.chaos.watching import memory_watched, readers, zygotes
from benchmarks.report import Line

KILLS, ACCEPTED = 100, 10_000
SERVERS, CLIENTS = 2, 12
BETWEEN_S = (0.5, 5.0)
"""Between two kills."""
VICTIMS = {"server": 6, "reader": 2, "zygote": 1, "all": 1}
WAITED_FOR = 0.6
"""Share of the starts that are waited for: the next kill may meet a server that starts."""
DONE_S = 180.0
"""What is accepted at the end has to be done within this time."""
SITE = "clinic"


def run(plan: Plan, figures: Figures) -> None:
    """Kill until there were enough kills and enough visits, or the time is over."""
    seed = plan.seed + figures.counts["runs"]
    figures.counts["runs"] += 1
    before = figures.counts["accepted"]
    with (
        tempfile.TemporaryDirectory() as folder,
        Sink() as sink,
        running(Path(folder), SERVERS, errors=plan.errors) as servers,
    ):
        first = servers[0]
        key = first.key("site", SITE)
        with first.client() as admin:
            sink.register(admin)
        bodies = kinds()
        with first.client(key) as client:
            expected = expected_outcomes(client, bodies)
        load = Load(figures, [server.port for server in servers], key, bodies, seed)
        signed: list[str] = []
        doctor = first.key("doctor", SITE, doctor_id=DOCTOR)
        plan.begin()
        with (
            memory_watched(figures, lambda: [server.pid for server in servers if server.pid]),
            load.posting(CLIENTS),
            all_closed(*(server.client(doctor, timeout_s=20) for server in servers)) as signers,
            signing(load, [client.ask for client in signers], signed),
        ):
            _kill_all(plan, figures, servers, load, before, random.Random(seed))  # noqa: S311
        audit(figures, first, sqlite_of(first), load, expected, limit_s=DONE_S)
        audit_deliveries(figures, sqlite_of(first), sink)
        audit_signatures(figures, sqlite_of(first), signed)


def _kill_all(
    plan: Plan, figures: Figures, servers: Sequence[Server], load: Load, before: int, chance: random.Random
) -> None:
    kills, accepted = plan.amount(KILLS), plan.amount(ACCEPTED)
    with tqdm(
        total=kills, initial=min(kills, figures.counts["kills"]), desc="kills", unit="kill", mininterval=1
    ) as bar:
        while plan.left_s > 0:
            enough = figures.counts["kills"] >= kills
            if enough and before + len(load.accepted) >= accepted:
                break
            time.sleep(min(chance.uniform(*BETWEEN_S), max(0.0, plan.left_s)))
            if not enough:
                _kill_one(figures, servers, chance)
                bar.update()
            plan.keep()
    wait_until_ready(figures, servers)


def _kill_one(figures: Figures, servers: Sequence[Server], chance: random.Random) -> None:
    what = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
    chosen = list(servers) if what == "all" else [chance.choice(servers)]
    figures.counts["kills"] += 1
    figures.counts[f"killed {what}"] += 1
    if what == "reader":
        kill_quietly(chance.sample(found, 1) if (found := readers(chosen[0].pid)) else [])
    elif what == "zygote":
        kill_quietly(zygotes(chosen[0].pid))
    else:
        for server in chosen:
            server.kill()
            server.start()
        if chance.random() < WAITED_FOR:
            wait_until_ready(figures, chosen)


def wait_until_ready(figures: Figures, servers: Sequence[Server]) -> None:
    """Wait for servers that were started, and count those that do not come."""
    for server in servers:
        try:
            server.wait()
        except RuntimeError:
            figures.counts["starts failed"] += 1


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts, none = figures.counts, figures.none
    return [
        Line("kill -9", float(counts["kills"]), at_least=plan.amount(KILLS), note=figures.listed("killed ")),
        Line(
            "visits accepted", float(counts["accepted"]), at_least=plan.amount(ACCEPTED), note=figures.listed("answer ")
        ),
        *lines_of_audit(figures),
        none("servers that did not start again", "starts failed"),
        *lines_of_deliveries(figures),
        none("signatures lost", "signatures lost", f"of {counts['signed']}"),
        figures.memory_line("peak memory of both servers, PSS, MB"),
    ]
