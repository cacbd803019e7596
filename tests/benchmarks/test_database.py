"""The databases, what is asked of them and what harms them, with few visits; processes on one PostgreSQL."""

from __future__ import annotations

import json

import pytest

from benchmarks import database
from benchmarks.chaos.postgres import installed
from benchmarks.cluster import missing
from benchmarks.database.asked import ASKED
from benchmarks.processes import main as processes
from service.storage.tables import Base

VISITS, UPDATES = 1500, 3000


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """What the command measures, first without the migration of its indexes."""
    if installed() is None:
        pytest.skip("PostgreSQL (initdb) or its driver is not installed: no plan is looked at in this run")
    out = tmp_path_factory.mktemp("database")
    # so small a table is best read from end to end: what still is so has no index that fits
    with_indexes = {**database.SETTINGS, "enable_seqscan": "off"}
    small = ("--rounds", "1", "--jobs", "16", "--updates", str(UPDATES))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(database, "SETTINGS", with_indexes)
        found = database.main(["--visits", str(VISITS), "--without", "0012", "--out", str(out), *small])
    assert json.loads((out / "database.json").read_text())["benchmark"] == "database"
    plans = json.loads((out / "database-plans-as-it-is.json").read_text())
    assert {name for name, by_size in plans.items() if by_size[str(VISITS)]} == set(ASKED)
    return found


@pytest.mark.parametrize("name", ASKED)
def test_no_large_table_is_read_from_end_to_end(figures, name):
    assert figures["after"][name]["read_in_full"] == []


def test_what_is_read_from_end_to_end_is_seen(figures):
    assert "arrivals" in figures["before"]["deletion of 50 visits"]["read_in_full"]  # by a foreign key, in no plan
    assert "inputs" in figures["before"]["files that a row names"]["read_in_full"]


def test_every_table_of_visits_has_rows(figures):
    tables = {table.name for table in Base.metadata.sorted_tables if "visit_id" in table.columns}
    assert {"visits", "inputs", "reports", "deliveries"} <= set(figures["sizes_mb"])
    assert tables | {"orders", "order_messages"} <= set(figures["rows"])


def test_a_held_snapshot_keeps_what_is_dead(figures):
    held = figures["held"]["held"]
    at_its_end = next(each for each in held if each["jobs"] == 16 and each["when"] == "held")
    assert at_its_end["dead_visits"] >= 16
    assert held[-1]["when"] == "vacuumed"
    assert held[-1]["dead_visits"] == 0
    assert held[-1]["claim_pages"] < at_its_end["claim_pages"]


def test_leases_are_extended_beside_their_rows(figures):
    leases = figures["leases"]
    assert all(each["updates"] == UPDATES for each in leases.values())
    assert leases["with the service's parameters"]["hot"] > 0.7  # the first ones fill the pages


def test_processes_share_a_database_and_a_store(tmp_path, capsys):
    if why := missing():
        pytest.skip(f"{why}: no processes are measured in this run")
    few = ("--processes", "1", "2", "--seconds", "2", "--rounds", "1", "--clients", "4")
    found = processes([*few, "--out", str(tmp_path)])
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["labs"] == found["labs"]
    for kind in ("film", "labs"):
        for n in ("1", "2"):
            one = found[kind][n]
            assert one["failed"] == 0
            assert one["rate_per_s"] > 0
            assert one["core_ms"]["servers"] > 0
            assert one["database"]["per_s"]["commits"] > 0
    assert found["film"]["derived"]["cores_of_servers_for_it"] > 0
