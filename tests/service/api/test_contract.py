"""The wire contract, over real HTTP, over both databases: every status, and what goes with it."""

from __future__ import annotations

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from data_specs.visit.contract import Visit
from tests.service.serving import serving, settings_for, until, visit_files
from tests.service.standin import StandIn


def problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["detail"]
    assert document["type"] == f"urn:sangloc:problem:{code}"
    assert response.headers["vary"] == "Accept-Language"
    return document


def test_posted_visit_comes_back_finished(client):
    context = {"person": {"id": "P-1", "age_years": 54, "sex": "female"}, "labs": [], "ecg_unit": "mV"}
    response = client.post("/v1/visits", files=visit_files(**context))
    assert response.status_code == 201, response.text
    visit = Visit.model_validate(response.json())
    assert visit.status == "complete"
    assert visit.priority == "urgent"
    assert visit.person.age_years == 54
    assert visit.completed_at >= visit.received_at
    assert [(each.field, each.filename, each.accepted) for each in visit.inputs] == [("image", "film.png", True)]
    finding = visit.organs["lung"].findings[0]
    assert finding.evidence[0].href == f"/v1/visits/{visit.id}/evidence/pneumonia/0.png"
    assert response.headers["location"] == f"/v1/visits/{visit.id}"
    assert response.headers["content-language"] == "en"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["server-timing"].startswith("queue;dur=")
    assert client.get(response.headers["location"]).json() == response.json()
    posted = client.get(f"/v1/visits/{visit.id}/inputs/0")
    assert posted.content == b"an image"
    assert posted.headers["content-disposition"] == "attachment; filename*=UTF-8''film.png"
    assert "immutable" in posted.headers["cache-control"]


def test_every_member_is_optional(client):
    body = b"--b--\r\n"
    response = client.post("/v1/visits", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert response.status_code == 201, response.text
    assert response.json()["priority"] == "unassessed"
    assert response.json()["priority_reasons"][0]["code"] == "nothing_assessed"


@pytest.mark.parametrize(
    ("prefer", "status"),
    [("respond-async", 202), ("wait=0", 202), ("respond-async, wait=20", 201), ("wait=x", 201), ("wait=20", 201)],
)
def test_prefer(client, prefer, status):
    response = client.post("/v1/visits", files=visit_files(b"SLOW 0.3"), headers={"Prefer": prefer})
    assert response.status_code == status
    if status == 202:
        assert response.json()["status"] == "accepted"
        assert int(response.headers["retry-after"]) >= 1
        assert response.headers["preference-applied"] == prefer
        ask = response.headers["location"]
        deadline = time.monotonic() + 10
        while client.get(ask).json()["status"] == "accepted":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_idempotency(client):
    headers = {"Idempotency-Key": "one"}
    first = client.post("/v1/visits", files=visit_files(b"same"), headers=headers)
    again = client.post("/v1/visits", files=visit_files(b"same"), headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    problem(client.post("/v1/visits", files=visit_files(b"other"), headers=headers), 409, "idempotency_conflict")
    problem(
        client.post("/v1/visits", files=visit_files(), headers={"Idempotency-Key": "x" * 256}), 422, "invalid_request"
    )


def test_idempotency_is_scoped_to_the_site(served, client):
    headers = {"Idempotency-Key": "scoped"}
    first = client.post("/v1/visits", files=visit_files(b"a"), headers=headers)
    with served.client(served.key("site", "elsewhere")) as other:
        second = other.post("/v1/visits", files=visit_files(b"b"), headers=headers)
    assert second.status_code == 201
    assert first.json()["id"] != second.json()["id"]


def test_concurrent_duplicates_make_one_visit(served):
    barrier = threading.Barrier(8)

    def post(_):
        with served.client() as client:
            barrier.wait()
            return client.post("/v1/visits", files=visit_files(b"twin"), headers={"Idempotency-Key": "twins"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {each.status_code for each in answers} == {201}
    assert len({each.json()["id"] for each in answers}) == 1


def test_unknown_or_missing_key_is_401(served):
    with httpx.Client(base_url=served.address) as client:
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic abc"}):
            response = client.get("/v1/visits", headers=headers)
            problem(response, 401, "unauthorised")
            assert response.headers["www-authenticate"].startswith("Bearer")
            problem(client.post("/v1/visits", files=visit_files(), headers=headers), 401, "unauthorised")


def test_site_sees_its_own_visits_only(served, client):
    with served.client(served.key("site", "north")) as north, served.client(served.key("site", "south")) as south:
        visit = north.post("/v1/visits", files=visit_files()).json()
        path = f"/v1/visits/{visit['id']}"
        assert north.get(path).status_code == 200
        assert client.get(path).status_code == 200
        for address in (path, f"{path}/inputs/0", f"{path}/evidence/pneumonia/0.png", f"{path}/inputs/0/film.png"):
            problem(south.get(address), 403, "forbidden")
        assert [each["id"] for each in north.get("/v1/visits").json()["items"]] == [visit["id"]]
        assert south.get("/v1/visits").json() == {"items": [], "next": None}
        problem(north.get("/v1/keys"), 403, "forbidden")


def test_doctor_sees_what_was_referred_to_them(served):
    site = served.key("site", "west")
    doctor = served.key("doctor", "west", doctor_id="D-1")
    stranger = served.key("doctor", "elsewhere", doctor_id="D-1")
    with served.client(site) as west:
        theirs = west.post("/v1/visits", files=visit_files(referrer={"id": "D-1"})).json()
        west.post("/v1/visits", files=visit_files(referrer={"id": "D-2"}))
        west.post("/v1/visits", files=visit_files())
    with served.client(doctor) as client:
        assert [each["id"] for each in client.get("/v1/visits").json()["items"]] == [theirs["id"]]
        assert client.get(f"/v1/visits/{theirs['id']}").status_code == 200
        problem(client.post("/v1/visits", files=visit_files()), 403, "forbidden")
    with served.client(stranger) as client:
        problem(client.get(f"/v1/visits/{theirs['id']}"), 403, "forbidden")


def test_keys_are_shown_once_hashed_and_revocable(served, client):
    made = client.post("/v1/keys", json={"role": "site", "site": "east", "label": "reception"}).json()
    listed = next(each for each in client.get("/v1/keys").json()["items"] if each["id"] == made["id"])
    assert "key" not in listed
    assert (listed["role"], listed["site"], listed["label"], listed["revoked_at"]) == (
        "site",
        "east",
        "reception",
        None,
    )
    with served.client(made["key"]) as east:
        assert east.get("/v1/visits").status_code == 200
        assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
        problem(east.get("/v1/visits"), 401, "unauthorised")
    problem(client.delete(f"/v1/keys/{made['id']}"), 404, "not_found")
    for wrong in ({"role": "doctor", "site": "x"}, {"role": "king", "site": "x"}, {"role": "site"}, [], "x"):
        problem(client.post("/v1/keys", json=wrong), 422, "invalid_request")
    problem(client.post("/v1/keys", content=b"{"), 422, "invalid_request")
    problem(client.post("/v1/keys", content=b"x" * 200_000), 413, "body_too_large")


def test_pages_of_the_list(served):
    with served.client(served.key("site", "lists")) as client:
        posted = [client.post("/v1/visits", files=visit_files()).json()["id"] for _ in range(5)]
        posted.append(client.post("/v1/visits", files={"context": (None, "{}")}).json()["id"])
        found, cursor = [], None
        while True:
            page = client.get("/v1/visits", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
            found += [each["id"] for each in page["items"]]
            if (cursor := page["next"]) is None:
                break
        assert found == posted[::-1]
        urgent = client.get("/v1/visits", params={"priority": "urgent", "status": "complete"}).json()["items"]
        assert [each["id"] for each in urgent] == posted[4::-1]
        assert client.get("/v1/visits", params={"status": "failed"}).json()["items"] == []
        third = client.get(f"/v1/visits/{posted[3]}").json()["received_at"]
        since = client.get("/v1/visits", params={"since": third}).json()["items"]
        assert [each["id"] for each in since] == posted[:2:-1]
        for wrong in (
            {"cursor": "x"},
            {"cursor": "ÿ"},
            {"since": "soon"},
            {"since": "0001-01-01T00:00:00+23:59"},
            {"since": "9999-12-31T23:59:59-23:59"},
            {"cursor": base64.urlsafe_b64encode(f"9999-12-31T23:59:59-23:59 {posted[0]}".encode()).decode()},
            {"limit": 0},
            {"priority": "high"},
            {"status": ""},
        ):
            problem(client.get("/v1/visits", params=wrong), 422, "invalid_request")


def test_unknown_addresses_and_methods(client):
    problem(client.get("/v1/nothing"), 404, "not_found")
    problem(client.get("/v1/visits/5f0c3b1e-8a44-4c1d-9d53-0b8f2f6f1a77"), 404, "not_found")
    problem(client.get("/v1/visits/not-an-id"), 404, "not_found")
    response = client.delete("/v1/visits")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert client.options("/v1/visits").headers["allow"] == "GET, HEAD, POST"
    assert client.post("/static/app.css").headers["allow"] == "GET, HEAD"
    visit = client.post("/v1/visits", files=visit_files()).json()["id"]
    problem(client.get(f"/v1/visits/{visit}/inputs/7"), 404, "not_found")
    problem(client.get(f"/v1/visits/{visit}/inputs/-1"), 422, "invalid_request")
    problem(client.get(f"/v1/visits/{visit}/evidence/hernia/0.png"), 404, "not_found")
    problem(client.get(f"/v1/visits/{visit}/inputs/0/trace.svg"), 404, "not_found")


def test_head_answers_as_get_does_without_the_content(client):
    visit = client.post("/v1/visits", files=visit_files()).json()["id"]
    for path, status in (("/healthz", 200), (f"/v1/visits/{visit}", 200), ("/v1/nothing", 404), ("/v1/visits", 200)):
        asked, head = client.get(path), client.head(path)
        assert (asked.status_code, head.status_code, head.content) == (status, status, b"")
        assert head.headers["content-length"] == asked.headers["content-length"]
    assert client.get("/healthz").json() == {"status": "ok"}, "the connection is still in step"
    assert client.head("/logout").status_code == 405


def test_overlay_is_rendered_and_an_unreadable_film_is_not(client):
    visit = client.post("/v1/visits", files=visit_files()).json()["id"]
    overlay = client.get(f"/v1/visits/{visit}/evidence/pneumonia/0.png", params={"layer": "overlay"})
    assert overlay.content.startswith(b"\x89PNG")
    assert overlay.headers["cache-control"].startswith("private")
    problem(client.get(f"/v1/visits/{visit}/inputs/0/film.png"), 404, "not_found")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (b"{", "context"),
        (b"\xff\xfe{}", "context"),
        (b'{"person": {"age_years": NaN}}', "context"),
        (b'{"person": {"age_years": 1e999}}', "context.person.age_years"),
        (b'{"person": {"age_years": "54"}}', "context.person.age_years"),
        (b'{"person": {"age_years": true}}', "context.person.age_years"),
        (b'{"person": {"age_years": 500}}', "context.person.age_years"),
        (b'{"person": {"sex": "woman"}}', "context.person.sex"),
        (b'{"person": {"surname": "x"}}', "context.person.surname"),
        (b'{"person": {"id": "a\\u0000b"}}', "context.person.id"),
        (b'{"person": {"id": "\\ud800"}}', "context.person.id"),
        (b'{"person": {"id": "1", "id": "2"}}', "context.id"),
        (b'{"labs": [{"name": "creatinine", "value": 88}]}', "context.labs.0.unit"),
        (b'{"visited_on": "21/11/2026"}', "context.visited_on"),
        (b'{"visited_on": "1795219200"}', "context.visited_on"),
        (b'{"visited_on": 1795219200}', "context.visited_on"),
        (b'{"person": {"birth_date": "86400"}}', "context.person.birth_date"),
        (b"[" * 100_000, "context"),
        (b'{"a":' * 40_000, "context"),
        (b"1" * 10_000, "context"),
        (b'"' + b"x" * 256_000 + b'"', "context"),
        (b"[]", "context"),
    ],
)
def test_context_that_cannot_be_used(client, document, field):
    response = client.post("/v1/visits", files={"context": (None, document)})
    found = problem(response, 422, "invalid_request")
    assert found["errors"][0]["field"] == field
    assert field in found["detail"]


def test_fields_are_bounded(client):
    nine = [("image", (f"{i}.png", b"x")) for i in range(9)]
    assert problem(client.post("/v1/visits", files=nine), 422, "invalid_request")["errors"][0]["field"] == "image"
    problem(client.post("/v1/visits", files=[("ecg", (f"{i}.hea", b"x")) for i in range(17)]), 422, "invalid_request")
    problem(client.post("/v1/visits", files=[("context", (None, "{}"))] * 2), 422, "invalid_request")
    unknown = problem(client.post("/v1/visits", files={"photo": b"x"}), 422, "invalid_request")
    known = "There is no such field; known: image | ecg | context."
    assert unknown["errors"] == [{"field": "photo", "code": "field_unknown", "message": known}]
    full = [("image", (f"{i}.png", b"x")) for i in range(8)] + [("ecg", (f"{i}.hea", b"x")) for i in range(16)]
    assert len(client.post("/v1/visits", files=full).json()["inputs"]) == 24


def test_media_types(client):
    problem(client.post("/v1/visits", json={}), 415, "unsupported_media_type")
    problem(client.post("/v1/visits", content=b"x"), 415, "unsupported_media_type")
    for content_type in (
        "multipart/form-data",
        "multipart/form-data; boundary=b",
        f"multipart/form-data; boundary={'b' * 300}",
    ):
        response = client.post("/v1/visits", content=b"--x\r\n", headers={"Content-Type": content_type})
        problem(response, 422, "invalid_request")


def test_languages(client):
    def detail(accept):
        return client.get("/v1/nothing", headers={"Accept-Language": accept})

    vietnamese = detail("vi-VN,vi;q=0.9,en;q=0.5")
    assert vietnamese.headers["content-language"] == "vi"
    assert "khóa" in vietnamese.json()["detail"]
    assert detail("de, fr;q=0.4").headers["content-language"] == "fr"
    assert detail("de").headers["content-language"] == "en"
    response = client.post("/v1/visits", files={"context": (None, "{}")}, headers={"Accept-Language": "fr"})
    assert response.json()["priority_reasons"][0]["message"].startswith("Rien")
    assert response.headers["content-language"] == "fr"


def test_full_queue_is_429_and_repeats_are_not(tmp_path, new_database):
    settings = settings_for(tmp_path, database_url=new_database(), max_queue=2)
    with serving(settings, StandIn(seconds=3)) as served, served.client(Prefer="respond-async") as client:
        first = client.post("/v1/visits", files=visit_files(), headers={"Idempotency-Key": "k"})
        client.post("/v1/visits", files=visit_files())
        full = client.post("/v1/visits", files=visit_files())
        problem(full, 429, "queue_full")
        assert int(full.headers["retry-after"]) >= 1
        again = client.post("/v1/visits", files=visit_files(), headers={"Idempotency-Key": "k"})
        assert again.json()["id"] == first.json()["id"]
        until(lambda: client.post("/v1/visits", files=visit_files()).status_code == 202, 5)


def test_starting_and_draining_are_503(tmp_path):
    with serving(settings_for(tmp_path)) as served, served.client() as client:
        service = served.app.state.service
        service.draining = True
        response = client.post("/v1/visits", files=visit_files())
        problem(response, 503, "unavailable")
        assert int(response.headers["retry-after"]) >= 1
        assert client.get("/readyz").status_code == 503
        service.draining = False
        engine, service.engine = service.engine, None
        problem(client.post("/v1/visits", files=visit_files()), 503, "unavailable")
        problem(client.get("/v1/models"), 503, "unavailable")
        assert client.get("/readyz").json()["checks"]["engine"] == "starting"
        assert client.get("/healthz").status_code == 200
        service.engine = engine


def test_engine_fault_ends_as_a_failed_visit(tmp_path, monkeypatch):
    monkeypatch.setattr("service.visits.work.RETRY_S", 0.05)
    with serving(settings_for(tmp_path)) as served, served.client() as client:
        visit = client.post("/v1/visits", files=visit_files(b"FAULT", person={"id": "P-9"})).json()
    assert visit["status"] == "failed"
    assert visit["priority"] == "unassessed"
    assert visit["organs"]["lung"]["reasons"][0]["code"] == "inference_failed"
    assert visit["inputs"][0]["accepted"] is False


def test_a_fault_of_the_service_is_a_problem_without_a_trace(tmp_path):
    with serving(settings_for(tmp_path)) as served, served.client() as client:
        visit = client.post("/v1/visits", files=visit_files()).json()
        stored = tmp_path / "files" / visit["inputs"][0]["sha256"][:2] / visit["inputs"][0]["sha256"][2:]
        stored.write_bytes(b"bit rot")
        found = problem(client.get(f"/v1/visits/{visit['id']}/inputs/0"), 500, "internal_error")
        assert "Traceback" not in str(found)
        stored.unlink()
        problem(client.get(f"/v1/visits/{visit['id']}/inputs/0"), 500, "internal_error")
        served.app.state.service.work.wait = None  # a fault that nothing foresees
        problem(client.post("/v1/visits", files=visit_files(b"SLOW 0.2")), 500, "internal_error")


def test_operations(client):
    client.post("/v1/visits", files=visit_files())
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, set(ready.json()["checks"].values())) == (200, {"ok"})
    assert client.get("/v1/models").json()["items"][0]["name"] == "lung"
    metrics = client.get("/metrics").text
    assert 'sangloc_visits_total{priority="urgent",status="complete"}' in metrics
    assert 'route="/v1/visits"' in metrics
    assert 'sangloc_stage_seconds_count{stage="assess"}' in metrics


def test_security_headers_stand_on_every_answer(client):
    for response in (
        client.get("/healthz"),
        client.get("/v1/nothing"),
        client.get("/v1/visits", headers={"Authorization": ""}),
    ):
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers
        assert response.headers["cache-control"] == "no-store"


def test_session_cookie(served, client):
    with httpx.Client(base_url=served.address) as browser:
        refused = browser.post("/login", data={"key": "wrong"})
        assert refused.headers["location"].startswith("/login?failed=1")
        key = served.key("site", "browsing")
        opened = browser.post("/login", data={"key": key, "next": "//evil.example"})
        assert (opened.status_code, opened.headers["location"]) == (303, "/")
        cookie = opened.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert key not in cookie
        assert browser.get("/v1/visits").status_code == 200
        problem(browser.post("/v1/visits", files=visit_files()), 403, "forbidden")
        problem(
            browser.post("/v1/visits", files=visit_files(), headers={"Origin": "http://evil.example"}), 403, "forbidden"
        )
        same = browser.post("/v1/visits", files=visit_files(), headers={"Origin": served.address})
        assert same.status_code == 201
        problem(browser.post("/login", data={"key": key}, headers={"Origin": "http://evil.example"}), 403, "forbidden")
        browser.post("/logout", headers={"Origin": served.address})
        browser.cookies.set("session", opened.cookies["session"])
        problem(browser.get("/v1/visits"), 401, "unauthorised")
