"""``python -m training plan --programme``: on a shipped bundle, on local scores, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from data_specs.bundle import BundleManifest, FindingSpec
from tests.conftest import ROOT
from training.figures import planner
from training.figures.costs import planned
from training.figures.roc import rocs_by_group
from training.figures.scored import on_local_scores
from training.figures.screening import PlanError

LUNG = ROOT / "models" / "bundles" / "lung-1.4.0"
TABLE = """
[costs]
currency = "VND"
screening = 60_000
recall_visit = 150_000
confirmatory_test = 350_000
tests_per_recall = 1
treatment_start = 900_000

[populations.villages]
people = 8000
prevalence = [0.003, "24/8000"]
"""
WOMEN = '[populations.women]\npeople = 100\nprevalence = 0.01\ncases = "sex F"\n'


@pytest.fixture
def programme(tmp_path: Path) -> Path:
    file = tmp_path / "planning.toml"
    file.write_text(TABLE)
    return file


@pytest.fixture
def abnormal() -> FindingSpec:
    manifest = BundleManifest.model_validate_json((LUNG / "screening.json").read_bytes())
    return next(spec for spec in manifest.findings if spec.name == "abnormal")


def scores(file: Path, n: int = 400, seed: int = 2) -> Path:
    """Local cases: probabilities that tell 100 of them apart from the others, better among men."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) < n // 4
    sex = np.where(rng.random(n) < 0.5, "F", "M")
    p = 1 / (1 + np.exp(-rng.normal(np.where(y, np.where(sex == "M", 2.5, 1.0), -1.0), 1.0)))
    rows = [f"{p[i]:.6f},{'confirmed' if y[i] else 'refuted'},P{i},{sex[i]}" for i in range(n)]
    file.write_text("\n".join(["probability,outcome,person,sex", *rows, "0.5,lost,P9999,F", "0.5,,P9998,M"]) + "\n")
    return file


def test_the_command_prints_writes_and_draws(
    programme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "plan.csv", tmp_path / "plan.svg"
    asked = ["--bundle", str(LUNG), "--finding", "pneumonia", "--programme", str(programme)]
    assert planner.main([*asked, "--csv", str(out), "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert "pneumonia; money in VND" in said
    assert said.count("villages: 8000 people, prevalence ") == 2
    assert "screening (decides)" in said
    assert "chosen on these same cases" in said
    assert "carries no group at every threshold" in said
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 120
    assert all(float(row["total_low"]) <= float(row["total"]) <= float(row["total_high"]) for row in rows)
    assert plot.read_text().startswith("<?xml")


def test_a_group_of_a_shipped_bundle_has_the_one_threshold_and_says_so(
    programme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programme.write_text(TABLE + WOMEN)
    assert planner.main(["--bundle", str(LUNG), "--finding", "abnormal", "--programme", str(programme)]) == 0
    assert "figures at this threshold only" in capsys.readouterr().out
    programme.write_text(TABLE + WOMEN.replace("sex F", "sex X"))
    assert planner.main(["--bundle", str(LUNG), "--finding", "abnormal", "--programme", str(programme)]) == 2
    said = capsys.readouterr().err
    assert "no figures of the cases 'sex X'; there are: all, " in said
    assert "sex F" in said


def test_local_scores_take_the_place_of_the_bundles_cases(
    programme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    programme.write_text(TABLE + WOMEN)
    asked = ["--bundle", str(LUNG), "--finding", "abnormal", "--programme", str(programme)]
    file = scores(tmp_path / "scores.csv")
    assert planner.main([*asked, "--scores", str(file), "--group", "sex"]) == 0
    said = capsys.readouterr().out
    assert "cases: scores.csv (100 with, 300 without)" in said
    assert "2 rows without an outcome were left out." in said
    assert "chosen on these same cases" not in said
    assert "at this threshold only" not in said


def test_groups_are_those_of_the_scores(abnormal: FindingSpec, tmp_path: Path) -> None:
    local, said = on_local_scores(abnormal, scores(tmp_path / "scores.csv"), ["sex"])
    assert set(local.roc_by_group) == {"sex F", "sex M"}
    of_sex = [local.roc_by_group[group][0] for group in ("sex F", "sex M")]
    assert sum(point.true_positives for point in of_sex) == 100
    assert local.evaluation == ()
    assert said == ["2 rows without an outcome were left out."]


def test_of_a_table_of_several_findings_its_own_rows_count(abnormal: FindingSpec, tmp_path: Path) -> None:
    rows = ["effusion,0.9,refuted", "abnormal,0.8,confirmed", "effusion,0.7,", "abnormal,0.2,refuted"]
    file = tmp_path / "scores.csv"
    file.write_text("\n".join(["finding,probability,outcome", *rows]))
    local, said = on_local_scores(abnormal, file)
    assert said == []
    assert (local.roc[0].true_positives, local.roc[0].false_positives) == (1, 1)
    file.write_text(file.read_text().replace("0.2", "2"))
    with pytest.raises(PlanError, match="in line 5"):
        on_local_scores(abnormal, file)
    file.write_text(file.read_text().replace("abnormal", "oedema"))
    with pytest.raises(PlanError, match="no rows of abnormal"):
        on_local_scores(abnormal, file)


def test_of_a_finding_that_reassures_it_is_said_who_is_recalled(
    programme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cardiac = ROOT / "models" / "bundles" / "cardiac-1.2.2"
    assert planner.main(["--bundle", str(cardiac), "--finding", "normal_ecg", "--programme", str(programme)]) == 0
    assert "Recalled is who lies below the threshold" in capsys.readouterr().out


@pytest.mark.parametrize("given", [["--scores", "x.csv"], ["--csv", "x.csv"], ["--group", "sex"]])
def test_what_belongs_to_a_programme_is_not_passed_over_without_one(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--bundle", str(LUNG), "--finding", "abnormal", "--prevalence", "0.1", "--recalls-per-1000", "100"]
    with pytest.raises(SystemExit):
        planner.main([*asked, *given])
    assert f"{given[0]}: only with --programme" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("probability,result\n0.5,1\n", "no column outcome"),
        ("probability,outcome\n", "no rows"),
        ("probability,outcome\n0.5,1\n1.5,0\n", "'probability' has to be from 0 to 1, and is not in line 3"),
        ("probability,outcome\n0.5,1\nx,0\n", "in line 3"),
        ("probability,outcome\n0.5,perhaps\n0.4,0\n", "'outcome' has to be"),
        ("probability,outcome\n0.5,1\n0.4,1\n", "2 with and 0 without"),
    ],
)
def test_scores_that_cannot_be_planned_from(abnormal: FindingSpec, tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(content)
    with pytest.raises(PlanError, match=said):
        on_local_scores(abnormal, file)


def test_a_bundle_without_a_roc_says_what_to_do(abnormal: FindingSpec, programme: Path) -> None:
    from data_specs.planning.programme import read_programme

    with pytest.raises(PlanError, match="has no ROC"):
        planned(read_programme(programme), abnormal.model_copy(update={"roc": ()}))


def test_several_rows_of_a_person_are_said(abnormal: FindingSpec, tmp_path: Path) -> None:
    file = scores(tmp_path / "scores.csv")
    file.write_text(file.read_text().replace(",P1,", ",P0,"))
    _, said = on_local_scores(abnormal, file)
    assert "400 rows of 399 persons" in said[1]


def test_the_training_writes_the_roc_of_groups_with_enough_cases() -> None:
    rng = np.random.default_rng(4)
    y = (rng.random(200) < 0.3).astype(float)
    p = np.clip(rng.normal(0.3 + 0.4 * y, 0.2), 0.001, 0.999)
    half = np.arange(200) < 100
    found = rocs_by_group(y, p, {"sex F": half, "few": np.arange(200) < 12})
    assert list(found) == ["sex F"]
    assert found["sex F"][0].true_positives == int(y[half].sum())
    assert len(found["sex F"]) <= 30
