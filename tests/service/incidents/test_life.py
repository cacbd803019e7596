"""The life of an incident over HTTP by a programme's own table: raised, overdue, closed, proved, its visit erased."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from service.audit.__main__ import main as audit
from service.person.__main__ import main as person
from service.retention import deletion
from service.storage.audit import digest_of_digests
from service.storage.tables import IncidentRow
from tests.service.serving import serving, settings_for, told, visit_files

TABLE = """
[same_day]
days = 1
source = "the programme's own"
en = "Stop using it"
fr = "Arrêter son utilisation"
vi = "Ngừng sử dụng"

[within_a_week]
days = 7
source = "the programme's own"
en = "Look into it"
fr = "À examiner"
vi = "Cần xem xét"
"""
TOLD = "Bỏ sót tràn dịch màng phổi."


@pytest.fixture
def served(tmp_path, new_database, monkeypatch):
    table = tmp_path / "deadlines.toml"
    table.write_text(TABLE, "utf-8")
    settings = settings_for(tmp_path / "data", database_url=new_database(), incident_deadlines=table)
    for name, value in (("DATA_DIR", settings.data_dir), ("DATABASE_URL", settings.database_url)):
        monkeypatch.setenv(f"SANGLOC_{name}", str(value))
    with serving(settings) as it:
        yield it


def test_from_a_visit_to_its_proof(served, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(deletion, "QUIET_S", -1.0)
    doctor = served.client(served.key("doctor", "commune", doctor_id="D-1", label="BS. Thử"))
    with served.client(served.key("site", "commune"), Prefer="wait=20") as site, doctor, served.client() as admin:
        files = visit_files(b"a film", person={"id": "VN-1"}, referrer={"id": "D-1"})
        visit = site.post("/v1/visits", files=files).json()["id"]

        # raised by the API, and on the visit's page, which offers the programme's severities
        new = {"kind": "missed_finding", "severity": "same_day", "text": TOLD}
        answer = doctor.post(f"/v1/visits/{visit}/incidents", json={**new, "severity": "serious"})
        assert answer.status_code == 422, "the shipped table is not used"
        by_api = doctor.post(f"/v1/visits/{visit}/incidents", json=new).json()
        page = doctor.get(f"/visits/{visit}", headers={"Accept-Language": "vi"})
        assert "Cần xem xét" in page.text
        form = {"kind": "delay", "severity": "within_a_week", "text": TOLD}
        assert doctor.post(f"/visits/{visit}/incident", data=form).status_code == 303
        found = admin.get("/v1/incidents", params={"visit": visit}).json()["items"]
        assert [(each["severity"], lasts(each)) for each in found] == [
            ("same_day", timedelta(days=1)),
            ("within_a_week", timedelta(days=7)),
        ]

        # its deadline passes
        past = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
        with served.app.state.service.database.transaction(write=True) as session:
            session.execute(update(IncidentRow).where(IncidentRow.id == by_api["id"]).values(due_at=past))
        assert told(served)[("sangloc_incidents_open",)] == 2
        assert told(served)[("sangloc_incidents_overdue",)] == 1
        late = admin.get("/v1/incidents", params={"open": True}).json()["items"]
        assert [(each["id"] == by_api["id"], each["overdue"]) for each in late] == [(True, True), (False, False)]

        # closed, on the page and by the API
        page = doctor.post(f"/incidents/{by_api['id']}/close", data={"found": "Phim thiếu sáng."})
        assert page.status_code == 303
        other = admin.post(f"/v1/incidents/{late[1]['id']}/close", json={"found": "Mất mạng."}).json()
        assert (other["found"], other["overdue"]) == ("Mất mạng.", False)
        assert told(served)[("sangloc_incidents_overdue",)] == 0

        # what it keeps is what the log has, by hand
        log = admin.get("/v1/audit", params={"visit": visit, "limit": 500}).json()["items"]
        first, last = by_api["record"]["first"], by_api["record"]["last"]
        kept = [each["digest"] for each in reversed(log) if first <= each["number"] <= last]
        assert len(kept) == by_api["record"]["entries"] > 0
        assert digest_of_digests(kept) == by_api["record"]["sha256"]
        assert audit(["verify"]) == 0

        # it outlives its visit, and the exported log has it without its words
        assert person(["erase", "commune", "VN-1", "--yes"]) == 0
        assert admin.get(f"/v1/visits/{visit}").status_code == 404
        assert [each["text"] for each in admin.get("/v1/incidents").json()["items"]] == [TOLD, TOLD]
        capsys.readouterr()
        assert audit(["verify"]) == 0, capsys.readouterr().out
        assert audit(["export", str(tmp_path / "log.ndjson")]) == 0
    exported = (tmp_path / "log.ndjson").read_text("utf-8")
    done = [json.loads(line)["subtype"][0]["code"] for line in exported.splitlines()]
    assert (done.count("incident_raised"), done.count("incident_closed")) == (2, 2)
    assert TOLD not in exported
    assert "VN-1" not in exported


def lasts(incident):
    return datetime.fromisoformat(incident["due_at"]) - datetime.fromisoformat(incident["raised_at"])
