"""What counts as an escape is noticed, kept, and can be repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.campaign import repeated
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.readers import Input, Judge, outcome_of
from benchmarks.chaos.record import Figures
from benchmarks.files import png
from data_specs.problems import Refused
from inference.cxr.reading import read_film
from inference.ecg.reading import RecordingsRead
from inference.readers.job import Read
from inference.readers.loading import JOBS
from inference.readers.pool import Readers, ReadersFailed
from tests.inference.readers import jobs

FILM = Input("a film", read_film, ("f.png",), (png(232),))


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    pool = Readers(1, jobs=(*JOBS, "tests.inference.readers.jobs"))
    yield pool
    pool.close()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(1, 10, 60, tmp_path / "found")


def ended(result: object = None, error: Exception | None = None) -> Future[Any]:
    future: Future[Any] = Future()
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
    return future


def test_only_a_result_and_a_refusal_are_no_escape(plan: Plan) -> None:
    figures = Figures()
    judge = Judge(plan, figures)
    for future in (
        ended(error=Refused("unreadable", "1", "2")),
        ended(Read(RecordingsRead(()))),  # of another job
        ended(error=ReadersFailed()),
        ended(error=KeyError("x")),
    ):
        judge.take(FILM, future)
    assert figures.counts["inputs"] == 4
    assert figures.counts["refused"] == 1
    assert figures.counts["escapes"] == 3
    saved = [json.loads(path.read_text()) for path in plan.found.glob("escape-*.json")]
    assert all(each["command"].startswith(".venv/bin/python -m benchmarks chaos --again ") for each in saved)


def test_a_real_reader_reads_refuses_and_dies(readers: Readers, plan: Plan) -> None:
    figures = Figures()
    judge = Judge(plan, figures)
    good = FILM.submit(readers, None)
    good.exception(60)
    bad = Input("noise", read_film, ("f",), (b"noise",)).submit(readers, None)
    bad.exception(60)
    deadly = readers.submit(jobs.end, [], "segfault")
    deadly.exception(60)
    assert (outcome_of(FILM, good), outcome_of(FILM, bad)) == ("read", "refused")
    for future in (good, bad, deadly):
        judge.take(FILM, future)
    assert figures.counts["escapes"] == 0
    assert judge.convicted == [FILM]  # to be read again alone
    assert len(list(plan.found.glob("death-*.json"))) == 1


def test_a_saved_input_is_repeated(plan: Plan) -> None:
    Judge(plan, Figures()).save("escape", FILM, "raised X")
    (path,) = plan.found.glob("escape-*.json")
    assert repeated(path).startswith("read: FilmRead(")
