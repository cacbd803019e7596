"""Figures that are kept, continued, and told as rows of a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.chaos.asking import Answer
from benchmarks.chaos.campaign import PARTS, SHARES, SHORT_S, cells, markdown, plan_of
from benchmarks.chaos.plan import FULL_MINUTES
from benchmarks.chaos.record import Figures, Record

OPTIONS = {"minutes": FULL_MINUTES, "short": False, "seed": 1}


def test_percentiles_are_of_whole_milliseconds() -> None:
    figures = Figures()
    for ms in (1, 2, 3, 4, 100):
        figures.took("x", ms / 1000 - 0.0004)
    assert [figures.percentile_ms("x", p) for p in (20, 50, 80, 99, 100)] == [1, 3, 4, 100, 100]
    assert figures.percentile_ms("y", 50) is None
    assert figures.times_line("x", "a time", 50).reached is False
    assert figures.times_line("y", "none", 50).reached is None


def test_a_record_is_continued(tmp_path: Path) -> None:
    record = Record(tmp_path / "out" / "chaos.json", OPTIONS)
    figures = record.parts["kills"] = Figures(done=True, seconds=12.34)
    figures.counts.update(("lost", "kills", "kills"))
    figures.at_most("pss_mb", 7.0)
    figures.at_most("pss_mb", 5.0)
    figures.took("answer", 0.002)
    figures.note("said")
    figures.note("said")
    record.keep()
    assert not record.path.exists()  # a minute has not passed
    record.keep(now=True)
    read = Record.read(record.path)
    assert read.about == record.about
    assert read.parts["kills"].as_json() == {**figures.as_json(), "seconds": 12.3}
    read.parts["kills"].took("answer", 0.002)
    assert read.parts["kills"].percentile_ms("answer", 100) == 2
    assert read.parts["kills"].notes == ["said"]
    assert json.loads(record.path.read_text())["benchmark"] == "chaos"


def test_a_part_that_was_stopped_has_the_rest_of_its_time() -> None:
    record = Record(Path(), OPTIONS)
    whole = plan_of(record, "disk", Figures())
    assert whole.seconds == pytest.approx(60 * FULL_MINUTES * SHARES["disk"])
    assert plan_of(record, "disk", Figures(seconds=60)).seconds == pytest.approx(whole.seconds - 60)
    assert plan_of(record, "disk", Figures(seconds=1e6)).seconds > 0
    assert whole.amount(1000) == 1000
    assert plan_of(Record(Path(), {**OPTIONS, "minutes": FULL_MINUTES / 10}), "disk", Figures()).amount(1000) == 100


def test_every_part_has_its_time() -> None:
    assert SHARES.keys() == SHORT_S.keys() == PARTS.keys()
    assert sum(SHARES.values()) == pytest.approx(1)


def test_the_table_says_what_was_missed(tmp_path: Path) -> None:
    record = Record(tmp_path / "chaos.json", OPTIONS)
    for name in PARTS:
        record.parts[name] = Figures()
    record.parts["kills"].counts.update({"kills": 100, "lost": 1, "answer 201": 3})
    record.parts["disk"].note("not mounted")
    text = markdown(record)
    assert "| accepted visits lost | 1 | ≤ 0 | **missed** |" in text
    assert "| kills, 0 s | kill -9 | 100 | ≥ 100 | reached |" in text
    assert "- disk: not mounted" in text
    assert "| outages, 0 s | outages of the database | – | ≥ 30 | not measured |" in text
    assert cells(record.parts["kills"].none("a", "b"))[1:4] == ["0", "≤ 0", "reached"]


@pytest.mark.parametrize(
    ("status", "headers", "fault"),
    [
        (201, {"content-type": "application/json"}, ""),
        (500, {"content-type": "application/problem+json"}, "status 500"),
        (502, {}, "status 502"),
        (503, {"content-type": "application/problem+json"}, "503 without Retry-After"),
        (503, {"retry-after": "5"}, ""),
        (507, {}, ""),
        (422, {"content-type": "application/problem+json; charset=utf-8"}, ""),
        (409, {"content-type": "application/dicom+json"}, ""),
        (422, {"content-type": "text/plain"}, "422 as text/plain"),
        (404, {}, "404 as none"),
    ],
)
def test_an_answer_against_the_contract_is_noticed(status: int, headers: dict[str, str], fault: str) -> None:
    assert Answer(status, headers, b"").fault == fault
