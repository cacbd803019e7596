"""From a hospital's manifest to a cohort: the same arrays as the shipped way, what is left out, what is drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_specs.bundle import CxrInput, EcgInput
from data_specs.cohort import ManifestInvalid
from data_specs.ecg.recording import LEADS
from data_specs.person import age_band
from tests.training.cohorts.test_checks import COLUMNS, film, made, planted, write
from training.cohorts import files as cohort_files
from training.cohorts.local import MOST_OFTEN, CohortUnusable, drawing_weights, further_tasks, local_cohort
from training.cohorts.shipped_films import read_films

FILM = CxrInput(size_px=224)
RECORDING = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=1)


def test_real_films_are_those_of_the_shipped_way(tmp_path: Path, shared_data: Path) -> None:
    nih = pd.read_csv(shared_data / "cxr/nih/labels.csv", dtype=str)
    nih = nih.groupby(["Pneumonia", "view"]).sample(20, random_state=3).drop_duplicates("patient_id")
    (tmp_path / "films").mkdir()
    for name in nih.image:
        shutil.copyfile(shared_data / "cxr/nih/images" / name, tmp_path / "films" / name)
    columns = {"person": "patient_id", "file": "image", "age_years": "age", "sex": "sex", "view": "view"}
    document: dict[str, Any] = {"columns": columns, "site": "Bethesda", "name": "of-nih", "age_years": [18, 86]}
    path = write(tmp_path, nih, **document)
    cohort = local_cohort(path, FILM, cache=tmp_path / "kept", progress=False)

    young = nih.age.astype(float).to_numpy() < 18
    assert 0 < len(cohort.x) <= len(nih)
    names = dict(zip("of-nih:" + nih.patient_id, nih.image, strict=True))
    films = read_films(
        [shared_data / "cxr/nih/images" / names[person] for person in cohort.person], CxrInput(size_px=224)
    )
    assert cohort.x.dtype == np.uint8
    assert (cohort.x == films).all()
    of_person = nih.set_index("of-nih:" + nih.patient_id).loc[list(cohort.person)]
    assert cohort.labels.pneumonia.tolist() == of_person.Pneumonia.astype(float).tolist()
    assert cohort.subgroups["view"].tolist() == of_person["view"].tolist()
    assert set(cohort.subgroups) == {"sex", "age", "view", "site"}
    # The young train, and neither validate nor test, as nothing is offered for them.
    kept_young = of_person.age.astype(float).to_numpy() < 18
    assert set(cohort.part[kept_young]) <= {"train"}
    assert len(cohort.x) == len(nih) - (young.sum() - kept_young.sum())
    assert (cohort.name, cohort.title, cohort.age_years) == ("of-nih", "of-nih", (18.0, 86.0))
    assert cohort.source.n_items == len(cohort.rows("train")) == cohort.source.n_persons
    assert all(limit.startswith("of-nih, ") and limit.endswith(".") for limit in cohort.limits)
    assert any("class counts" in limit for limit in cohort.limits)
    again = local_cohort(path, FILM, cache=tmp_path / "kept", progress=False)
    assert (again.x == cohort.x).all()
    assert again.limits == cohort.limits


def test_real_recordings(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = shared_data / "ecg" / "raw"
    table = pd.read_csv(raw / "labels.csv", dtype=str)
    table["sinus"] = table.dx_abbr.fillna("").str.contains("NSR").astype(int).astype(str)
    table = table[table.db.isin(["HR", "E"])]
    for record in table.record:
        for suffix in (".hea", ".mat"):
            shutil.copyfile(raw / f"{record}{suffix}", tmp_path / f"{record}{suffix}")
    rank = table.groupby("sinus").cumcount()
    table["part"] = np.where(rank % 5 == 3, "validation", np.where(rank % 5 == 4, "test", "train"))
    path = write(
        tmp_path,
        table,
        modality="ecg",
        files=".",
        site=None,
        columns={
            "person": "record",
            "file": "record",
            "age_years": "age",
            "sex": "sex",
            "site": "db",
            "split": "part",
        },
        labels={"normal_ecg": "sinus"},
    )
    cohort = local_cohort(path, RECORDING, cache=tmp_path / "kept", progress=False)
    assert cohort.x.shape == (len(table), 12, 1000)
    assert cohort.x.dtype == np.float32
    ages = table.age.astype(float)
    assert cohort.age_years == (np.floor(ages.min()), np.floor(ages.max()) + 1)
    assert cohort.weight is None  # more than a fifth are positive
    assert set(cohort.subgroups.site) == {"HR", "E"}
    monkeypatch.setattr(cohort_files, "read_case", None)  # the second time nothing is decoded
    again = local_cohort(path, RECORDING, cache=tmp_path / "kept", progress=False)
    assert (again.x == cohort.x).all()


def test_five_planted_faults_stop_it_and_all_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CohortUnusable) as caught:
        local_cohort(planted(tmp_path), FILM, cache=tmp_path / "kept", progress=False)
    said = str(caught.value)
    for fault in (
        "unreadable files",
        "person in two splits",
        "duplicate across splits",
        "label values",
        "label by view",
    ):
        assert fault in said
    for named in ("8 (case06.png)", "P003", "14 = 27", "19 (case17.png)", "UNUSABLE"):
        assert named in said
    assert capsys.readouterr().out == ""


def test_what_cannot_be_trained_says_why(tmp_path: Path) -> None:
    path = write(tmp_path, made(tmp_path), columns={"person": "patient", "file": "image", "split": "part"})
    with pytest.raises(CohortUnusable, match=r"age_years: \[from, to\]"):
        local_cohort(path, FILM, cache=None, progress=False)
    with pytest.raises(CohortUnusable, match="its modality is cxr, but ecg is needed"):
        local_cohort(path, RECORDING, cache=None, progress=False)
    path.write_text("name: [")
    with pytest.raises(ManifestInvalid):
        local_cohort(path, FILM, cache=None, progress=False)


def test_unused_and_unreadable_rows_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = made(tmp_path, 130)
    table.loc[3, "part"] = "unused"
    (tmp_path / "films" / "case07.png").write_bytes(b"none")  # fewer than one in a hundred
    table["site"] = ""
    path = write(tmp_path, table, site=None, columns={**COLUMNS, "site": "site"})
    cohort = local_cohort(path, FILM, cache=None, progress=False)
    persons = [f"made-up:P{i:03}" for i in range(130) if i not in (3, 7)]
    assert cohort.person.tolist() == persons
    assert len(cohort.x) == len(cohort.labels) == len(cohort.subgroups) == len(cohort.part) == 128
    assert cohort.labels.pneumonia.tolist() == [float(i % 2) for i in range(130) if i not in (3, 7)]
    assert "site" not in cohort.subgroups  # nothing is known of it
    assert any("unreadable files" in limit for limit in cohort.limits)
    assert not any("case07" in limit or "P0" in limit for limit in cohort.limits)
    assert not (tmp_path / "kept").exists()
    assert capsys.readouterr().out == ""
    weight = cohort.weight
    assert weight is not None
    train = cohort.part == "train"
    cells = cohort.labels.pneumonia.astype(str) + cohort.subgroups["view"]
    shares = pd.Series(weight[train]).groupby(cells[train].to_numpy()).sum()
    assert len(shares) == 4
    assert shares.to_numpy() == pytest.approx(shares.iloc[0])


def test_no_case_is_drawn_too_often_and_the_unlabelled_never() -> None:
    labels = pd.DataFrame({"a": [1.0] * 3 + [0.0] * 500 + [np.nan] * 20, "b": [np.nan] * 523})
    view = pd.Series(["PA", "PA", None] + ["PA"] * 400 + [None] * 120)
    train = np.ones(523, dtype=bool)
    train[400:450] = False
    weight = drawing_weights(labels, view, train, evenly_by_view=True)
    assert weight is not None
    counted = train & labels.a.notna().to_numpy()
    assert weight[counted].mean() == pytest.approx(1)
    assert weight[:3] == pytest.approx(MOST_OFTEN)
    assert (weight[503:] == 0).all()
    assert np.isfinite(weight).all()
    # Recordings: only where few are positive, and without regard to any view.
    few = drawing_weights(labels, view, train, evenly_by_view=False)
    assert few is not None
    assert np.unique(few[3:503]).size == 1
    many = pd.DataFrame({"a": [1.0] * 200 + [0.0] * 323})
    assert drawing_weights(many, view, train, evenly_by_view=False) is None


def test_age_and_sex_as_further_tasks() -> None:
    age = np.array([30.0] * 30 + [50.0] * 30 + [70.0] * 10 + [np.nan] * 5)
    frame = pd.DataFrame({"age_years": age, "sex": ["female", "male"] * 37 + ["other"]})
    tasks = further_tasks(frame, np.ones(75, dtype=bool))
    assert list(tasks) == ["female", "age_over_45"]  # ten over sixty are too few
    assert tasks.age_over_45[:70].tolist() == [0.0] * 30 + [1.0] * 40
    assert tasks.age_over_45[70:].isna().all()
    assert tasks.female.tolist()[:2] == [1.0, 0.0]
    assert np.isnan(tasks.female[74])
    few = np.zeros(75, dtype=bool)
    few[:50] = True
    assert list(further_tasks(frame, few)) == ["female", "age_over_45"]
    few[30:] = False
    assert further_tasks(frame.assign(sex=None), few).shape == (75, 0)


@pytest.mark.parametrize(
    ("age", "band"),
    [
        *((0.0, "<1"), (0.9, "<1"), (1, "1-5"), (5.9, "1-5"), (6, "6-17"), (17.9, "6-17"), (18, "18-40")),
        *((40.5, "18-40"), (41, "41-60"), (61, "61-75"), (75.9, "61-75"), (76, "76+"), (130, "76+")),
        *((131, None), (-1, None), (float("nan"), None)),
    ],
)
def test_bands_of_age(age: float, band: str | None) -> None:
    assert age_band(age) == band


def test_a_replaced_film_is_seen_in_the_next_cohort(tmp_path: Path) -> None:
    path = write(tmp_path, made(tmp_path))
    before = local_cohort(path, FILM, cache=tmp_path / "kept", progress=False)
    film(999).save(tmp_path / "films" / "case11.png")
    after = local_cohort(path, FILM, cache=tmp_path / "kept", progress=False)
    differs = (before.x != after.x).any(axis=(1, 2, 3))
    assert np.flatnonzero(differs).tolist() == [11]
