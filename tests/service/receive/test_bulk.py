"""Many visits in one request: each as if it had been posted by itself, and none at the cost of another."""

from __future__ import annotations

import json

import pytest

from service.receive.bulk import MAX_NAME, MAX_VISITS
from service.receive.posted import LIMITS
from tests.service.serving import serving, settings_for, visit_files


def parts_of(name, image=b"an image", **context):
    return [(f"{name}/{field}", given) for field, given in visit_files(image, **context)]


def post(client, *visits, **headers):
    return client.post("/v1/visits/bulk", files=[part for visit in visits for part in visit], headers=headers)


def items(response):
    assert response.status_code == 200, response.text
    return {each["name"]: each for each in response.json()["items"]}


def ids(response):
    return {name: each["visit"]["id"] for name, each in items(response).items()}


def without_own(visit):
    """A visit without its id and times, also in the addresses of its pictures."""
    shared = {name: value for name, value in visit.items() if name not in ("received_at", "completed_at")}
    return json.dumps(shared).replace(visit["id"], "ID")


def test_each_visit_is_as_if_it_had_been_posted_by_itself(client):
    contexts = {f"P-{i}": {"person": {"id": f"P-{i}", "age_years": 40 + i}} for i in range(12)}
    found = items(post(client, *(parts_of(name, name.encode(), **given) for name, given in contexts.items())))
    assert list(found) == list(contexts)
    for name, given in contexts.items():
        alone = client.post("/v1/visits", files=visit_files(name.encode(), **given)).json()
        visit = found[name]["visit"]
        assert found[name]["problem"] is None
        assert visit == client.get(f"/v1/visits/{visit['id']}").json()
        assert without_own(visit) == without_own(alone)
        assert client.get(f"/v1/visits/{visit['id']}/inputs/0").content == name.encode()


def test_a_visit_that_is_refused_refuses_no_other(client):
    broken = {
        "age": parts_of("age", person={"age_years": 540}),
        "field": [("field/film", ("f.png", b"x", "image/png"))],
        "films": [("films/image", ("f.png", b"x", "image/png"))] * (LIMITS["image"] + 1),
        "contexts": [*parts_of("contexts", person={}), ("contexts/context", (None, "{}"))],
        "json": [("json/context", (None, "{"))],
        "large": [("large/context", (None, json.dumps({"person": {"id": "x" * 300_000}})))],
    }
    good = [parts_of(f"good-{i}", person={"id": f"P-{i}"}) for i in range(len(broken) + 1)]
    mixed = [part for pair in zip(good, broken.values(), strict=False) for part in pair]
    response = post(client, *mixed, good[-1], **{"Accept-Language": "vi"})
    found = items(response)
    assert response.headers["content-language"] == "vi"
    for name in broken:
        assert (found[name]["visit"], found[name]["problem"]["code"]) == (None, "invalid_request")
    said = {name: [each["code"] for each in found[name]["problem"]["errors"]] for name in broken}
    assert said == {
        "age": ["field_invalid"],
        "field": ["field_unknown"],
        "films": ["field_too_many"],
        "contexts": ["field_too_many"],
        "json": ["body_malformed"],
        "large": ["field_too_large"],
    }
    assert found["age"]["problem"]["errors"][0]["field"] == "context.person.age_years"
    assert {found[f"good-{i}"]["visit"]["status"] for i in range(len(good))} == {"complete"}


def test_parts_may_come_in_any_order(client):
    one, other = parts_of("a", b"A", person={"id": "A"}), parts_of("b", b"B", person={"id": "B"})
    found = items(post(client, [one[1], other[0], one[0], other[1]]))
    assert {name: each["visit"]["person"]["id"] for name, each in found.items()} == {"a": "A", "b": "B"}
    assert client.get(f"/v1/visits/{found['b']['visit']['id']}/inputs/0").content == b"B"


def test_a_repeated_request_makes_no_visit_twice(client):
    key = {"Idempotency-Key": "monday"}
    first = ids(post(client, parts_of("a"), parts_of("b"), **key))
    second = post(client, parts_of("a"), parts_of("b", b"another"), parts_of("c"), **key)
    found = items(second)
    assert found["a"]["visit"]["id"] == first["a"]
    assert found["b"]["problem"]["code"] == "idempotency_conflict"
    assert found["c"]["visit"]["id"] not in first.values()
    assert ids(post(client, parts_of("a"), **{"Idempotency-Key": "tuesday"}))["a"] != first["a"]
    assert post(client, parts_of("a"), **{"Idempotency-Key": "x" * (255 - MAX_NAME)}).status_code == 422
    assert post(client, parts_of("a"), **{"Idempotency-Key": "x" * (254 - MAX_NAME)}).status_code == 200


@pytest.mark.parametrize("name", ["image", "a/b/image", "/image", "x" * (MAX_NAME + 1) + "/image", "a"])
def test_a_part_that_names_no_visit_refuses_the_request(client, name):
    files = [*parts_of("a", person={"id": "NONE"}), (name, ("f.png", b"x", "image/png"))]
    response = client.post("/v1/visits/bulk", files=files)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (422, "field_unknown")
    assert client.get("/v1/visits", params={"person": "NONE"}).json()["items"] == []


def test_the_number_of_visits_is_bounded(client):
    most = [(f"{i}/context", (None, "{}")) for i in range(MAX_VISITS)]
    assert len(items(client.post("/v1/visits/bulk", files=most))) == MAX_VISITS
    refused = client.post("/v1/visits/bulk", files=[*most, ("more/context", (None, "{}"))])
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "field_too_many")
    assert client.post("/v1/visits/bulk", files=parts_of("a", b"x" * 2_000_001)).status_code == 413


def test_a_body_that_is_no_such_form(served, client):
    assert client.post("/v1/visits/bulk", content=b"x", headers={"Content-Type": "image/png"}).status_code == 415
    cut = b'--b\r\nContent-Disposition: form-data; name="a/image"; filename="f"\r\n\r\nx'
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    assert client.post("/v1/visits/bulk", content=cut, headers=form).status_code == 422
    with served.client(served.key("doctor", "x", doctor_id="D-1")) as doctor:
        allowed = doctor.post("/v1/visits", files=visit_files()).status_code == 201
        assert (post(doctor, parts_of("a")).status_code == 200) == allowed
    with served.client("nonsense") as stranger:
        assert post(stranger, parts_of("a")).status_code == 401
    assert not list(served.app.state.service.store.drafts.iterdir())


def test_a_request_may_not_wait(client):
    response = post(client, parts_of("a", b"SLOW 0.5"), parts_of("b", b"SLOW 0.5"), Prefer="respond-async")
    assert response.headers["preference-applied"] == "respond-async"
    assert {each["visit"]["status"] for each in items(response).values()} == {"accepted"}


def test_more_visits_than_slots_are_waited_for(tmp_path):
    with serving(settings_for(tmp_path, concurrent_visits=2)) as served, served.client() as client:
        found = items(post(client, *(parts_of(str(i), person={"id": str(i)}) for i in range(20))))
    assert {each["visit"]["status"] for each in found.values()} == {"complete"}


def test_a_full_queue_refuses_the_rest(tmp_path):
    with serving(settings_for(tmp_path, max_queue=3)) as served, served.client() as client:
        found = items(post(client, *(parts_of(str(i), b"SLOW 1") for i in range(5)), Prefer="respond-async"))
        codes = [each["problem"] and each["problem"]["code"] for each in found.values()]
    assert sorted(codes, key=str) == [None, None, None, "queue_full", "queue_full"]
