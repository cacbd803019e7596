"""A commune's node and its centre over a link that is thin and often down, both killed now and then.

Nothing is lost, each visit comes once and whole, and what was done at one end is at both.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.chaos.asking import Client, Lost
from benchmarks.chaos.audit import rows, sqlite_of, wait_until_done
from benchmarks.chaos.beside import beside
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import Server, running
from benchmarks.chaos.thin_link import ThinLink
from benchmarks.chaos.visits import DOCTOR, Load, kinds
from benchmarks.report import Line

SITE, HOSPITAL = "commune", "central"
VISITS, CUTS, KILLS = 300, 60, 20
"""Of the full campaign."""
BYTES_PER_S, DELAY_S = 250_000.0, 0.15
"""2 Mbit/s; 300 ms there and back."""
UP_S, DOWN_S = (1.0, 12.0), (0.5, 6.0)
"""Between two cuts, and how long one lasts: weeks of a link that is down for 2 % of the time are shortened to minutes,
so that the link is down for a third of the time."""
EVERY_S = 1.0
"""Between two visits of the commune."""
POSTED = ("labs", "PNG", "JPEG", "WFDB", "DICOM", "several")
CATCH_UP_S = 1800.0
"""From the last cut until the centre has everything."""
SAME = "SELECT id, version, priority, status, body_hash, assessment FROM visits ORDER BY id"
DONE_SINCE = (
    "SELECT visit_id, number, uid, role FROM opinions ORDER BY uid",
    "SELECT id, visit_id, question, answered_by, closed_at IS NULL FROM referrals ORDER BY id",
    "SELECT id, visit_id, finding, outcome FROM outcomes ORDER BY id",
)


def run(plan: Plan, figures: Figures) -> None:
    """Cut the link and kill both ends until it was often enough, or the time is over; then let them catch up."""
    seed = plan.seed + figures.counts["runs"]
    figures.counts["runs"] += 1
    chance = random.Random(seed)  # noqa: S311
    bodies = {name: body for name, body in kinds().items() if name in POSTED}
    with (
        tempfile.TemporaryDirectory() as of_centre,
        tempfile.TemporaryDirectory() as of_node,
        running(Path(of_centre), errors=plan.errors) as (centre,),
    ):
        link = ThinLink(centre.port, bytes_per_s=BYTES_PER_S, delay_s=DELAY_S)
        settings = {
            "SANGLOC_UPSTREAM": link.address,
            "SANGLOC_UPSTREAM_KEY": centre.key("node", SITE),
            "SANGLOC_UPSTREAM_ASK_SECONDS": "1",
        }
        specialist = centre.key("specialist", HOSPITAL, doctor_id="CK", label="specialist")
        with running(Path(of_node), settings=settings, errors=plan.errors) as (node,):
            load = Load(figures, [node.port], node.key("site", SITE), bodies, seed)
            doctor = node.key("doctor", SITE, doctor_id=DOCTOR, label="doctor")
            plan.begin()
            with _working(load, plan, node, doctor, centre, specialist, random.Random(seed + 1)):  # noqa: S311
                _harm(plan, figures, link, (node, centre), chance)
            _count(figures, node, centre)
        link.close()


def _harm(plan: Plan, figures: Figures, link: ThinLink, ends: tuple[Server, Server], chance: random.Random) -> None:
    cuts, kills = plan.amount(CUTS), plan.amount(KILLS)
    with tqdm(total=cuts, initial=min(cuts, figures.counts["cuts"]), desc="cuts", unit="cut", mininterval=1) as bar:
        while plan.left_s > 0 and (figures.counts["cuts"] < cuts or figures.counts["posted"] < plan.amount(VISITS)):
            time.sleep(chance.uniform(*UP_S))
            link.cut()
            cut_at = time.monotonic()
            figures.counts["cuts"] += 1
            if figures.counts["kills"] < kills and chance.random() < 2 * KILLS / CUTS:
                victim = chance.choice(ends)
                victim.kill()
                victim.start()
                figures.counts["kills"] += 1
            time.sleep(chance.uniform(*DOWN_S))
            link.mend()
            figures.took("down", time.monotonic() - cut_at)
            bar.update()
            plan.keep()
    for end in ends:
        try:
            end.wait()
        except RuntimeError:
            figures.counts["starts failed"] += 1


@contextmanager
def _working(
    load: Load, plan: Plan, node: Server, doctor: str, centre: Server, specialist: str, chance: random.Random
) -> Iterator[None]:
    """The commune posts, asks and signs, and specialists at the centre answer, meanwhile."""
    ended = threading.Event()
    figures = load.figures

    def commune() -> None:
        with Client(node.port, load.key, timeout_s=60) as client:
            number = 0
            while not ended.wait(EVERY_S):
                number += 1
                if load.post(number, {node.port: client}) is not None:
                    figures.counts["posted"] += 1
                ids = [each.id for each in list(load.accepted.values())]
                if ids and chance.random() < 0.5:
                    said = {"version": 1, "text": "commune"} if chance.random() < 0.5 else {"question": "?"}
                    where = "opinions" if "version" in said else "referrals"
                    figures.counts["done at the commune"] += _say(node, doctor, chance.choice(ids), where, said)

    def hospital() -> None:
        while not ended.wait(EVERY_S):
            try:
                with centre.client(specialist, timeout_s=20) as client:
                    open_ = client.ask("GET", "/v1/referrals?state=open&limit=5").json["items"]
            except (*Lost, KeyError, ValueError):
                continue
            for each in open_:
                visit = each["visit"]
                said = {"version": visit["version"], "text": "hospital", "referral": each["referral"]["id"]}
                figures.counts["done at the hospital"] += _say(centre, specialist, visit["id"], "opinions", said)

    with beside(ended, commune, hospital):
        yield


def _say(server: Server, key: str, visit: str, where: str, said: dict[str, Any]) -> bool:
    try:
        with server.client(key, timeout_s=20) as client:
            body, kind = json.dumps(said).encode(), {"Content-Type": "application/json"}
            return client.ask("POST", f"/v1/visits/{visit}/{where}", body, kind).status == 201
    except Lost:
        return False


def _count(figures: Figures, node: Server, centre: Server) -> None:
    """Wait until the centre has everything, then compare both."""
    wait_until_done(sqlite_of(node), 120.0)
    began = time.monotonic()
    while time.monotonic() - began < CATCH_UP_S and not _caught_up(node, centre):
        time.sleep(1.0)
    figures.took("catching up", time.monotonic() - began)
    here, there = rows(sqlite_of(node), SAME), {row[0]: row for row in rows(sqlite_of(centre), SAME)}
    counts = figures.counts
    counts["accepted"] += len(here)
    counts["lost"] += sum(row[0] not in there for row in here)
    counts["double"] += len(there) - sum(row[0] in there for row in here)
    counts["unlike"] += sum(row[0] in there and tuple(row) != tuple(there[row[0]]) for row in here)
    for query in DONE_SINCE:
        mine, theirs = ({tuple(row) for row in rows(sqlite_of(end), query)} for end in (node, centre))
        counts["followed up"] += len(mine)
        counts["followed up unlike"] += len(mine ^ theirs)
    with node.client() as mine, centre.client() as theirs:
        for visit, index in rows(sqlite_of(node), 'SELECT visit_id, "index" FROM inputs'):
            path = f"/v1/visits/{visit}/inputs/{index}"
            counts["files"] += 1
            counts["files unlike"] += mine.ask("GET", path).body != theirs.ask("GET", path).body


def _caught_up(node: Server, centre: Server) -> bool:
    waits = 'SELECT count(*) FROM exchanges WHERE changes > sent OR "left" > 0'
    new = "SELECT count(*) FROM visits WHERE id NOT IN (SELECT visit_id FROM exchanges)"
    counted = (rows(sqlite_of(node), waits), rows(sqlite_of(node), new), rows(sqlite_of(centre), waits))
    return all(found[0][0] == 0 for found in counted)


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts, none = figures.counts, figures.none
    done = f"{counts['done at the commune']} at the commune, {counts['done at the hospital']} at the hospital"
    return [
        Line("the link was cut", float(counts["cuts"]), at_least=plan.amount(CUTS)),
        figures.times_line("down", "how long it was down each time, ms"),
        Line("kill -9 of either end", float(counts["kills"]), at_least=plan.amount(KILLS)),
        Line("visits of the commune", float(counts["accepted"]), at_least=plan.amount(VISITS)),
        none("visits that are not at the centre", "lost"),
        none("visits that are only at the centre", "double"),
        none("visits that differ", "unlike"),
        none(
            "opinions, questions and outcomes that differ", "followed up unlike", f"of {counts['followed up']}: {done}"
        ),
        none("files that differ or did not come", "files unlike", f"of {counts['files']}"),
        none("servers that did not start again", "starts failed"),
        figures.times_line("catching up", "from the last cut until the centre had everything, ms"),
    ]
