"""Recalibration: the truth is recovered, the weights stay the very same file, and what cannot be done is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from data_specs.bundle import BundleManifest, EcgInput, TrainingData
from inference.bundles.loading import load_bundle
from inference.findings import calibrate, calibrated
from tests.conftest import ROOT
from training.bundle.case_table import Table, read_cases, read_csv
from training.bundle.derive import ancestor
from training.bundle.local_cases import CannotRecalibrate
from training.bundle.recalibrate import main, recalibrate
from training.bundle.recalibrate_finding import check_enough, cross_validate
from training.cohorts.cohort import part_of_person
from training.cohorts.files import Folders, read_case
from training.cohorts.gates import RecordingGate
from training.figures.evaluate import bootstrap, evaluate, expected_calibration_error, operating_points

LUNG, CARDIAC, KIDNEY = (ROOT / "models" / "bundles" / f"{name}-1.0.0" for name in ("lung", "cardiac", "kidney"))
LOCAL = TrainingData(name="Local films 2026", citation="not published", licence="not shared", n_persons=0, n_items=0)


def made_up(n: int, seed: int) -> pd.DataFrame:
    """Outcomes drawn from logits that the network says three times too steeply and shifted by three."""
    rng = np.random.default_rng(seed)
    true_logit = rng.normal(0, 1.5, n)
    y = (rng.random(n) < expit(true_logit)).astype(int)
    return pd.DataFrame(
        {"person": [f"p{i % (n - 20)}" for i in range(n)], "logit": 3 * true_logit + 3, "abnormal": y, "age_years": 50}
    )


def written(table: pd.DataFrame, folder: Path) -> Table:
    path = folder / "cases.csv"
    table.to_csv(path, index=False)
    return read_csv(path, LOCAL)


def manifest_of(folder: Path) -> BundleManifest:
    return BundleManifest.model_validate_json((folder / "screening.json").read_bytes())


@pytest.fixture(scope="module", autouse=True)
def coarse_intervals() -> Iterator[None]:
    """A tenth of the draws: the intervals themselves are held in test_evaluate.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bootstrap.__kwdefaults__, "draws", 100)
        patch.setitem(evaluate.__kwdefaults__, "draws", 100)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped lung bundle, recalibrated on 600 made-up logits of adults."""
    folder = tmp_path_factory.mktemp("made")
    return recalibrate(LUNG, written(made_up(600, 4), folder), out=folder / "bundles", version="1.0.1")


def test_the_truth_is_recovered_and_the_error_falls(made: Path) -> None:
    spec = next(f for f in manifest_of(made).findings if f.name == "abnormal")
    assert spec.calibration is not None
    assert spec.calibration.kind == "platt"
    assert spec.calibration.slope == pytest.approx(1 / 3, abs=0.05)
    assert spec.calibration.intercept == pytest.approx(-1, abs=0.25)
    # On other people, through the function that serves.
    fresh = made_up(4000, 5)
    shipped = next(f for f in manifest_of(LUNG).findings if f.name == "abnormal")
    before, after = (
        expected_calibration_error(
            fresh.abnormal.to_numpy(dtype=float), np.array([calibrate(f, z) for z in fresh.logit])
        )
        for f in (shipped, spec)
    )
    assert after < 0.05
    assert before > 0.1


def test_the_figures_hold_on_other_people(made: Path) -> None:
    spec = next(f for f in manifest_of(made).findings if f.name == "abnormal")
    fresh = made_up(4000, 6)
    y, p = fresh.abnormal.to_numpy(), np.array([calibrate(spec, z) for z in fresh.logit])
    figures = {e.metric: e.estimate for e in spec.evaluation}
    for point in spec.operating_points:
        for metric, value in (
            ("sensitivity", (p[y == 1] >= point.threshold).mean()),
            ("specificity", (p[y == 0] < point.threshold).mean()),
        ):
            estimate = figures[f"{metric}@{point.name}"]
            assert estimate.value == pytest.approx(value, abs=0.08)
            assert estimate.low <= estimate.value <= estimate.high
    assert {"auroc", "ece", "ece_by_chance", "ece_debiased", "brier", "calibration_slope"} <= figures.keys()
    assert {e.cohort for e in spec.evaluation} == {"Local films 2026, cross-validation by person"}
    assert len(spec.roc) <= 60
    assert {point.threshold for point in spec.operating_points} <= {point.threshold for point in spec.roc}


def test_the_weights_are_the_same_file_and_the_parent_is_untouched(made: Path) -> None:
    old, new = manifest_of(LUNG), manifest_of(made)
    assert (made / "models/model.onnx").read_bytes() == (LUNG / "models/model.onnx").read_bytes()
    assert new.weights == old.weights
    assert new.golden == old.golden
    assert (new.version, made.name) == ("1.0.1", "lung-1.0.1")
    assert new.from_bundle == (ancestor(LUNG, old),)
    assert new.recalibrated_on is not None
    assert (new.recalibrated_on.n_items, new.recalibrated_on.n_persons) == (600, 580)
    assert [f for f in new.findings if f.name != "abnormal"] == [f for f in old.findings if f.name != "abnormal"]
    assert json.loads((made / "configs/metadata.json").read_text())["version"] == "1.0.1"
    assert {p.relative_to(LUNG) for p in LUNG.rglob("*")} | {Path("docs/abnormal-1.png")} == {
        p.relative_to(made) for p in made.rglob("*")
    }
    assert [p.name for p in made.parent.iterdir()] == ["lung-1.0.1"], "nothing half-made is left behind"
    load_bundle(made)


def test_the_card_says_on_what(made: Path) -> None:
    card = (made / "docs/README.md").read_text()
    assert "Local films 2026: 600 cases of 580 persons" in card
    assert "](abnormal-1.png)" in card
    assert f"lung 1.0.0: screening.json sha256 `{manifest_of(made).from_bundle[0].sha256}`" in card
    assert "abnormal: per 1,000 screened" in card
    assert "p17" not in card, "persons are counted, never named"


def test_the_chain_grows_with_each_recalibration(made: Path, tmp_path: Path) -> None:
    again = recalibrate(made, written(made_up(300, 8), tmp_path), out=made.parent, version="1.0.2")
    manifest = manifest_of(again)
    assert [(a.version, a.weights_sha256) for a in manifest.from_bundle] == [
        ("1.0.0", manifest.weights.sha256),
        ("1.0.1", manifest.weights.sha256),
    ]
    assert manifest.from_bundle[1].sha256 == ancestor(made, manifest_of(made)).sha256
    assert sum(limit.startswith("Recalibrated on") for limit in manifest.limits) == 1
    shutil.rmtree(again)


def test_a_version_that_exists_is_never_replaced(made: Path, tmp_path: Path) -> None:
    before = (made / "screening.json").read_bytes()
    with pytest.raises(FileExistsError):
        recalibrate(LUNG, written(made_up(100, 1), tmp_path), out=made.parent, version="1.0.1")
    assert (made / "screening.json").read_bytes() == before


@pytest.mark.parametrize("version", ["2", "1.0.1-rc", "../1.0.1", ""])
def test_a_version_is_three_numbers(version: str, tmp_path: Path) -> None:
    with pytest.raises(CannotRecalibrate, match="not of the form"):
        recalibrate(LUNG, written(made_up(100, 1), tmp_path), out=tmp_path / "out", version=version)


def test_noise_looks_good_only_to_who_fitted_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.bundle.recalibrate_finding.REPEATS", 1)
    # Youden's J of thresholds chosen on noise: well above 0 on these very cases, about 0 on persons left out.
    own, others = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y, z = (rng.random(60) < 0.5).astype(float), rng.normal(size=60)
        balanced = next(p for p in operating_points(y, expit(z), "c") if p.name == "balanced")
        own.append((balanced.sensitivity or 0) + (balanced.specificity or 0) - 1)
        decided = cross_validate(y, z, np.arange(60).astype(str))[1]["balanced"]
        others.append(decided[y == 1].mean() - decided[y == 0].mean())
    assert np.mean(own) > 0.12
    assert abs(np.mean(others)) < 0.07


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([1] * 20 + [0] * 29, "49 labelled cases, at least 50"),
        ([1] * 9 + [0] * 91, "9 persons with the finding, at least 10"),
        ([1] * 200 + [0] * 3, "3 persons without it"),
    ],
)
def test_too_few_cases(y: list[int], said: str) -> None:
    with pytest.raises(CannotRecalibrate, match=said):
        check_enough("abnormal", np.array(y, dtype=float), np.arange(len(y)).astype(str))


def test_many_films_of_few_persons_are_too_few() -> None:
    y = np.repeat([1.0, 0.0], 100)
    person = np.repeat(np.arange(20).astype(str), 10)
    check_enough("abnormal", y, person)
    with pytest.raises(CannotRecalibrate, match="5 persons with"):
        check_enough("abnormal", y, np.repeat(np.arange(10).astype(str), 20))


def test_a_network_that_does_not_tell_the_cases_apart_is_not_dressed_up(tmp_path: Path) -> None:
    table = made_up(200, 2).assign(logit=np.random.default_rng(101).normal(size=200))
    with pytest.raises(CannotRecalibrate, match="does not tell the classes apart"):
        recalibrate(LUNG, written(table, tmp_path), out=tmp_path / "out", version="1.0.1")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def lung() -> object:
    return load_bundle(LUNG)


def faulty(**changes: object) -> pd.DataFrame:
    return made_up(60, 3).astype(object).assign(**changes)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (faulty().drop(columns="abnormal"), "no column has the name of a finding"),
        (faulty().drop(columns="person"), "no column 'person'"),
        (faulty().drop(columns="logit"), "neither a column 'file' nor logits"),
        (faulty(person=["a", " ", *["b"] * 58]), "no person: line 3"),
        (faulty(abnormal=[0, 1, 2, "yes", *[1] * 56]), "but not in line 4, 5$"),
        (faulty(abnormal=[7] * 60), "line 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 50 more"),
        (faulty(logit=[0.1, "inf", *[1.0] * 58]), "not a finite number in line 3"),
        (faulty(pneumonia=1).drop(columns="age_years"), "'pneumonia' for several ages"),
        (faulty(effusion=1, logit_effusion=0.1), "missing logit_abnormal"),
    ],
)
def test_faults_of_a_table_are_named_by_line(table: pd.DataFrame, said: str, tmp_path: Path, lung: object) -> None:
    with pytest.raises(CannotRecalibrate, match=said):
        read_cases(written(table, tmp_path), lung)  # type: ignore[arg-type]


def test_all_faults_at_once(tmp_path: Path, lung: object) -> None:
    table = faulty(abnormal=["x", *[1] * 59], person=["", *["b"] * 59])
    with pytest.raises(CannotRecalibrate) as raised:
        read_cases(written(table, tmp_path), lung)  # type: ignore[arg-type]
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x9f" * 50, b'a,b\n"1,2\n3,4,5,6\n'])
def test_what_is_no_table(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(CannotRecalibrate, match=r"cases\.csv cannot be read"):
        read_csv(path, LOCAL)


def test_files_that_cannot_be_used_are_named_by_line(tmp_path: Path, lung: object) -> None:
    (tmp_path / "not.png").write_bytes(b"hello")
    shutil.copy(ROOT / "samples" / "film-normal.jpg", tmp_path / "film.jpg")
    table = pd.DataFrame({"person": list("abc"), "abnormal": 1, "file": ["film.jpg", "gone.png", "not.png"]})
    with pytest.raises(CannotRecalibrate) as raised:
        read_cases(written(table, tmp_path), lung)  # type: ignore[arg-type]
    assert [line.split(":")[0] for line in str(raised.value).splitlines()[1:]] == ["line 3", "line 4"]


def test_a_film_gives_the_logits_that_serving_computes(tmp_path: Path, lung: object) -> None:
    table = pd.DataFrame({"person": ["a", "b"], "abnormal": [0, 1], "file": ["film-normal.jpg", "film-abnormal.jpg"]})
    path = tmp_path / "cases.csv"
    table.to_csv(path, index=False)
    cases = read_cases(Table(read_csv(path, LOCAL).rows, ROOT / "samples", LOCAL), lung)  # type: ignore[arg-type]
    spec = next(f for f in manifest_of(LUNG).findings if f.name == "abnormal")
    # The probability that the README's sample visit shows for the abnormal film.
    assert calibrate(spec, cases.logits[1, spec.column]) == pytest.approx(0.776, abs=0.005)
    assert calibrated(cases.logits[:1, spec.column], spec.calibration)[0] < 0.5  # type: ignore[arg-type]


def test_a_recording_is_read_with_the_files_of_its_header() -> None:
    contract = manifest_of(CARDIAC).input
    assert isinstance(contract, EcgInput)
    windows, _, _ = read_case("E07517.hea", Folders(ROOT / "samples"), contract, None, RecordingGate())
    assert windows is not None
    assert windows.shape[1:] == (12, contract.n_samples)
    assert np.isfinite(windows).all()


def test_laboratory_values_have_no_files(tmp_path: Path) -> None:
    table = pd.DataFrame({"person": list("ab"), "incident_ckd": [0, 1], "file": ["x", "y"]})
    with pytest.raises(CannotRecalibrate, match="give logits"):
        read_cases(written(table, tmp_path), load_bundle(KIDNEY))


def test_each_finding_gets_what_its_own_cases_allow(tmp_path: Path) -> None:
    # Enough for `abnormal`; noise for `effusion`; eight labels for `edema`.
    rng = np.random.default_rng(101)
    table = made_up(300, 4).rename(columns={"logit": "logit_abnormal"})
    table = table.assign(effusion=rng.integers(0, 2, 300), logit_effusion=rng.normal(size=300))
    table = table.assign(edema=["1", "0"] * 4 + [""] * 292, logit_edema=rng.normal(size=300))
    folder = recalibrate(LUNG, written(table, tmp_path), out=tmp_path / "out", version="2.0.0")
    old, new = ({f.column: f for f in manifest_of(b).findings} for b in (LUNG, folder))
    columns = {f.name: f.column for f in old.values() if f.name != "pneumonia"}
    assert new[columns["abnormal"]].calibration != old[columns["abnormal"]].calibration
    assert new[columns["edema"]] == old[columns["edema"]]
    assert columns["effusion"] not in new
    limits = "\n".join(manifest_of(folder).limits)
    assert "No longer offered: effusion (18 to 85 years): the network does not tell the classes apart" in limits
    assert "Not changed: edema (18 to 85 years): too few to recalibrate on: 8 labelled" in limits


def test_people_that_a_finding_is_not_offered_for_do_not_count(tmp_path: Path, lung: object) -> None:
    table = pd.DataFrame(
        {"person": list("abcd"), "pneumonia": [1, 0, 1, ""], "logit": 0.0, "age_years": [3, 40, "", 50]}
    )
    cases = read_cases(written(table, tmp_path), lung)  # type: ignore[arg-type]
    child, adult = (f for f in manifest_of(LUNG).findings if f.name == "pneumonia")
    np.testing.assert_array_equal(cases.outcome(child), [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(cases.outcome(adult), [np.nan, 0, np.nan, np.nan])


def test_the_command_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up(40, 1).to_csv(tmp_path / "cases.csv", index=False)
    command = ["--bundle", str(LUNG), "--table", str(tmp_path / "cases.csv"), "--out", str(tmp_path / "out")]
    assert main([*command, "--name", "n", "--version", "1.0.1"]) == 2
    assert "abnormal (18 to 85 years): too few to recalibrate on: 40 labelled cases" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--version", "1.0.1"])


def test_children_of_another_half_of_a_real_cohort(shared_data: Path, tmp_path: Path) -> None:
    """Films: half of the Kermany validation persons set the shipped bundle right; its own weights compute them."""
    table = pd.read_csv(shared_data / "cxr/kermany/labels.csv")
    table = table[table.split == "train"]
    person = "kermany:" + table.person_no.astype(str)
    validation = [part_of_person(p, {"validation": 0.1, "train": 0.9}, "kermany") == "validation" for p in person]
    half = [part_of_person(p, {"taken": 0.5, "left": 0.5}, "half") == "taken" for p in person]
    rows = np.array(validation) & np.array(half)
    cases = pd.DataFrame({"person": person, "file": table.path, "pneumonia": table.pneumonia, "age_years": 3})[rows]
    path = tmp_path / "cases.csv"
    cases.to_csv(path, index=False)
    films = Table(read_csv(path, LOCAL).rows, shared_data / "cxr/kermany", LOCAL)
    folder = recalibrate(LUNG, films, out=tmp_path / "bundles", version="1.0.1")
    spec = manifest_of(folder).findings[0]
    assert (spec.name, spec.age_years) == ("pneumonia", (1, 6))
    figures = {e.metric: e.estimate for e in spec.evaluation}
    assert figures["auroc"].n == len(cases) > 200
    assert figures["auroc"].value > 0.97
    assert figures["ece"].value < 0.05
    shipped = manifest_of(LUNG).findings[0]
    assert spec.calibration != shipped.calibration
    assert spec.calibration is not None
    assert shipped.calibration is not None
    # The shipped constants come from all of these persons and as many others: half of them must lead near the same.
    assert spec.calibration.slope == pytest.approx(shipped.calibration.slope, rel=0.4)
