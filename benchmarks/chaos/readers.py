"""Damaged files straight into the reader processes: each has to give a result or a refusal, and to harm nobody else."""

from __future__ import annotations

import itertools
import logging
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from benchmarks.chaos.beside import beside
from benchmarks.chaos.mutations import mutated
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.record import Figures
from benchmarks.chaos.seeds import (
    JOBS,
    Seed,
    arguments_of,
    data_folder,
    hostile_seeds,
    is_result,
    made_seeds,
    real_seeds,
)
from benchmarks.chaos.watching import memory_watched, zygotes
from benchmarks.files import png
from benchmarks.report import Line
from data_specs.problems import Refused
from inference.cxr.reading import read_film
from inference.readers.files import OpenFile
from inference.readers.job import Job
from inference.readers.pool import Readers

INPUTS = 1_000_000
WINDOW = 24
"""Inputs that are submitted and not answered yet."""
OWNERS = 4
HANG_S = 150.0
"""A call waits its turn, may be tried twice, and then for 30 s in a slow reader: what takes longer hangs."""
INNOCENT_EVERY_S = 0.05
MAX_CONVICTED = 40
"""Inputs that cost a reader its life, and are read again alone at the end of the run."""
MAX_ALONE_S = 60.0
TRIES_ALONE = 3
"""A decoder that reads beyond its memory does not die every time."""
INNOCENT_MS = 1000
FILM_PX = 256
KILLED_READER = re.compile(r"\d+ × (SIG|exit)")


@dataclass(frozen=True)
class Input:
    """What one call gets."""

    name: str
    job: Job[..., Any]
    names: tuple[str, ...]
    contents: tuple[bytes, ...]

    def submit(self, readers: Readers, owner: object) -> Future[Any]:
        files = [partial(OpenFile.of, content) for content in self.contents]
        return readers.submit(self.job, files, *arguments_of(self.job, self.names), owner=owner)


class Inputs:
    """All inputs of a campaign, by their number: first the hostile files as they are, then damaged ones."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        data = data_folder()
        self.real = data is not None
        self._hostile = hostile_seeds(data) if data else []
        self._seeds = made_seeds() + (real_seeds(data) if data else [])
        self._weights = list(itertools.accumulate(seed.weight for seed in self._seeds))
        self._others = [content for seed in self._seeds for _, content in seed.files]

    def __getitem__(self, number: int) -> Input:
        if number < len(self._hostile):
            return _as_it_is(self._hostile[number])
        chance = random.Random(self._seed << 40 | number)  # noqa: S311  inputs, not secrets
        seed = chance.choices(self._seeds, cum_weights=self._weights)[0]
        contents = [content for _, content in seed.files]
        which = int(chance.random() * len(contents))
        contents[which] = mutated(seed.materials[which], chance, self._others)
        return Input(seed.name, seed.job, tuple(name for name, _ in seed.files), tuple(contents))


def _as_it_is(seed: Seed) -> Input:
    return Input(seed.name, seed.job, tuple(n for n, _ in seed.files), tuple(c for _, c in seed.files))


# ---------------------------------------------------------------- what became of it
class Judge:
    """Counts what became of inputs; its methods are called from the threads of the pool."""

    def __init__(self, plan: Plan, figures: Figures) -> None:
        self._plan, self._figures = plan, figures
        self._lock = threading.Lock()
        self._saved: set[tuple[str, str]] = set()
        self.convicted: list[Input] = []

    def take(self, given: Input, future: Future[Any]) -> None:
        outcome = outcome_of(given, future)
        with self._lock:
            self._figures.counts["inputs"] += 1
            self._figures.counts[outcome if outcome in ("read", "refused") else "escapes"] += 1
            if outcome not in ("read", "refused"):
                self.save("escape", given, outcome)
            elif outcome == "refused":
                self._look_at_refusal(given, future)

    def _look_at_refusal(self, given: Input, future: Future[Any]) -> None:
        error = future.exception()
        assert isinstance(error, Refused)  # noqa: S101
        problem = error.problem
        killed = bool(KILLED_READER.match(problem.found))
        if (killed or problem.code == "too_costly") and len(self.convicted) < MAX_CONVICTED:
            self.convicted.append(given)
        if (killed or problem.expected == "—") and (given.name, problem.found) not in self._saved:
            self._saved.add((given.name, problem.found))
            self.save("death" if killed else "fault", given, problem.found)

    def save(self, name: str, given: Input, what: str) -> None:
        about = {"part": "readers", "what": what, "seed": given.name, "job": given.job.name, "names": given.names}
        sizes = [len(content) for content in given.contents]
        self._plan.save(name, b"".join(given.contents), {**about, "sizes": sizes})


def outcome_of(given: Input, future: Future[Any]) -> str:
    """``read``, ``refused``, or what else became of it, which nothing may."""
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if isinstance(error, Refused):
        return "refused"
    if error is not None:
        return f"raised {type(error).__name__}"
    return "read" if is_result(given.job, future.result().document) else "a result of another type"


class _Faults(logging.Handler):
    """Counts the places at which reading raised something that is no refusal: it is refused all the same."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(logging.ERROR)
        self._figures = figures

    def emit(self, record: logging.LogRecord) -> None:
        if record.args and len(record.args) == 3:
            self._figures.counts["fault {1} at {2}".format(*map(str, record.args))] += 1


# ---------------------------------------------------------------- the run
def run(plan: Plan, figures: Figures) -> None:
    """Submit inputs until there were enough, or the time is over."""
    inputs = Inputs(plan.seed)
    if not inputs.real:
        figures.note("no real films and recordings (SANGLOC_TEST_DATA): the samples and made files alone")
    faults = _Faults(figures)
    pool_log = logging.getLogger("inference.readers.pool")
    pool_log.addHandler(faults)
    pool_log.propagate = False
    readers = Readers()
    readers.start()
    plan.begin()
    zygote = zygotes(os.getpid())
    judge = Judge(plan, figures)
    try:
        with memory_watched(figures, lambda: [os.getpid()]), _innocent_watched(readers, figures):
            _submit_all(plan, figures, readers, inputs, judge)
        if zygotes(os.getpid()) != zygote:
            figures.counts["escapes"] += 1
            figures.counts["the zygote ended"] += 1
        _read_again_alone(readers, judge, figures)
        for cause, n in readers.ended.items():
            figures.counts[f"ended {cause}"] += n
    finally:
        readers.close()
        pool_log.removeHandler(faults)
        pool_log.propagate = True


def _submit_all(plan: Plan, figures: Figures, readers: Readers, inputs: Inputs, judge: Judge) -> None:
    places = threading.Semaphore(WINDOW)
    goal = plan.amount(INPUTS)
    first = figures.counts["inputs"]

    def ended(given: Input, future: Future[Any]) -> None:
        judge.take(given, future)
        places.release()

    with tqdm(total=goal, initial=first, desc="readers", unit="input", mininterval=1) as bar:
        for number in range(first, goal):
            if plan.left_s <= 0:
                break
            given = inputs[number]
            if not places.acquire(timeout=HANG_S):
                figures.counts["escapes"] += 1
                figures.counts["hangs"] += 1
                judge.save("hang", given, "no input was answered in time; this one was the next")
                return
            given.submit(readers, number % OWNERS).add_done_callback(partial(ended, given))
            bar.update()
            plan.keep()
        for _ in range(WINDOW):
            if not places.acquire(timeout=HANG_S):
                figures.counts["escapes"] += 1
                figures.counts["hangs"] += 1
                return


@contextmanager
def _innocent_watched(readers: Readers, figures: Figures) -> Iterator[None]:
    """Submit a good film of another owner again and again; how long each waits beyond its own time."""
    film = Input("innocent", read_film, ("film.png",), (png(FILM_PX),))
    own_s = min(_seconds(film, readers) for _ in range(10))
    figures.at_most("innocent_own_ms", own_s * 1000)
    ended = threading.Event()
    lock = threading.Lock()

    def took(began: float, future: Future[Any]) -> None:
        with lock:
            figures.took("innocent", max(0.0, time.perf_counter() - began - own_s))
            if outcome_of(film, future) != "read":
                figures.counts["innocent refused"] += 1

    def ask() -> None:
        while not ended.wait(INNOCENT_EVERY_S):
            film.submit(readers, "innocent").add_done_callback(partial(took, time.perf_counter()))

    with beside(ended, ask):
        yield


def _seconds(given: Input, readers: Readers) -> float:
    began = time.perf_counter()
    given.submit(readers, None).result(HANG_S)
    return time.perf_counter() - began


def _read_again_alone(readers: Readers, judge: Judge, figures: Figures) -> None:
    """Inputs that ended readers do so again, or are refused, where nothing else is read."""
    end = time.monotonic() + MAX_ALONE_S
    for given in judge.convicted:
        if time.monotonic() > end:
            break
        figures.counts["convicted and read alone"] += 1
        if not any(_is_harmful(given, readers) for _ in range(TRIES_ALONE)):
            figures.counts["convicted wrongly"] += 1
            judge.save("innocent", given, "read alone")
    judge.convicted.clear()


def _is_harmful(given: Input, readers: Readers) -> bool:
    before = readers.ended.total()
    future = given.submit(readers, None)
    with suppress(Exception):
        future.result(HANG_S)
    return outcome_of(given, future) != "read" or readers.ended.total() > before


def again(about: dict[str, Any], content: bytes) -> str:
    """What becomes of a saved input, read alone."""
    contents, at = [], 0
    for size in about["sizes"]:
        contents.append(content[at : at + size])
        at += size
    given = Input(about["seed"], JOBS[about["job"]], tuple(about["names"]), tuple(contents))
    readers = Readers()
    future = given.submit(readers, None)
    error: BaseException | None = None
    try:
        error = future.exception(HANG_S)
    finally:
        readers.close()
    said = error.problem if isinstance(error, Refused) else error or future.result().document
    return f"{outcome_of(given, future)}: {said!r}; readers ended: {dict(readers.ended)}"


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    counts, none = figures.counts, figures.none
    return [
        Line("damaged files", float(counts["inputs"]), at_least=plan.amount(INPUTS), note=f"read {counts['read']}"),
        none("escapes", "escapes"),
        none("innocent film refused", "innocent refused"),
        figures.times_line("innocent", "innocent film's wait beyond its own time, ms", INNOCENT_MS),
        Line("readers that ended", float(figures.total("ended ")), note=figures.listed("ended ")),
        none("refused after a reader's end, but read when alone", "convicted wrongly",
             f"of {counts['convicted and read alone']} read again"),
        Line("errors of readers that are no refusals", float(figures.total("fault ")), note=figures.listed("fault ")),
        figures.memory_line("peak memory of campaign and readers, PSS, MB"),
    ]  # fmt: skip
