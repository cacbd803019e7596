"""The admins' page of exports: a package as one file, answers, the record."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile

import pytest

from data_specs.vocabulary import LANGUAGES
from service.export.__main__ import DONE
from tests.service.export.ends import End, digest_in
from tests.service.export.planted import Planted, planted_film
from tests.service.serving import ADMIN, serving, settings_for

FORM = {"recipient": "Specialists abroad", "legal_basis": "consent of each person"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    settings = settings_for(tmp_path_factory.mktemp("home"), max_upload_mb=16)
    with pytest.MonkeyPatch.context() as patch, serving(settings) as served:
        yield End(served, settings, patch)


@pytest.fixture
def admin(home):
    with home.served.client(ADMIN, **{"Accept-Language": "en"}) as client:
        yield client


def test_a_package_is_sent_and_answers_are_taken(home, admin, tmp_path, monkeypatch, capsys):
    planted = Planted()
    visit = home.post([("image", "film.dcm", planted_film(planted))], person={"id": planted.word("id")})
    made = admin.post("/export", data=FORM)
    assert made.status_code == 200, made.text
    assert made.headers["content-type"] == "application/zip"
    digest = re.search(r"export-([0-9a-f]{64})\.zip", made.headers["content-disposition"])[1]
    folder = tmp_path / "package"
    with zipfile.ZipFile(io.BytesIO(made.content)) as package:
        package.extractall(folder)
        for name in package.namelist():
            assert planted.found_in(package.read(name)) == []
    assert planted.found_in(made.content) == []
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == digest
    assert list((home.settings.data_dir / "exports").iterdir()) == []
    assert digest in admin.get("/export").text

    settings = settings_for(tmp_path / "abroad", max_upload_mb=16)
    with serving(settings) as served:
        abroad = End(served, settings, monkeypatch)
        at = ("--manifest", digest, "--who", "x")
        assert abroad.command("import", folder, *at, "--site", "afar") == DONE
        (there,) = abroad.wait_for("afar", 1)
        with served.client(served.key("specialist", "central", doctor_id="CK-1", label="Dr Abroad")) as client:
            said = {"version": 1, "text": "looked at"}
            assert client.post(f"/v1/visits/{there.id}/opinions", json=said).status_code == 201
        capsys.readouterr()
        assert abroad.command("answers", tmp_path / "back", *at, "--legal-basis", "y") == DONE
    answer = digest_in(capsys.readouterr().out)
    back = io.BytesIO()
    with zipfile.ZipFile(back, "w") as packed:
        for path in (tmp_path / "back").iterdir():
            packed.write(path, path.name)
    sent = {"package": ("back.zip", back.getvalue(), "application/zip")}
    wrong = admin.post("/export/answers", data={"manifest": "0" * 64}, files=sent)
    assert wrong.status_code == 422
    assert "The manifest is not the one that was named" in wrong.text
    assert admin.post("/export/answers", data={"manifest": answer}, files=sent).status_code == 303
    assert [each["text"] for each in home.history(visit)["opinions"]] == ["looked at"]
    assert answer in admin.get("/export").text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"site": "nowhere"}, "no finished visit"),
        ({"legal_basis": ""}, 'role="alert"'),
        ({"recipient": "x" * 501}, 'role="alert"'),
        ({"since": "yesterday"}, 'role="alert"'),
        ({"until": "9999-12-31"}, 'role="alert"'),
    ],
)
def test_what_cannot_be_exported_is_said_on_the_page(admin, given, said):
    answer = admin.post("/export", data=FORM | given)
    assert answer.status_code == 422
    assert said in answer.text
    typed = FORM | given
    for name in ("recipient", "legal_basis"):
        if typed[name]:
            assert re.search(rf'name="{name}"[^>]* value="{re.escape(typed[name])}"', answer.text), "it stays typed"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_package_of_answers_is_said_on_the_page(admin, content):
    sent = {"package": ("back.zip", content, "application/zip")}
    answer = admin.post("/export/answers", data={"manifest": "0" * 64}, files=sent)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text


def test_only_admins_have_the_page(home):
    with home.served.client(home.served.key("doctor", "commune", doctor_id="D-1", label="BS. Thử Nghiệm")) as doctor:
        assert doctor.get("/export").status_code == 404
        assert doctor.post("/export", data=FORM).status_code == 404
    with home.served.client("not a key") as nobody:
        assert nobody.get("/export").status_code in (303, 401)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_speaks_each_language(home, language):
    with home.served.client(ADMIN, **{"Accept-Language": language}) as client:
        shown = client.get("/export")
    assert shown.status_code == 200
    assert f'<html lang="{language}">' in shown.text
    assert "{{" not in shown.text
