"""A shadow behind the real server: stored beside the visits, compared, in no answer; bounded, and no visit's fault."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text

from inference.bundles.registry import read_registry
from inference.engine import Engine
from inference.runtime.session import Machine
from models.__main__ import DONE, REFUSED, main
from models.change_plan import plan_file
from models.compare import ACCEPTED, compare
from models.registry import promote, rollback, set_shadow
from service.parts import Parts
from service.storage.database import Database
from service.storage.migrate import REVISIONS, migrate
from service.storage.tables import ShadowRow, VisitRow
from service.visits.shadow import MAX_WAITING, ShadowWork
from tests.conftest import ROOT
from tests.models.versions import for_triage, shifted, shipped, version
from tests.readers import shared_readers
from tests.service.serving import serving, settings_for, until
from tests.service.standin import StandIn

SAMPLES = ROOT / "samples"
SIGNED = {"who": "the screening lead", "why": "a test"}
FILMS = ("film-normal.jpg", "film-abnormal.jpg")


@pytest.fixture
def bundles(tmp_path):
    folder = tmp_path / "bundles"
    folder.mkdir()
    shipped(folder, edit=for_triage)
    promote(folder, "lung", "1.0.0", **SIGNED)
    version(folder, "lung", "1.1.0", shifted(-20.0))
    return folder


@pytest.fixture
def server(tmp_path, bundles, new_database):
    """A server on the real engine, and the address of its database."""
    (tmp_path / "data").mkdir()
    settings = settings_for(tmp_path / "data", database_url=new_database(), bundles=bundles)
    with serving(settings, Engine(bundles, Machine("cpu"), readers=shared_readers(), poll_s=0.05)) as it:
        it.database = settings.database
        yield it


def post(client, film):
    person = {"person": {"age_years": 54, "sex": "female"}}
    files = [("image", (film, (SAMPLES / film).read_bytes())), ("context", (None, json.dumps(person)))]
    answer = client.post("/v1/visits", files=files)
    assert answer.status_code == 201, answer.text
    return answer.json()


def lung_version(visit):
    return {m["name"]: m["version"] for m in visit["models"]}["lung"]


def _abnormal(visit):
    return next(each for each in visit["organs"]["lung"]["findings"] if each["name"] == "abnormal")


def loaded(client):
    return {m["name"]: m for m in client.get("/v1/models").json()["items"]}["lung"]


def stored(server):
    query = select(ShadowRow.visit_id, ShadowRow.name, ShadowRow.version, ShadowRow.in_service)
    with server.app.state.service.database.transaction() as session:
        return session.execute(query).all()


def test_findings_of_a_shadow_are_stored_and_compared_and_never_shown(server, bundles, capsys):
    with server.client() as client:
        plain = post(client, FILMS[1])
        set_shadow(bundles, "lung", "1.1.0", **SIGNED)
        until(lambda: loaded(client)["shadow"] == "1.1.0", 10)
        visits = [post(client, film) for film in FILMS * 3]
        until(lambda: len(stored(server)) == 6, 30)
        assert {tuple(row) for row in stored(server)} == {(v["id"], "lung", "1.1.0", "1.0.0") for v in visits}
        # what a site or a doctor gets is that of the version in service, to the digit, and says nothing of another
        site = server.key("site", "somewhere")
        assert [lung_version(v) for v in visits] == ["1.0.0"] * 6
        again = {v["id"]: client.get(f"/v1/visits/{v['id']}").json() for v in visits}
        assert all(again[v["id"]] == v for v in visits)
        assert visits[1]["organs"]["lung"]["risk"] == pytest.approx(plain["organs"]["lung"]["risk"], abs=1e-5)
        pages = [client.get(address).text for address in (f"/v1/visits/{visits[1]['id']}", "/v1/visits", "/", 
                                                          f"/visits/{visits[1]['id']}", "/openapi.json")]  # fmt: skip
        assert not any("shadow" in page or "1.1.0" in page for page in pages)
        with server.client(site) as other:
            assert other.get(f"/v1/visits/{visits[1]['id']}").status_code == 403
        assert 'sangloc_shadow_total{outcome="stored"} 6.0' in client.get("/metrics").text

    found = compare(server.database, "lung")
    both = found["1.0.0", "1.1.0"]
    assert both.visits == 6
    abnormal = both.findings["abnormal"]
    positive = {v["id"] for v in visits if _abnormal(v)["positive"]}
    assert len(positive) >= 3
    assert (abnormal.n, abnormal.cells[True, False]) == (6, len(positive))
    assert abnormal.agreement == 1 - len(positive) / 6
    assert both.findings[ACCEPTED].agreement == 1
    differing = {p.visit_id for p in both.differing if p.finding == "abnormal"}
    assert differing == positive
    assert main(["--bundles", str(bundles), "compare", "lung", "--database", server.database]) == 0
    said = capsys.readouterr().out
    assert "lung 1.0.0 in service, 1.1.0 in the shadow: 6 visits" in said
    assert all(visit_id in said for visit_id in differing)
    assert main(["compare", "cardiac", "--database", server.database]) == 0
    assert "no answer of a shadow" in capsys.readouterr().out


PLAN = """
name = "lung"
may_change = ["weights", "calibration", "thresholds"]
protocol = {days = 1, visits = 4, known_cases = 1, group_visits = 2}
limits = {newly_recalled_per_1000 = 1000, no_longer_recalled_per_1000 = 400, sensitivity_loss = 0.5}
"""


def test_a_promotion_is_held_to_what_it_would_have_done_to_real_visits(server, bundles, capsys):
    promotion = ["--bundles", str(bundles), "promote", "lung", "1.1.0", "--database", server.database]
    promotion += ["--who", "the screening lead", "--why", "a test"]
    plan_file(bundles, "lung").write_text(PLAN)
    with server.client() as client:
        set_shadow(bundles, "lung", "1.1.0", **SIGNED)
        until(lambda: loaded(client)["shadow"] == "1.1.0", 60)
        visits = [post(client, FILMS[1]) for _ in range(3)]
        until(lambda: len(stored(server)) == 3, 60)
        assert all(_abnormal(visit)["positive"] for visit in visits)
        assert main(promotion) == REFUSED, "three visits are too few"
        assert "3 visits of the last 1 days were answered by lung 1.0.0" in capsys.readouterr().err
        visits.append(post(client, FILMS[1]))
        outcome = {"finding": "abnormal", "outcome": "confirmed"}
        assert client.post(f"/v1/visits/{visits[0]['id']}/outcomes", json=outcome).status_code == 201
        until(lambda: len(stored(server)) == 4, 60)
        capsys.readouterr()

        assert main(["--bundles", str(bundles), "recalls", "lung", "--database", server.database]) == DONE
        shown = capsys.readouterr().out
        assert "lung 1.0.0 in service, 1.1.0 in the shadow: 4 visits of the last 1 days" in shown
        assert main(promotion) == REFUSED
        refused = capsys.readouterr()
        assert refused.out == shown, "a promotion shows what recalls shows"
        beyond = refused.err.splitlines()[1:-1]
        recalls, cases, *groups = (line for line in beyond if line.startswith("  - abnormal"))
        assert "abnormal: no longer recalled: 1000.0 (510.1 to 1000.0) per 1,000 of 4 visits, allowed 400.0" in recalls
        assert "abnormal: sensitivity lost: 1.000 (" in cases
        assert {line.split()[2] for line in groups} == {"site", "sex", "age"}
        assert "  - effusion: 0 known cases; the plan asks for 1" in beyond
        assert lung_version(post(client, FILMS[1])) == "1.0.0"

        assert main([*promotion, "--override", "the clinics agreed"]) == DONE
        assert "Overridden: abnormal: no longer recalled: 1000.0 (" in capsys.readouterr().out
        until(lambda: loaded(client)["version"] == "1.1.0", 60)
        assert lung_version(post(client, FILMS[1])) == "1.1.0"
    entry = read_registry(bundles).entries[-1]
    assert entry.override == "the clinics agreed"
    assert "held to the plan" in entry.why
    assert len(entry.overridden) == len(beyond)


def test_a_running_server_takes_a_promotion_and_a_rollback(server, bundles):
    with server.client() as client:
        assert lung_version(post(client, FILMS[1])) == "1.0.0"
        promote(bundles, "lung", "1.1.0", **SIGNED, override="a test")
        until(lambda: loaded(client)["version"] == "1.1.0", 10)
        visit = post(client, FILMS[1])
        assert lung_version(visit) == "1.1.0"
        rollback(bundles, "lung", **SIGNED)
        until(lambda: loaded(client)["version"] == "1.0.0", 10)
        assert lung_version(post(client, FILMS[1])) == "1.0.0"
        assert lung_version(client.get(f"/v1/visits/{visit['id']}").json()) == "1.1.0", "what was said stays said"
        assert client.get("/readyz").status_code == 200


class Shadowed(StandIn):
    """The stand-in with a shadow that takes its time, or fails."""

    has_shadows = True

    def __init__(self, fails=False):
        super().__init__()
        self.fails = fails
        self.asked = 0

    async def assess_shadows(self, inputs, context):
        self.asked += 1
        if self.fails:
            raise RuntimeError("a fault of the shadow")
        await asyncio.sleep(30)


@pytest.mark.parametrize("fails", [False, True], ids=["slow", "failing"])
def test_a_shadow_delays_no_visit(tmp_path, fails):
    engine = Shadowed(fails)
    with serving(settings_for(tmp_path), engine) as it, it.client() as client:
        started = time.monotonic()
        for i in range(5):
            answer = client.post("/v1/visits", files=[("image", ("f.png", f"{i}".encode()))])
            assert (answer.status_code, answer.json()["status"]) == (201, "complete")
        assert time.monotonic() - started < 10
        until(lambda: engine.asked == (5 if fails else 1), 10)
        if fails:
            until(lambda: 'sangloc_shadow_total{outcome="failed"} 5.0' in client.get("/metrics").text, 10)


async def test_waiting_shadow_runs_are_limited_and_the_others_are_counted(tmp_path):
    settings = settings_for(tmp_path)
    parts, engine = Parts.open(settings), Shadowed()
    work = ShadowWork(parts, busy=lambda: True)
    work.start(engine)
    for i in range(MAX_WAITING + 6):
        work.offer(VisitRow(id=str(i)))
    await asyncio.sleep(0.3)
    assert engine.asked == 0, "a process that has visits in hand has no moment for a shadow"
    assert 'sangloc_shadow_total{outcome="dropped"} 6.0' in parts.metrics.exposition().decode()
    await work.stop()
    assert f'sangloc_shadow_total{{outcome="dropped"}} {MAX_WAITING + 6}.0' in parts.metrics.exposition().decode()
    parts.database.close()


def test_an_older_database_is_migrated(tmp_path, new_database):
    settings = settings_for(tmp_path, database_url=new_database())
    database = Database(settings.database)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "service" / "storage" / "migrations"))
    with database.engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        assert "shadow_answers" not in inspect(connection).get_table_names()
    migrate(settings, database)
    with database.engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == REVISIONS[-1]
        assert connection.execute(text("SELECT count(*) FROM shadow_answers")).scalar_one() == 0
        columns = {c["name"]: c["nullable"] for c in inspect(connection).get_columns("shadow_answers")}
        assert columns == {c.name: c.nullable for c in ShadowRow.__table__.columns}
    database.close()
