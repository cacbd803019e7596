"""Odd input, old rows, lost files and killed processes: nothing fails that a client sent, and nothing is miscounted."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import sqlalchemy
from PIL import Image
from sqlalchemy import text

from data_specs.vocabulary import LANGUAGES
from service.report import pdf
from service.report.dicom import sr as dicom_sr
from service.storage.database import Database
from tests.service import report_fixture
from tests.service.report.test_dicom import lines_of_error
from tests.service.serving import until, visit_files

KINDS = ("report.json", "report.fhir.json", "report.html", "report.pdf", "report.hl7", "report/sr.dcm")
HUGE = (2**31 - 1, 2**31, 2**63, 10**30)
CODECS = ("undefined", "punycode", "idna", "utf-7", "unicode_escape", "raw_unicode_escape", "utf-16")


@pytest.fixture(scope="module")
def site(served):
    with served.client(served.key("site", "xa")) as it:
        yield it


@pytest.fixture(scope="module")
def doctor(served):
    with served.client(served.key("doctor", "xa", doctor_id="D-1", label="BS. Thử Nghiệm")) as it:
        yield it


def film(seed=0):
    grey = np.random.default_rng(seed).integers(0, 255, (400, 380), np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "PNG")
    return out.getvalue()


def post(site, image=b"an image"):
    made = site.post("/v1/visits", files=visit_files(image, referrer={"id": "D-1"}, person={"id": "P-1"}))
    assert made.status_code == 201, made.text
    return made.json()


def change(served, statement, **values):
    with served.app.state.service.database.transaction(write=True) as session:
        session.execute(text(statement), values)


# ---------------------------------------------------------------------- what a client sends
def test_a_version_that_no_report_can_have_is_another_version(site, doctor):
    visit = post(site)["id"]
    for version in HUGE:
        assert doctor.post(f"/v1/visits/{visit}/opinions", json={"version": version}).status_code in (409, 422)
        form = {"version": str(version)}
        assert doctor.post(f"/visits/{visit}/sign", data=form).status_code == 409
    assert doctor.post(f"/visits/{visit}/sign", data={"version": "9" * 5000}).status_code == 409
    assert doctor.get(f"/v1/visits/{visit}").json()["version"] == 1


def test_texts_that_postgresql_cannot_keep_are_refused(site, doctor, client):
    visit = post(site)["id"]
    for path, body in (
        ("referrals", {"question": "a\0b"}),
        ("referrals", {"question": "", "to_site": "\0"}),
        ("outcomes", {"finding": "pneumonia", "outcome": "confirmed", "source": "\0"}),
        ("opinions", {"version": 1, "referral": "\0"}),
    ):
        assert doctor.post(f"/v1/visits/{visit}/{path}", json=body).status_code == 422, body
    assert client.post("/v1/deliveries/retry", json={"destination": "\0"}).status_code == 422


def test_a_form_in_another_character_set_is_refused(site, doctor):
    visit = post(site)["id"]
    for codec in CODECS:
        for value in (rb"\ud800", b"+2AA-", b"abc"):
            head = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
            body = (
                b"".join(head % (name, value) for name in (b"person_id", b"text", b"question", b"age")) + b"--b--\r\n"
            )
            kind = {"content-type": f"multipart/form-data; boundary=b; charset={codec}"}
            for client, path in ((site, "/post"), (doctor, f"/visits/{visit}/sign"), (doctor, f"/visits/{visit}/ask")):
                assert client.post(path, content=body, headers=kind).status_code == 415, (codec, value, path)


def test_a_long_list_in_an_opinion_is_set_line_by_line():
    """Time grows with the lines and not with their square: a request that sets one holds up every other page."""

    def seconds(lines):
        whole = report_fixture.report(2)
        long = tuple(each.model_copy(update={"text": "\n".join("l" * lines)}) for each in whole.opinions)
        started = time.thread_time()
        pdf.render(whole.model_copy(update={"opinions": long}), "vi")
        return time.thread_time() - started

    seconds(20)
    assert seconds(2000) < 6 * seconds(500)


def test_tabs_in_an_opinion_leave_the_structured_report_valid(tmp_path):
    whole = report_fixture.report(3)
    said = tuple(each.model_copy(update={"text": "a\tb\r\n\t\tc\x0b\x1b"}) for each in whole.opinions)
    assert not lines_of_error(dicom_sr.render(whole.model_copy(update={"opinions": said}), "vi"), tmp_path)


# ---------------------------------------------------------------------- old rows, lost files
def test_a_finding_that_the_vocabulary_does_not_have_is_shown_under_its_own_name(served, site, doctor):
    visit = post(site, film())["id"]
    change(
        served,
        "UPDATE visits SET study_uid = NULL, assessment = replace(assessment, 'pneumonia', 'new_thing') WHERE id = :id",
        id=visit,
    )
    change(served, "UPDATE inputs SET dicom = NULL WHERE visit_id = :id", id=visit)
    listed = site.get("/v1/visits").json()["items"]
    (shown,) = (each for each in listed if each["id"] == visit)
    (finding,) = shown["organs"]["lung"]["findings"]
    assert (finding["display"], finding["code"]) == (
        "new_thing",
        {"system": "urn:sangloc:term", "code": "new_thing"},
    )
    assert doctor.post(f"/v1/visits/{visit}/opinions", json={"version": 1, "text": "x"}).status_code == 201
    for kind, language in zip(KINDS, LANGUAGES * 2, strict=True):
        answer = doctor.get(f"/v1/visits/{visit}/{kind}", headers={"Accept-Language": language})
        assert answer.status_code == 200, (kind, language, answer.text)
    assert "new_thing" in doctor.get(f"/v1/visits/{visit}/report.html").text
    assert doctor.get(f"/visits/{visit}").status_code == 200


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_report_goes_out_without_the_picture_of_a_lost_film(served, site, doctor, harm):
    visit = post(site, film(1 if harm == "missing" else 2))
    sha256 = visit["inputs"][0]["sha256"]
    file = served.app.state.service.settings.data_dir / "files" / sha256[:2] / sha256[2:]
    whole = doctor.get(f"/v1/visits/{visit['id']}/report.html").text
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(b"something else")
    assert "data:image/" in whole
    for kind in KINDS:
        assert doctor.get(f"/v1/visits/{visit['id']}/{kind}").status_code == 200, kind
    assert "data:image/" not in doctor.get(f"/v1/visits/{visit['id']}/report.html").text


# ---------------------------------------------------------------------- killed, and at once
@contextlib.contextmanager
def rows_of(process):
    url = process.environment["SANGLOC_DATABASE_URL"] or f"sqlite:///{process.folder / 'sangloc.db'}"
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            yield lambda query: connection.execute(text(query)).all()
    finally:
        engine.dispose()


def expect_consistent(rows):
    """Each visit's version is one more than its opinions, in order; each version is on its way once."""
    signed = dict(rows("SELECT visit_id, count(*) FROM opinions GROUP BY visit_id"))
    last = dict(rows("SELECT visit_id, max(number) FROM opinions GROUP BY visit_id"))
    assert last == signed
    assert {id_: version - 1 for id_, version in rows("SELECT id, version FROM visits") if version > 1} == signed
    sent = rows("SELECT visit_id, version FROM deliveries ORDER BY visit_id, version")
    assert sent == sorted(
        (id_, n) for id_, version in rows("SELECT id, version FROM visits") for n in range(1, version + 1)
    )


def test_killed_while_doctors_sign(new_process, new_database):
    process = new_process(database_url=new_database()).start()
    with process.served.client() as admin:
        nowhere = {"kind": "webhook", "address": "http://127.0.0.1:9/x"}
        assert admin.post("/v1/destinations", json=nowhere).status_code == 201
    site, key = process.served.key("site", "xa"), process.served.key("doctor", "xa", doctor_id="D-1")
    with process.served.client(site) as it:
        visits = [post(it)["id"] for _ in range(4)]
    said = []

    def sign(visit):
        with contextlib.suppress(httpx.TransportError), process.served.client(key) as it:
            while True:
                version = it.get(f"/v1/visits/{visit}").json()["version"]
                answer = it.post(f"/v1/visits/{visit}/opinions", json={"version": version})
                assert answer.status_code in (201, 409), answer.text
                if answer.status_code == 201:
                    said.append((visit, version))

    def kill_in_the_middle():
        until(lambda: len(said) >= 8, 20)
        process.kill()

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sign, visits * 2))
    killer.join()
    assert len(said) == len(set(said)), "one version was signed twice"
    with rows_of(process) as rows:
        expect_consistent(rows)
        kept = {tuple(each) for each in rows("SELECT visit_id, number FROM opinions")}
        issued = rows("SELECT visit_id, version, report FROM reports")
    assert set(said) <= kept, "a signature that was answered for is gone"
    for visit, version, report in issued:
        assert len(json.loads(report)["opinions"]) == version - 1, (visit, version)


# ---------------------------------------------------------------------- migration
def test_migrations_up_and_down_over_old_visits(tmp_path, new_database):
    from alembic import command
    from alembic.config import Config

    database = Database(new_database() or f"sqlite:///{tmp_path / 'sangloc.db'}")
    config = Config()
    config.set_main_option("script_location", "service.storage:migrations")
    try:
        with database.engine.connect() as connection, connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "0002")
            insert = text(
                "INSERT INTO visits"
                " (id, site, key_id, context, status, priority, received_at, body_hash, attempts, faults)"
                " VALUES (:id, 'xa', 'k', :context, 'accepted', 'routine', '2026-01-01 00:00:00', 'h', 0, 0)"
            )
            named = {"person": {"id": "P-1", "name": "Đỗ Thị  Thử"}, "visited_on": "2026-01-02"}
            for id_, context in (("a", named), ("b", {}), ("c", {"person": {}})):
                connection.execute(insert, {"id": id_, "context": json.dumps(context)})
            for _ in range(2):
                command.upgrade(config, "head")
                known = connection.execute(text("SELECT id, person_id, version, study_uid FROM visits ORDER BY id"))
                assert [tuple(each) for each in known] == [
                    ("a", "P-1", 1, None),
                    ("b", None, 1, None),
                    ("c", None, 1, None),
                ]
                searched = connection.execute(text("SELECT folded, visited_on FROM visits ORDER BY id")).all()
                assert [(each[0], str(each[1])) for each in searched] == [
                    ("do thi thu p-1", "2026-01-02"),
                    ("", "None"),
                    ("", "None"),
                ]
                command.downgrade(config, "0002")
                assert connection.execute(text("SELECT count(*) FROM visits")).scalar_one() == 3
            command.downgrade(config, "base")
            left = set(sqlalchemy.inspect(connection).get_table_names()) - {"alembic_version"}
            assert not left
    finally:
        database.close()


def test_destinations_of_before_may_be_inside_if_only_an_admin_could_name_them(tmp_path, new_database):
    from alembic import command
    from alembic.config import Config

    database = Database(new_database() or f"sqlite:///{tmp_path / 'sangloc.db'}")
    config = Config()
    config.set_main_option("script_location", "service.storage:migrations")
    http = '{"allow_http": true}'
    before = {
        "both": ("webhook", "xa", "https://hospital.example/x", "{}"),
        "every site": ("webhook", None, "https://hospital.example/x", "{}"),
        "another kind": ("fhir", "xa", "https://hospital.example", "{}"),
        "http": ("webhook", "xa", "http://localhost/x", "{}"),
        "http allowed": ("webhook", "xa", "https://hospital.example/x", http),
        "private": ("webhook", "xa", "https://10.0.0.7/x", "{}"),
        "local": ("webhook", "xa", "https://a.localhost/x", "{}"),
        "odd": ("webhook", "xa", "https://[::ffff/x", "{}"),
    }
    try:
        with database.engine.connect() as connection, connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "0004")
            insert = text(
                "INSERT INTO destinations (id, kind, address, site, language, options, created_at)"
                " VALUES (:id, :kind, :address, :site, 'vi', :options, '2026-01-01 00:00:00')"
            )
            for id_, (kind, site, address, options) in before.items():
                values = {"id": id_, "kind": kind, "site": site, "address": address, "options": options}
                connection.execute(insert, values)
            command.upgrade(config, "head")
            may_not = connection.execute(text("SELECT id FROM destinations WHERE NOT may_be_inside ORDER BY id"))
            assert list(may_not.scalars()) == ["both", "odd"]
            command.downgrade(config, "0004")
    finally:
        database.close()
