"""A site that nobody has a key for is refused wherever one is named, with those that are known."""

from __future__ import annotations

import html
import json

import pytest

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES
from inference.bundles.registry import LOG
from service.sites import MAX_NAMED, listed
from tests.service.serving import serving, settings_for, visit_files


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    callers = "127.0.0.9=by-hl7,127.0.0.8=commune"
    with serving(settings_for(tmp_path_factory.mktemp("sites"), hl7_peers=callers, hl7_port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def doctor(served):
    """The referring doctor of a visit, and the visit; two hospitals have a specialist, one site has none."""
    site = served.key("site", "commune")
    secret = served.key("doctor", "commune", doctor_id="D-1", label="BS. Thử Nghiệm")
    served.key("specialist", "central", doctor_id="S-1", label="BS. Thử Nghiệm Một")
    served.key("specialist", "central", doctor_id="S-2", label="BS. Thử Nghiệm Hai")
    served.key("specialist", "regional", doctor_id="S-3")
    with served.client(site) as at_site:
        visit = at_site.post("/v1/visits", files=visit_files(referrer={"id": "D-1"})).json()["id"]
    with served.client(secret) as client:
        yield client, visit


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("named", ["centrall", "Central", "commune", "by-hl7"])
def test_a_question_to_a_site_without_a_specialist_is_refused(doctor, language, named):
    client, visit = doctor
    known = "central, regional"
    asked = {"question": "?", "to_site": named}
    refused = client.post(f"/v1/visits/{visit}/referrals", json=asked, headers={"Accept-Language": language})
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert (error["field"], error["code"]) == ("to_site", "site_unknown")
    assert error["message"] == message("site_unknown", language, expected=known) + "."
    on_page = client.post(f"/visits/{visit}/ask", data=asked, headers={"Accept-Language": language})
    assert on_page.status_code == 422
    assert message("site_unknown", language, expected=known) in html.unescape(on_page.text)
    assert client.get(f"/v1/visits/{visit}/history").json()["referrals"] == []


def test_the_page_offers_those_who_can_answer(doctor):
    client, visit = doctor
    page = html.unescape(client.get(f"/visits/{visit}").text)
    assert '<option value="central">central · BS. Thử Nghiệm Hai, BS. Thử Nghiệm Một</option>' in page
    assert '<option value="regional">regional · S-3</option>' in page
    assert 'value="commune"' not in page


def test_the_api_lists_them_too(served, doctor):
    client, _ = doctor
    assert client.get("/v1/specialists").json()["items"][:2] == [
        {"site": "central", "specialists": ["BS. Thử Nghiệm Hai", "BS. Thử Nghiệm Một"]},
        {"site": "regional", "specialists": ["S-3"]},
    ]
    with served.client(served.key("site", "commune")) as at_site:
        assert at_site.get("/v1/specialists").status_code == 403


def test_a_site_whose_last_key_was_revoked_is_unknown_and_its_questions_stay_readable(served, doctor):
    client, visit = doctor
    secret = served.key("specialist", "closing", doctor_id="S-9")
    assert client.post(f"/v1/visits/{visit}/referrals", json={"to_site": "closing"}).status_code == 201
    with served.client() as admin, served.client(secret) as specialist:
        assert [each["referral"]["to_site"] for each in specialist.get("/v1/referrals").json()["items"]] == ["closing"]
        (key,) = (each for each in admin.get("/v1/keys").json()["items"] if each["site"] == "closing")
        assert admin.delete(f"/v1/keys/{key['id']}").status_code == 204
    assert "closing" in client.get(f"/visits/{visit}").text
    (referral,) = client.get(f"/v1/visits/{visit}/history").json()["referrals"]
    assert referral["to_site"] == "closing"
    assert client.delete(f"/v1/visits/{visit}/referrals/{referral['id']}").status_code == 204
    assert client.post(f"/v1/visits/{visit}/referrals", json={"to_site": "closing"}).status_code == 422


def test_a_destination_of_an_unknown_site_is_refused(served, doctor):
    asked = {"kind": "webhook", "address": "https://hospital.invalid/x"}
    with served.client() as admin:
        refused = admin.post("/v1/destinations", json={**asked, "site": "comune"})
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "site_unknown")
        assert "commune" in refused.json()["errors"][0]["message"]
        for known in ("commune", "central", "by-hl7", "admin"):  # with a key, called from, or the first admin's own
            assert admin.post("/v1/destinations", json={**asked, "site": known}).status_code == 201, known


def test_a_key_says_whether_its_site_is_new(served, doctor):
    """A key is what makes a site, so a new one is not refused; whoever mistypes one can see it."""
    with served.client() as admin:
        made = [
            admin.post("/v1/keys", json={"role": "site", "site": site}).json()["site_is_new"]
            for site in ("commune", "comune-of-tests", "comune-of-tests")
        ]
        assert made == [False, True, False]


def test_sites_that_only_the_settings_or_the_registry_name_are_logged_at_the_start(tmp_path, capsys):
    """Nobody but an admin sees what their devices send; an acceptance of a mistyped site is never used."""
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    entry = {"at": "2026-11-20T08:00:00Z", "who": "a tester", "why": "a test", "action": "accept", "name": "lung"}
    accepted = {**entry, "from": None, "to": "1.3.1", "site": "comune", "verdicts": {"pneumonia": "not here"}}
    (bundles / LOG).write_text(json.dumps(accepted) + "\n")
    callers = {"hl7_peers": "127.0.0.9=by-hl7,127.0.0.8=admin", "dicom_peers": "MODALITY@127.0.0.9=by-dicom"}
    with serving(settings_for(tmp_path / "data", bundles=bundles, **callers)):
        pass
    said = [line for line in capsys.readouterr().out.splitlines() if "sites_without_key" in line]
    assert len(said) == 2
    assert "['by-dicom', 'by-hl7']" in said[0]
    assert "['comune']" in said[1]


def test_of_many_sites_some_are_named():
    many = [f"site-{n:03}" for n in range(MAX_NAMED + 1)]
    assert listed(many[:2]) == "site-000, site-001"
    assert listed(many).endswith(", …")
    assert listed([]) == ""
