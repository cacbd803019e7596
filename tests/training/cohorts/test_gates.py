"""What serving refuses is not trained on: the same functions, by reason, cached, and never a fault of the cohort."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import wfdb
from PIL import Image

from data_specs.bundle import CxrInput, EcgInput
from data_specs.ecg.recording import LEADS
from tests.conftest import ROOT
from tests.training.cohorts.test_checks import made, write
from tests.training.conftest import REAL
from training.cohorts.checks import check_cohort
from training.cohorts.files import Folders, read_case
from training.cohorts.gates import FilmGate, RecordingGate
from training.cohorts.inputs import load_inputs
from training.cohorts.local import CohortUnusable, local_cohort
from training.cohorts.table import load_table
from training.cohorts.verdicts import doubts, unusable

SAMPLES = ROOT / "samples"
FILM = CxrInput(size_px=224)


@pytest.fixture(scope="module")
def gate() -> FilmGate:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SANGLOC_BUNDLES")
        found = REAL("cxr")
    assert isinstance(found, FilmGate)
    return found


def test_a_film_on_its_side_is_set_upright_before_it_is_learnt_from(tmp_path: Path, gate: FilmGate) -> None:
    with Image.open(SAMPLES / "film-normal.jpg") as picture:
        grey = picture.convert("L")
        grey.save(tmp_path / "upright.png")
        grey.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png")
    folders = Folders(tmp_path)
    upright, _, _ = read_case("upright.png", folders, FILM, None, gate)
    side, problems, _ = read_case("side.png", folders, FILM, None, gate)
    as_it_lies, _, _ = read_case("side.png", folders, FILM)
    assert [problem.code for problem in problems] == ["turned"]
    assert upright is not None
    assert side is not None
    assert np.abs(side.astype(float) - upright).mean() < 2
    assert np.abs(np.asarray(as_it_lies, dtype=float) - upright).mean() > 20


def test_what_is_no_chest_is_left_out_by_its_reason_and_is_no_fault(
    tmp_path: Path, gate: FilmGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = made(tmp_path, 16)  # made-up pictures, all refused
    with Image.open(SAMPLES / "film-normal.jpg") as picture:
        for i in range(8, 16):
            picture.convert("L").crop((0, 0, picture.width - i, picture.height)).save(
                tmp_path / "films" / f"case{i:02}.png"
            )
    path = write(tmp_path, table)
    loaded = load_table(path)
    inputs = load_inputs(loaded, progress=False, cache=tmp_path / "kept", gate=gate)
    assert inputs.refused.tolist() == [True] * 8 + [False] * 8
    assert (inputs.readable == ~inputs.refused).all()
    found = [check for check in check_cohort(loaded, inputs) if check.name == "refused by the gate"]
    assert [check.verdict for check in found] == ["doubtful"]
    assert "not_a_chest_image: 8 of 16 are refused as in serving" in found[0].message
    assert found[0].rows[:2] == (2, 3)
    assert not [check for check in check_cohort(loaded, inputs) if check.name == "unreadable files"]
    # The second time nothing is read or judged, refusals included.
    monkeypatch.setattr(FilmGate, "film", None)
    again = load_inputs(loaded, progress=False, cache=tmp_path / "kept", gate=gate)
    assert (again.refused == inputs.refused).all()
    assert (again.x == inputs.x).all()
    # Without a gate, or with another, an entry is another entry.
    monkeypatch.undo()
    assert load_inputs(loaded, progress=False, cache=tmp_path / "kept").readable.all()


def test_training_takes_what_serving_takes(tmp_path: Path, real_gate: None) -> None:
    path = write(tmp_path, made(tmp_path, 16))
    with pytest.raises(CohortUnusable, match="class counts"):  # all are refused: nothing is left to count
        local_cohort(path, FILM, cache=None, progress=False)


def test_a_recording_without_a_heartbeat_is_refused_and_others_keep_every_window(tmp_path: Path) -> None:
    for suffix in ("hea", "mat"):
        shutil.copy(SAMPLES / f"E07517.{suffix}", tmp_path)
    spec = EcgInput(fs_hz=100, n_samples=400, leads=LEADS, max_windows=6)
    windows, _, digest = read_case("E07517", Folders(tmp_path), spec, None, RecordingGate())
    assert windows is not None
    assert len(windows) > 1
    assert digest
    noise = np.random.default_rng(1).normal(0, 0.3, (5000, 12))
    wfdb.wrsamp("noise", fs=500, units=["mV"] * 12, sig_name=list(LEADS), p_signal=noise, fmt=["16"] * 12,
                write_dir=str(tmp_path))  # fmt: skip
    refused, problems, digest = read_case("noise", Folders(tmp_path), spec, None, RecordingGate())
    assert refused is None
    assert digest
    assert any(problem.severity == "reject" for problem in problems)
    assert read_case("noise", Folders(tmp_path), spec)[0] is not None


def test_each_modality_has_its_gate() -> None:
    assert REAL("labs") is None
    assert isinstance(REAL("ecg"), RecordingGate)


def test_a_rare_label_does_not_stop_the_others(tmp_path: Path) -> None:
    table = made(tmp_path)
    table["Effusion"] = "0"
    table.loc[0, "Effusion"] = "1"
    path = write(tmp_path, table, labels={"pneumonia": "Pneumonia", "effusion": "Effusion"})
    loaded = load_table(path)
    checks = check_cohort(loaded, load_inputs(loaded, progress=False))
    assert not unusable(checks)
    (rare,) = (doubt for doubt in doubts(checks) if "effusion" in doubt)
    assert "too few to say; it will not be offered" in rare
    alone = write(tmp_path, table, labels={"effusion": "Effusion"})
    loaded = load_table(alone)
    assert unusable(check_cohort(loaded, load_inputs(loaded, progress=False)))
