"""The table of what is deleted when: read, shown, applied, recorded."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from service.retention.__main__ import main
from service.retention.apply import OLD
from service.retention.table import KINDS, SHIPPED_TABLE, read_rules
from service.storage.commands import NotDone
from service.storage.tables import DeletionRow, DeliveryRow, DestinationRow, OrderRow, SessionRow, ShadowRow, VisitRow
from tests.service.commands import without_log
from tests.service.serving import serving, settings_for, visit_files

VISITS = '[ten_years]\nwhat = "visits"\nafter_days = 3653\n'


@pytest.fixture
def clinic(tmp_path, new_database, monkeypatch):
    settings = settings_for(tmp_path / "data", database_url=new_database())
    for name, value in (("DATA_DIR", settings.data_dir), ("DATABASE_URL", settings.database_url)):
        monkeypatch.setenv(f"SANGLOC_{name}", str(value))
    with serving(settings) as served:
        yield Clinic(served, tmp_path / "retention.toml", monkeypatch)


class Clinic:
    def __init__(self, served, path, monkeypatch):
        self.served, self._path, self._monkeypatch = served, path, monkeypatch
        self.database, self.store = served.app.state.service.database, served.app.state.service.store

    def table(self, text):
        self._path.write_text(text)
        self._monkeypatch.setenv("SANGLOC_RETENTION", str(self._path))

    def post(self, content, years_ago=0, site="commune"):
        with self.served.client(self.served.key("site", site), Prefer="wait=20") as client:
            made = client.post("/v1/visits", files=visit_files(content, person={"id": "SECRET"}))
        assert made.status_code == 201
        received_at = datetime.now(UTC) - timedelta(days=366 * years_ago)
        with self.database.transaction(write=True) as session:
            visit = update(VisitRow).where(VisitRow.id == made.json()["id"])
            session.execute(visit.values(received_at=received_at))
        for name in self.store.names():
            os.utime(self.store._path(name), (time.time() - 8000,) * 2)
        return made.json()["id"]

    def rows(self, table):
        with self.database.transaction() as session:
            return list(session.scalars(select(table)))

    def insert(self, *rows):
        with self.database.transaction(write=True) as session:
            session.add_all(rows)


def session_row(name, expires_at):
    moments = {"opened_at": expires_at, "used_at": expires_at, "expires_at": expires_at}
    return SessionRow(hash=name, id=name[:36], key_hash="b", network="", browser="", **moments)


def test_the_shipped_table_deletes_nothing_of_a_visit(clinic, capsys):
    old = clinic.post(b"old", years_ago=50)
    assert main(["show"]) == 0
    assert [line.split()[:2] for line in without_log(capsys.readouterr().out).splitlines()] == [
        ["visits", "kept"],
        ["orders", "kept"],
        ["shadow_answers", "kept"],
        ["deliveries", "kept"],
        ["sessions", "deleted"],
        ["deletions", "kept"],
    ]
    now = datetime.now(UTC)
    clinic.insert(
        session_row("a" * 64, now - timedelta(seconds=1)),
        session_row("c" * 64, now + timedelta(hours=1)),
    )
    assert main(["apply"]) == 0
    assert [row.hash for row in clinic.rows(SessionRow)] == ["c" * 64]
    assert [row.id for row in clinic.rows(VisitRow)] == [old]
    assert clinic.store.names()


def test_old_visits_are_deleted_with_a_record_and_shared_files_stay(clinic, capsys):
    old = [clinic.post(f"old {n}".encode(), years_ago=11) for n in range(3)]
    shared = clinic.post(b"shared", years_ago=11)
    kept = clinic.post(b"shared", years_ago=9)
    unfinished = clinic.post(b"unfinished", years_ago=11)
    with clinic.database.transaction(write=True) as session:
        later = datetime.now(UTC) + timedelta(hours=1)  # so that no process takes it
        visit = update(VisitRow).where(VisitRow.id == unfinished)
        session.execute(visit.values(status="accepted", lease_until=later, owner="x"))
    clinic.table(VISITS)
    assert main(["apply", "--dry-run"]) == 0
    assert without_log(capsys.readouterr().out) == "ten_years: 4 visits would be deleted\n"
    assert len(clinic.rows(VisitRow)) == 6
    assert main(["apply"]) == 0
    said = without_log(capsys.readouterr().out)
    assert said == "ten_years: films 4, inputs 4, visits 4\nfiles removed: 3\n"
    assert {row.id for row in clinic.rows(VisitRow)} == {kept, unfinished}
    assert sorted(clinic.store.read(each) for each in clinic.store.names()) == [b"shared", b"unfinished"]
    (record,) = clinic.rows(DeletionRow)
    assert (record.rule, json.loads(record.counts)) == ("ten_years", {"films": 4, "inputs": 4, "visits": 4})
    assert record.finished_at
    assert not any(each in f"{record.counts}{record.digests}" for each in (*old, shared, "SECRET"))
    assert main(["apply"]) == 0
    assert len(clinic.rows(DeletionRow)) == 1


def test_many_old_visits_are_deleted_in_several_transactions(clinic, monkeypatch):
    monkeypatch.setattr("service.retention.apply.AT_ONCE", 2)
    for n in range(5):
        clinic.post(f"old {n}".encode(), years_ago=11)
    clinic.table(VISITS)
    assert main(["apply"]) == 0
    assert clinic.rows(VisitRow) == []
    assert [json.loads(row.counts)["visits"] for row in sorted(clinic.rows(DeletionRow), key=lambda row: row.at)] == [
        2,
        2,
        1,
    ]
    assert list(clinic.store.names()) == []


def test_a_visit_whose_report_is_being_sent_stays_for_now(clinic):
    visit = clinic.post(b"old", years_ago=11)
    now = datetime.now(UTC)
    to = DestinationRow(
        id="d", kind="webhook", address="https://x.example", language="vi", options="{}", created_at=now, ended_at=now
    )
    clinic.insert(to)
    sent = {"visit_id": visit, "version": 1, "destination_id": "d", "state": "waiting", "attempts": 1, "due_at": now}
    clinic.insert(DeliveryRow(**sent, owner="x", lease_until=now + timedelta(hours=1)))
    clinic.table(VISITS)
    assert main(["apply"]) == 0
    assert [row.id for row in clinic.rows(VisitRow)] == [visit]
    with clinic.database.transaction(write=True) as session:
        session.execute(update(DeliveryRow).values(owner=None, lease_until=None, state="delivered", delivered_at=now))
    assert main(["apply"]) == 0
    assert clinic.rows(VisitRow) == clinic.rows(DeliveryRow) == []


def test_each_kind_grows_old(clinic):
    now = datetime.now(UTC)
    visit = clinic.post(b"a film")
    to = DestinationRow(
        id="d", kind="webhook", address="https://x.example", language="vi", options="{}", created_at=now
    )
    clinic.insert(to)
    old, young = now - timedelta(days=11), now - timedelta(days=9)
    for n, at in enumerate((old, young)):
        shadow = {"visit_id": visit, "name": "lung", "sha256": "0", "in_service": "1.0.0", "assessment": "{}"}
        sent = {"visit_id": visit, "version": n, "destination_id": "d", "state": "delivered", "attempts": 1}
        clinic.insert(
            OrderRow(site="commune", accession_number=f"A-{n}", context="{}", received_at=at),
            OrderRow(site="district", accession_number=f"A-{n}", context="{}", received_at=at),
            ShadowRow(**shadow, version=f"{n}.0.0", answered_at=at),
            DeliveryRow(**sent, due_at=old, delivered_at=at),
            session_row(str(n), at),
            DeletionRow(id=str(n), at=at, rule="x", counts="{}", digests="[]", finished_at=at),
        )
    rules = "".join(f'[old_{kind}]\nwhat = "{kind}"\nafter_days = 10\n' for kind in KINDS if kind != "orders")
    clinic.table(rules + '[old_orders]\nwhat = "orders"\nafter_days = 10\nsites = ["commune"]\n')
    assert main(["apply"]) == 0
    assert sorted((row.site, row.accession_number) for row in clinic.rows(OrderRow)) == [
        ("commune", "A-1"),
        ("district", "A-0"),
        ("district", "A-1"),
    ]
    assert [row.version for row in clinic.rows(DeliveryRow)] == [1]
    assert [row.hash for row in clinic.rows(SessionRow)] == ["1"]
    assert "0" not in [row.id for row in clinic.rows(DeletionRow)]
    assert {row.rule for row in clinic.rows(DeletionRow)} == {
        "x", "old_orders", "old_shadow_answers", "old_deliveries", "old_sessions", "old_deletions",
    }  # fmt: skip
    assert [row.id for row in clinic.rows(VisitRow)] == [visit]


def test_every_kind_has_its_rows():
    assert tuple(OLD) == KINDS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[A]\n", "the name of a rule"),
        ('[a]\nwhat = "films"\nafter_days = 1\n', "rule a: what"),
        ('[a]\nwhat = "visits"\n', "rule a: after_days"),
        ('[a]\nwhat = "visits"\nafter_days = -1\n', "rule a: after_days"),
        ('[a]\nwhat = "visits"\nafter_days = 1.5\n', "rule a: after_days"),
        ('[a]\nwhat = "visits"\nafter_days = true\n', "rule a: after_days"),
        ('[a]\nwhat = "visits"\nafter_days = 1\nsite = "x"\n', "rule a: site"),
        ('[a]\nwhat = "visits"\nafter_days = 1\nsites = []\n', "one or more"),
        ('[a]\nwhat = "sessions"\nafter_days = 1\nsites = ["x"]\n', "of visits and orders only"),
        ("x", "is not TOML"),
        ("a = 1\n", "rule a: "),
        ("#" * 100_001, "at most 100000 bytes"),
    ],
)
def test_a_table_with_a_mistake_is_refused_as_a_whole(tmp_path, text, says):
    path = tmp_path / "retention.toml"
    path.write_text(text)
    with pytest.raises(NotDone) as caught:
        read_rules(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shipped_table_explains_every_kind():
    head = SHIPPED_TABLE.read_text("utf-8")
    assert all(f"   {kind} " in head for kind in KINDS)
    assert read_rules()
