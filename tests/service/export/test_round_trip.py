"""Visits go abroad without names, a specialist answers there, and the answer comes back to the right person."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil

import pytest

from data_specs.problems import Problem
from service.export.__main__ import DONE
from service.storage.commands import REFUSED
from service.storage.tables import VisitRow
from tests.service.export.ends import WRITE, End, digest_in, visits_in
from tests.service.export.planted import Planted, film_values, planted_film
from tests.service.serving import serving, settings_for

AT = ("--who", "an admin abroad")
VISITS_OF_THE_PACKAGE = {
    "visits": 3,
    "persons": 2,
    "films": 3,
    "recordings": 0,
    "films_blacked_out": 0,
    "files_withheld": 0,
}


def film(seed):
    return [("image", "film.dcm", planted_film(Planted(), film_values(seed)))]


def day(text):
    return datetime.date.fromisoformat(text)


@pytest.fixture
def package(home, tmp_path, capsys):
    """A package of three visits of two persons, its digest, and the visits at home."""
    anna, binh = {"id": "MRN-0001", "age_years": 50}, {"id": "MRN-0002", "age_years": 61}
    visits = [
        home.post(film(1), person=anna, visited_on="2026-03-01", order={"reason": "pleural effusion?"}),
        home.post(film(2), person=anna, visited_on="2026-03-11"),
        home.post(film(3), person=binh, visited_on="2026-03-05"),
    ]
    assert home.command("write", tmp_path / "out", *WRITE) == DONE
    return tmp_path / "out", digest_in(capsys.readouterr().out), visits


def test_an_answer_comes_back_to_the_right_person(home, abroad, package, tmp_path, capsys):
    folder, digest, visits = package
    site = f"afar-{digest[:8]}"
    assert abroad.command("import", folder, "--manifest", digest, "--site", site, *AT) == DONE
    there = abroad.wait_for(site, 3)
    assert abroad.command("import", folder, "--manifest", digest, "--site", site, *AT) == DONE
    assert "imported before" in capsys.readouterr().out
    assert len(abroad.visits_at(site)) == 3

    left = {each["context"]["visited_on"]: each for each in visits_in(folder)}
    persons = [each["person"] for each in left.values()]
    anna = max(persons, key=persons.count)
    first, second = sorted(on for on, each in left.items() if each["person"] == anna)
    assert (day(second) - day(first)).days == 10  # and neither is the day that it was
    assert first < "2026-03-01"
    assert left[first]["asked_about"] == ["effusion"]

    answered = next(each.id for each in there if (each.person_id, each.visited_on.isoformat()) == (anna, first))
    specialist = abroad.served.key("specialist", "central", doctor_id="CK-1", label="Dr Abroad")
    with abroad.served.client(specialist) as client:
        assert "pleural effusion" in client.get(f"/v1/visits/{answered}/history").json()["referrals"][0]["question"]
        said = {"version": 1, "text": "no effusion", "judgements": [{"finding": "pneumonia", "verdict": "disagree"}]}
        assert client.post(f"/v1/visits/{answered}/opinions", json=said).status_code == 201
    back = tmp_path / "back"
    basis = ("--legal-basis", "answer to what was asked")
    assert abroad.command("answers", back, "--manifest", digest, *basis, *AT) == DONE
    answer = digest_in(capsys.readouterr().out)

    assert home.command("take", back, "--manifest", answer, "--who", "the admin") == DONE
    assert "taken: 1 new opinions" in capsys.readouterr().out
    assert [len(home.history(visit)["opinions"]) for visit in visits] == [1, 0, 0]
    (opinion,) = home.history(visits[0])["opinions"]
    assert (opinion["text"], opinion["author"]["name"]) == ("no effusion", "Dr Abroad")
    assert home.command("take", back, "--manifest", answer, "--who", "the admin") == DONE
    assert "taken: 0 new opinions" in capsys.readouterr().out
    assert len(home.history(visits[0])["opinions"]) == 1
    assert_in_the_log(home, abroad, visits, [each.id for each in there], digest, answer)
    assert home.command("record") == DONE
    told = capsys.readouterr().out
    assert digest in told
    assert not any(word in told for word in ("MRN-", *visits))


def assert_in_the_log(home, abroad, visits, there, digest, answer):
    """Each package is in the audit log, and each visit that left, came or was answered."""
    exported, taken = home.log("package_exported", "package_taken")[:2]
    assert json.loads(exported.detail) == {"counts": {**VISITS_OF_THE_PACKAGE}, "manifest": digest}
    assert json.loads(taken.detail)["manifest"] == answer
    assert {each.visit for each in home.log("visit_exported")} == set(visits)
    assert [each.visit for each in home.log("followup_received")] == [visits[0]]
    assert {each.role for each in home.log("package_exported", "package_taken", "visit_exported")} == {"command"}
    posted = [each for each in abroad.log("visit_posted") if each.visit in there]
    assert {json.loads(each.detail)["manifest"] for each in posted} == {digest}
    assert {each.visit for each in abroad.log("question_asked")} >= set(there)
    assert [json.loads(each.detail)["about"] for each in abroad.log("package_answered")][-1] == digest
    assert abroad.log("visit_exported")[-1].visit in there


def test_two_exports_name_a_person_the_same_and_two_recipients_do_not(home, package, tmp_path):
    folder, _, visits = package
    assert home.command("write", tmp_path / "again", *WRITE, "--visit", visits[2]) == DONE
    assert home.command("write", tmp_path / "other", *WRITE, "--to", "Somebody else") == DONE
    persons = {each["person"] for each in visits_in(folder)}
    assert {each["person"] for each in visits_in(tmp_path / "again")} < persons
    assert not {each["person"] for each in visits_in(tmp_path / "other")} & persons


def altered(folder, how):
    """Change the package in one way."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    one = folder / next(name for name in manifest["files"] if name.endswith(".dcm"))
    if how == "a byte":
        content = bytearray(one.read_bytes())
        content[-10] ^= 1
        one.write_bytes(content)
    elif how == "a longer file":
        one.write_bytes(one.read_bytes() + b"\0")
    elif how == "a file less":
        one.unlink()
    elif how == "a file more":
        (folder / "files" / "more.dcm").write_bytes(b"x")
    elif how == "a link":
        content = one.read_bytes()
        (folder.parent / "elsewhere").write_bytes(content)
        one.unlink()
        one.symlink_to(folder.parent / "elsewhere")
    elif how == "the manifest":
        manifest["legal_basis"] = "another one"
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    elif how == "no manifest":
        (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("a byte", "export_altered"),
        ("a longer file", "export_altered"),
        ("a file less", "export_other_files"),
        ("a file more", "export_other_files"),
        ("a link", "export_other_files"),
        ("the manifest", "export_other_manifest"),
        ("no manifest", "export_no_package"),
    ],
)
def test_an_altered_package_is_refused_as_a_whole(abroad, shipped, how, code, capsys):
    folder, digest = shipped
    altered(folder, how)
    assert abroad.command("import", folder, "--manifest", digest, "--site", "from-afar", *AT) == REFUSED
    assert f"export: {code}: " in capsys.readouterr().err
    assert abroad.visits_at("from-afar") == []


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """A package that is made once for the tests that alter copies of it."""
    folder = tmp_path_factory.mktemp("made")
    settings = settings_for(folder / "home", max_upload_mb=16)
    with pytest.MonkeyPatch.context() as patch, serving(settings) as served:
        home = End(served, settings, patch)
        home.post(film(9), person={"id": "MRN-0009"}, visited_on="2026-03-01")
        assert home.command("write", folder / "out", *WRITE) == DONE
    return folder / "out", hashlib.sha256((folder / "out" / "manifest.json").read_bytes()).hexdigest()


@pytest.fixture
def shipped(made_once, tmp_path):
    folder, digest = made_once
    return shutil.copytree(folder, tmp_path / "shipped"), digest


def test_a_site_with_visits_of_its_own_takes_none(abroad, shipped, capsys):
    folder, digest = shipped
    abroad.post([("image", "film.png", b"a film")], "busy", person={})
    assert abroad.command("import", folder, "--manifest", digest, "--site", "busy", *AT) == REFUSED
    assert "export_site_in_use" in capsys.readouterr().err


def test_answers_to_a_package_that_was_not_imported_are_not_written(abroad, tmp_path, capsys):
    basis = ("--legal-basis", "x")
    assert abroad.command("answers", tmp_path / "back", "--manifest", "0" * 64, *basis, *AT) == REFUSED
    assert "export_not_known" in capsys.readouterr().err


@pytest.fixture(scope="module")
def answered(abroad, made_once, tmp_path_factory):
    """The answers to a package, and the digest of their manifest."""
    folder, digest = made_once
    back = tmp_path_factory.mktemp("answered") / "back"
    assert abroad.command("import", folder, "--manifest", digest, "--site", "from-elsewhere", *AT) == DONE
    (visit,) = abroad.wait_for("from-elsewhere", 1)
    specialist = abroad.served.key("specialist", "central", doctor_id="CK-2", label="Dr Abroad")
    with abroad.served.client(specialist) as client:
        assert client.post(f"/v1/visits/{visit.id}/opinions", json={"version": 1}).status_code == 201
    assert abroad.command("answers", back, "--manifest", digest, "--legal-basis", "x", *AT) == DONE
    return back, hashlib.sha256((back / "manifest.json").read_bytes()).hexdigest()


def test_answers_to_what_was_never_exported_are_refused(home, answered, shipped, capsys):
    back, answer = answered
    assert home.command("take", back, "--manifest", answer, *AT) == REFUSED
    assert "export_not_known" in capsys.readouterr().err
    folder, digest = shipped
    assert home.command("take", folder, "--manifest", digest, *AT) == REFUSED
    assert "export_wrong_kind" in capsys.readouterr().err


def test_a_name_in_the_legal_basis_stops_the_export(home, tmp_path, capsys):
    home.post(film(1), person={"id": "MRN-0001", "name": "Nguyễn Thị Thử"}, visited_on="2026-03-01")
    given = ("--to", "Abroad", "--legal-basis", "consent of Nguyễn Thị Thử", "--who", "the admin")
    assert home.command("write", tmp_path / "out", *given) == REFUSED
    told = capsys.readouterr().err
    assert "export_identifier_left" in told
    assert "Thử" not in told
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_was_refused_does_not_leave(home, tmp_path, capsys):
    """One of another person: without names nobody could see that it is not this person's."""
    both = [("image", name, planted_film(Planted(), film_values(n))) for n, name in ((7, "other.dcm"), (8, "own.dcm"))]
    visit = home.post(both, person={"id": "MRN-0003", "age_years": 50})
    mismatch = Problem("person_mismatch", "reject", found="PatientAge 85", expected="50")
    with home.parts.database.transaction(write=True) as session:  # as the engine writes it; this one refuses nothing
        row = session.get(VisitRow, visit)
        found = row.read_assessment()
        other = found.inputs[0].model_copy(update={"accepted": False, "problems": [mismatch]})
        row.assessment = found.model_copy(update={"inputs": [other, *found.inputs[1:]]}).model_dump_json()
    assert home.command("write", tmp_path / "out", *WRITE, "--visit", visit) == DONE
    assert "withheld: 1 person_mismatch" in capsys.readouterr().out
    (left,) = visits_in(tmp_path / "out")
    assert [name.rpartition("-")[2] for name in left["files"]] == ["01.dcm"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert manifest["withheld"] == {"person_mismatch": 1}
