"""The look-back, on rows whose counts are worked out by hand, and on rows of two real versions."""

from __future__ import annotations

import csv
from datetime import date

import pytest

from data_specs.visit.assessment import FoundFinding, is_recalled
from inference.archive import recall
from inference.archive.parts import Archive, BadArchive
from inference.archive.recall import lines, look_back, share
from inference.archive.rows import SCHEMA, Partition, Versions
from inference.archive.scoring import Scored
from tests.inference.archive.test_parts import CASE

NEW_YEAR, NEXT_DAY = (Partition(date(2026, 1, day), "north") for day in (1, 2))


def row(name, version, finding, recalled, *, visit=None, point="screening", probability=0.5):
    return {
        **dict.fromkeys(SCHEMA.names), "input": name, "seen": name, "visit": visit, "person": f"person-{visit or name}",
        "organ": "lung", "bundle": "lung", "version": version, "gate": "1.2.0", "refused": False, "problems": [],
        "finding": finding, "recalled": recalled, "probability": probability, "operating_point": point,
    }  # fmt: skip


@pytest.fixture
def out(tmp_path):
    """Two versions on five films of four visits: one each of both, new alone, old alone, neither, undecided."""
    verdicts = {
        ("a", None): (True, True), ("b", None): (False, True), ("c", None): (True, False), ("d", None): (False, False),
        ("e", None): (None, True), ("f1", "f"): (False, False), ("f2", "f"): (False, True),
    }  # fmt: skip
    for version, place in (("1.0.0", 0), ("2.0.0", 1)):
        with Archive(tmp_path, {"lung": Versions("lung", version, "1.2.0")}) as archive:
            for (name, visit), recalled in verdicts.items():
                found = [
                    row(name, version, "pneumonia", recalled[place], visit=visit, probability=0.1 + place),
                    row(name, version, "abnormal", None, visit=visit, point=None),
                ]
                partition = NEW_YEAR if name < "d" else NEXT_DAY
                archive.take(Scored(CASE, name, partition, tuple({**each, **partition._asdict()} for each in found)))
            if place:
                alone = {**row("g", version, "pneumonia", True), **NEXT_DAY._asdict()}
                archive.take(Scored(CASE, "g", NEXT_DAY, (alone,)))
            archive.close_up()
    return tmp_path


def test_visits_are_counted_by_what_both_versions_say(out):
    found = look_back(out, "lung", "1.0.0", "2.0.0")
    by_finding = {each["finding"]: each for each in lines(found.over_all_days())}
    assert set(by_finding) == {"pneumonia", "any"}, "a finding for information recalls nobody"
    for each in by_finding.values():
        assert (each["visits"], each["old_recalls"], each["new_recalls"]) == (5, 2, 3)
        assert (each["new_only"], each["old_only"], each["undecided"], each["by_one_version"]) == (2, 1, 1, 1)
    assert {(each.visit, each.recalled_by) for each in found.turned if each.finding == "any"} == {
        ("b", "new"), ("c", "old"), ("f", "new"),
    }  # fmt: skip
    (turned,) = (each for each in found.turned if each.visit == "b" and each.finding == "pneumonia")
    assert (turned.day, turned.site, turned.person, turned.old, turned.new) == (
        "2026-01-01", "north", "person-b", 0.1, 1.1,
    )  # fmt: skip


def test_days_are_chosen_and_a_version_that_decided_nothing_is_said(out):
    found = look_back(out, "lung", "1.0.0", "2.0.0", until="2026-01-01")
    assert {day for day, _, _ in found.counts} == {"2026-01-01"}
    for arguments in (("lung", "1.0.0", "9.9.9"), ("lung", "1.0.0", "2.0.0", "2027-01-01")):
        with pytest.raises(BadArchive, match="decided nothing"):
            look_back(out, *arguments)


def test_shares_have_wilsons_interval():
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.95996, p = 2/5, n = 5
    assert share(2, 5) == "40.0 (11.8 to 76.9)"
    assert share(0, 0) == ""


def test_a_reassuring_finding_recalls_where_it_is_not_positive():
    assert is_recalled(FoundFinding(name="pneumonia", positive=True)) is True
    assert is_recalled(FoundFinding(name="normal_ecg", positive=True)) is False
    assert is_recalled(FoundFinding(name="normal_ecg", positive=False)) is True
    assert is_recalled(FoundFinding(name="normal_ecg")) is None


def test_the_command_prints_the_table_and_writes_both_files(out, tmp_path, capsys):
    arguments = [str(out), "--bundle", "lung", "--old", "1.0.0", "--new", "2.0.0"]
    counts, visits = tmp_path / "counts.csv", tmp_path / "visits.csv"
    assert recall.main([*arguments, "--csv", str(counts), "--visits", str(visits)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split()[:4] == ["site", "finding", "visits", "old_recalls"]
    assert any(line.split()[:3] == ["north", "pneumonia", "5"] for line in printed)
    with counts.open(newline="") as opened:
        by_day = {(row["day"], row["finding"]): row for row in csv.DictReader(opened)}
    assert by_day["2026-01-01", "pneumonia"]["visits"] == "3"
    assert by_day["2026-01-02", "pneumonia"]["new_only_percent"] == share(1, 2)
    with visits.open(newline="") as opened:
        assert len(list(csv.DictReader(opened))) == 6
    assert recall.main([*arguments[:-1], "3.0.0"]) == 2
    assert "decided nothing" in capsys.readouterr().err
