"""The command on a real folder with the shipped bundles: every row once, whatever happened in the middle."""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections import Counter
from datetime import date

import pytest

from inference.archive.parts import parts_of
from tests.data_specs.hostile_made import films as hostile_films
from tests.data_specs.hostile_made import zipped
from tests.inference.archive.made import SAMPLES, failed, film, folder_of_films, key_file, rows, run, started
from tests.service.visits.test_hostile_files import flat_film, tiny_lzw_tiff

FILMS = 40
CASES = FILMS + 2


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return folder_of_films(tmp_path_factory.mktemp("films"), FILMS)


@pytest.fixture(scope="module")
def scored(films, tmp_path_factory):
    """The folder of a run that nobody stopped, and what it told."""
    folder = tmp_path_factory.mktemp("scored")
    told = run(films, "--out", folder / "out", "--site", "district", "--key", key_file(folder))
    return folder / "out", told


def test_each_film_and_recording_has_its_rows(scored):
    out, told = scored
    found = rows(out)
    assert f"{CASES} listed: {CASES} scored (0 refused)" in told
    assert len({row["input"] for row in found}) == CASES
    assert Counter(row["organ"] for row in {row["input"]: row for row in found}.values()) == {
        "lung": FILMS, "cardiac": 2,
    }  # fmt: skip
    assert {(row["bundle"], row["version"], row["gate"]) for row in found} == {
        ("lung", "1.4.0", "1.2.0"), ("cardiac", "1.2.2", None),
    }  # fmt: skip
    assert {row["site"] for row in found} == {"district"}
    assert {row["day"] for row in found if row["organ"] == "lung"} == {date(2026, 1, day) for day in (1, 2, 3)}
    (pneumonia,) = {row["operating_point"] for row in found if row["finding"] == "pneumonia"}
    assert pneumonia == "screening"
    assert all(row["recalled"] is row["positive"] for row in found if row["finding"] == "pneumonia")
    normal = [row for row in found if row["finding"] == "normal_ecg"]
    assert sorted((row["positive"], row["recalled"]) for row in normal) == [(False, True), (True, False)]
    rates = [row["value"] for row in found if row["finding"] == "heart_rate"]
    assert len(rates) == 2
    assert all(40 < rate < 200 for rate in rates)


def test_a_partition_is_one_part_and_nobody_is_named(scored):
    out, _ = scored
    parts = list(parts_of(out))
    assert len(parts) == len({part.parent for part in parts})
    texts = [(out / "failed.csv").read_bytes(), *(part.read_bytes() for part in parts)]
    assert not any(name in text for text in texts for name in (b"P-1", b"1.2.3.", b"Secret", b"film-0"))
    assert all(file.stat().st_mode & 0o077 == 0 for file in (*parts, out / "failed.csv"))
    persons = {row["person"] for row in rows(out) if row["organ"] == "lung"}
    assert len(persons) == FILMS


def test_killed_in_the_middle_it_ends_with_the_same_rows(films, scored, tmp_path):
    """SIGKILL again and again, as soon as some rows more are there; most kills fall between two parts."""
    arguments = (films, "--out", tmp_path / "out", "--site", "district", "--key", key_file(tmp_path), "--every", "0.1")
    kills, left = 0, []
    for _ in range(5):
        with started(*arguments) as process:
            until_more_than(cases(tmp_path / "out"), tmp_path / "out", process)
            if process.poll() is not None:
                break
            time.sleep(0.05 * kills)
            process.send_signal(signal.SIGKILL)
        kills += 1
        left.append(cases(tmp_path / "out"))
    assert kills >= 3, left
    run(*arguments)
    same(rows(tmp_path / "out"), rows(scored[0]))
    assert not list((tmp_path / "out" / "unfinished").iterdir())


def until_more_than(there, out, process):
    """Wait until more cases than these are there, or the process has ended. It stands still while they are counted."""
    found = there
    while found <= there and process.poll() is None:
        time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        found = cases(out)
        process.send_signal(signal.SIGCONT)


def cases(out):
    """Number of cases, also while a part is being removed."""
    try:
        return len({row["input"] for row in rows(out)}) if out.exists() else 0
    except FileNotFoundError:
        return 0


def same(found, expected):
    """The same rows. Probabilities may differ as much as a network's do between two batches."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert math.isclose(value, other[name], abs_tol=1e-5), name
            elif name != "seen":
                assert value == other[name], name


def test_stopped_in_order_it_has_written_what_it_scored(films, tmp_path):
    process = started(films, "--out", tmp_path / "out", "--every", "0.1")
    until_more_than(0, tmp_path / "out", process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert 0 < cases(tmp_path / "out") <= CASES
    assert f"{CASES} listed" in run(films, "--out", tmp_path / "out")
    assert cases(tmp_path / "out") == CASES


def test_run_again_nothing_is_scored_and_another_version_scores_again(scored, films, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(scored[0], out)
    key = key_file(tmp_path)
    again = run(films, "--out", out, "--site", "district", "--key", key)
    assert f"{CASES} listed: 0 scored (0 refused), {CASES} done before" in again
    same(rows(out), rows(scored[0]))
    told = run(films, "--out", out, "--site", "district", "--key", key, "--bundle", "lung=1.3.1")
    assert f"{FILMS} scored (0 refused), 2 done before" in told
    both = rows(out)
    assert Counter(row["version"] for row in {(r["input"], r["version"]): r for r in both}.values()) == {
        "1.4.0": FILMS, "1.3.1": FILMS, "1.2.2": 2,
    }  # fmt: skip
    assert f"{CASES} done before" in run(films, "--out", out, "--site", "district", "--key", key)
    assert rows(out) == both


def test_the_same_file_elsewhere_is_one_row_and_another_statement_another(tmp_path):
    (tmp_path / "films" / "copies").mkdir(parents=True)
    for name in ("a.dcm", "b.dcm", "copies/a.dcm"):
        (tmp_path / "films" / name).write_bytes(film(1))
    out = tmp_path / "out"
    assert "1 scored (0 refused), 0 done before, 2 twice" in run(tmp_path / "films", "--out", out)
    first = rows(out)
    (tmp_path / "films" / "a.dcm").rename(tmp_path / "films" / "moved.dcm")
    assert "0 scored" in run(tmp_path / "films", "--out", out)
    assert rows(out) == first
    table = tmp_path / "films.csv"
    table.write_text("person,file,age_years,made_on,site\nA-1,films/b.dcm,3,2025-12-31,north\n")
    assert "1 scored" in run(table, "--out", out)
    (added,) = {(row["day"], row["site"]) for row in rows(out) if row not in first}
    assert added == (date(2025, 12, 31), "north")


def test_damaged_and_strange_files_are_lines_of_their_own_and_the_others_are_scored(tmp_path):
    files = {
        "good.dcm": film(1),
        "cut.dcm": film(2)[:3000],
        "empty.dcm": b"",
        "note.txt": b"nothing that anybody could read as a recording",
        "phantom.dcm": film(3).replace(b"CHEST", b"HAND ", 1),
        "bomb.dcm": flat_film(),
        "lzw.tif": tiny_lzw_tiff(),
        "large.zip": zipped({"a.dat": bytes(50_000_000)}),
        **{f"hostile-{i}.bin": make() for i, make in enumerate(list(hostile_films().values())[:6])},
    }
    for name, content in files.items():
        (tmp_path / "films" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "films" / name).write_bytes(content)
    (tmp_path / "films" / ".hidden").write_bytes(b"not listed")
    out = tmp_path / "out"
    told = run(tmp_path / "films", "--out", out)
    assert f"{len(files)} listed: {len(files)} scored ({len(files) - 1} refused)" in told
    told_of = failed(out)
    assert set(told_of) == set(files) - {"good.dcm"}
    assert all(row["reason"] and row["again"] == "no" for row in told_of.values())
    assert told_of["cut.dcm"]["code"] == "truncated"
    assert told_of["bomb.dcm"]["code"] in ("too_large", "too_costly", "not_a_chest_image")
    refused = [row for row in rows(out) if row["refused"]]
    assert len(refused) == len(files) - 1
    assert all(row["status"] == "not_assessed" and row["finding"] is None for row in refused)
    first = (out / "failed.csv").read_text()
    assert "0 scored" in run(tmp_path / "films", "--out", out)
    assert (out / "failed.csv").read_text() == first, "also of what was refused in an earlier run"


def test_what_is_not_reached_is_said_and_tried_again(tmp_path):
    table = tmp_path / "films.csv"
    table.write_text("file;site\nlater.dcm;\nlarge.png;\n")
    (tmp_path / "large.png").write_bytes(bytes(2_000_000))
    out = tmp_path / "out"
    run(table, "--out", out, "--max-mb", "1", code=1)
    assert {name: (row["code"], row["again"]) for name, row in failed(out).items()} == {
        "later.dcm": ("file_missing", "yes"), "large.png": ("over_limit", "yes"),
    }  # fmt: skip
    (tmp_path / "later.dcm").write_bytes(film(1))
    run(table, "--out", out, "--max-mb", "1", "--language", "vi", code=1)
    assert set(failed(out)) == {"large.png"}
    assert "Tệp lớn hơn" in failed(out)["large.png"]["reason"]
    assert {row["site"] for row in rows(out)} == {None}


def test_a_table_states_what_the_file_does_not(tmp_path):
    shutil.copy(SAMPLES / "film-normal.jpg", tmp_path / "a.jpg")
    for name in ("E07517.hea", "E07517.mat"):
        shutil.copy(SAMPLES / name, tmp_path / name)
    table = tmp_path / "list.csv"
    table.write_text(
        "patient,image,age,sex,hospital,made_on\n"
        "H-17,a.jpg,3,F,Bệnh viện A/B,2025-06-30\n"
        "H-17,E07517.hea;E07517.mat,42,female,Bệnh viện A/B,2025-06-30\n"
    )
    columns = ("--columns", "person=patient", "file=image", "age_years=age", "site=hospital")
    out = tmp_path / "out"
    run(table, "--out", out, *columns, "--keep-identifiers")
    found = rows(out)
    assert {row["person"] for row in found} == {"H-17"}
    assert {row["file"] for row in found} == {"a.jpg", "E07517.hea"}
    assert {row["site"] for row in found} == {"Bệnh viện A/B"}
    assert "pneumonia" in {row["finding"] for row in found}, "offered for the age that the table states"
