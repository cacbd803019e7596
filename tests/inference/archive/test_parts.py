"""The folder of parts: whole or not there, merged without a row lost or doubled, wherever a run is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date

import pytest

from data_specs.problems import Problem
from inference.archive import parts
from inference.archive.cases import Case, SourceFile
from inference.archive.parts import Archive, BadArchive, parts_of
from inference.archive.rows import SCHEMA, Partition, Versions
from inference.archive.scoring import Scored
from tests.conftest import ROOT
from tests.inference.archive.made import rows

NOW = {"lung": Versions("lung", "1.4.0", "1.2.0"), "cardiac": Versions("cardiac", "1.2.2", None)}
FRIDAY = Partition(date(2026, 1, 2), "north")
CASE = Case((SourceFile("a.dcm", "a.dcm"),))


def scored(name, partition=FRIDAY, *, organ="lung", version="1.4.0", gate="1.2.0", findings=("a", "b"), problems=()):
    row = {
        **dict.fromkeys(SCHEMA.names), **partition._asdict(),
        "input": name, "seen": f"seen-{name}", "organ": organ, "version": version,
        "gate": gate, "refused": bool(problems), "problems": [{"file": 0, **vars_of(each)} for each in problems],
    }  # fmt: skip
    return Scored(CASE, name, partition, tuple({**row, "finding": finding} for finding in findings))


def vars_of(problem):
    return {name: getattr(problem, name) for name in ("code", "severity", "found", "expected")}


def names(out):
    return sorted((row["input"], row["finding"]) for row in rows(out))


def test_each_case_is_written_once_and_known_afterwards(tmp_path):
    with Archive(tmp_path, NOW) as archive:
        assert archive.take(scored("x"))
        assert not archive.take(scored("x")), "the same content at another place"
        archive.take(scored("y", Partition(None, None), organ="cardiac", version="1.2.2", gate=None))
        archive.write()
    with Archive(tmp_path, NOW) as again:
        assert again.done == {"x", "y"}
        assert again.seen == {"seen-x": "x", "seen-y": "y"}
    assert names(tmp_path) == [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")]
    assert [part.parent for part in parts_of(tmp_path)] == [
        tmp_path / "rows" / "2026-01-02" / "north",
        tmp_path / "rows" / "no-day" / "no-site",
    ]


def test_another_version_of_bundle_or_gate_is_not_done(tmp_path):
    with Archive(tmp_path, NOW) as archive:
        archive.take(scored("old", version="1.3.1"))
        archive.take(scored("older gate", gate="1.1.0"))
        archive.take(scored("now"))
        archive.write()
    with Archive(tmp_path, NOW) as archive:
        assert archive.done == {"now"}
        archive.take(scored("old"))
        archive.write()
    with Archive(tmp_path, NOW) as archive:
        assert archive.done == {"now", "old"}


def test_a_visit_of_two_organs_is_done_when_both_are(tmp_path):
    lung, heart = scored("x"), scored("x", organ="cardiac", version="1.0.0", gate=None)
    with Archive(tmp_path, NOW) as archive:
        archive.take(Scored(CASE, "x", FRIDAY, lung.rows + heart.rows))
        archive.write()
    with Archive(tmp_path, NOW) as archive:
        assert archive.done == set()


def test_why_a_file_was_refused_is_known_in_the_next_run(tmp_path):
    problem = Problem("truncated", "reject", "3 B", "9 B")
    with Archive(tmp_path, NOW) as archive:
        archive.take(scored("x", findings=(None,), problems=(problem, Problem("turned", "warn"))))
        archive.write()
    with Archive(tmp_path, NOW) as archive:
        assert archive.refused == {"x": [(0, problem)]}


def test_small_parts_are_merged_and_nothing_is_lost(tmp_path):
    with Archive(tmp_path, NOW) as archive:
        for number in range(parts.MERGED_AT + 3):
            archive.take(scored(f"{number:02}"))
            archive.write()
        assert len(list(parts_of(tmp_path))) < parts.MERGED_AT
        archive.close_up()
    assert len(list(parts_of(tmp_path))) == 1
    assert len(names(tmp_path)) == len(set(names(tmp_path))) == 2 * (parts.MERGED_AT + 3)


CALLS = 40
PROGRAM = """
import os, sys
from pathlib import Path
from tests.inference.archive.test_parts import Archive, CALLS, NOW, scored

def or_die(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os._exit(9)
        return function(*args, **kwargs)
    return call

os.fsync = or_die(os.fsync)
Path.replace, Path.unlink = or_die(Path.replace), or_die(Path.unlink)
for left in range(1, CALLS + 1):
    if os.fork():
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        continue
    with Archive(Path(sys.argv[1], str(left)), NOW) as archive:
        for name in "abc":
            archive.take(scored(name))
            archive.write()
        archive.close_up()
    os._exit(0)
"""


def test_killed_at_any_call_of_the_disk_the_next_run_has_each_row_once(tmp_path):
    """A process ends at each rename, removal and sync: in between, a merged part lies beside the small ones."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path], cwd=ROOT, check=True, capture_output=True, text=True
    )
    ended = done.stdout.split()
    assert len(ended) == CALLS
    assert ended.count("9") > 20
    assert ended[-1] == "0", "the last number is beyond the last call"
    for folder in sorted(tmp_path.iterdir()):
        with Archive(folder, NOW) as archive:
            for name in "abc":
                archive.take(scored(name))
            archive.close_up()
        assert names(folder) == [(name, finding) for name in "abc" for finding in "ab"]
        assert len(list(parts_of(folder))) == 1


def test_two_runs_do_not_write_one_archive(tmp_path):
    with Archive(tmp_path, NOW), pytest.raises(BadArchive, match="another run"):
        Archive(tmp_path, NOW)
    Archive(tmp_path, NOW).__exit__()


def test_a_part_that_cannot_be_read_is_named(tmp_path):
    with Archive(tmp_path, NOW) as archive:
        archive.take(scored("x"))
        archive.write()
    (part,) = parts_of(tmp_path)
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(BadArchive, match=part.name):
        Archive(tmp_path, NOW)


def test_the_key_is_made_once_and_no_other_is_taken(tmp_path):
    with Archive(tmp_path / "a", NOW) as archive:
        key = archive.key
    assert (tmp_path / "a" / "key").stat().st_mode & 0o077 == 0
    with Archive(tmp_path / "a", NOW) as archive:
        assert archive.key == key
    with Archive(tmp_path / "b", NOW, tmp_path / "a" / "key") as archive:
        assert archive.key == key
    other = tmp_path / "other"
    other.write_text("0f" * 32)
    for file, why in ((other, "not the key"), (tmp_path / "lost", "not there")):
        with pytest.raises(BadArchive, match=why):
            Archive(tmp_path / "a", NOW, file)
    (tmp_path / "short").write_text("0f")
    with pytest.raises(BadArchive, match="no key"):
        Archive(tmp_path / "c", NOW, tmp_path / "short")


def test_pandas_sees_day_and_site_and_what_is_not_stated(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: it does not read an archive in this run")
    hospital = "Bệnh viện A/B = 1"
    with Archive(tmp_path, NOW) as archive:
        archive.take(scored("x", Partition(date(2026, 1, 2), hospital)))
        archive.take(scored("y", Partition(None, None)))
        archive.write()
    read = pandas.read_parquet(tmp_path / "rows").drop_duplicates("input").set_index("input")
    assert (read.day["x"], read.site["x"]) == (date(2026, 1, 2), hospital)
    assert read.loc["y", ["day", "site"]].isna().all()
    assert os.listdir(tmp_path / "unfinished") == []
