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

from tqdm import tqdm

from benchmarks.database.asked import Asked, Scene
from benchmarks.database.first import First
from benchmarks.database.plans import Plans, explained

SLOW_S = 2.0
"""What took longer is not repeated."""
A_LARGE_TABLE = 0.05
"""Rows read one after the other, as a share of the visits: from here on the table is large."""


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


def measure(
    found: Mapping[int, Scene], asked: Mapping[str, Asked], rounds: int
) -> dict[str, dict[int, Measured]]:
    """Explain each thing once in each database, then ask for it in turns."""

    async def all_of_it() -> dict[str, dict[int, Measured]]:
        return {
            name: await _measure(found, each, rounds) for name, each in tqdm(asked.items(), unit="question")
        }

    return asyncio.run(all_of_it())


async def _measure(found: Mapping[int, Scene], asked: Asked, rounds: int) -> dict[int, Measured]:
    measured: dict[int, Measured] = {}
    for visits, scene in found.items():
        with explained(scene.service.database.engine) as plans:
            await asked.ask(scene)
        await _undo(asked, scene)
        measured[visits] = Measured(plans=plans)
    for _ in range(rounds):
        for visits, scene in found.items():
            ms = measured[visits].ms
            if ms and ms[-1] > 1000 * SLOW_S:
                continue
            began = time.perf_counter()
            await asked.ask(scene)
            ms.append(1000 * (time.perf_counter() - began))
            await _undo(asked, scene)
    return measured


async def _undo(asked: Asked, scene: Scene) -> None:
    if asked.undo is not None:
        await asked.undo(scene)


def rows_of(measured: Mapping[str, Mapping[int, Measured]], sizes: Sequence[int]) -> list[list[Any]]:
    """A row of the table for each thing: milliseconds and pages by size, their ratio, and what was read in full."""
    rows = []
    for name, by_size in measured.items():
        ms, pages = ([get(by_size[size]) for size in sizes] for get in (_ms, _pages))
        scans = by_size[sizes[-1]].plans.scans(max(1000, int(A_LARGE_TABLE * sizes[-1])))
        said = ", ".join(f"{table} {n:,}" for table, n in scans.items())
        rows.append([name, *ms, ms[-1] / ms[0], *pages, said])
    return rows


def _ms(one: Measured) -> float:
    return one.median_ms


def _pages(one: Measured) -> int:
    return one.plans.pages
