"""Tables and files of a cohort: canonical columns, parts by person, the inputs that serving would make."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_specs.bundle import CxrInput
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import conform as conform_recording
from training.cohorts import cache as cohort_cache
from training.cohorts import files as cohort_files
from training.cohorts.checks import check_cohort
from training.cohorts.inputs import Inputs, load_inputs
from training.cohorts.table import CohortTable, TableUnusable, load_table
from training.cohorts.verdicts import unusable
from training.figures.prospects import main

COLUMNS = {"person": "patient", "file": "image", "age_years": "age", "sex": "sex"}


def write(folder: Path, table: str | bytes | pd.DataFrame, name: str = "t.csv", **manifest: Any) -> Path:
    if isinstance(table, pd.DataFrame):
        table.to_parquet(folder / name)
    else:
        (folder / name).write_bytes(table.encode() if isinstance(table, str) else table)
    document = {
        "name": "c",
        "modality": "cxr",
        "table": name,
        "columns": COLUMNS,
        "labels": {"pneumonia": "y"},
        "source": {"citation": "c", "licence": "l"},
        **manifest,
    }
    (folder / "cohort.yaml").write_text(yaml.safe_dump(document))
    return folder / "cohort.yaml"


def loaded(folder: Path, table: str | bytes | pd.DataFrame, name: str = "t.csv", **manifest: Any) -> CohortTable:
    return load_table(write(folder, table, name, **manifest))


def test_a_csv_becomes_canonical(tmp_path: Path) -> None:
    text = (
        "\ufeffpatient,image,age,sex,y,more\n007,a.png, 41 ,F,1,x\n\n 8 ,b.png,NA,male,,x\n9,c.png,60,?,0.5,x\n,,,,,\n"
    )
    table = loaded(tmp_path, text)
    assert table.frame.row.tolist() == [2, 4, 5]  # as a spreadsheet counts, the empty line too
    assert table.frame.person.tolist() == ["007", "8", "9"]
    assert table.frame.age_years.tolist()[::2] == [41, 60]
    assert np.isnan(table.frame.age_years[1])
    assert table.frame.sex.tolist() == ["female", "male", None]
    assert table.labels.pneumonia.tolist()[::2] == [1, 0.5]
    assert np.isnan(table.labels.pneumonia[1])
    assert table.unnamed == ("more",)
    assert table.person.tolist() == ["c:007", "c:8", "c:9"]


def test_parquet_and_semicolons_say_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"patient": [7.0, 8.0], "image": ["a", "b"], "age": [40, 50], "sex": ["F", None], "y": [1, np.nan]}
    )
    from_parquet = loaded(tmp_path, frame, "t.parquet")
    from_csv = loaded(tmp_path, "patient;image;age;sex;y\n7;a;40;F;1\n8;b;50;;\n", separator=";")
    pd.testing.assert_frame_equal(from_parquet.frame, from_csv.frame)
    pd.testing.assert_frame_equal(from_parquet.labels, from_csv.labels)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("patient;image;age;sex;y\n1;a;1;F;1\n", "no column 'patient'"),
        ("patient,image,age,sex,y,y\n1,a,1,F,1,1\n", "more than one column is called y"),
        ("patient,image,age,sex,y\n", "no rows"),
        ("", "cannot be read"),
        ("patient,image,age,sex,y\n1,a,1,F,1,too,many\n", "cannot be read"),
        ("patient,image,age,sex,y\nNguyễn,a,1,F,1\n".encode("utf-16"), "not UTF-8"),
        ("patient,image,age,sex,y\nNguy\u00ean,a,1,F,1\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path: Path, table: str | bytes, said: str) -> None:
    with pytest.raises(TableUnusable, match=said):
        loaded(tmp_path, table)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, "x")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(TableUnusable, match="no such file"):
        load_table(path)
    write(tmp_path, b"no parquet", "t.parquet")
    with pytest.raises(TableUnusable, match="cannot be read"):
        load_table(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200))
def test_no_other_exception_leaves_for_any_table(tmp_path: Path, content: bytes) -> None:
    with contextlib.suppress(TableUnusable):
        loaded(tmp_path, b"patient,image,age,sex,y\n" + content)
    with pytest.raises(TableUnusable):
        loaded(tmp_path, content)


def rows(n: int, split: str = "") -> str:
    header = "patient,image,age,sex,y" + (",part" if split else "")
    lines = [
        f"p{i // 2},{i}.png,50,F,{i % 2}" + (f",{split.split()[i % len(split.split())]}" if split else "")
        for i in range(n)
    ]
    return "\n".join([header, *lines])


def test_parts_by_hash_keep_persons_together_and_stay_when_rows_go(tmp_path: Path) -> None:
    table = loaded(tmp_path, rows(600))
    assert table.frame.groupby("person").part.nunique().max() == 1
    shares = table.frame.part.value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.6, abs=0.08)
    fewer = loaded(tmp_path, rows(100))
    assert fewer.frame.part.tolist() == table.frame.part.tolist()[:100]


def test_parts_by_the_table(tmp_path: Path) -> None:
    columns = COLUMNS | {"split": "part"}
    said = loaded(
        tmp_path,
        rows(6, "train train fold9 fold9 test test"),
        columns=columns,
        values={"split": {"fold9": "validation"}},
    )
    assert said.frame.part.tolist() == ["train", "train", "validation", "validation", "test", "test"]
    # A published test part without a validation part: some training persons validate, the test part stays whole.
    carved = loaded(tmp_path, rows(400, "train train train train test test"), columns=columns)
    assert set(carved.frame.part) == {"train", "validation", "test"}
    assert carved.frame.groupby("person").part.nunique().max() == 1
    raw = carved.raw["split"].to_numpy()
    assert ((carved.frame.part == "test") == (raw == "test")).all()


def test_films_are_what_serving_would_see(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    (tmp_path / "sub").mkdir()
    Image.fromarray(rng.integers(0, 255, (300, 260), dtype=np.uint8)).save(tmp_path / "sub" / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    names = ("sub/a.png", "sub\\a.png", "b.png", "none.png", "../t.csv", "/etc/hostname", "sub", "a\x00b", "x" * 5000)
    lines = "\n".join(f"{i},{name},50,F,1" for i, name in enumerate(names))
    inputs = load_inputs(loaded(tmp_path, f"patient,image,age,sex,y\n{lines}\n"), progress=False)
    expected = conform(read_image((tmp_path / "sub/a.png").read_bytes()).pixels, 224)
    assert (inputs.x[0] == expected).all()
    assert (inputs.x[1] == expected).all()
    assert inputs.digests[0] == inputs.digests[1] != ""
    assert inputs.readable.tolist() == [True, True] + [False] * 7
    assert inputs.problems[2][0].code in {"unreadable", "truncated"}
    assert {p[0].code for p in inputs.problems[3:]} == {"file_missing"}
    smaller = load_inputs(load_table(tmp_path / "cohort.yaml"), progress=False, spec=CxrInput(size_px=64))
    assert smaller.x.shape == (9, 1, 64, 64)


def test_recordings_are_what_serving_would_see(tmp_path: Path, shared_data: Path) -> None:
    raw = shared_data / "ecg" / "raw"
    labels = pd.read_csv(raw / "labels.csv", dtype=str).head(5)
    for record in labels.record:
        for suffix in (".hea", ".mat"):
            shutil.copy(raw / f"{record}{suffix}", tmp_path)
    (tmp_path / f"{labels.record[4]}.mat").unlink()
    names = [f"{labels.record[0]}.hea", *labels.record[1:]]  # with and without the ending, as WFDB names records
    text = "patient,image,age,sex,y\n" + "\n".join(f"{i},{name},60,F,1" for i, name in enumerate(names))
    inputs = load_inputs(loaded(tmp_path, text, modality="ecg", labels={"atrial_fibrillation": "y"}), progress=False)
    assert inputs.x.shape == (5, 12, 1000)
    assert inputs.readable.tolist() == [True] * 4 + [False]
    files = [
        PostedFile(i, p.name, p.read_bytes()) for i, p in enumerate(sorted(tmp_path.glob(f"{labels.record[1]}.*")))
    ]
    recording = read_recording(group_recordings(files)[0], ecg_unit=None)
    assert (inputs.x[1] == conform_recording(recording, fs_hz=100, n_samples=1000, max_windows=1)[0]).all()
    assert len(set(inputs.digests[:4])) == 4


# ---------------------------------------------------------------- the cache


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Names of the files that were decoded, in no order."""
    names: list[str | None] = []
    read_case = cohort_files.read_case

    def counted(name: str | None, *more: Any) -> Any:
        names.append(name)
        return read_case(name, *more)

    monkeypatch.setattr(cohort_files, "read_case", counted)
    return names


def pictures(folder: Path, n: int = 4) -> Path:
    """Four films, a file that is none, and a row whose file is not there."""
    rng = np.random.default_rng(4)
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (260 + i, 270), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    lines = "\n".join(f"p{i},{i}.png,50,F,{i % 2}" for i in range(n + 2))  # and one that is not there
    return write(folder, f"patient,image,age,sex,y\n{lines}\n")


def read(path: Path, cache: Path | None, **more: Any) -> Inputs:
    return load_inputs(load_table(path), progress=False, cache=cache, **more)


def same(one: Inputs, other: Inputs) -> bool:
    return bool((one.x == other.x).all()) and one.x.dtype == other.x.dtype and one[2:] == other[2:]


def test_the_second_run_decodes_only_what_was_refused(tmp_path: Path, reads: list[str | None]) -> None:
    path, cache = pictures(tmp_path), tmp_path / "kept" / "here"
    plain = read(path, None)
    assert not cache.exists()
    assert plain.readable.tolist() == [True] * 4 + [False] * 2
    reads.clear()
    assert same(read(path, cache), plain)
    assert sorted(map(str, reads)) == [f"{i}.png" for i in range(6)]
    assert len(list(cache.iterdir())) == 4
    reads.clear()
    again = read(path, cache)
    assert same(again, plain)
    assert (again.readable == plain.readable).all()
    assert sorted(map(str, reads)) == ["4.png", "5.png"]


def test_what_has_changed_is_read_again(
    tmp_path: Path, reads: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = pictures(tmp_path), tmp_path / "kept"
    before = read(path, cache)
    times = (tmp_path / "1.png").stat()
    (tmp_path / "1.png").write_bytes((tmp_path / "2.png").read_bytes())  # another size
    os.utime(tmp_path / "1.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(tmp_path / "3.png")  # the same bytes at another time
    shutil.copy(tmp_path / "0.png", tmp_path / "5.png")  # was missing
    reads.clear()
    after = read(path, cache)
    assert sorted(map(str, reads)) == ["1.png", "3.png", "4.png", "5.png"]
    assert (after.x[1] == before.x[2]).all()
    assert (after.x[5] == before.x[0]).all()
    assert after.readable[5]
    reads.clear()
    assert read(path, cache, spec=CxrInput(size_px=64)).x.shape == (6, 1, 64, 64)
    assert len(reads) == 6
    reads.clear()
    monkeypatch.setattr(cohort_cache, "readers_version", lambda modality: "a later release")
    assert same(read(path, cache), after)
    assert len(reads) == 6


class Intruder:
    """Would write a file where it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.where,)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_a_cache_from_elsewhere_runs_no_code(tmp_path: Path, plain_pickle: bool) -> None:
    path, cache, mark = pictures(tmp_path), tmp_path / "kept", tmp_path / "ran"
    expected = read(path, cache)
    for entry in cache.iterdir():
        if plain_pickle:
            entry.write_bytes(pickle.dumps({"file": Intruder(mark)}, protocol=2))
        else:
            torch.save({"file": Intruder(mark)}, entry)
    pickle.loads(pickle.dumps(Intruder(mark)))
    assert mark.exists()  # it would
    mark.unlink()
    assert same(read(path, cache), expected)
    assert not mark.exists()


def test_torn_and_damaged_entries_are_made_again(tmp_path: Path, reads: list[str | None]) -> None:
    path, cache = pictures(tmp_path), tmp_path / "kept"
    expected = read(path, cache)
    sound = sorted(cache.iterdir())
    kept = sound[0].read_bytes()
    damaged = bytearray(kept)
    damaged[len(kept) // 2] ^= 4  # among the pixels: torch reads it without complaint
    torn = [kept[:n] for n in (0, 1, 100, 5000, len(kept) // 2, len(kept) - 1)]
    zeroed = kept[:8192] + bytes(4096) + kept[12288:]
    small = tmp_path / "small.pt"
    torch.save({"file": {"x": torch.zeros(1, 2, 2), "problems": [], "digest": "", "seal": ""}}, small)
    for content in (*torn, bytes(damaged), zeroed, small.read_bytes(), b"garbage " * 1000):
        sound[0].write_bytes(content)
        reads.clear()
        assert same(read(path, cache), expected)
        assert len(reads) == 3  # the damaged one, and the two that are refused
        reads.clear()
        assert same(read(path, cache), expected)
        assert len(reads) == 2  # it was mended


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = pictures(tmp_path), tmp_path / "kept"
    expected = read(path, None)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="not everything could be stored"):
        assert same(read(path, cache), expected)
    assert not list(cache.iterdir())


def test_a_fault_of_a_reader_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pictures(tmp_path)

    def faulty(*_: Any) -> None:
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr(cohort_files, "read_case", faulty)
    with pytest.warns(UserWarning, match="not everything could be stored"), pytest.raises(ZeroDivisionError):
        read(path, tmp_path / "kept")


def test_every_file_of_a_recording_counts(tmp_path: Path, shared_data: Path, reads: list[str | None]) -> None:
    raw = shared_data / "ecg" / "raw"
    labels = pd.read_csv(raw / "labels.csv", dtype=str).head(3)
    for record in labels.record:
        for suffix in (".hea", ".mat"):
            shutil.copyfile(raw / f"{record}{suffix}", tmp_path / f"{record}{suffix}")
    text = "patient,image,age,sex,y\n" + "\n".join(f"{i},{name},60,F,1" for i, name in enumerate(labels.record))
    path = write(tmp_path, text, modality="ecg", labels={"atrial_fibrillation": "y"})
    plain, first = read(path, None), read(path, tmp_path / "kept")
    assert same(plain, first)
    reads.clear()
    assert same(read(path, tmp_path / "kept"), plain)
    assert reads == []
    signal = tmp_path / f"{labels.record[1]}.mat"
    signal.write_bytes((tmp_path / f"{labels.record[2]}.mat").read_bytes())
    assert not np.array_equal(read(path, tmp_path / "kept").x[1], plain.x[1])
    assert reads == [labels.record[1]]
    reads.clear()
    write(tmp_path, text, modality="ecg", labels={"atrial_fibrillation": "y"}, ecg_unit="mV")
    read(path, tmp_path / "kept")  # another unit is another input, whatever the files say of theirs
    assert len(reads) == 3


def test_laboratory_values_come_in_canonical_units(tmp_path: Path) -> None:
    text = "id,age,sex,crea,dm,event\n" + "\n".join(
        f"{i},{40 + i % 40},{'FM'[i // 2 % 2]},{0.8 + i / 100:.2f},{i // 3 % 2},{i % 2}" for i in range(60)
    ).replace("1.00,", "900,")
    manifest: dict[str, Any] = {
        "modality": "labs",
        "columns": {"person": "id", "age_years": "age", "sex": "sex"},
        "labels": {"incident_ckd": "event"},
        "features": {"creatinine": {"column": "crea", "unit": "mg/dL"}, "diabetes": {"column": "dm", "unit": "1"}},
    }
    table = loaded(tmp_path, text, **manifest)
    inputs = load_inputs(table)
    assert list(table.features.columns) == ["age_years", "female", "creatinine_umol_per_l", "diabetes"]
    assert inputs.x[0].tolist() == pytest.approx([40, 1, 0.8 * 88.4, 0], rel=1e-6)
    assert np.isnan(inputs.x[20, 2])
    assert [p.code for p in inputs.problems[20]] == ["value_implausible"]
    checks = check_cohort(table, inputs)
    values = next(check for check in checks if check.name == "laboratory values")
    assert values.rows == (22,)
    assert values.names == ("20",)
    assert unusable(checks)
    assert main(["--cohort", str(write(tmp_path, text.replace("900,", "1.00,"), **manifest)), "--quiet"]) == 0
