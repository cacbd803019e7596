"""Every route says what it is for the audit log, and what it says is true."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from service.audit.actions import ACTIONS, DCM
from service.audit.listing import Wanted, list_entries
from service.audit.routes import CHANGES, NOTHING, ROUTES
from tests.conftest import ROOT
from tests.service.serving import visit_files


def routes_of(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, (APIRoute, Route)):
            for method in (route.methods or set()) - {"HEAD"}:  # a HEAD is recorded as its GET
                yield method, route.path
        elif (router := getattr(route, "original_router", None)) is not None:  # FastAPI's way to include a router
            yield from routes_of(router.routes)
        else:
            assert isinstance(route, Mount), route
            assert route.path == "/static"


def test_every_route_says_what_it_is(served):
    """A route that is added has to be decided on in ``service/audit/routes.py``."""
    there = {f"{method} {path}" for method, path in routes_of(served.app.routes)}
    said = set(ROUTES)
    assert there - said == set(), "decide what these are"
    assert said - there == set(), "these are gone"


def test_every_look_is_an_action():
    looks = set(ROUTES.values()) - {CHANGES, NOTHING}
    assert looks <= set(ACTIONS)
    assert all(ACTIONS[look].kind in ("R", "E") for look in looks)
    assert {action.code for action in ACTIONS.values()} == set(DCM)


def test_the_page_about_the_log_names_every_action():
    page = (ROOT / "docs/reference/audit.md").read_text("utf-8")
    assert [action for action in ACTIONS if f"`{action}`" not in page] == []


def test_what_only_reads_changes_nothing():
    """A GET is no change, but for the way back from the provider, which opens a session."""
    assert {each for each, what in ROUTES.items() if what == CHANGES and each.startswith("GET ")} == {
        "GET /login/provider/callback"
    }


# ---------------------------------------------------------------- what requests leave in the log
@pytest.fixture(scope="module")
def visit(served):
    with served.client(served.key("site", "xa"), Prefer="wait=20") as client:
        made = client.post("/v1/visits", files=visit_files(b"looked at", person={"id": "VN-1"}, referrer={"id": "D-1"}))
    assert made.status_code == 201
    return made.json()["id"]


@pytest.fixture(scope="module")
def doctor(served):
    with served.client(served.key("doctor", "xa", doctor_id="D-1", label="Bác sĩ")) as client:
        yield client


def entries(served, **wanted):
    database = served.app.state.service.database
    with database.transaction() as session:
        return [each.entry for each in list_entries(session, Wanted(**wanted), 500)]


def recorded(served, ask):
    """The answer, and the entries that are new when it is there."""
    before = entries(served)[0].number
    answer = ask()
    return answer, [each for each in entries(served) if each.number > before][::-1]


LOOKS = [
    ("/v1/visits/{visit}", "visit_read"),
    ("/v1/visits/{visit}/history", "visit_read"),
    ("/v1/visits/{visit}/comparison", "visit_read"),
    ("/v1/visits/{visit}/inputs/0", "file_read"),
    ("/v1/visits/{visit}/report.json", "report_read"),
    ("/v1/visits/{visit}/report.html", "report_read"),
    ("/visits/{visit}", "visit_read"),
    ("/visits/{visit}/report", "report_read"),
    ("/v1/visits", "list_read"),
    ("/worklist", "list_read"),
    ("/worklist.csv", "list_exported"),
    ("/questions", "list_read"),
    ("/statistics", "list_read"),
    ("/incidents", "list_read"),
    ("/v1/statistics/agreement.csv", "list_exported"),
    ("/dicomweb/studies", "list_read"),
]


@pytest.mark.parametrize(("path", "action"), LOOKS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_look_is_in_the_log_when_its_answer_is_there(served, doctor, visit, path, action, method):
    answer, (entry,) = recorded(served, lambda: doctor.request(method, path.format(visit=visit)))
    assert answer.status_code == 200
    assert (entry.action, entry.role) == (action, "doctor")
    assert entry.visit == (visit if "{visit}" in path else None)
    detail = json.loads(entry.detail)
    assert detail["request"] == answer.headers["x-request-id"]
    assert f"GET {detail['route']}" in ROUTES


def test_retrieved_objects_name_their_visit(served, visit):
    with served.client() as admin:
        found = admin.get("/dicomweb/instances", params={"PatientID": "VN-1", "Modality": "SR"}).json()[0]
        study, series, instance = (found[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
        path = f"/dicomweb/studies/{study}/series/{series}/instances/{instance}"
        _, (entry,) = recorded(served, lambda: admin.get(path))
    assert (entry.action, entry.visit, entry.actor) == ("report_read", visit, "bootstrap")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/login", "/docs", "/v2"])
def test_what_shows_nothing_of_a_person_is_not_in_the_log(served, doctor, path):
    answer, new = recorded(served, lambda: doctor.get(path))
    assert answer.status_code in (200, 303)
    assert new == []


def test_what_is_refused_to_a_known_key_is_in_the_log(served, visit):
    with served.client(served.key("site", "elsewhere")) as other:
        answer, (entry,) = recorded(served, lambda: other.get(f"/v1/visits/{visit}"))
    assert answer.status_code == 403
    assert (entry.action, entry.visit, json.loads(entry.detail)["status"]) == ("visit_read", visit, 403)


def test_nobody_without_a_key_writes_into_the_log(served, visit):
    with served.client("no such key") as stranger:
        for path in (f"/v1/visits/{visit}", "/worklist", f"/visits/{visit}", "/v1/visits?nonsense=1"):
            _, new = recorded(served, lambda path=path: stranger.get(path))
            assert new == []


def test_an_address_that_is_no_visit_leaves_nothing_of_it_in_the_log(served, doctor):
    _, new = recorded(served, lambda: doctor.get("/v1/visits/VN-SECRET-1"))
    assert "SECRET" not in str(new)


def test_the_life_of_a_visit_is_in_the_log(served, doctor, visit):
    asked = doctor.post(f"/v1/visits/{visit}/opinions", json={"version": 1, "text": "SECRET", "advice": "ask"})
    assert asked.status_code == 201
    outcome = {"finding": "pneumonia", "outcome": "confirmed", "source": "SECRET"}
    assert doctor.post(f"/v1/visits/{visit}/outcomes", json=outcome).status_code == 201
    found = entries(served, visit=visit)[::-1]
    done = [each for each in found if each.action not in ("visit_read", "file_read", "report_read")]
    assert [each.action for each in done] == ["visit_posted", "visit_assessed", "opinion_signed", "outcome_recorded"]
    assert [each.role for each in done] == ["site", "service", "doctor", "doctor"]
    assessed = json.loads(done[1].detail)
    posted = doctor.get(f"/v1/visits/{visit}").json()
    assert assessed["inputs"] == [each["sha256"] for each in posted["inputs"]]
    assert assessed["models"] == [f"{each['name']} {each['version']}" for each in posted["models"]]
    assert "SECRET" not in str(found)
    assert "VN-1" not in str(found)


def test_keys_and_sessions_are_in_the_log(served):
    here = {"Sec-Fetch-Site": "same-origin"}
    with served.client() as admin:
        asked = {"role": "site", "site": "xa"}
        answer, (made,) = recorded(served, lambda: admin.post("/v1/keys", json=asked))
        key = answer.json()
        assert (made.action, made.actor, json.loads(made.detail)["key"]) == ("key_made", "bootstrap", key["id"])
        assert key["key"] not in made.detail
        answer, (renewed,) = recorded(served, lambda: admin.post(f"/v1/keys/{key['id']}/rotate"))
        assert renewed.action == "key_renewed"
        with served.client() as browser:
            del browser.headers["Authorization"]
            secret = {"key": answer.json()["key"]}
            _, (signed_in,) = recorded(served, lambda: browser.post("/login", data=secret, headers=here))
            assert (signed_in.action, signed_in.actor) == ("signed_in", key["id"])
            _, (signed_out,) = recorded(served, lambda: browser.post("/logout", headers=here))
            assert (signed_out.action, signed_out.actor) == ("signed_out", key["id"])
        _, (revoked,) = recorded(served, lambda: admin.delete(f"/v1/keys/{key['id']}"))
        assert revoked.action == "key_revoked"


def test_refused_sign_ins_are_counted_once_a_minute(served):
    service = served.app.state.service
    service.keys.wrong.take_count()
    with served.client("wrong") as stranger:
        for _ in range(3):
            assert stranger.get("/v1/visits").status_code == 401
    assert service.keys.wrong.take_count() == 3
    assert service.keys.wrong.take_count() == 0


def test_an_admin_reads_the_log_and_nobody_else(served, doctor, visit):
    assert doctor.get("/v1/audit").status_code == 403
    assert doctor.get("/audit").status_code == 404
    with served.client() as admin:
        found = admin.get("/v1/audit", params={"visit": visit, "limit": 2}).json()
        assert len(found["items"]) == 2
        following = admin.get("/v1/audit", params={"visit": visit, "limit": 500, "before": found["next"]}).json()
        assert following["items"][-1]["action"] == "visit_posted"
        of_person = admin.get("/v1/audit", params={"person": "VN-1", "action": "visit_posted"}).json()["items"]
        assert [each["visit"] for each in of_person] == [visit]
        day = of_person[0]["at"][:10]
        assert admin.get("/v1/audit", params={"visit": visit, "day": day}).json()["items"]
        assert admin.get("/v1/audit", params={"visit": visit, "day": "2020-01-01"}).json()["items"] == []
        assert admin.get("/v1/audit", params={"action": "nonsense"}).status_code == 422
        assert entries(served)[0].action == "log_read"


@pytest.mark.parametrize("language", ["en", "vi", "fr"])
def test_the_page_shows_the_log_in_each_language(served, visit, language):
    with served.client(**{"Accept-Language": language}) as admin:
        page = admin.get("/audit", params={"visit": visit})
        assert page.status_code == 200
        assert f'lang="{language}"' in page.text
        assert visit[:8] in page.text
        for asked in ({"day": "no day"}, {"before": "x"}, {"action": "x"}, {"of_key": "bootstrap"}, {"person": "VN-1"}):
            assert admin.get("/audit", params=asked).status_code == 200
