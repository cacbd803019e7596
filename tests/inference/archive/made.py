"""Archives that tests make: drawn films and the sample recording, over days, sites and persons; runs of the command."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.drawn import chest
from inference.archive.parts import parts_of
from inference.archive.rows import SCHEMA
from tests.conftest import ROOT
from tests.data_specs.cxr_made import dicom

SAMPLES = ROOT / "samples"
KEY = "5a" * 32
DRAWN = chest(384, levels=4096, noise=8)
CHILD, ADULT = "003Y", "042Y"


def film(number: int, **tags: object) -> bytes:
    """A drawn film of a child: findings of children decide. Each number has pixels, a study and a person of its own."""
    stated = {
        "SOPInstanceUID": f"1.2.3.{number}.3",
        "SeriesInstanceUID": f"1.2.3.{number}.2",
        "StudyInstanceUID": f"1.2.3.{number}.1",
        "PatientID": f"P-{number}",
        "PatientAge": CHILD,
        "StudyDate": f"2026010{1 + number % 3}",
    }
    return dicom((DRAWN // (1 + number % 7 / 10)).astype("uint16"), **{**stated, **tags})


def folder_of_films(folder: Path, n: int) -> Path:
    """``n`` films in subfolders, the sample recording and a recording as DICOM."""
    for number in range(n):
        place = folder / f"ward-{number % 2}" / f"film-{number:03}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(film(number))
    for name in ("E07517.hea", "E07517.mat", "recording.dcm"):
        shutil.copy(SAMPLES / name, folder / name)
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "inference.archive", *map(str, arguments), "--session", "onnxruntime:fp32"]


def started(*arguments: object, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen(command(*arguments), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def run(*arguments: object, code: int = 0, **more: str) -> str:
    """Run the command to its end; what it told."""
    process = started(*arguments, **more)
    _, told = process.communicate(timeout=300)
    assert process.returncode == code, told
    return told


def key_file(folder: Path) -> Path:
    file = folder / "the.key"
    file.write_text(KEY)
    return file


def rows(out: Path) -> list[dict[str, object]]:
    """All rows, in an order that does not depend on the parts."""
    found = []
    for part in parts_of(out):
        found += pq.ParquetFile(part).read(columns=SCHEMA.names).to_pylist()
    return sorted(found, key=lambda row: (row["input"], row["version"], row["organ"], row["finding"] or ""))


def failed(out: Path) -> dict[str, dict[str, str]]:
    """Lines of ``failed.csv`` by file."""
    with (out / "failed.csv").open(encoding="utf-8", newline="") as opened:
        return {row["file"]: row for row in csv.DictReader(opened)}
