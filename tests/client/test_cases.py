"""What is posted of a folder, of a table, of files; what is refused before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.cases import VITALS, BadInput, field_of, read_cases
from data_specs.visit.context import Context, Vitals
from tests.conftest import ROOT

SAMPLES = ROOT / "samples"
TABLE = """visit,id,age_years,sex,visited_on,referrer,conditions,files,creatinine [umol/L],HbA1c [%],systolic_mmHg
a,P-1,54,female,2026-11-21,D-07,diabetes;hypertension,films/1.png; films/2.png,88,"7,1",140
,P-2,61.5,male,,,none,,120,,
,,,,,,,,,,
,,,,,,,films/1.png,,,
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "films" / name).write_bytes(b"\x89PNG\r\n" + name.encode())
    return tmp_path


def test_a_table(folder):
    (folder / "visits.csv").write_text(TABLE, "utf-8")
    first, second, third = read_cases([folder / "visits.csv"])
    assert [each.name for each in (first, second, third)] == ["a", "P-2", "line 5"]
    assert [(field, path.name) for field, path in first.files] == [("image", "1.png"), ("image", "2.png")]
    read = Context.model_validate_json(first.context_json())
    assert (read.person.id, read.person.age_years, read.person.sex) == ("P-1", 54, "female")
    assert [(lab.name, lab.value, lab.unit) for lab in read.labs] == [("creatinine", 88, "umol/L"), ("HbA1c", 7.1, "%")]
    assert read.conditions == ("diabetes", "hypertension")
    assert (str(read.visited_on), read.referrer.id, read.vitals.systolic_mmHg) == ("2026-11-21", "D-07", 140)
    assert second.context["conditions"] == []
    assert third.context == {}
    assert len({each.digest for each in (first, second, third)}) == 3


def test_a_table_of_a_spreadsheet_with_semicolons_and_a_mark_of_utf_8(folder):
    text = "id;birth_date;creatinine [mg/dL]\nP-1;1961-02-03;1,2\n"
    (folder / "visits.csv").write_bytes(text.encode("utf-8-sig"))
    (case,) = read_cases([folder / "visits.csv"])
    assert case.context["person"] == {"id": "P-1", "birth_date": "1961-02-03"}
    assert case.context["labs"] == [{"name": "creatinine", "value": 1.2, "unit": "mg/dL"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient\n1\n", "column 'patient' is not known; known: visit, id, name"),
        ("id,creatinine\nP,1\n", "NAME [UNIT]"),
        ("id,age_years\nP,old\n", "line 2, age_years: 'old' is not a number"),
        ("id,creatinine [umol/L]\nP,1.000,5\n", "line 2: more cells"),
        ("id,hba1c [%]\nP,<5\n", "line 2, hba1c [%]: '<5' is not a number"),
        ("id,id\nP,Q\n", "a column stands twice"),
        ("id,files\nP,gone.png\n", "line 2: there is no file"),
        ("id,files\n", "no visits in it"),
        ("", "no visits in it"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text, "utf-8")
    with pytest.raises(BadInput) as refused:
        read_cases([tmp_path / "t.csv"])
    assert said in str(refused.value)


def test_a_folder(folder):
    (folder / "visit-1").mkdir()
    for name in ("E07517.hea", "E07517.mat", "film-abnormal.jpg", "context.json"):
        (folder / "visit-1" / name).write_bytes((SAMPLES / name).read_bytes())
    for name in ("b.hea", "b.dat", "c.png", "c.json", "only.json", ".hidden"):
        (folder / name).write_text("{}")
    cases = {each.name: each for each in read_cases([folder])}
    assert set(cases) == {"films", "visit-1", "b", "c"}
    assert [field for field, _ in cases["visit-1"].files] == ["ecg", "ecg", "image"]
    assert cases["visit-1"].context == json.loads((SAMPLES / "context.json").read_text())
    assert len(cases["b"].files) == 2


def test_films_and_recordings_are_told_apart_by_how_they_begin():
    assert [field_of(SAMPLES / name) for name in ("film-normal.jpg", "recording.dcm", "E07517.hea", "E07517.mat")] == [
        "image",
        "ecg",
        "ecg",
        "ecg",
    ]


def test_the_digest_follows_the_bytes_and_the_context(folder):
    film = folder / "films" / "1.png"
    (before,) = read_cases([film])
    assert read_cases([film])[0].digest == before.digest
    film.write_bytes(b"\x89PNG\r\nother")
    assert read_cases([film])[0].digest != before.digest
    assert before.digest.isascii()
    assert len(before.digest) < 255


def test_what_is_not_there(tmp_path):
    for paths in ([tmp_path / "gone"], [tmp_path], [tmp_path, tmp_path]):
        with pytest.raises(BadInput):
            read_cases(paths)
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(BadInput, match="not JSON"):
        read_cases([tmp_path])


def test_the_names_of_vital_signs_are_those_of_the_service():
    assert set(VITALS) == set(Vitals.model_fields)


def test_the_client_stands_alone():
    text = "".join(path.read_text("utf-8") for path in Path(ROOT / "client").glob("*.py"))
    for package in ("service", "inference", "data_specs", "models", "training", "benchmarks"):
        assert f"import {package}" not in text
        assert f"from {package}" not in text
