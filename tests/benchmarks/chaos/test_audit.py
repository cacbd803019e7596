"""The audit finds what was lost, done twice, or sent wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy

from benchmarks.chaos.audit import audit_deliveries, count_kept
from benchmarks.chaos.record import Figures
from benchmarks.chaos.sink import Delivered, Sink
from benchmarks.chaos.visits import Accepted
from service.settings import Settings
from service.storage.database import Database
from service.storage.migrate import migrate

SAID = {"1": Accepted("PNG", "a"), "2": Accepted("PNG", "b"), "3": Accepted("PNG", "c")}


def counted(found: list[tuple[str, str, str]]) -> dict[str, int]:
    figures = Figures()
    count_kept(figures, found, SAID)
    return {name: n for name, n in figures.counts.items() if n}


def test_nothing_is_amiss() -> None:
    found = [("a", "1", "complete"), ("b", "2", "complete"), ("c", "3", "complete"), ("d", "4", "complete")]
    assert counted(found) == {"accepted": 3}


def test_what_is_amiss_is_counted() -> None:
    found = [("a", "1", "failed"), ("x", "1", "complete"), ("b", "2", "accepted"), ("y", "3", "complete")]
    assert counted(found) == {"accepted": 3, "lost": 1, "double": 3, "unfinished": 1, "failed": 1}


@pytest.fixture
def database(tmp_path: Path) -> str:
    settings = Settings(data_dir=tmp_path)
    database = Database(settings.database)
    migrate(settings, database)
    with database.engine.begin() as connection:
        for id_, version in (("a", 1), ("b", 2)):
            connection.execute(
                sqlalchemy.text(
                    "INSERT INTO visits (id, site, key_id, context, status, priority, received_at, version, body_hash, "
                    "attempts, faults) VALUES "
                    "(:id, 's', 'k', '{}', 'complete', 'routine', '2026-11-28', :version, '', 1, 0)"
                ),
                {"id": id_, "version": version},
            )
    database.close()
    return settings.database


def deliveries(database: str, *received: Delivered) -> dict[str, int]:
    figures = Figures()
    with Sink() as sink:
        sink.received += received
        audit_deliveries(figures, database, sink)
    return {name: n for name, n in figures.counts.items() if n}


def test_a_repeated_attempt_is_no_second_delivery(database: str) -> None:
    first, second = Delivered("k", "b", 1), Delivered("l", "b", 2)
    found = deliveries(database, Delivered("j", "a", 1), first, first, second)
    assert found == {"reports": 3, "attempts repeated": 1}


def test_wrong_deliveries_are_counted(database: str) -> None:
    found = deliveries(
        database, Delivered("k", "b", 2), Delivered("l", "b", 1), Delivered("m", "b", 1), Delivered("n", "c", 1)
    )
    expected = {"reports": 3, "not delivered": 1, "delivered though not issued": 1, "delivered twice": 1}
    assert found == {**expected, "out of order": 1, "attempts repeated": 1}
