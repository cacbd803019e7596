"""The admins' page of keys and sites."""

from __future__ import annotations

import html
import re

import httpx
import pytest

from data_specs.vocabulary import LANGUAGES
from service.language.texts import text
from tests.service.serving import ADMIN, visit_files

PERSON = {"role": "doctor", "site": "xã Một", "label": "BS. Thử <Nghiệm>", "doctor_id": "D-1"}


@pytest.fixture
def admin(served):
    with served.client(ADMIN, **{"Accept-Language": "en"}) as client:
        yield client


def secret_in(page):
    return re.search(r'<code id="secret">(sangloc_[\w-]+)</code>', page)[1]


def id_of(admin, label):
    (found,) = (k["id"] for k in admin.get("/v1/keys").json()["items"] if k["label"] == label and not k["revoked_at"])
    return found


def test_a_key_is_made_shown_once_renewed_and_revoked(served, admin):
    made = admin.post("/keys", data=PERSON)
    assert made.status_code == 200
    assert made.headers["cache-control"] == "no-store"
    first = secret_in(made.text)
    listed = admin.get("/keys").text
    assert first not in listed
    assert "BS. Thử &lt;Nghiệm&gt;" in listed
    assert '<h2 id="site-' in listed
    key_id = id_of(admin, PERSON["label"])
    with served.client(first) as doctor:
        assert doctor.get("/v1/visits").status_code == 200
        renewed = admin.post(f"/keys/{key_id}/rotate")
        assert doctor.get("/v1/visits").status_code == 401
    second = secret_in(renewed.text)
    with served.client(second) as doctor:
        assert doctor.get("/v1/visits").status_code == 200
        assert admin.post(f"/keys/{key_id}/revoke").status_code == 303
        assert doctor.get("/v1/visits").status_code == 401
    again = admin.post(f"/keys/{key_id}/revoke")
    assert again.status_code == 404
    assert 'role="alert"' in again.text


def test_a_person_gets_a_name_and_what_was_signed_keeps_its_own(served, admin):
    made = admin.post("/v1/keys", json={"role": "doctor", "site": "xã Tư", "doctor_id": "D-4"}).json()
    site = admin.post("/v1/keys", json={"role": "site", "site": "xã Tư"}).json()
    with served.client(site["key"]) as client:
        visit = client.post("/v1/visits", files=visit_files(referrer={"id": "D-4"})).json()["id"]
        assert admin.post(f"/keys/{site['id']}/name", data={"label": "x"}).status_code == 404, "no person's key"
    with served.client(made["key"]) as doctor:
        doctor.post(f"/v1/visits/{visit}/opinions", json={"version": 1})
        assert admin.post(f"/keys/{made['id']}/name", data={"label": " BS.  Thử Bốn "}).status_code == 303
        doctor.post(f"/v1/visits/{visit}/opinions", json={"version": 2})
        opinions = doctor.get(f"/v1/visits/{visit}/history").json()["opinions"]
        assert [each["author"]["name"] for each in opinions] == ["D-4", "BS. Thử Bốn"]
    for wrong in ("", " ", "x" * 201, "a\x07b"):
        assert admin.post(f"/keys/{made['id']}/name", data={"label": wrong}).status_code == 422


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"label": " "}, "label"),
        ({"doctor_id": ""}, "doctor_id"),
        ({"role": "site"}, "doctor_id"),
        ({"site": " "}, "site"),
        ({"site": "x" * 101}, "site"),
        ({"label": "x" * 201}, "label"),
        ({"role": "chief"}, "role"),
        ({"role": ""}, "role"),
    ],
)
def test_what_cannot_be_made_is_told_at_its_field(admin, change, field, language):
    before = len(admin.get("/v1/keys").json()["items"])
    refused = admin.post("/keys", data={**PERSON, **change}, headers={"Accept-Language": language})
    assert refused.status_code == 422
    assert re.findall(r'class="error" id="(\w+)-error"', refused.text) == [field]
    assert "sangloc_" not in refused.text
    assert html.escape(PERSON["label"]) in refused.text or field == "label"
    assert len(admin.get("/v1/keys").json()["items"]) == before


@pytest.mark.parametrize("role", ["site", "doctor", "specialist"])
def test_only_an_admin_has_the_page(served, admin, role):
    more = {} if role == "site" else {"doctor_id": "D", "label": "BS. Thử Nghiệm"}
    with served.client(served.key(role, "xã Hai", **more)) as client:
        assert client.get("/keys").status_code == 404
        assert client.post("/keys", data=PERSON).status_code == 404
        key_id = admin.post("/v1/keys", json={"role": "site", "site": "xã Ba"}).json()["id"]
        for what in ("rotate", "revoke", "name"):
            assert client.post(f"/keys/{key_id}/{what}").status_code == 404
        assert 'href="/keys"' not in client.get("/worklist").text
    (row,) = (each for each in admin.get("/v1/keys").json()["items"] if each["id"] == key_id)
    assert row["revoked_at"] is None
    assert 'href="/keys"' in admin.get("/worklist").text


def test_a_form_of_another_site_makes_no_key(served):
    with httpx.Client(base_url=served.address, timeout=30) as browser:
        browser.post("/login", data={"key": ADMIN}, headers={"Origin": served.address})
        own = {"Origin": served.address}
        assert browser.get("/keys", headers=own).status_code == 200
        for address in ("/keys", "/keys/x/rotate", "/keys/x/revoke", "/keys/x/name"):
            assert (
                browser.post(address, data=PERSON, headers={"Origin": "https://elsewhere.example"}).status_code == 403
            )
        browser.cookies.clear()
        assert browser.get("/keys").headers["location"] == "/login?next=%2Fkeys"


def test_an_admin_does_not_revoke_the_key_that_they_use(served, admin):
    made = admin.post("/v1/keys", json={"role": "admin", "site": "tỉnh", "label": "office"}).json()
    with served.client(made["key"]) as own:
        page = own.get("/keys", headers={"Accept-Language": "en"}).text
        assert f"/keys/{made['id']}/rotate" in page
        assert f"/keys/{made['id']}/revoke" not in page
        assert text("key_own", "en") in page
        assert own.post(f"/keys/{made['id']}/revoke").status_code == 403
        assert own.get("/keys").status_code == 200
