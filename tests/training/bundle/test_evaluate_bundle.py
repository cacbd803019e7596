"""A bundle on labelled cases: what serving answers, what a recalibration is compared by, what a site may use."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from data_specs.bundle import BundleManifest, TrainingData
from data_specs.visit.context import Context, Person
from inference.bundles.deciding import NotDone
from inference.bundles.loading import Bundle, load_bundle
from inference.bundles.registry import read_registry
from inference.engine import Engine, PostedInput
from models.registry import promote
from tests.conftest import ROOT
from tests.models.versions import BUNDLES, shipped
from training.__main__ import main
from training.bundle.accept import _likeness, by_key, judge
from training.bundle.evaluate_bundle import EvaluatedBundle, evaluated
from training.bundle.local_cases import CannotRecalibrate, Cases, cohort_cases
from training.figures.evaluate import bootstrap, evaluate
from training.figures.triage import SITE_RULE

SAMPLES = ROOT / "samples"
LOCAL = TrainingData(name="bac-ninh", citation="", licence="", n_persons=0, n_items=0, digest="ab")
LUNG = read_registry(BUNDLES).folder_of("lung", "1.2.0")


@pytest.fixture(scope="module", autouse=True)
def coarse_intervals() -> Iterator[None]:
    """A tenth of the draws: the intervals themselves are held in test_evaluate.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bootstrap.__kwdefaults__, "draws", 40)
        patch.setitem(evaluate.__kwdefaults__, "draws", 40)
        yield


@pytest.fixture(scope="module")
def lung() -> Bundle:
    return load_bundle(LUNG)


def manifest(folder: Path, rows: list[dict[str, object]], **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "t.csv", index=False)
    columns = {"person": "person", "file": "file", "age_years": "age", "device": "device"}
    document = {
        "name": "bac-ninh", "modality": "cxr", "table": "t.csv", "files": ".", "site": "Bac Ninh", "columns": columns,
        "age_years": [18, 86], "source": {"citation": "none", "licence": "none"}, **more,
    }  # fmt: skip
    (folder / "cohort.yaml").write_text(yaml.safe_dump(document))
    return folder / "cohort.yaml"


def films(folder: Path, n: int = 24) -> Path:
    """The two sample films, a little cut so that none is another's copy, and six pictures that are no chest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for i in range(n):
        name = f"{i:02}.png"
        with Image.open(SAMPLES / ("film-abnormal.jpg" if i % 2 else "film-normal.jpg")) as film:
            grey = film.convert("L")
            side = min(grey.size)
            if i < 6:
                Image.fromarray(np.random.default_rng(i).integers(0, 255, (256, 256)).astype(np.uint8)).save(
                    folder / name
                )
            else:
                grey.crop((0, 0, grey.width - (i * side) // 400, grey.height)).save(folder / name)
        rows.append({"person": f"p{i}", "file": name, "age": 50, "device": "AX"[i % 2], "y": i % 2})
    return manifest(folder, rows, labels={"abnormal": "y"})


def test_an_evaluation_is_what_serving_answers(tmp_path: Path, real_gate: None) -> None:
    """A film that lies on its side, one that is upright, and a recording of more than one window."""
    with Image.open(SAMPLES / "film-abnormal.jpg") as film:
        film.convert("L").transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png")
    shutil.copy(SAMPLES / "film-normal.jpg", tmp_path / "upright.jpg")
    for name in ("E07517.hea", "E07517.mat"):
        shutil.copy(SAMPLES / name, tmp_path / name)
    engine = Engine(BUNDLES)
    person = Context(person=Person(age_years=50))

    def served(organ: str, field: str, *names: str) -> dict[str, float]:
        posted = [PostedInput(i, field, n, (tmp_path / n).read_bytes()) for i, n in enumerate(names)]  # type: ignore[arg-type]
        found = asyncio.run(engine.assess(posted, person)).organs[organ]  # type: ignore[index]
        return {f.name: f.probability for f in found.findings if f.probability is not None}

    try:
        answers = {
            "side.png": served("lung", "image", "side.png"),
            "upright.jpg": served("lung", "image", "upright.jpg"),
            "E07517": served("cardiac", "ecg", "E07517.hea", "E07517.mat"),
        }
        lung, cardiac = engine.bundles["lung"], engine.bundles["cardiac"]
    finally:
        engine.close()
    for bundle, names, modality in ((lung, ("side.png", "upright.jpg"), "cxr"), (cardiac, ("E07517",), "ecg")):
        label = "abnormal" if modality == "cxr" else "atrial_fibrillation"
        rows = [{"person": n, "file": n, "age": 50, "device": "A", "y": i % 2} for i, n in enumerate((*names, *names))]
        from training.bundle import local_cases

        with pytest.MonkeyPatch.context() as patch:  # two persons, one film: not what this test is about
            patch.setattr(local_cases, "unusable", lambda checks: False)
            cases = cohort_cases(
                manifest(tmp_path, rows, labels={label: "y"}, modality=modality, age_years=[18, 96]),
                load_bundle(bundle.folder), parts=("train", "validation", "test"), progress=False,
            )  # fmt: skip
        assert not cases.refused
        for person_of, logits in zip(cases.person, cases.logits, strict=True):
            name = str(person_of).split(":")[1]
            from inference.findings import calibrate

            for spec in bundle.manifest.findings:
                if spec.name in answers[name] and (spec.age_years is None or spec.age_years[0] >= 18):
                    assert calibrate(spec, logits[spec.column]) == pytest.approx(answers[name][spec.name], abs=2e-3)


def test_the_command_writes_the_tables_of_a_card(
    tmp_path: Path, real_gate: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.bundle.local_cases.check_cohort", lambda table, inputs: [])
    path = films(tmp_path / "c", 26)
    out = tmp_path / "out"
    assert main(["evaluate", "--bundle", str(LUNG), "--cohort", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "not_a_chest_image | 6 of 26 (23.1%)" in said
    text = (out / "README.md").read_text()
    for shown in ("| abnormal | 18 to 85 |", "operating point", "device A", "bac-ninh", "](abnormal-1.png)"):
        assert shown in text, shown
    found = EvaluatedBundle.model_validate_json((out / "evaluation.json").read_bytes())
    assert (found.name, found.version, found.refused) == ("lung", "1.2.0", {"not_a_chest_image": 6})
    metrics = {e.metric for e in found.evaluation["abnormal (18-85)"]}
    assert {"auroc", "ece", "ece_by_chance", "sensitivity@screening", "specificity@screening"} <= metrics
    assert len(found.cohorts[0].digest) == 64


def test_a_cohort_that_is_unusable_is_neither_evaluated_nor_recalibrated_nor_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = films(tmp_path / "c", 12)  # copies of two films, labelled alike: the checks find them
    table = pd.read_csv(path.parent / "t.csv", dtype=str)
    table.loc[3, "y"] = "perhaps"
    table.to_csv(path.parent / "t.csv", index=False)
    common, here = ["--cohort", str(path)], ["--bundles", str(BUNDLES)]
    for command in (
        ["evaluate", "--bundle", str(LUNG), *common],
        ["recalibrate", "--bundle", str(LUNG), *common, "--version", "9.0.0", "--out", str(tmp_path / "b")],
        ["accept", "--site", "s", "--bundle", LUNG.name, *here, *common, "--out", str(tmp_path / "o"), "--dry-run"],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "label values" in said
        assert "UNUSABLE" in said
    assert not (tmp_path / "b").exists()


def test_a_rare_finding_is_evaluated_as_far_as_its_cases_go(tmp_path: Path, lung: Bundle) -> None:
    """One positive and none in two of the parts: nothing could be trained on it, and there is no fault in it."""
    from tests.training.cohorts.test_checks import made, write

    table = made(tmp_path, 24).assign(Pneumonia="0")
    table.loc[3, "Pneumonia"] = "1"
    cases = cohort_cases(write(tmp_path, table, age_years=[18, 90]), lung, progress=False)
    assert len(cases.person) == 12  # the manifest has a split: validation and test
    (adult,) = (a for a in judge(lung, cases, {}) if a.spec.name == "pneumonia" and a.spec.age_years != (1, 6))
    assert adult.verdict == "too few to say"


def made_up(bundle: Bundle, n: int, *, told: float, seed: int = 1, share: float = 0.5) -> Cases:
    """Cases of which the network's logits of ``abnormal`` tell the outcome so far, calibrated as the bundle says."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < share * n).astype(float)
    spec = next(f for f in bundle.manifest.findings if f.name == "abnormal")
    assert spec.calibration is not None
    # Of two normal distributions the log odds are told * (2y - 1) * x, and so calibrated at a prevalence of a half.
    z = told * (rng.normal(size=n) + told * (y - 0.5))
    assumed = spec.calibration.prevalence or 0.5
    wanted = z + np.log(assumed / (1 - assumed))
    logits = np.zeros((n, 1 + max(f.column for f in bundle.manifest.findings)))
    logits[:, spec.column] = (wanted - spec.calibration.intercept) / spec.calibration.slope
    subgroups = pd.DataFrame({"sex": np.where(np.arange(n) % 2 == 0, "female", "male")})
    labels = pd.DataFrame({"abnormal": y})
    person = np.arange(n).astype(str)
    return Cases(person, labels, logits, np.full(n, 50.0), LOCAL, subgroups=subgroups)


def test_a_site_gets_each_verdict_for_a_reason(lung: Bundle) -> None:
    def verdict(cases: Cases, **more: float) -> tuple[str, str]:
        found = {a.spec.name: a for a in judge(lung, cases, by_key(lung.manifest, more)) if a.spec.age_years != (1, 6)}
        assert found["effusion"].verdict == "too few to say"  # no label of it at all
        return found["abnormal"].verdict, found["abnormal"].because

    sharp = made_up(lung, 600, told=4.0)
    # The bundle's own threshold recalls too many of those who have nothing; the site's own does not.
    assert verdict(sharp, abnormal=0.5)[0] == "fit for triage"
    assert verdict(made_up(lung, 600, told=1.2))[0] == "information only"
    assert verdict(made_up(lung, 600, told=0.0))[0] == "not here"
    few = made_up(lung, 600, told=4.0, share=0.01)
    assert verdict(few) == ("too few to say", "6 with and 594 without it: at least 4 more with it are needed")
    blurred = made_up(lung, 600, told=2.0)
    shifted = Cases(**{**vars(blurred), "logits": blurred.logits + 3})
    found, because = verdict(shifted, abnormal=0.5)
    assert found == "not here"
    assert "recalibrate it first" in because


def test_cases_chosen_half_and_half_do_not_make_a_calibration_wrong(lung: Bundle) -> None:
    one, other = (made_up(lung, 600, told=2.0, share=share) for share in (0.5, 0.2))
    for cases in (one, other):
        (found,) = (a for a in judge(lung, cases, {}) if a.spec.name == "abnormal")
        assert found.verdict != "not here", found.because
        assert "assumes a prevalence of" in found.remark


def test_figures_by_group_and_a_finding_with_few_cases(lung: Bundle) -> None:
    (spec,) = evaluated(lung.manifest, made_up(lung, 200, told=2.0), "here")
    assert {e.subgroup for e in spec.evaluation} == {"all", "sex female", "sex male"}
    (few,) = evaluated(lung.manifest, made_up(lung, 200, told=2.0, share=0.02), "here")
    assert {e.metric.split("@")[0] for e in few.evaluation} == {"specificity"}


def test_a_promotion_compares_both_versions_on_the_local_cases(tmp_path: Path, lung: Bundle) -> None:
    bundles = shipped(tmp_path / "bundles", "lung")
    cases = made_up(lung, 400, told=2.5)
    column = next(f.column for f in lung.manifest.findings if f.name == "abnormal")
    table = pd.DataFrame(
        {
            "person": cases.person,
            "logit": cases.logits[:, column] - 3,
            "abnormal": cases.labels.abnormal,
            "age_years": 50,
        }
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    command = ["--table", str(tmp_path / "t.csv"), "--name", "Local", "--out", str(bundles), "--version", "1.0.1"]
    assert main(["recalibrate", "--bundle", str(bundles / "lung-1.0.0"), *command]) == 0
    new = BundleManifest.model_validate_json((bundles / "lung-1.0.1" / "screening.json").read_bytes())
    (before,) = new.predecessors
    assert before.version == "1.0.0"
    on_local = {e.metric for e in before.evaluation["abnormal (18-85)"]}
    assert {"auroc", "sensitivity@screening"} <= on_local
    assert {e.cohort for e in before.evaluation["abnormal (18-85)"]} == {"Local, cross-validation by person"}
    assert new.recalibrated_on is not None
    assert len(new.recalibrated_on.digest) == 64
    entry, _ = promote(bundles, "lung", "1.0.1", who="lead", why="a test")
    assert entry.override is None
    # The figures of another version do not count: the comparison is with the very one that serves.
    edited = json.loads((bundles / "lung-1.0.1" / "screening.json").read_text())
    edited["predecessors"][0]["sha256"] = "0" * 64
    (bundles / "lung-1.0.2").mkdir()
    shutil.copytree(bundles / "lung-1.0.1", bundles / "lung-1.0.2", dirs_exist_ok=True)
    edited["version"] = "1.0.2"
    (bundles / "lung-1.0.2" / "screening.json").write_text(json.dumps(edited))
    (bundles / "registry.jsonl").unlink(missing_ok=True)
    shutil.rmtree(bundles / "lung-1.0.1")
    with pytest.raises(NotDone, match="no cohort in common"):
        promote(bundles, "lung", "1.0.2", who="lead", why="a test")


def test_an_acceptance_is_logged_with_its_page(
    tmp_path: Path, real_gate: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.bundle.local_cases.check_cohort", lambda table, inputs: [])
    bundles = shipped(tmp_path / "bundles", "lung")
    path = films(tmp_path / "c", 26)
    out = tmp_path / "out"
    command = ["accept", "--site", "Bac Ninh", "--cohort", str(path), "--bundle", "lung-1.0.0", "--bundles",
               str(bundles), "--out", str(out), "--who", "lead", "--threshold", "abnormal=0.6"]  # fmt: skip
    assert main(command) == 0
    verdicts = read_registry(bundles).accepted("lung", "1.0.0", "Bac Ninh")
    assert verdicts["edema (18-85)"] == "too few to say"
    assert set(verdicts) >= {"abnormal (18-85)", "pneumonia (1-5)"}
    entry = read_registry(bundles).acceptance("lung", "1.0.0", "Bac Ninh")
    assert entry is not None
    assert entry.thresholds == {"abnormal (18-85)": 0.6}
    page = (out / "README.md").read_text()
    for shown in ("lung 1.0.0 at Bac Ninh", "not_a_chest_image", "| A | 3 of 13 (23.1%) |", "the site's own"):
        assert shown in page, shown
    with monkeypatch.context() as patch:  # the same again, without a line in the log
        patch.setattr("training.bundle.accept.accept_at", lambda *_, **__: (load_bundle(LUNG), None, []))
        assert main([*command, "--dry-run"]) == 0
    assert len(read_registry(bundles).entries) == 1
    assert main([*command[:-1], "pneumothorax=0.3"]) == 2
    assert "no finding of the bundle: pneumothorax" in capsys.readouterr().err


def test_the_page_says_how_far_the_cases_are_from_those_that_were_learnt_from() -> None:
    bundle = load_bundle(read_registry(BUNDLES).folder_of("lung", "1.3.1"))
    with np.load(bundle.folder / "golden.npz") as golden:
        inputs, distance = tuple(golden["input"][:, None]), golden["distance"][:, 0]
    cases = Cases(np.array(["p"] * len(inputs)), pd.DataFrame(), np.zeros((0, 0)), None, LOCAL, inputs=inputs)
    text = "".join(_likeness(bundle, cases))
    assert f"median {np.median(distance):.2f}" in text
    beyond = (distance > bundle.manifest.thresholds["unlike"]).mean()
    assert f"a reserve is said ({beyond:.1%} of these cases)" in text
    assert _likeness(load_bundle(LUNG), cases) == []


def test_the_cases_that_made_a_bundle_cannot_accept_it(tmp_path: Path, lung: Bundle) -> None:
    from training.bundle import accept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accept, "cohort_cases", lambda *_, **__: made_up(lung, 100, told=2.0))
        same = lung.manifest.model_copy(update={"recalibrated_on": LOCAL})
        patch.setattr(accept, "load_bundle", lambda folder: Bundle(same, LUNG, lung.chosen, lung.card))
        path = manifest(
            tmp_path, [{"person": "a", "file": "a.png", "age": 5, "device": "x", "y": 1}], labels={"abnormal": "y"}
        )
        with pytest.raises(CannotRecalibrate, match="was made from these very cases"):
            accept.accept_at("s", LUNG, path, thresholds={}, out=tmp_path / "o")


def test_the_limit_of_a_site_is_that_of_an_offer() -> None:
    from training.figures.offer import Rule

    assert SITE_RULE.auroc == Rule().min_auroc
