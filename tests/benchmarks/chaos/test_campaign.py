"""A short campaign against the real server: what has to hold whatever happens does hold.

It takes a little more than a minute, without the part *processes*, since several servers take long to start. Times and
amounts are not judged here, because other tests run beside it: ``make chaos`` does that.
"""

from __future__ import annotations

import pytest

from benchmarks.chaos.campaign import PARTS, SHARES, SHORT_S, main, plan_of
from benchmarks.chaos.record import Record
from benchmarks.report import Line

MEASURED = {
    "kills": ("kills", "accepted", "reports"),
    "readers": ("inputs", "read", "refused"),
    "http": ("posts", "accepted", "conversations", "health ok"),
    "schema": ("cases", "operations"),
    "slow": ("health ok",),
    "outages": ("outages", "accepted"),
    "disk": ("fillings", "accepted"),
    "nodes": ("cuts", "accepted", "files"),
}
"""Counts that show that a part has done what it is for."""
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    out = tmp_path_factory.mktemp("chaos")
    main(["--short", "--parts", *MEASURED, "--out", str(out)])
    return Record.read(out / "chaos.json")


def missed(record: Record, part: str) -> list[Line]:
    """What should not have happened at all, and has."""
    figures = record.parts[part]
    lines = PARTS[part].lines(figures, plan_of(record, part, figures))
    return [line for line in lines if line.at_most == 0 and not line.reached]


def test_each_part_has_its_time() -> None:
    assert set(SHARES) == set(SHORT_S) == set(PARTS) == {*MEASURED, "processes"}
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("part", MEASURED)
def test_nothing_is_lost_and_nothing_fails(record: Record, part: str) -> None:
    figures = record.parts[part]
    assert figures.done
    if part in ("outages", "disk") and not figures.counts["runs"]:
        pytest.skip("; ".join(figures.notes))
    assert {name: figures.counts[name] for name in MEASURED[part] if not figures.counts[name]} == {}
    assert missed(record, part) == [], figures.counts


def test_what_was_measured_is_told(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--table", "--out", str(record.path.parent)])
    text = capsys.readouterr().out
    assert f"chaos --short --parts {' '.join(MEASURED)} --seed 2026" in text
    assert all(f"\n| {part}, " in text for part in MEASURED)


def test_a_campaign_that_has_ended_is_not_run_again(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    before = record.path.read_text()
    main(["--resume", "--parts", *MEASURED, "--out", str(record.path.parent)])
    assert record.path.read_text() == before
    assert "accepted visits lost" in capsys.readouterr().out
