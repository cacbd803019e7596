"""``python -m service.audit`` over the data of a real server: proved, exported, broken, erased."""

from __future__ import annotations

import json

import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from sqlalchemy import text

from service.audit.__main__ import main
from service.audit.actions import ACTIONS
from service.audit.fhir import audit_event
from service.audit.proof import Stored
from service.person.__main__ import main as person
from service.retention import deletion
from service.storage.audit import Entry
from tests.service.audit.test_proof import AT, chain
from tests.service.commands import without_log
from tests.service.serving import serving, settings_for, visit_files


class Clinic:
    def __init__(self, served, capsys):
        self.served, self._capsys = served, capsys
        self.database = served.app.state.service.database

    def post(self, person):
        with self.served.client(self.served.key("site", "commune"), Prefer="wait=20") as client:
            made = client.post("/v1/visits", files=visit_files(b"film of " + person.encode(), person={"id": person}))
        assert made.status_code == 201
        return made.json()["id"]

    def run(self, *arguments):
        self._capsys.readouterr()
        code = main([str(each) for each in arguments])
        said = self._capsys.readouterr()
        return code, without_log(said.out) + without_log(said.err)

    def change(self, *statements):
        """What somebody does who owns the database."""
        with self.database.transaction(write=True) as session:
            if self.database.is_sqlite:
                session.execute(text("DROP TRIGGER IF EXISTS audit_refuses_update"))
                session.execute(text("DROP TRIGGER IF EXISTS audit_refuses_delete"))
            else:
                session.execute(text("ALTER TABLE audit DISABLE TRIGGER audit_is_append_only"))
            for statement in statements:
                session.execute(text(statement))


@pytest.fixture
def clinic(tmp_path, new_database, monkeypatch, capsys):
    settings = settings_for(tmp_path / "data", database_url=new_database())
    for name, value in (("DATA_DIR", settings.data_dir), ("DATABASE_URL", settings.database_url)):
        monkeypatch.setenv(f"SANGLOC_{name}", str(value))
    with serving(settings) as served:
        yield Clinic(served, capsys)


def test_a_log_is_proved_and_its_head_told(clinic):
    clinic.post("VN-1")
    code, head = clinic.run("head")
    assert code == 0
    number, _, digest = head.strip().partition(":")
    assert int(number) >= 3
    assert len(digest) == 64
    clinic.post("VN-2")
    code, said = clinic.run("verify", "--head", head.strip())
    assert code == 0, said
    assert "the log is whole" in said
    assert "assessments, opinions and incidents that are as they were written: 2" in said
    assert "noted heads that fit: 1" in said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE number = 2", "entry 2:"),
        ("UPDATE audit SET visit = 'another' WHERE number = 3", "entry 3:"),
        ("DELETE FROM audit WHERE number = 2", "entry 2: missing"),
        ("UPDATE audit SET number = number + 1000 WHERE number = 2", "entry 2: missing"),
        ("UPDATE audit SET digest = '" + 64 * "0" + "' WHERE number = 2", "entry 2:"),
        ("UPDATE visits SET assessment = replace(assessment, '{', '{ ')", "its assessment is not the one of entry"),
    ],
)
def test_a_broken_log_is_named_and_the_command_fails(clinic, change, named):
    clinic.post("VN-1")
    clinic.change(change)
    code, said = clinic.run("verify")
    assert code == 1
    assert named in said
    assert "NOT whole" in said


def test_a_log_that_was_cut_off_shows_by_its_head(clinic, tmp_path):
    clinic.post("VN-1")
    _, head = clinic.run("head")
    (tmp_path / "heads.txt").write_text(f"2026-11-30 noted by hand: {head}", "utf-8")
    number = int(head.partition(":")[0])
    clinic.change(f"DELETE FROM audit WHERE number = {number}")
    assert clinic.run("verify")[0] == 0
    code, said = clinic.run("verify", "--heads", tmp_path / "heads.txt")
    assert code == 1
    assert f"entry {number}: was written down as the head" in said


def test_an_export_is_fhir_and_is_proved_by_itself(clinic, tmp_path):
    visit, _ = clinic.post("VN-1"), clinic.post("VN-2")
    out = tmp_path / "log.ndjson"
    code, said = clinic.run("export", out)
    assert code == 0, said
    lines = out.read_text("utf-8").splitlines()
    events = [AuditEvent.model_validate_json(line) for line in lines]
    assert [each.id for each in events] == [f"entry-{n}" for n in range(1, len(lines) + 1)]
    assert clinic.run("verify", "--file", out)[0] == 0
    assert clinic.run("export", out)[0] == 2, "a file is not overwritten"
    some = tmp_path / "visit.ndjson"
    assert clinic.run("export", some, "--visit", visit)[0] == 0
    assert {
        AuditEvent.model_validate_json(x).entity[0].what.identifier.value for x in some.read_text("utf-8").splitlines()
    } == {visit}
    code, said = clinic.run("verify", "--file", some)
    assert code == 0, said
    changed = json.loads(lines[1])
    changed["entity"][-1]["detail"][0]["valueString"] = events[1].entity[-1].detail[0].valueString.replace(",", ", ", 1)
    out.write_text("\n".join([lines[0], json.dumps(changed), *lines[2:]]) + "\n", "utf-8")
    code, said = clinic.run("verify", "--file", out)
    assert code == 1
    assert "entry 2" in said
    for line in (
        "no export",
        '{"entity": [{"detail": [{"type": "content", "valueString": "{}"}]}]}',
        lines[0].replace("[1,", "[[],"),
    ):
        out.write_text(f"{line}\n", "utf-8")
        code, said = clinic.run("verify", "--file", out)
        assert (code, "a line is not an exported entry" in said) == (1, True)
    with clinic.served.client() as admin:
        assert admin.get("/v1/audit", params={"action": "log_exported"}).json()["items"]


def test_every_action_is_an_audit_event():
    for action in ACTIONS:
        entry = Entry(1, AT, "key-1", "doctor", action, "0" * 36, json.dumps({"status": 403, "route": "Phổi"}))
        event = audit_event(Stored(entry, "0" * 64), "0" * 64)
        made = AuditEvent.model_validate(event)
        assert (made.action, made.outcome) == (ACTIONS[action].kind, "4")
    assert audit_event(chain()[0], "0" * 64)["outcome"] == "0"


def test_an_erased_person_leaves_a_log_that_is_whole_and_names_nobody(clinic, monkeypatch):
    monkeypatch.setattr(deletion, "QUIET_S", -1.0)
    kept, gone = clinic.post("VN-KEPT"), clinic.post("VN-GONE")
    _, head = clinic.run("head")
    assert person(["erase", "commune", "VN-GONE", "--yes"]) == 0
    code, said = clinic.run("verify", "--head", head.strip())
    assert code == 0, said
    with clinic.served.client() as admin:
        assert admin.get(f"/v1/visits/{gone}").status_code == 404
        assert admin.get(f"/v1/visits/{kept}").status_code == 200
        entries = admin.get("/v1/audit", params={"visit": gone}).json()["items"][::-1]
        whole = admin.get("/v1/audit", params={"limit": 500}).text
    assert [each["action"] for each in entries] == ["visit_posted", "visit_assessed", "visit_deleted"]
    assert (entries[2]["actor"], entries[2]["detail"]["rule"]) == ("command:person", "person_erased")
    assert "VN-GONE" not in whole


def test_a_log_that_cannot_be_read_is_said(clinic, monkeypatch, tmp_path):
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("SANGLOC_DATABASE_URL", "")
    assert clinic.run("verify")[0] == 2
