"""A person's data: found in every table, exported, erased beside a running server, and gone."""

from __future__ import annotations

import io
import json
import os
import time

import pytest
from sqlalchemy import select

from data_specs.dicom.reference import DicomReference
from data_specs.visit.context import Context
from service.person.__main__ import main
from service.person.erase import RULE
from service.person.found import find, remains
from service.retention.__main__ import main as retention
from service.retention.deletion import delete_rows, of_visits
from service.storage.database import Database, database_now, insert_rows
from service.storage.drafts import Draft
from service.storage.tables import (
    ArrivalRow,
    Base,
    CaseRow,
    CertificateRow,
    DeletionRow,
    ExchangeRow,
    InputRow,
    NormalRow,
    OrderRow,
    OutcomeRow,
    PreviewRow,
    ReadingRow,
    ReportRow,
    ShadowRow,
    VisitRow,
)
from tests.service.commands import without_log
from tests.service.delivery.sinks import Sink
from tests.service.serving import serving, settings_for, until, visit_files

ID, NAME = 'MRN-"4711\\Đ', "Người Được Khám Thử Nghiệm"
ACCESSION, STUDY = "ACC-SECRET-9", "1.2.826.0.1.777.1"
OTHER = "MRN-0815"
SITE = "commune"
TABLES = Base.metadata.tables


@pytest.fixture
def clinic(tmp_path, new_database, monkeypatch):
    """A server with a person who left something in every table, and another one who shares a film."""
    settings = settings_for(tmp_path / "data", database_url=new_database(), delivery_retry_seconds=0.1)
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("SANGLOC_DATABASE_URL", settings.database_url)
    with Sink() as sink, serving(settings) as served:
        yield Clinic(served, sink)


class Clinic:
    def __init__(self, served, sink):
        self.served, self.database, self.store = (
            served,
            served.app.state.service.database,
            served.app.state.service.store,
        )
        with served.client() as admin:
            to = {"kind": "webhook", "address": sink.address, "options": {"content": "link"}}
            assert admin.post("/v1/destinations", json=to).status_code == 201
        self.site = served.key("site", SITE)
        doctor = served.key("doctor", SITE, doctor_id="D-7", label="BS. Thử Nghiệm")
        specialist = served.key("specialist", "central", doctor_id="S-1", label="BS. Thử Nghiệm Hai")
        person, order = {"id": ID, "name": NAME}, {"accession_number": ACCESSION}
        mine = {"person": person, "order": order, "referrer": {"id": "D-7"}, "visited_on": "2026-03-04"}
        self.visit = self.post(b"the person's own film", **mine)
        self.second = self.post(b"a shared film", person=person)
        self.others = self.post(b"a shared film", person={"id": OTHER, "name": "Someone", "birth_date": "1961-02-03"})
        self.elsewhere = self.post(b"a film of another site", site="district", person=person)
        address = f"/v1/visits/{self.visit}"
        with served.client(doctor) as client:
            assert client.post(f"{address}/opinions", json={"version": 1, "text": NAME}).status_code == 201
            assert client.post(f"{address}/referrals", json={"question": NAME, "to_site": "central"}).status_code == 201
            outcome = {"finding": "pneumonia", "outcome": "confirmed", "source": NAME}
            assert client.post(f"{address}/outcomes", json=outcome).status_code == 201
        with served.client(specialist) as client:
            assert client.post(f"{address}/opinions", json={"version": 2}).status_code == 201
        self.by_header = self.post(b"a film without a context", person={})
        header = DicomReference(
            StudyInstanceUID=STUDY,
            SeriesInstanceUID="1.2.3",
            SOPInstanceUID=f"{STUDY}.5",
            SOPClassUID="1.2",
            PatientID=ID,
        )
        with self.database.transaction(write=True) as session:
            now = database_now(session)
            dicom = header.model_dump_json(exclude_defaults=True)
            session.get(InputRow, (self.by_header, 0)).dicom = dicom
            one = {
                "site": SITE,
                "study_uid": STUDY,
                "field": "image",
                "dicom": dicom,
                "source": "X",
                "received_at": now,
            }
            for uid, content, visit in ((f"{STUDY}.6", b"in a visit", self.by_header), (f"{STUDY}.7", b"waits", None)):
                insert_rows(
                    session, ArrivalRow(**one, sop_uid=uid, sha256=self.put(content), n_bytes=9, visit_id=visit)
                )
            for number, of in ((ACCESSION, {}), ("ACC-2", person), ("ACC-OTHER", {"id": OTHER})):
                context = Context(person=of).model_dump_json()
                insert_rows(session, OrderRow(site=SITE, accession_number=number, context=context, received_at=now))
            shadow = {"name": "lung", "version": "9.9.9", "sha256": "0" * 64, "in_service": "1.0.0", "answered_at": now}
            preview = {"visit_id": self.visit, "index": 0, "n_bytes": 9}
            insert_rows(session, PreviewRow(**preview, sha256=self.put(b"in a visit")))
            waits = {"changes": 0, "sent": 0, "left": 0, "attempts": 0}
            insert_rows(session, ExchangeRow(visit_id=self.visit, due_at=now, **waits))
            insert_rows(session, ShadowRow(visit_id=self.visit, **shadow, assessment=json.dumps({"of": ID})))
            given = {"id": "R-1", "key_id": "K-1", "number": 1, "given_at": now, "reading": json.dumps({"text": ID})}
            insert_rows(
                session,
                CertificateRow(digest="0" * 64, site=SITE, abnormal_at_most=0.01, confidence=0.95),
                NormalRow(visit_id=self.visit, certificate="0" * 64, held_back=False),
                CaseRow(visit_id=self.visit, set_digest="0" * 64, known=json.dumps({"of": ID})),
                ReadingRow(visit_id=self.visit, **given),
            )
        until(lambda: len(sink.received) >= 7, 30)

    def post(self, content, site=SITE, **context):
        key = self.site if site == SITE else self.served.key("site", site)
        with self.served.client(key, Prefer="wait=20") as client:
            made = client.post("/v1/visits", files=visit_files(content, **context))
        assert made.status_code == 201, made.text
        return made.json()["id"]

    def put(self, content):
        draft = Draft(self.store.drafts)
        draft.write(content)
        self.store.put(draft)
        return draft.sha256

    def grow_old(self):
        """As if all files had been put three hours ago."""
        long_ago = time.time() - 3 * 3600
        for name in self.store.names():
            os.utime(self.store._path(name), (long_ago, long_ago))

    def count(self, table):
        with self.database.transaction() as session:
            return len(session.execute(select(TABLES[table])).all())

    def find(self):
        with self.database.transaction() as session:
            return find(session, SITE, ID)


def test_a_person_is_found_in_every_table(clinic, capsys):
    found = clinic.find()
    assert set(found.visits) == {clinic.visit, clinic.second, clinic.by_header}
    assert [uid for _, uid, _ in found.arrivals] == [f"{STUDY}.7"]
    assert sorted(number for _, number in found.orders) == ["ACC-2", ACCESSION]
    with clinic.database.transaction() as session:
        empty = [
            table.name
            for table, condition in found.rows(found.visits)
            if not session.execute(select(table).where(condition)).all()
        ]
    assert empty == [], "the test's person has to leave something in every table that has visits"
    assert main(["find", SITE, ID]) == 0
    said = without_log(capsys.readouterr().out)
    assert "visits 3" in said
    assert "deliveries 5" in said
    assert clinic.visit in said
    assert "MRN" not in said
    assert NAME not in said
    assert main(["find", SITE, "MRN-47"]) == 1, "a part of an identifier is another identifier"
    assert main(["find", "nowhere", ID]) == 1


def test_a_file_of_the_person_in_a_visit_of_another_is_said_and_stays(clinic, capsys):
    header = DicomReference(
        StudyInstanceUID="1.9",
        SeriesInstanceUID="1.9.1",
        SOPInstanceUID="1.9.2",
        SOPClassUID="1.2",
        PatientID=f" {ID} ",
    )
    with clinic.database.transaction(write=True) as session:
        session.get(InputRow, (clinic.others, 0)).dicom = header.model_dump_json(exclude_defaults=True)
    assert main(["find", SITE, ID]) == 0
    assert f"visit {clinic.others} is of another identifier" in without_log(capsys.readouterr().out)
    clinic.grow_old()
    assert main(["erase", SITE, ID, "--yes"]) == 1
    assert "still named, in rows of other persons or free texts: inputs.dicom (1)" in without_log(
        capsys.readouterr().out
    )
    assert clinic.count("visits") == 2


def test_everything_is_exported_as_it_was_posted(clinic, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", SITE, ID, str(out)]) == 0
    assert "5 files" in without_log(capsys.readouterr().out)
    told = json.loads((out / "person.json").read_text("utf-8"))
    assert (told["site"], told["identifier"]) == (SITE, ID)
    visits = {each["id"]: each for each in told["rows"]["visits"]}
    assert visits.keys() == {clinic.visit, clinic.second, clinic.by_header}
    assert visits[clinic.visit]["context"]["person"]["name"] == NAME
    assert visits[clinic.visit]["assessment"]["organs"]["lung"]["findings"]
    assert [each["opinion"]["text"] for each in told["rows"]["opinions"]] == [NAME, ""]
    assert told["rows"]["referrals"][0]["question"] == NAME
    assert {each["accession_number"] for each in told["rows"]["orders"]} == {ACCESSION, "ACC-2"}
    files = {each["file"] for name in ("inputs", "arrivals") for each in told["rows"][name]}
    contents = {(out / file).read_bytes() for file in files}
    assert contents == {
        b"the person's own film",
        b"a shared film",
        b"a film without a context",
        b"waits",
        b"in a visit",
    }
    assert f"files/{clinic.visit}/00-film.png" in files
    text = (out / "person.json").read_text("utf-8")
    assert "lease_until" not in text
    assert OTHER not in text
    assert main(["export", SITE, ID, str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_person_is_erased_beside_a_running_server_and_nothing_is_left(clinic, capsys):
    n_files = len(list(clinic.store.names()))
    assert main(["erase", SITE, ID]) == 1
    assert "add --yes" in capsys.readouterr().err
    clinic.grow_old()
    assert main(["erase", SITE, ID, "--yes"]) == 0
    said = without_log(capsys.readouterr().out)
    assert "nothing is left" in said
    assert "MRN" not in said
    assert clinic.count("visits") == 2, "those of another person, and of the same number at another site"
    assert sorted(clinic.store.read(each) for each in clinic.store.names()) == [
        b"a film of another site",
        b"a shared film",
    ]
    assert n_files == 6
    with clinic.served.client() as client:
        assert client.get(f"/v1/visits/{clinic.visit}").status_code == 404
        assert client.get(f"/v1/visits/{clinic.others}/inputs/0").content == b"a shared film"
        assert client.get(f"/v1/visits/{clinic.elsewhere}").status_code == 200
        assert client.get("/readyz").status_code == 200
    assert not clinic.find()
    with clinic.database.transaction() as session:
        assert not remains(session, SITE, {ID, ACCESSION, STUDY})
        (record,) = session.scalars(select(DeletionRow))
    assert (record.rule, record.finished_at is not None) == (RULE, True)
    counts = json.loads(record.counts)
    assert (counts["visits"], counts["arrivals"], counts["orders"], counts["shadow_answers"]) == (3, 2, 2, 1)
    assert len(json.loads(record.digests)) == 5
    kept = json.dumps([record.counts, record.digests, record.rule])
    assert not any(word in kept for word in (ID, "MRN", NAME, ACCESSION, clinic.visit))
    if clinic.database.is_sqlite:
        left = b"".join(path.read_bytes() for path in clinic.database.sqlite_file.parent.glob("sangloc.db*"))
        assert ACCESSION.encode() not in left, "overwritten, in the file and in its log"
        assert b"1961-02-03" in left
    assert retention(["record"]) == 0
    erased = "person_erased: arrivals 2, cases 1, deliveries 5, exchanges 1, films 3, inputs 3, normals 1, opinions 2"
    assert erased in without_log(capsys.readouterr().out)
    assert main(["erase", SITE, ID, "--yes"]) == 0, "once more changes nothing"
    assert clinic.count("deletions") == 1


def test_a_file_that_was_just_posted_stays_until_no_request_can_be_about_to_name_it(clinic, capsys):
    assert main(["erase", SITE, ID, "--yes"]) == 1
    assert "files posted within the last two hours: 4" in without_log(capsys.readouterr().out)
    assert clinic.count("visits") == 2
    again = clinic.post(b"the person's own film", person={"id": OTHER})
    clinic.grow_old()
    assert retention(["apply"]) == 0
    assert "files removed: 3" in without_log(capsys.readouterr().out)
    with clinic.served.client() as client:
        assert client.get(f"/v1/visits/{again}/inputs/0").content == b"the person's own film"
    with clinic.database.transaction() as session:
        assert all(each.finished_at for each in session.scalars(select(DeletionRow)))


def test_what_would_be_deleted_by_a_stopped_command_is_deleted_by_the_next(clinic, monkeypatch):
    clinic.grow_old()
    found = clinic.find()
    with clinic.database.transaction(write=True) as session:  # and then it was killed
        delete_rows(session, RULE, found.rows(found.visits))
    assert len(list(clinic.store.names())) == 6
    assert retention(["apply"]) == 0
    assert len(list(clinic.store.names())) == 2


def test_what_a_search_finds_is_the_word_and_not_a_part_of_another(clinic):
    with clinic.database.transaction() as session:
        assert remains(session, SITE, {"MRN-081"}) == {}
        assert "visits.folded" in remains(session, SITE, {OTHER})
        assert remains(session, SITE, {"80"}) == {}, "a short number that stands in an assessment"
        assert "opinions.opinion" in remains(session, SITE, {NAME})


# ---------------------------------------------------------------- visits that are being worked on
@pytest.fixture
def working(new_process, new_database, tmp_path, monkeypatch):
    """A server that works on a person's visit for some seconds."""
    url = new_database()
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SANGLOC_DATABASE_URL", url)
    process = new_process(tmp_path / "data", database_url=url).start()
    with process.served.client(Prefer="respond-async") as client:
        made = client.post("/v1/visits", files=visit_files(b"SLOW 6", person={"id": ID}))
        assert made.status_code == 202
        until(process.events, 10)
    yield process, url, made.json()["id"]
    assert process.stop() == 0


def test_a_visit_that_is_being_worked_on_is_erased_when_it_is_done(working, capsys):
    process, _, visit = working
    assert main(["erase", "admin", ID, "--yes", "--wait", "0"]) == 1
    assert "still being worked on: 1 visits" in capsys.readouterr().out
    main(["erase", "admin", ID, "--yes", "--wait", "60"])
    out = capsys.readouterr().out
    assert "visits 1" in out
    with process.served.client() as client:
        assert client.get(f"/v1/visits/{visit}").status_code == 404
    log = process.log.read_text()
    assert "visit_finished" in log
    assert "MRN" not in log + out


def test_a_process_whose_visit_is_deleted_under_its_hands_writes_nothing(working, tmp_path):
    process, url, visit = working
    database = Database(url or f"sqlite:///{tmp_path / 'data' / 'sangloc.db'}")
    with database.transaction(write=True) as session:
        delete_rows(session, RULE, of_visits([visit]))
    until(lambda: "visit_taken_over" in process.log.read_text(), 20)
    with database.transaction() as session:
        for table in (VisitRow, InputRow, ReportRow, OutcomeRow):
            assert session.scalars(select(table)).all() == []
    database.close()


def test_the_identifier_may_come_from_standard_input(clinic, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ID}\n"))
    assert main(["find", SITE, "-"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["find", SITE, "-"]) == 1
    assert "is empty" in capsys.readouterr().err
