"""Hundreds of identifiers, planted wherever a visit can hold one: none of them leaves."""

from __future__ import annotations

import io
import json

import numpy as np
from pydicom import dcmread

from data_specs.cxr.files import read_image
from service.export.__main__ import DONE
from service.export.profile import kept
from tests.service.export.ends import WRITE, digest_in, visits_in
from tests.service.export.planted import (
    Planted,
    film_values,
    planted_film,
    planted_rasters,
    planted_recordings,
    with_text,
)

SAID = "Ho kéo dài, nghi viêm phổi: {word}"


def test_nothing_that_was_planted_leaves(home, tmp_path, capsys):
    planted = Planted()
    films = {f"{planted.word('name of a film')}.dcm": planted_film(planted), **planted_rasters(planted)}
    recordings = planted_recordings(planted)
    context = planted_context(planted)
    for name, content in [*films.items(), *recordings.items()]:  # the words are in what is posted
        assert planted.found_in(content) or name.endswith(".dat")
    files = [("image", name, content) for name, content in films.items()]
    files += [("ecg", name, content) for name, content in recordings.items()]
    site = planted.word("site")
    visit = home.post(files, site, **context)
    talk_about(planted, home, visit, site, context["referrer"]["id"])
    assert len(planted.places) > 500

    out = tmp_path / "out"
    assert home.command("write", out, *WRITE) == DONE
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["counts"]["films"] == len(films), manifest["withheld"]
    assert manifest["counts"]["recordings"] == 9, manifest["withheld"]
    for path in out.rglob("*"):
        assert planted.found_in(path.relative_to(out).as_posix().encode()) == []
        if path.is_file():
            assert planted.found_in(path.read_bytes()) == [], path
            assert visit.encode() not in path.read_bytes()
    assert planted.found_in(capsys.readouterr().out.encode()) == []
    (left,) = visits_in(out)
    assert left["asked_about"] == ["pneumonia"]
    assert left["context"]["person"]["age_years"] == 90
    assert left["context"]["labs"] == [{"name": "creatinine", "value": 88.4, "unit": "umol/L"}]
    assert left["context"]["conditions"] == ["diabetes"]
    assert manifest["removed"]["private"] >= 8
    assert manifest["removed"]["X"] > 100


def planted_context(planted):
    word = planted.word
    return {
        "person": {"id": word("id"), "name": word("name"), "birth_date": "1931-02-03", "sex": "female"},
        "referrer": {"id": word("referrer"), "name": word("referrer"), "facility": word("facility")},
        "order": {
            "placer": word("placer"),
            "accession_number": word("accession number"),
            "request": f"ServiceRequest/{word('request')}",
            "reason": SAID.format(word=word("reason")),
        },
        "visited_on": "2026-03-04",
        "labs": [
            {"name": "creatinine", "value": 1.0, "unit": "mg/dL"},
            {"name": word("lab"), "value": 4711, "unit": word("unit")},
        ],
        "conditions": ["Diabetes", word("condition")],
    }


def talk_about(planted, home, visit, site, doctor_id):
    """What doctors write: opinions, judgements, questions, outcomes."""
    key = home.served.key("doctor", site, doctor_id=doctor_id, label=planted.word("doctor's name"))
    home.served.key("specialist", "central", doctor_id="S-1", label="BS. Chuyên Khoa")
    with home.served.client(key) as doctor:
        address = f"/v1/visits/{visit}"
        judged = {"finding": "pneumonia", "verdict": "agree", "note": planted.word("note")}
        said = {"version": 1, "judgements": [judged], "text": planted.word("opinion")}
        assert doctor.post(f"{address}/opinions", json=said).status_code == 201
        asked = {"question": planted.word("question"), "to_site": "central"}
        assert doctor.post(f"{address}/referrals", json=asked).status_code == 201
        outcome = {"finding": "pneumonia", "outcome": "confirmed", "source": planted.word("outcome")}
        assert doctor.post(f"{address}/outcomes", json=outcome).status_code == 201


def test_text_in_the_pixels_is_blacked_out_and_the_rest_is_as_it_was(home, tmp_path, capsys):
    values = film_values(3)
    burned, strokes = with_text(values, "NGUYEN THI X 1931", (20, 12), 26, grey=4095)
    home.post([("image", "film.dcm", planted_film(Planted(), burned))], person={"id": "P-1"})
    assert home.command("write", tmp_path / "out", *WRITE) == DONE
    assert "blacked out" in capsys.readouterr().out
    (path,) = (tmp_path / "out" / "files").iterdir()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    boxes = manifest["blacked_out"][path.name]
    before, after = read_image(planted_film(Planted(), burned)).pixels, read_image(path.read_bytes()).pixels
    inside = np.zeros(before.shape, bool)
    for top, left, bottom, right in boxes:
        inside[top:bottom, left:right] = True
    assert inside[strokes].all()
    assert (after[inside] == 0).all()
    assert (after[~inside] == before[~inside]).all()
    assert inside.mean() < 0.1


def test_a_film_that_cannot_be_decided_is_withheld_and_said_so(home, tmp_path, capsys):
    burned, _ = with_text(film_values(4), "TRAN VAN Y 1944", (150, 300), 26, grey=4095)  # over the lungs
    home.post([("image", "film.dcm", planted_film(Planted(), burned))], person={"id": "P-1"})
    home.post(
        [("image", "film.dcm", planted_film(Planted(), film_values(6), BurnedInAnnotation="YES"))], person={"id": "P-2"}
    )
    assert home.command("write", tmp_path / "out", *WRITE) == DONE
    assert "withheld: 2 burned_in_undecided" in capsys.readouterr().out
    assert not (tmp_path / "out" / "files").exists()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["withheld"] == {"burned_in_undecided": 2}


def test_a_film_has_the_elements_of_the_list_alone_and_is_well_formed(home, tmp_path, capsys):
    import shutil
    import subprocess

    home.post([("image", "film.dcm", planted_film(Planted()))], person={"id": "P-1", "age_years": 44, "sex": "male"})
    assert home.command("write", tmp_path / "out", *WRITE) == DONE
    assert digest_in(capsys.readouterr().out)
    (path,) = (tmp_path / "out" / "files").iterdir()
    film = dcmread(io.BytesIO(path.read_bytes()))
    assert {element.keyword for element in film} <= set(kept())
    assert (film.PatientAge, film.PatientSex, film.PatientName) == ("044Y", "M", "")
    assert film.PatientIdentityRemoved == "YES"
    assert [each.CodeValue for each in film.DeidentificationMethodCodeSequence] == [
        *("113100", "113101", "113105", "113107", "113108")
    ]
    if shutil.which("dciodvfy"):
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "Error" not in done.stderr, done.stderr
