"""From a manifest to a bundle by the command itself, in this process, killed half-way, and in two processes at once.

Films are 64 px and the network has three stages, so that all of it takes seconds; nothing else differs from a training.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from data_specs.bundle import CxrInput, TrainingData
from inference.bundles.loading import load_bundle
from models.networks import FilmNet
from tests.conftest import ROOT
from tests.training.cohorts.test_checks import COLUMNS, film, planted, write
from tests.training.learning.children import ends
from tests.training.learning.ddp_curve import curve
from training.__main__ import main
from training.cohorts import gates
from training.cohorts.cohort import Cohort, keep_share_of_persons
from training.learning import augment, workflow
from training.organs import lung

SIDE = 64
STAGES = ("r1_k3_s22_e1_i32_o16", "r1_k5_s22_e6_i16_o24", "r1_k3_s11_e6_i24_o32")
EPOCHS = 5
HOW = ["--threads", "1", "--precision", "fp32", "--device", "cpu", "--batch-size", "16", "--learning-rate", "5e-3"]
CUDA_OFF = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def small() -> None:
    """The film network and its input, smaller; in a process of its own."""
    lung.INPUT = CxrInput(size_px=SIDE)
    FilmNet.BLOCKS = STAGES
    gates.serving_gate = lambda modality: None


@pytest.fixture(scope="module", autouse=True)
def smaller() -> Any:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lung, "INPUT", CxrInput(size_px=SIDE))
        patch.setattr(FilmNet, "BLOCKS", STAGES)
        yield
    torch.set_num_threads(threads)


def striped(seed: int) -> Image.Image:
    """The film of that seed behind stripes, which lie differently on each."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:256, :256]
    wave = np.sin(2 * np.pi * (rows * np.sin(turn) + columns * np.cos(turn)) / 24 + rng.uniform(0, 6))
    picture = np.asarray(faint(seed), dtype=np.float64) + 90 * wave
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def faint(seed: int) -> Image.Image:
    return film(seed).point(lambda value: 128 + 0.5 * (value - 128))


def cohort(folder: Path, name: str, labels: dict[str, str], *, told: bool = True, seed: int = 0) -> Path:
    """112 films of 112 persons, half of them with the label: 64 train, 24 validate, 24 test.

    Where the label is not ``told``, nothing is to be seen of it.
    """
    folder.mkdir()
    (folder / "films").mkdir()
    rows = []
    # By chance, and yet as many with it as without it in each part.
    chance = np.random.default_rng(seed)
    drawn = {c: np.concatenate([chance.permutation(np.arange(n) % 2) for n in (64, 24, 24)]) for c in labels.values()}
    for i in range(112):
        y = i % 2
        picture = striped(1000 * seed + i) if told and y else faint(1000 * seed + i)
        picture.save(folder / "films" / f"case{i:03}.png", compress_level=1)
        row = {
            "patient": f"P{i:03}",
            "image": f"case{i:03}.png",
            "age": str(20 + i // 2),
            "sex": "FM"[i // 2 % 2],
            "view": ("PA", "AP")[i // 4 % 2],
            "part": "train" if i < 64 else "validation" if i < 88 else "test",
        }
        shown = {column: y if told else drawn[column][i] for column in labels.values()}
        rows.append(row | {column: str(value) for column, value in shown.items()})
    return write(folder, pd.DataFrame(rows), name=name, labels=labels, age_years=[18, 90])


def command(out: Path, *cohorts: Path, epochs: int = EPOCHS, more: tuple[str, ...] = ("--init", "none")) -> list[str]:
    given = [part for path in cohorts for part in ("--cohort", str(path))]
    return ["lung", *given, "--out", str(out), "--epochs", str(epochs), *HOW, *more]


@pytest.fixture(scope="module")
def visible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort(tmp_path_factory.mktemp("visible") / "c", "made-up", {"pneumonia": "Pneumonia"})


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = {"abnormal": "Abnormal", "edema": "Edema"}
    return cohort(tmp_path_factory.mktemp("hidden") / "c", "by-chance", labels, told=False, seed=7)


@pytest.fixture(scope="module")
def parent(visible: Path, smaller: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the bundle that a run without any incident wrote."""
    out = tmp_path_factory.mktemp("whole")
    assert main(command(out, visible)) == 0
    return out / "lung-1.0.0"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(bundle: Path) -> dict[str, np.ndarray]:
    """What was learnt, under the names of the network; without the distance, which is fitted to its features."""
    graph = onnx.load(bundle / "models/model.onnx").graph
    named = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    return {name.removeprefix("network."): value for name, value in named.items() if "likeness" not in name}


def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_: object, **__: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr(workflow, "fit", fit)


def test_a_manifest_becomes_a_bundle_that_serving_takes(parent: Path) -> None:
    bundle = load_bundle(parent)
    manifest = bundle.manifest
    (finding,) = manifest.findings
    assert (finding.name, finding.column, finding.age_years) == ("pneumonia", 0, (18.0, 90.0))
    assert finding.calibration is not None
    assert {point.name for point in finding.operating_points} == {"screening", "balanced", "rule_in"}
    assert {"made-up, validation", "made-up, test"} <= {e.cohort for e in finding.evaluation}
    (source,) = manifest.training_data
    assert (source.name, source.n_items, source.n_persons) == ("made-up", 64, 64)
    assert (manifest.from_bundle, manifest.withheld) == ((), ())
    assert manifest.recipe["epochs"] == EPOCHS
    assert all(limit.startswith("made-up, ") for limit in manifest.limits)
    # Age and sex were learnt beside it and are not in the graph.
    assert weights(parent)["classifier.weight"].shape[0] == 1
    card = (parent / "docs/README.md").read_text()
    for section in ("What it offers, and for whom", "Limits", "Evaluation", "Planning", "How it was trained",
                    "Trained on", "File"):  # fmt: skip
        assert f"\n## {section}\n" in card, section
    plots = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", card)
    assert plots
    assert all((parent / "docs" / plot).stat().st_size > 10_000 for plot in plots)
    run = parent.parent / "lung-1.0.0.run"
    assert len(curve(run)) == len(curve(run, "watch/made-up/pneumonia")) == EPOCHS
    assert {each.name for each in parent.parent.iterdir()} == {"lung-1.0.0", "lung-1.0.0.run"}


def test_a_site_left_out_gives_figures_of_a_site_that_was_never_seen(visible: Path, tmp_path: Path) -> None:
    table = pd.read_csv(visible.parent / "films.csv", dtype=str)
    table["hospital"] = ["Bac Ninh" if i % 3 == 0 else "Ha Noi" for i in range(len(table))]
    folder = tmp_path / "of two"
    folder.mkdir()
    (folder / "films").symlink_to(visible.parent / "films")
    columns = {**COLUMNS, "site": "hospital"}
    path = write(folder, table, columns=columns, site=None, age_years=[18, 90])
    assert main(command(tmp_path, path, more=("--init", "none", "--leave-sites-out"))) == 0
    manifest = load_bundle(tmp_path / "lung-1.0.0").manifest
    (finding,) = manifest.findings
    there = {e.metric: e.estimate for e in finding.evaluation if e.cohort.startswith("made-up: Bac Ninh, by a network")}
    # 38 films of persons who stand nowhere else; the whole network has learnt from 22 of them
    assert there["auroc"].n == 38
    assert there["auroc"].value > 0.6
    run = tmp_path / "lung-1.0.0.run"
    assert len(curve(run / "without-Bac-Ninh")) == len(curve(run)) == EPOCHS
    # It began where the other did, not with what that one has learnt.
    begun, whole = (
        torch.load(folder / "checkpoint.pt", weights_only=True)["fingerprint"]["weights at the start"]
        for folder in (run / "without-Bac-Ninh", run)
    )
    assert begun == whole
    (likeness,) = manifest.measured
    assert [row[:2] for row in likeness.rows] == [("made-up, test", "24")]
    assert manifest.outputs == ("logits", "evidence", "distance")
    assert manifest.thresholds["far"] == 4 * manifest.thresholds["unlike"] > 0


def dies(*argv: str) -> None:
    """The command, killed in the middle of its second epoch."""
    small()
    calls = []
    films = augment.films

    def killing(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        calls.append(len(batch))
        if len(calls) == 8 + 4:  # 64 films in chunks of eight
            os.kill(os.getpid(), signal.SIGKILL)
        return films(batch, generator)

    augment.films = killing
    main(argv)


def child(code: list[str], argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code, *argv],
        env={**os.environ, **CUDA_OFF, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_killed_and_started_again_it_writes_the_same_bytes(visible: Path, parent: Path, tmp_path: Path) -> None:
    killed = child(
        ["-c", "import sys; from tests.training.learning import test_workflow; test_workflow.dies(*sys.argv[1:])"],
        command(tmp_path, visible),
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    checkpoint = tmp_path / "lung-1.0.0.run" / "checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 0
    assert [each.name for each in tmp_path.iterdir()] == ["lung-1.0.0.run"]
    assert main(command(tmp_path, visible)) == 0
    for name in ("models/model.onnx", "screening.json", "docs/README.md"):
        assert sha256(tmp_path / "lung-1.0.0" / name) == sha256(parent / name), name
    assert curve(tmp_path / "lung-1.0.0.run") == curve(parent.parent / "lung-1.0.0.run")


def test_from_a_bundle_with_its_backbone_frozen(
    visible: Path, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANGLOC_BUNDLES", str(parent.parent))  # there it is the version in service
    more = ("--from-bundle", str(parent), "--freeze", "--version", "1.0.1")
    assert main(command(tmp_path, visible, epochs=1, more=more)) == 0
    manifest = load_bundle(tmp_path / "lung-1.0.1").manifest
    before = load_bundle(parent).manifest
    (ancestor,) = manifest.from_bundle
    assert (ancestor.name, ancestor.version) == ("lung", "1.0.0")
    assert ancestor.weights_sha256 == sha256(parent / "models/model.onnx")
    assert ancestor.sha256 == sha256(parent / "screening.json")
    ours, theirs = weights(tmp_path / "lung-1.0.1"), weights(parent)
    assert ours.keys() == theirs.keys()
    changed = {name for name in ours if not np.array_equal(ours[name], theirs[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert manifest.findings[0].calibration != before.findings[0].calibration
    assert manifest.recipe["frozen"] == "backbone"
    # Both versions have figures of the same test cases, and the older one's are those of its own card.
    (serves,) = manifest.predecessors
    assert (serves.version, serves.sha256) == ("1.0.0", ancestor.sha256)
    (figures,) = serves.evaluation.values()
    for name in ("auroc", "sensitivity@screening"):
        (own,) = (e.estimate for e in before.findings[0].evaluation
                  if (e.metric, e.subgroup, e.cohort) == (name, "all", "made-up, test"))  # fmt: skip
        (again,) = (e.estimate for e in figures if (e.metric, e.subgroup, e.cohort) == (name, "all", "made-up, test"))
        assert again.value == pytest.approx(own.value, abs=1e-3)
    assert "rows taken: pneumonia (18 to 89 years)" in str(manifest.recipe["start"])
    assert [each.n_items for each in manifest.training_data] == [64, 64]
    card = (tmp_path / "lung-1.0.1/docs/README.md").read_text()
    assert ancestor.weights_sha256 in card


def test_two_cohorts_share_the_network_and_no_column(visible: Path, hidden: Path, tmp_path: Path) -> None:
    assert main(command(tmp_path, hidden, visible)) == 0
    manifest = load_bundle(tmp_path / "lung-1.0.0").manifest
    # What is not to be seen is not offered, and says why; what is has the column behind it.
    assert [(f.name, f.column) for f in manifest.findings] == [("pneumonia", 2)]
    assert [(w.name, w.cohort) for w in manifest.withheld] == [("abnormal", "by-chance"), ("edema", "by-chance")]
    assert all("AUROC" in w.reason for w in manifest.withheld)
    assert weights(tmp_path / "lung-1.0.0")["classifier.weight"].shape[0] == 3
    assert [(d.name, d.n_items) for d in manifest.training_data] == [("by-chance", 64), ("made-up", 64)]
    card = (tmp_path / "lung-1.0.0/docs/README.md").read_text()
    assert "## Not offered, and why" in card
    assert all(w.reason in card for w in manifest.withheld)


def test_where_nothing_holds_it_says_why_of_each(
    hidden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, hidden, epochs=1)) == 2
    said = capsys.readouterr().err
    assert "no finding may be offered" in said
    for name in ("abnormal", "edema"):
        assert re.search(rf"  - {name}: .*: AUROC \S+ \(\S+ to \S+\) on 24 validation cases", said), said
    assert "Traceback" not in said
    assert [each.name for each in tmp_path.iterdir()] == ["lung-1.0.0.run"]


def test_a_version_that_exists_is_refused_before_anything_trains(
    visible: Path, parent: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_trains(monkeypatch)
    before = sha256(parent / "screening.json")
    assert main(command(parent.parent, visible)) == 2
    assert "lung-1.0.0 exists" in capsys.readouterr().err
    assert sha256(parent / "screening.json") == before


def test_one_question_has_one_answer(
    visible: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_trains(monkeypatch)
    assert main(command(tmp_path, visible, visible)) == 2
    assert "two cohorts are called made-up" in capsys.readouterr().err
    other = visible.with_name("other.yaml")
    other.write_text(visible.read_text().replace("made-up", "of-the-young").replace("- 90", "- 80"))
    assert main(command(tmp_path, visible, other)) == 2
    assert "pneumonia: a label of made-up and of of-the-young for the same ages" in capsys.readouterr().err


def test_an_unusable_cohort_names_all_faults_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_trains(monkeypatch)
    assert main(command(tmp_path / "out", planted(tmp_path))) == 2
    said = capsys.readouterr().err
    for fault in ("unreadable files", "person in two splits", "duplicate across splits", "label values",
                  "label by view", "UNUSABLE"):  # fmt: skip
        assert fault in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["gate", "--cohort", "c.yaml"], "takes no --cohort"),
        (["lung", "--data", "/nowhere/at/all"], "No such file"),
        (["lung", "--cohort", "/nowhere/at/all.yaml"], "all.yaml"),
        (["lung", "--cohort", "VISIBLE", "--persons", "0"], "share of training persons is 0"),
        (["lung", "--cohort", "VISIBLE", "--init", "none", "--freeze"], "--freeze"),
        (["lung", "--cohort", "VISIBLE", "--init", "none", "--batch-size", "12"], "such as 8 or 16"),
        (["lung", "--cohort", "VISIBLE", "--init", "/nowhere/at/all.pth"], "there is no such file"),
    ],
)
def test_what_cannot_be_done_is_said(
    visible: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    argv = [str(visible) if part == "VISIBLE" else part for part in argv]
    assert main([*argv, "--out", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--version", "2"], "three numbers"),
        (["--init", "imagenet", "--from-bundle", "lung-1.0.0"], "not both"),
        (["--epochs", "0"], "at least 1"),
    ],
)
def test_what_would_be_found_out_too_late_is_said_at_once(
    capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["lung", "--cohort", "c.yaml", *argv])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_half_of_the_persons_are_half_of_those_who_train() -> None:
    n = 3000
    person = np.array([f"p{i // 3}" for i in range(n)])
    part = np.where(np.arange(n) < 1800, "train", np.where(np.arange(n) < 2400, "validation", "test"))
    whole = Cohort(
        name="one",
        x=np.zeros((n, 1), dtype=np.uint8),
        labels=pd.DataFrame({"pneumonia": np.arange(n) % 2}),
        person=person,
        part=part,
        subgroups=pd.DataFrame(index=range(n)),
        source=TrainingData(name="one", citation="", licence="", n_persons=600, n_items=1800),
    )
    half = keep_share_of_persons(whole, 0.5)
    for unchanged in ("validation", "test"):
        assert np.array_equal(half.rows(unchanged), whole.rows(unchanged))
    kept = set(half.person[half.rows("train")])
    assert 250 < len(kept) < 350
    assert len(half.rows("train")) == 3 * len(kept)
    assert (half.source.n_persons, half.source.n_items) == (len(kept), 3 * len(kept))
    # More persons are the same ones and others.
    assert kept < set(keep_share_of_persons(whole, 0.8).person[keep_share_of_persons(whole, 0.8).rows("train")])
    assert keep_share_of_persons(whole, 1.0) is whole
    few = replace(whole, part=np.where(np.arange(n) < 3, "train", "test"))
    assert len(keep_share_of_persons(few, 1e-9).rows("train")) == 0


def of_two(argv: list[str]) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(Path(__file__))]
    return child(launcher, argv)


def run_small(*argv: str) -> None:
    small()
    sys.exit(main(argv))


def test_two_processes_write_one_bundle(visible: Path, parent: Path, tmp_path: Path) -> None:
    codes, out, said = ends(run_small, "together", "2", *command(tmp_path, visible))
    assert codes == [0, 0], said[-4000:]
    assert out.count("written: ") == 1
    assert {each.name for each in tmp_path.iterdir()} == {"lung-1.0.0", "lung-1.0.0.run"}
    manifest = load_bundle(tmp_path / "lung-1.0.0").manifest
    assert [f.name for f in manifest.findings] == ["pneumonia"]
    run = tmp_path / "lung-1.0.0.run"
    # The path of one process, up to the rounding of sums, which grows with every step.
    assert curve(run)[0] == pytest.approx(curve(parent.parent / "lung-1.0.0.run")[0], abs=0.02)
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert len(list((run / "cache").iterdir())) == 112


def test_an_unusable_cohort_ends_both_processes(tmp_path: Path) -> None:
    done = of_two(command(tmp_path / "out", planted(tmp_path)))
    assert done.returncode != 0
    assert "UNUSABLE" in done.stderr
    assert "exitcode  : 2" in done.stderr
    assert "CohortUnusable" not in done.stderr  # said in words, no traceback of ours


def test_real_films_are_all_accounted_for(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nih = pd.read_csv(shared_data / "cxr/nih/labels.csv", dtype=str)
    nih = nih[nih.age.astype(float) >= 18].drop_duplicates("patient_id")
    nih = nih.groupby(["Pneumonia", "view"]).sample(30, random_state=3)
    (tmp_path / "films").mkdir()
    for name in nih.image:
        shutil.copyfile(shared_data / "cxr/nih/images" / name, tmp_path / "films" / name)
    names = {"pneumonia": "Pneumonia", "abnormal": "Abnormal", "edema": "Edema"}
    findings = [c for c in ("Pneumonia", "Edema", "Infiltration", "Effusion", "Atelectasis") if c in nih]
    nih["Abnormal"] = nih[findings].astype(float).max(axis=1).astype(int).astype(str)
    place = nih.groupby(["Pneumonia", "view"]).cumcount()
    nih["part"] = np.where(place % 2 == 0, "train", np.where(place % 4 == 1, "validation", "test"))
    columns = {"person": "patient_id", "file": "image", "age_years": "age", "sex": "sex", "view": "view",
               "split": "part"}  # fmt: skip
    path = write(tmp_path, nih, name="of-nih", columns=columns, labels=names, age_years=[18, 86], site="Bethesda")
    status = main(command(tmp_path / "out", path, epochs=1))
    said = capsys.readouterr()
    assert status in (0, 2), said.err
    if status == 2:
        reasons = re.findall(r"  - (\w+): (.+)", said.err)
    else:
        manifest = load_bundle(tmp_path / "out/lung-1.0.0").manifest
        reasons = [(w.name, w.reason) for w in manifest.withheld] + [(f.name, "offered") for f in manifest.findings]
    assert sorted(name for name, _ in reasons) == sorted(names), said.err
    kinds = ("AUROC", "too few to say", "calibration error is too large", "offered")
    assert all(any(kind in reason for kind in kinds) for _, reason in reasons), reasons


if __name__ == "__main__":
    run_small(*sys.argv[1:])
