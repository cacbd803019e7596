"""Incidents: who may raise and close one, what it keeps, when it is overdue."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from service.audit.__main__ import main as audit
from service.incidents.deadlines import SHIPPED_TABLE, read_deadlines
from service.settings import BadSettings
from service.storage.tables import IncidentRow
from tests.service.serving import told, visit_files

WORDS = 'source = "x"\nen = "Any"\nfr = "Tout"\nvi = "Bất kỳ"\n'
NEW = {"kind": "missed_finding", "severity": "serious", "text": "Bỏ sót tràn dịch."}


@pytest.fixture(scope="module")
def clients(served):
    made = {
        "site": served.client(served.key("site", "xa")),
        "doctor": served.client(served.key("doctor", "xa", doctor_id="D-1", label="Bác sĩ A")),
        "other doctor": served.client(served.key("doctor", "xa", doctor_id="D-2", label="Bác sĩ B")),
        "admin": served.client(),
    }
    yield made
    for each in made.values():
        each.close()


@pytest.fixture
def visit(clients):
    files = visit_files(b"an incident", person={"id": "VN-1"}, referrer={"id": "D-1"})
    made = clients["site"].post("/v1/visits", files=files, headers={"Prefer": "wait=20"})
    assert made.status_code == 201
    return made.json()["id"]


def raised(client, visit, **new):
    return client.post(f"/v1/visits/{visit}/incidents", json={**NEW, **new})


def test_doctors_and_admins_raise_one_from_a_visit_that_they_see(clients, visit):
    said = {name: raised(client, visit).status_code for name, client in clients.items()}
    assert said == {"site": 403, "doctor": 201, "other doctor": 403, "admin": 201}
    assert raised(clients["doctor"], "00000000-0000-4000-8000-000000000000").status_code == 404


@pytest.mark.parametrize(
    ("new", "field"),
    [
        ({"severity": "unknown"}, "body.severity"),
        ({"severity": "A B"}, "body.severity"),
        ({"kind": "unknown"}, "body.kind"),
        ({"text": "  "}, "body.text"),
        ({"text": "a\0b"}, "body.text"),
        ({"text": "x" * 4001}, "body.text"),
        ({"more": 1}, "body.more"),
    ],
)
def test_what_cannot_be_used_is_refused(clients, visit, new, field):
    refused = raised(clients["doctor"], visit, **new)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)


@pytest.mark.parametrize(
    ("severity", "days"),
    [("public_health_threat", 2), ("death_or_serious_deterioration", 10), ("serious", 15), ("not_serious", 30)],
)
def test_a_deadline_is_that_of_its_severity(clients, visit, severity, days):
    """Regulation (EU) 2017/745, Article 87, paragraphs 3 to 5."""
    made = raised(clients["doctor"], visit, severity=severity).json()
    assert datetime.fromisoformat(made["due_at"]) - datetime.fromisoformat(made["raised_at"]) == timedelta(days=days)
    assert not made["overdue"]


def test_it_keeps_what_the_log_had_of_the_visit(served, clients, visit):
    before = clients["admin"].get("/v1/audit", params={"visit": visit}).json()["items"]
    record = raised(clients["doctor"], visit).json()["record"]
    assert (record["first"], record["last"], record["entries"]) == (
        before[-1]["number"],
        before[0]["number"],
        len(before),
    )
    answered = clients["doctor"].get(f"/v1/visits/{visit}").json()["models"]
    assert record["models"] == [f"{each['name']} {each['version']}" for each in answered]
    entry = clients["admin"].get("/v1/audit", params={"visit": visit, "action": "incident_raised"}).json()["items"][0]
    assert entry["detail"]["record"]["sha256"] == record["sha256"]
    assert NEW["text"] not in str(entry)


def test_who_raised_it_and_an_admin_close_it_once(clients, visit):
    own, other = (raised(clients[name], visit).json()["id"] for name in ("doctor", "admin"))
    close = {"found": "Phim mờ."}
    assert clients["other doctor"].post(f"/v1/incidents/{own}/close", json=close).status_code == 404
    assert clients["doctor"].post(f"/v1/incidents/{other}/close", json=close).status_code == 404
    closed = clients["doctor"].post(f"/v1/incidents/{own}/close", json=close).json()
    assert (closed["found"], closed["overdue"]) == ("Phim mờ.", False)
    assert closed["closed_at"] is not None
    assert clients["doctor"].post(f"/v1/incidents/{own}/close", json=close).status_code == 404
    assert clients["admin"].post(f"/v1/incidents/{other}/close", json=close).status_code == 200
    assert clients["doctor"].post(f"/v1/incidents/{own}/close", json={"found": ""}).status_code == 422
    done = clients["admin"].get("/v1/audit", params={"visit": visit, "action": "incident_closed"}).json()["items"]
    assert {each["detail"]["incident"] for each in done} == {own, other}


def test_an_overdue_one_is_counted_and_shown(served, clients, visit):
    made = raised(clients["doctor"], visit).json()["id"]
    service = served.app.state.service
    before = told(served)
    with service.database.transaction(write=True) as session:
        past = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
        session.execute(update(IncidentRow).where(IncidentRow.id == made).values(due_at=past))
    after = told(served)
    assert after[("sangloc_incidents_overdue",)] == before[("sangloc_incidents_overdue",)] + 1
    found = clients["doctor"].get("/v1/incidents", params={"visit": visit, "open": True}).json()["items"]
    assert [(each["id"], each["overdue"]) for each in found] == [(made, True)]
    assert clients["other doctor"].get("/v1/incidents").json()["items"] == []
    assert "Overdue" in clients["admin"].get("/incidents", headers={"Accept-Language": "en"}).text


@pytest.mark.parametrize(("language", "word"), [("en", "Incidents"), ("fr", "Incidents"), ("vi", "Sự cố")])
def test_it_is_raised_and_closed_on_the_pages(served, clients, visit, language, word):
    doctor, headers = clients["doctor"], {"Accept-Language": language}
    page = doctor.get(f"/visits/{visit}", headers=headers)
    assert word in page.text
    form = doctor.post(f"/visits/{visit}/incident", data=NEW, headers=headers)
    assert (form.status_code, form.headers["location"]) == (303, f"/visits/{visit}#incidents")
    assert NEW["text"] in doctor.get(f"/visits/{visit}", headers=headers).text
    assert doctor.post(f"/visits/{visit}/incident", data={**NEW, "text": ""}, headers=headers).status_code == 422
    (made,) = doctor.get("/v1/incidents", params={"visit": visit}).json()["items"]
    assert NEW["text"] in doctor.get("/incidents", headers=headers).text
    assert doctor.post(f"/incidents/{made['id']}/close", data={"found": ""}, headers=headers).status_code == 422
    assert doctor.post(f"/incidents/{made['id']}/close", data={"found": "xong"}, headers=headers).status_code == 303
    assert "/incident" not in clients["site"].get(f"/visits/{visit}", headers=headers).text


def test_an_incident_whose_record_was_changed_is_named(served, clients, visit, monkeypatch, capsys):
    made = raised(clients["doctor"], visit).json()["id"]
    service = served.app.state.service
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(service.settings.data_dir))
    monkeypatch.setenv("SANGLOC_DATABASE_URL", service.settings.database_url)
    assert audit(["verify"]) == 0
    with service.database.transaction(write=True) as session:
        row = session.get_one(IncidentRow, made)
        kept, row.record = row.record, row.record.replace('"sha256":"', '"sha256":"0')
    capsys.readouterr()
    assert audit(["verify"]) == 1
    assert f"incident {made}" in capsys.readouterr().out
    with service.database.transaction(write=True) as session:
        session.get_one(IncidentRow, made).record = kept


# ---------------------------------------------------------------- the table
def test_a_programme_has_its_own_table(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(f"[any]\ndays = 3\n{WORDS}", "utf-8")
    assert read_deadlines(own)["any"].days == 3
    assert read_deadlines(own)["any"].name("vi") == "Bất kỳ"
    assert set(read_deadlines()) == set(read_deadlines(SHIPPED_TABLE))


@pytest.mark.parametrize(
    "content",
    ["", "x", "[any]\ndays = 3\n", "[Any]\n", f"[any]\ndays = 0\n{WORDS}", "#" * 100_001],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, content):
    path = tmp_path / "own.toml"
    path.write_text(content, "utf-8")
    with pytest.raises(BadSettings, match="INCIDENT_DEADLINES"):
        read_deadlines(path)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadSettings, match="INCIDENT_DEADLINES"):
        read_deadlines(tmp_path / "none.toml")
