"""How long each thing takes that the service asks for, and how many pages it reads, in databases of several sizes."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text
from tqdm import tqdm

from benchmarks.database.asked import Asked, Scene
from benchmarks.database.first import First
from benchmarks.database.plans import Plans, explained
from service.errors import DatabaseUnavailable

SLOW_S = 2.0
"""What took longer is not repeated."""
A_LARGE_SHARE = 0.1
"""A table with so many rows, as a share of the visits, is large."""


@dataclass
class Measured:
    """One thing in one database: the times of its turns, and how it was carried out."""

    ms: list[float] = field(default_factory=list)
    plans: Plans = field(default_factory=Plans)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.ms)


@contextmanager
def scenes(first: First, urls: Mapping[int, str]) -> Iterator[dict[int, Scene]]:
    """The service over each of the databases."""
    with ExitStack() as closing, tempfile.TemporaryDirectory() as folder:
        found = {}
        for visits, url in urls.items():
            found[visits] = Scene.of(url, first, Path(folder, str(visits)))
            closing.callback(found[visits].close)
        yield found


def measure(found: Mapping[int, Scene], asked: Mapping[str, Asked], rounds: int) -> dict[str, dict[int, Measured]]:
    """Explain each thing once in each database, then ask for it in turns."""

    async def all_of_it() -> dict[str, dict[int, Measured]]:
        return {name: await _measure(found, each, rounds) for name, each in tqdm(asked.items(), unit="question")}

    return asyncio.run(all_of_it())


async def _measure(found: Mapping[int, Scene], asked: Asked, rounds: int) -> dict[int, Measured]:
    measured: dict[int, Measured] = {}
    for visits, scene in found.items():
        with explained(scene.service.database.engine) as plans:
            await _answered(asked, scene)
        await _undo(asked, scene)
        measured[visits] = Measured(plans=plans)
    for _ in range(rounds):
        for visits, scene in found.items():
            ms = measured[visits].ms
            if ms and ms[-1] > 1000 * SLOW_S:
                continue
            began = time.perf_counter()
            await _answered(asked, scene)
            ms.append(1000 * (time.perf_counter() - began))
            await _undo(asked, scene)
    return measured


async def _answered(asked: Asked, scene: Scene) -> None:
    """Ask, and give up where the service does: after :data:`service.storage.database.ANSWER_S`."""
    try:
        await asked.ask(scene)
    except DatabaseUnavailable:
        with scene.service.database.transaction() as session:
            session.execute(_CANCEL)


_CANCEL = text(
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
)


async def _undo(asked: Asked, scene: Scene) -> None:
    if asked.undo is not None:
        await asked.undo(scene)


def large(rows: Mapping[str, int]) -> dict[str, int]:
    """The large ones of the tables, given with their numbers of rows."""
    return {name: n for name, n in rows.items() if n >= max(100, A_LARGE_SHARE * rows["visits"])}


def rows_of(
    measured: Mapping[str, Mapping[int, Measured]], sizes: Sequence[int], tables: Mapping[str, int]
) -> list[list[Any]]:
    """A row of the table for each thing: milliseconds and pages by size, their ratio, and what was read in full."""
    rows = []
    for name, by_size in measured.items():
        ms, pages = ([get(by_size[size]) for size in sizes] for get in (_ms, _pages))
        scans = by_size[sizes[-1]].plans.scans(tables)
        rows.append([name, *ms, ms[-1] / ms[0], *pages, ", ".join(scans)])
    return rows


def _ms(one: Measured) -> float:
    return one.median_ms


def _pages(one: Measured) -> int:
    return one.plans.pages
