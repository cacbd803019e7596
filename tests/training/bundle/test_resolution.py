"""A bundle that allows larger films to be read at a lower resolution says in its card what that changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_specs.bundle import CxrInput, TrainingData
from data_specs.cxr.files import read_image
from inference.bundles.loading import load_bundle
from tests.conftest import ROOT
from training.bundle import resolution
from training.bundle.resolution import EXPLICIT, FULL, J2K, add_resolution, allowing, dicom, enlarged, main
from training.cohorts.cohort import Cohort

BUNDLES = ROOT / "models" / "bundles"


@pytest.fixture
def films(tmp_path: Path) -> Cohort:
    """The two sample films, moved a little, as children's films with both answers."""
    paths = []
    for i in range(6):
        film = Image.open(ROOT / "samples" / f"film-{('normal', 'abnormal')[i % 2]}.jpg").convert("L")
        paths.append(tmp_path / f"{i}.png")
        film.crop((i, i, film.width - i, film.height - i)).save(paths[-1])
    return Cohort(
        name="kermany",
        x=np.array([str(path) for path in paths]),
        labels=pd.DataFrame({"pneumonia": [float(i % 2) for i in range(6)]}),
        person=np.array([f"P-{i}" for i in range(6)]),
        part=np.array(["validation"] * 6),
        subgroups=pd.DataFrame(index=range(6)),
        source=TrainingData(name="samples", citation="", licence="", n_persons=6, n_items=6),
        title="Samples",
        age_years=(1.0, 6.0),
    )


def test_the_network_has_the_same_weights_and_a_table(
    films: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolution, "SIDE_PX", 900)
    monkeypatch.setenv("SANGLOC_BUNDLES", str(BUNDLES))
    parent = load_bundle(BUNDLES / "lung-1.3.1")
    folder = add_resolution(parent, 224, [films], out=tmp_path, version="9.0.0")
    made = load_bundle(folder).manifest
    assert made.input == parent.input_as(CxrInput).model_copy(update={"least_px": 224})
    assert (made.weights, made.findings, made.agreement) == (
        parent.manifest.weights,
        parent.manifest.findings,
        parent.manifest.agreement,
    )
    assert made.from_bundle[-1].version == "1.3.1"
    table = made.measured[-1]
    assert table.title == "Larger films at a lower resolution"
    assert [row[:3] for row in table.rows] == [("pneumonia", way, "6 (3)") for way in (FULL, *resolution.OTHER_WAYS)]
    moved = [float(row[7]) for row in table.rows[1:]]
    assert 0 < max(moved) < 0.2, "the films were read in one way, or are not the same films"
    assert "at least 448 px may be read" in (folder / "docs" / "README.md").read_text("utf-8")
    with pytest.raises(FileExistsError):
        add_resolution(parent, 224, [films], out=tmp_path, version="9.0.0")


def test_the_gate_says_whether_it_says_the_same(films: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "SIDE_PX", 900)
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(films.x[0])  # no film: refused in every way
    folder = add_resolution(load_bundle(BUNDLES / "cxr_gate-1.1.0"), 224, [films], out=tmp_path, version="9.0.0")
    assert [row[1:] for row in load_bundle(folder).manifest.measured[-1].rows] == [
        (way, "6", "1", "6") for way in (FULL, *resolution.OTHER_WAYS)
    ]


def test_the_films_that_are_read_are_those_that_were_made() -> None:
    small = np.asarray(Image.open(ROOT / "samples" / "film-normal.jpg").convert("L"))
    values = enlarged(small, np.random.default_rng(1))
    assert min(values.shape) == resolution.SIDE_PX
    plain, packed = (read_image(dicom(values, syntax)).pixels for syntax in (EXPLICIT, J2K))
    np.testing.assert_array_equal(plain, packed)
    back = np.asarray(Image.fromarray(plain).resize(small.shape[::-1], Image.Resampling.BOX)).astype(float)
    assert np.abs(back - small).mean() < 2


def test_a_bundle_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--least-px", "448", "--version", "9.0.0", "--out", str(tmp_path)]
    assert main(["--bundle", str(BUNDLES / "cardiac-1.2.2"), *wanted]) == 2
    assert "cannot measure" in capsys.readouterr().err
    assert main(["--bundle", str(tmp_path / "missing"), *wanted]) == 2
    assert allowing(load_bundle(BUNDLES / "lung-1.3.1"), 300).input_as(CxrInput).least_px == 300
