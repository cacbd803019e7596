"""``kidney`` from a hospital's own table: who counts, what is learnt, what is refused, and that a visit is answered."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.special import expit

from data_specs.cohort import VITALS
from data_specs.conditions import CONDITIONS
from data_specs.labs import standard_labs
from data_specs.visit.assessment import AssessedOrgan
from data_specs.visit.context import Context, Lab, Person, Vitals
from inference import kidney as serving
from inference.bundles.loading import Bundle, load_bundle
from inference.runtime.batcher import Batcher
from models.equations import LOG_ACR
from tests.conftest import ROOT
from training.__main__ import main
from training.cohorts.local import CohortUnusable
from training.organs import kidney
from training.organs.kidney_at_risk import CannotTrain, at_risk, usable_features
from training.organs.kidney_incidence import learn, probabilities, search, splits

FAST = {"repeats": 1, "folds": 3, "draws": 100, "progress": False}
N, UNDER_60, WITHOUT_SYSTOLIC, UNKNOWN = 400, 7, 11, 5


def made(seed: int = 1, *, told: bool = True) -> pd.DataFrame:
    """A clinic's table with columns of its own: the disease comes with age, creatinine and blood pressure."""
    rng = np.random.default_rng(seed)
    age, female = rng.integers(30, 80, N), rng.integers(0, 2, N)
    creatinine = np.where(female == 1, 0.62, 0.8) + rng.uniform(0, 0.25, N)
    systolic = rng.normal(138, 16, N).round()
    risk = expit(-1.4 + 1.6 * (age - 55) / 14 + 1.5 * (systolic - 138) / 16)
    event = rng.random(N) < (risk if told else 0.3)
    table = pd.DataFrame(
        {
            "Ma so": [f"BN{i:04}" for i in range(N)],
            "Tuoi": age,
            "Gioi": np.where(female == 1, "Nu", "Nam"),
            "Creatinin": creatinine.round(3),
            "HATT": systolic,
            "BMI": np.where(rng.random(N) < 0.4, np.nan, 24.5),
            "DTD": rng.integers(0, 2, N),
            "Suy than": event.astype(int),
        }
    ).astype(object)
    table.loc[: UNDER_60 - 1, "Creatinin"] = 2.9
    table.loc[20 : 20 + WITHOUT_SYSTOLIC - 1, "HATT"] = None
    table.loc[60 : 60 + UNKNOWN - 1, "Suy than"] = None
    return table


def write(folder: Path, table: pd.DataFrame, **manifest: Any) -> Path:
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "labs.csv", index=False, sep=";")
    document = {
        "name": "district-7",
        "modality": "labs",
        "table": "labs.csv",
        "separator": ";",
        "columns": {"person": "Ma so", "age_years": "Tuoi", "sex": "Gioi"},
        "values": {"sex": {"Nu": "female", "Nam": "male"}},
        "labels": {"incident_ckd": "Suy than"},
        "features": {
            "creatinine": {"column": "Creatinin", "unit": "mg/dL"},
            "systolic_mmHg": {"column": "HATT", "unit": "mmHg"},
            "bmi_kg_per_m2": {"column": "BMI", "unit": "kg/m2"},
            "diabetes": {"column": "DTD", "unit": "1"},
        },
        "site": "one clinic",
        "source": {"citation": "made up for a test", "licence": "none"},
        **manifest,
    }
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def train(cohort: Path, bundles: Path) -> Path:
    return kidney.run(data=cohort.parent, out=bundles, bundles=bundles, version="2.0.0", cohorts=[cohort], **FAST)


def visit(bundle: Bundle, **changes: Any) -> AssessedOrgan:
    """The kidney's answer to one visit, with the labs as they were written there."""
    said = {"age": 64, "creatinine": 0.9, "systolic": 150.0, "conditions": ("Hypertension",)} | changes
    context = Context(
        person=Person(age_years=said["age"], sex="male"),
        labs=(Lab(name="creatinine", value=said["creatinine"], unit="mg/dL"),),
        vitals=Vitals(systolic_mmHg=said["systolic"]),
        conditions=said["conditions"],
    )
    values, problems = standard_labs(context.labs)

    async def assess() -> AssessedOrgan:
        batcher = Batcher(bundle.session, name="kidney", finite=False)
        try:
            return await serving.KidneyPipeline(bundle, batcher).assess(context, values, problems)
        finally:
            batcher.close()

    return asyncio.run(assess())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clinic"), made())


@pytest.fixture(scope="module")
def folder(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(cohort, tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


def test_a_clinics_own_table_makes_a_bundle_that_answers_its_visits(bundle: Bundle) -> None:
    spec = next(f for f in bundle.manifest.findings if f.name == "incident_ckd")
    assert "systolic_mmHg" in spec.requires
    names = [f.name for f in bundle.manifest.input.features]
    assert names[:7] == [f.name for f in kidney.FEATURES]
    assert dict(zip(names, [f.unit for f in bundle.manifest.input.features], strict=True))["systolic_mmHg"] == "mmHg"

    organ = visit(bundle)
    found = {f.name: f for f in organ.findings}
    assert found["egfr"].value == pytest.approx(96, abs=2)
    assert found["incident_ckd"].calibrated
    risk = found["incident_ckd"].probability
    assert risk is not None
    lower = {f.name: f for f in visit(bundle, systolic=110.0, age=40).findings}["incident_ckd"].probability
    assert lower is not None
    assert lower < 0.2 < risk
    # For whom it was not learnt, it says nothing; the equations go on.
    for change in ({"systolic": None}, {"creatinine": 2.9}, {"age": 85}, {"age": 25}):
        others = {f.name for f in visit(bundle, **change).findings}
        assert "incident_ckd" not in others, change
        assert "egfr" in others


def test_the_graph_says_what_the_regression_says(bundle: Bundle, cohort: Path) -> None:
    rows = kidney.hospital_cohort(cohort, progress=False).rows
    fitted = search(rows.table, rows.y, rows.person, rows.candidates)
    names = [f.name for f in bundle.manifest.input.features]
    (values,) = bundle.session.run(rows.table.reindex(columns=names).to_numpy(dtype=np.float32))
    assert expit(values[:, -1].astype(float)) == pytest.approx(probabilities(fitted, rows.table), abs=1e-5)
    assert len(rows.y) == N - UNDER_60 - WITHOUT_SYSTOLIC - UNKNOWN


def test_the_card_speaks_of_this_cohort_and_no_other(bundle: Bundle, folder: Path) -> None:
    kept = N - UNDER_60 - WITHOUT_SYSTOLIC - UNKNOWN
    for said in (
        f"fitted to district-7, {kept} rows of {kept} persons",
        f"{UNDER_60} with an eGFR under 60 at the start",
        f"{UNKNOWN} with an unknown outcome",
        f"{WITHOUT_SYSTOLIC} without systolic_mmHg",
        "bmi_kg_per_m2 (unknown in ",
        "made up for a test",
        "CKD-EPI 2021",
        "per 1,000 screened",
        "ece_debiased",
        "sex female",
        "too few to say",
        "incident_ckd-8.png",
        "1 repeats of 3 outer folds",
    ):
        assert said in bundle.card, said
    for other in ("Emirates", "Al-Shamsi", "Tawam"):
        assert other not in bundle.card
    spec = bundle.manifest.findings[-1]
    assert spec.roc
    assert spec.age_years == spec.applies_when["age_years"] == (30, 80)
    assert {"sex female", "sex male", "age 41-60"} <= {e.subgroup for e in spec.evaluation}
    assert (folder / "docs" / "incident_ckd-8.png").stat().st_size > 10_000


def test_twice_gives_the_same_bundle(cohort: Path, folder: Path, tmp_path: Path) -> None:
    again = train(cohort, tmp_path)
    for name in ("models/model.onnx", "screening.json", "docs/README.md"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    with pytest.raises(FileExistsError, match=r"2\.0\.0"):
        train(cohort, tmp_path)


def test_where_the_outcome_is_chance_the_equations_ship_alone(tmp_path: Path) -> None:
    made_of_chance = load_bundle(train(write(tmp_path, made(told=False)), tmp_path))
    assert not [f for f in made_of_chance.manifest.findings if f.name == "incident_ckd"]
    (withheld,) = made_of_chance.manifest.withheld
    assert "AUROC" in withheld.reason
    assert withheld.reason in made_of_chance.card
    assert len(made_of_chance.manifest.input.features) == 4
    found = {f.name for f in visit(made_of_chance).findings}
    assert found == {"egfr", "kdigo_g"}


# ---------------------------------------------------------------- refused


def test_other_outcomes_and_other_modalities_are_refused(tmp_path: Path, cohort: Path) -> None:
    for labels in ({"pneumonia": "Suy than"}, {"incident_ckd": "Suy than", "kfre_5y": "DTD"}):
        with pytest.raises(CannotTrain, match="one label, `incident_ckd`"):
            train(write(tmp_path, made(), labels=labels), tmp_path)
    films = yaml.safe_load(cohort.read_text()) | {"modality": "cxr"}
    films["columns"]["file"] = "Ma so"
    del films["features"]
    (tmp_path / "films.yaml").write_text(yaml.safe_dump(films))
    with pytest.raises(CannotTrain, match="modality labs, not cxr"):
        train(tmp_path / "films.yaml", tmp_path)
    with pytest.raises(CannotTrain, match="one cohort"):
        kidney.run(data=tmp_path, out=tmp_path, bundles=tmp_path, version="1.0.0", cohorts=[cohort, cohort])


def test_too_few_events_are_refused_with_their_count(tmp_path: Path) -> None:
    table = made()
    table["Suy than"] = [int(100 <= i < 121) for i in range(N)]
    table.loc[100:101, "Tuoi"] = 17
    with pytest.raises(CannotTrain, match=r"19 persons with the event and \d+ without .* 2 under 18 years"):
        train(write(tmp_path, table), tmp_path)


def test_an_unusable_cohort_is_refused_with_the_whole_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = made()
    table.loc[3, "Suy than"] = 2
    path = write(tmp_path, table, columns={"person": "Ma so", "age_years": "Tuoi", "sex": "Gioi", "device": "May"})
    with pytest.raises(CohortUnusable) as refused:
        train(path, tmp_path)
    for said in ("found 2; a label is 0, 1 or nothing", "no column 'May'", "UNUSABLE", "rows 5 (BN0003)"):
        assert said in str(refused.value)
    assert main(["kidney", "--cohort", str(path), "--out", str(tmp_path)]) == 2
    assert "UNUSABLE" in capsys.readouterr().err


def test_without_creatinine_there_is_no_egfr(tmp_path: Path) -> None:
    path = write(tmp_path, made(), features={"systolic_mmHg": {"column": "HATT", "unit": "mmHg"}})
    with pytest.raises(CannotTrain, match="creatinine_umol_per_l"):
        train(path, tmp_path)
    wrong_unit = write(tmp_path, made(), features={"creatinine": {"column": "Creatinin", "unit": "umol/L"}})
    with pytest.raises(CohortUnusable, match="value_implausible"):
        train(wrong_unit, tmp_path)


# ---------------------------------------------------------------- who counts, and what is taken


def rows_made(**columns: Any) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    n = 300
    table = pd.DataFrame(
        {
            "age_years": rng.uniform(30, 80, n),
            "female": rng.integers(0, 2, n),
            "creatinine_umol_per_l": rng.uniform(50, 75, n),
            **columns,
        }
    )
    y = (rng.random(n) < expit((table.age_years - 60) / 8)).to_numpy(dtype=np.float64)
    return table, y, np.arange(n).astype(str)


def test_a_ratio_is_taken_as_its_logarithm_and_serving_computes_the_same(tmp_path: Path) -> None:
    ratio = np.exp(np.random.default_rng(4).normal(3, 1.5, 300))
    ratio[:5] = 0
    table, y, person = rows_made(
        urine_acr_mg_per_g=ratio, urine_albumin_mg_per_l=ratio, urine_creatinine_mmol_per_l=5.0
    )
    rows = at_risk(table, y, person, name="made", everything=True)
    assert rows.candidates[-1] == ("egfr", "age_years", "female", LOG_ACR)
    assert "only as the ratio" in rows.left_out[-1]
    rows = replace(rows, candidates=rows.candidates[-1:])
    found = learn(rows, **FAST)
    assert found.finding.spec.requires[-1] == "urine_acr_mg_per_g"
    import torch

    graph = found.graph(tuple(f.name for f in kidney.FEATURES))
    names = [f.name for f in kidney.FEATURES]
    with torch.inference_mode():
        values = graph(torch.from_numpy(rows.table.reindex(columns=names).to_numpy(dtype=np.float32)))
    assert expit(values[:, -1].numpy()) == pytest.approx(probabilities(found.model, rows.table), abs=1e-5)


def test_features_that_few_have_are_not_taken() -> None:
    rng = np.random.default_rng(5)
    full = pd.DataFrame(rng.normal(size=(1000, 5)), columns=["age_years", "hba1c_percent", "a", "b", "c"])
    full.loc[:149, "a"] = np.nan
    full.loc[850:, "b"] = np.nan
    full.loc[:300, "c"] = np.nan
    full["d"] = 1.0
    taken, not_taken = usable_features(full)
    assert taken == ("a", "hba1c_percent")
    assert not_taken == [
        "d (the same in everyone)",
        "b (with the others, more than 20% of rows would be incomplete)",
        "c (unknown in 30%)",
    ]
    assert usable_features(full, only={"hba1c_percent"}) == (("hba1c_percent",), [])


def test_a_person_is_never_on_both_sides() -> None:
    person = np.repeat(np.arange(60), 5).astype(str)
    y = np.repeat(np.arange(60) % 3 == 0, 5).astype(float)
    for train_rows, test_rows in splits(y, person, 5, seed=0):
        assert not set(person[train_rows]) & set(person[test_rows])
        assert y[test_rows].sum() >= 10


def test_the_tables_own_test_part_is_evaluated_once_and_never_learnt_from() -> None:
    table, y, person = rows_made()
    part = np.array(["test" if i % 3 == 0 else "train" for i in range(300)], dtype="U6")
    part[-9:] = "unused"
    rows = at_risk(table, y, person, name="made", everything=True, part=part, age_years=(40, 70))
    assert rows.held_out.sum() == ((part == "test") & table.age_years.between(40, 70)).sum()
    found = learn(rows, **FAST)
    inside = ~rows.held_out
    alone = search(rows.table[inside], rows.y[inside], rows.person[inside], rows.candidates)
    assert np.array_equal(alone.best_estimator_["model"].coef_, found.model["model"].coef_)
    cohorts = {
        e.cohort: e.estimate.n for e in found.finding.spec.evaluation if (e.metric, e.subgroup) == ("auroc", "all")
    }
    assert cohorts["made, test"] == rows.held_out.sum()
    assert set(found.finding.parts) == {"cross-validated", "test"}
    assert sum(cohorts.values()) <= 300 - 9


def test_serving_can_fill_every_feature_that_a_manifest_can_name() -> None:
    assert set(CONDITIONS) == set(serving.known_features(Context(conditions=()), {}))
    assert set(VITALS) == set(Vitals.model_fields)
    vitals = Vitals(systolic_mmHg=130, bmi_kg_per_m2=23)
    known = serving.known_features(Context(vitals=vitals, conditions=("current-smoker",)), {})
    assert (known["systolic_mmHg"], known["bmi_kg_per_m2"]) == (130, 23)
    assert (known["smoking"], known["obesity"]) == (1, 0)
    assert "heart_rate_per_min" not in known


# ---------------------------------------------------------------- the published cohort


def test_a_manifest_of_the_published_cohort_gives_the_same_persons(tmp_path: Path, shared_data: Path) -> None:
    raw = pd.read_csv(shared_data / "kidney/alshamsi/journal.pone.0199920.s002_EDITED.csv", dtype=str)
    raw.insert(0, "id", np.arange(len(raw)).astype(str))
    raw.to_csv(tmp_path / "alshamsi.csv", index=False)
    document = {
        "name": "al-shamsi-2018",
        "modality": "labs",
        "table": "alshamsi.csv",
        "columns": {"person": "id", "age_years": "AgeBaseline", "sex": "Sex"},
        "values": {"sex": {"0": "female", "1": "male"}},
        "labels": {"incident_ckd": "EventCKD35"},
        "features": {
            "creatinine": {"column": "CreatinineBaseline", "unit": "umol/L"},
            "hba1c": {"column": "HgbA1C", "unit": "%"},
            "diabetes": {"column": "HistoryDiabetes", "unit": "1"},
            "coronary_heart_disease": {"column": "HistoryCHD", "unit": "1"},
        },
        "site": "Tawam Hospital",
        "source": {"citation": "Al-Shamsi et al., PLoS ONE 2018;13(6):e0199920", "licence": "CC BY 4.0"},
    }
    path = tmp_path / "cohort.yaml"
    path.write_text(json.dumps(document))
    mine, theirs = kidney.hospital_cohort(path, progress=False).rows, kidney.shipped(shared_data).rows
    assert len(theirs.y) == 476
    assert theirs.y.sum() == 54
    # One creatinine is 6 µmol/L as published: a manifest's values are held to what serving takes as plausible.
    plausible = theirs.table.creatinine_umol_per_l.to_numpy() >= 10
    assert (~plausible).sum() == 1
    assert np.array_equal(mine.y, theirs.y[plausible])
    pd.testing.assert_frame_equal(mine.table[list(theirs.table)], theirs.table[plausible])
    assert mine.candidates[:-1] == theirs.candidates
    assert mine.candidates[-1] == (
        "egfr", "age_years", "female", "coronary_heart_disease", "diabetes", "hba1c_percent",
    )  # fmt: skip
    assert mine.left_out == ("Left out: 1 without creatinine, age or sex, 15 without hba1c_percent (of 491 rows).",)


def test_the_shipped_cohort_still_gives_the_shipped_model(shared_data: Path) -> None:
    rows = kidney.shipped(shared_data).rows
    fitted = search(rows.table, rows.y, rows.person, rows.candidates)
    shipped = load_bundle(ROOT / "models/bundles/kidney-1.0.0")
    names = [f.name for f in shipped.manifest.input.features]
    (values,) = shipped.session.run(rows.table.reindex(columns=names).to_numpy(dtype=np.float32))
    assert expit(values[:, -1].astype(float)) == pytest.approx(probabilities(fitted, rows.table), abs=1e-6)
