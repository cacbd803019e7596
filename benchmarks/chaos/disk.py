"""The disk is full while clients post: each is asked to come again, nothing is lost, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from benchmarks.chaos.asking import Lost
from benchmarks.chaos.audit import audit, drafts_left, lines_of_audit, sqlite_of
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import Server, running
from benchmarks.chaos.visits import Load, expected_outcomes, headers_of, kinds
from benchmarks.files import numbered
from benchmarks.report import Line

FILLINGS = 20
CLIENTS = 4
DISK_MB = 256
FULL_S, BETWEEN_S = (1.0, 4.0), (1.0, 3.0)
WORKS_AGAIN_S = 30.0
DONE_S = 120.0
POSTED = ("labs", "PNG", "JPEG", "truncated PNG")
PIECE = bytes(1 << 20)


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system in memory of :data:`DISK_MB`; ``None`` where it may not be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "tmpfs", folder]
        done = subprocess.run(["mount", *options], check=False, capture_output=True)
        if done.returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


NO_RESERVE = {"SANGLOC_MIN_FREE_MB": "0"}
"""With a reserve new visits are refused before the disk is full; here it is filled to the last byte."""


def run(plan: Plan, figures: Figures) -> None:
    """Fill and free the disk until it was done often enough, or the time is over."""
    with tempfile.TemporaryDirectory() as folder, small_disk() as disk:
        if disk is None:
            figures.note("a file system may not be mounted here: no full disk was tried")
            return
        figures.counts["runs"] += 1
        seed = plan.seed + figures.counts["runs"]
        with running(Path(folder), settings=NO_RESERVE, data=disk / "data", errors=plan.errors) as (server,):
            _fill_and_free(plan, figures, server, disk / "filler", seed)


def _fill_and_free(plan: Plan, figures: Figures, server: Server, filler: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    goal = plan.amount(FILLINGS)
    bodies = {name: body for name, body in kinds().items() if name in POSTED}
    key = server.key("site", "clinic")
    with server.client(key) as client:
        expected = expected_outcomes(client, bodies)
    load = Load(figures, [server.port], key, bodies, seed)
    plan.begin()
    with (
        load.posting(CLIENTS),
        tqdm(total=goal, initial=figures.counts["fillings"], desc="disk", unit="filling") as bar,
    ):
        while plan.left_s > 0 and figures.counts["fillings"] < goal:
            time.sleep(chance.uniform(*BETWEEN_S))
            end = time.monotonic() + chance.uniform(*FULL_S)
            while time.monotonic() < end:
                fill(filler)
                time.sleep(0.05)
            filler.unlink()
            figures.counts["fillings"] += 1
            figures.counts["works no more"] += not _works(
                figures, server, key, bodies["labs"].content, figures.counts["fillings"]
            )
            bar.update()
            plan.keep()
    figures.counts["server ended"] += not server.pid
    if server.pid:
        audit(figures, server, sqlite_of(server), load, expected, limit_s=DONE_S)
        figures.counts["drafts left"] += drafts_left(server)


def fill(filler: Path) -> None:
    """Write until nothing fits any more."""
    with filler.open("ab", buffering=0) as file:
        for piece in (PIECE, bytes(4096), b"\0"):
            try:
                while file.write(piece) == len(piece):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _works(figures: Figures, server: Server, key: str, body: bytes, number: int) -> bool:
    """Whether a visit is finished again soon after the disk was freed."""
    began = time.monotonic()
    labs = kinds()["labs"]
    with server.client(key) as client:
        while time.monotonic() - began < WORKS_AGAIN_S:
            try:
                headers = headers_of(labs, f"again-{os.getpid()}-{number}", "wait=10")
                if client.ask("POST", "/v1/visits", numbered(body, number), headers).status == 201:
                    figures.took("again", time.monotonic() - began)
                    return True
            except Lost:
                pass
            time.sleep(0.1)
    return False


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts, none = figures.counts, figures.none
    if not counts["runs"]:
        return [
            Line("times that the disk was full", None, at_least=plan.amount(FILLINGS), note="; ".join(figures.notes))
        ]
    return [
        Line("times that the disk was full", float(counts["fillings"]), at_least=plan.amount(FILLINGS)),
        Line("visits accepted", float(counts["accepted"]), note=figures.listed("answer ")),
        *lines_of_audit(figures),
        none("requests without an answer", "answers lost"),
        none("works no more after the disk was freed", "works no more"),
        none("drafts left", "drafts left"),
        none("servers that ended", "server ended"),
        figures.times_line("again", "until a visit is finished again, ms"),
    ]
