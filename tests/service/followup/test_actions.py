"""Signing, questions to specialists, blind reading, outcomes, earlier visits and statistics, through the API."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from data_specs.visit.context import Context
from service.storage.tables import OrderRow
from tests.service.serving import visit_files

DOCTOR, SPECIALIST = "BS. Thử Nghiệm Tuyến Dưới", "BS. Thử Nghiệm Tuyến Trên"
PERSON = {"id": "VN-0042", "name": "Người Được Khám Thử Nghiệm Ẵặ", "age_years": 65, "sex": "female"}


@pytest.fixture(scope="module")
def keys(served):
    return {
        "site": served.key("site", "commune"),
        "doctor": served.key("doctor", "commune", doctor_id="D-7", label=DOCTOR),
        "other_doctor": served.key("doctor", "commune", doctor_id="D-8", label="BS. Thử Nghiệm Khác"),
        "specialist": served.key("specialist", "central", doctor_id="S-1", label=SPECIALIST),
        "elsewhere": served.key("specialist", "another-hospital", doctor_id="S-2", label="BS. Thử Nghiệm Xa"),
    }


@pytest.fixture
def client_as(served, keys):
    """A client for one of the roles, or for the admin."""
    made = []

    def client(role):
        made.append(served.client(keys[role]) if role in keys else served.client())
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def visit(client_as):
    return post(client_as("site"))


def post(client, **more):
    context = {"person": PERSON, "referrer": {"id": "D-7", "name": DOCTOR}, **more}
    context = {name: value for name, value in context.items() if value is not None}
    made = client.post("/v1/visits", files=visit_files(**context), headers={"Prefer": "wait=20"})
    assert made.status_code == 201, made.text
    return made.json()["id"]


def sign(client, visit, version, **opinion):
    return client.post(f"/v1/visits/{visit}/opinions", json={"version": version, **opinion})


def report(client, visit, **asked):
    answer = client.get(f"/v1/visits/{visit}/report.json", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


# ------------------------------------------------------------------ signing
def test_a_report_is_preliminary_until_it_is_signed(client_as, visit):
    draft = report(client_as("doctor"), visit)
    assert (draft["version"], draft["status"], draft["opinions"]) == (1, "preliminary", [])
    signed = sign(client_as("doctor"), visit, 1)
    assert signed.status_code == 201
    assert (signed.json()["number"], signed.json()["author"]["name"]) == (1, DOCTOR)
    final = report(client_as("doctor"), visit)
    assert (final["version"], final["status"]) == (2, "final")
    assert final["opinions"][0]["author"]["name"] == DOCTOR
    assert client_as("site").get(f"/v1/visits/{visit}").json()["version"] == 2


def test_an_earlier_version_does_not_change(client_as, visit):
    before = report(client_as("doctor"), visit)
    assert sign(client_as("doctor"), visit, 1, text="đồng ý").status_code == 201
    assert report(client_as("doctor"), visit, version=1) == before
    assert client_as("doctor").get(f"/v1/visits/{visit}/report.json", params={"version": 3}).status_code == 404


def test_an_outdated_version_cannot_be_signed(client_as, visit):
    assert sign(client_as("doctor"), visit, 1).status_code == 201
    again = sign(client_as("doctor"), visit, 1)
    assert (again.status_code, again.json()["code"]) == (409, "version_changed")
    assert report(client_as("doctor"), visit)["version"] == 2


def test_of_several_simultaneous_signatures_one_succeeds(client_as, visit):
    clients = [client_as("doctor") for _ in range(6)]
    codes = []
    threads = [threading.Thread(target=lambda c=c: codes.append(sign(c, visit, 1).status_code)) for c in clients]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(codes) == [201, 409, 409, 409, 409, 409]


@pytest.mark.parametrize("role", ["site", "admin", "specialist", "other_doctor"])
def test_only_the_visits_referring_doctor_may_sign(client_as, visit, role):
    assert sign(client_as(role), visit, 1).status_code == 403


@pytest.mark.parametrize(
    ("opinion", "field"),
    [
        ({"judgements": [{"finding": "no such thing", "verdict": "agree"}]}, "judgements"),
        ({"judgements": [{"finding": "pneumonia", "verdict": "perhaps"}]}, "judgements"),
        ({"judgements": [{"finding": "pneumonia", "verdict": "agree"}] * 2}, "judgements"),
        ({"text": "x" * 4001}, "text"),
        ({"advice": "pray"}, "advice"),
    ],
)
def test_an_invalid_opinion_is_refused(client_as, visit, opinion, field):
    refused = sign(client_as("doctor"), visit, 1, **opinion)
    assert refused.status_code == 422
    assert field in refused.json()["errors"][0]["field"]
    assert report(client_as("doctor"), visit)["version"] == 1


def test_an_opinion_changes_the_conclusions_and_not_the_findings(client_as, visit):
    found = report(client_as("doctor"), visit)["organs"]
    judgements = [{"finding": "pneumonia", "verdict": "disagree"}, {"finding": "atelectasis", "verdict": "add"}]
    assert sign(client_as("doctor"), visit, 1, judgements=judgements).status_code == 201
    amended = report(client_as("doctor"), visit)
    assert amended["organs"] == found
    fhir = client_as("doctor").get(f"/v1/visits/{visit}/report.fhir.json").json()
    (diagnostic,) = (e["resource"] for e in fhir["entry"] if e["resource"]["resourceType"] == "DiagnosticReport")
    codes = {coding["code"] for concept in diagnostic["conclusionCode"] for coding in concept["coding"]}
    assert codes == {"46621007"}  # atelectasis, and no longer pneumonia


def test_a_posted_visit_is_completed_from_its_order(served, client_as):
    """The order fills in what the post leaves out: here the referrer, so that the doctor sees the visit."""
    ordered = Context.model_validate(
        {"person": {"id": "VN-0042"}, "referrer": {"id": "D-7", "name": DOCTOR}, "order": {"accession_number": "A-1"}}
    )
    row = OrderRow(site="commune", accession_number="A-1", context=ordered.model_dump_json(exclude_unset=True))
    with served.app.state.service.database.transaction(write=True) as session:
        row.received_at = datetime.now(UTC)
        session.merge(row)
    made = post(client_as("site"), order={"accession_number": "A-1"}, referrer=None)
    assert report(client_as("doctor"), made)["referrer"]["name"] == DOCTOR
    other = post(client_as("site"), order={"accession_number": "A-2"}, referrer=None)
    assert client_as("doctor").get(f"/v1/visits/{other}").status_code == 403


# ------------------------------------------------------------------ asking
def ask(client, visit, **question):
    return client.post(f"/v1/visits/{visit}/referrals", json=question)


def test_a_specialist_sees_what_was_referred_to_them_and_answers(client_as, visit):
    specialist = client_as("specialist")
    assert specialist.get(f"/v1/visits/{visit}").status_code == 403
    asked = ask(client_as("doctor"), visit, question="Viêm phổi hay xẹp phổi?", to_site="central")
    assert asked.status_code == 201
    assert client_as("elsewhere").get(f"/v1/visits/{visit}").status_code == 403
    waiting = {q["visit"]["id"]: q["referral"] for q in specialist.get("/v1/referrals").json()["items"]}
    assert waiting[visit]["question"] == "Viêm phổi hay xẹp phổi?"
    answered = sign(specialist, visit, 1, text="Xẹp phổi.", advice="manage")
    assert answered.status_code == 201
    assert answered.json()["referral"] == asked.json()["id"]
    assert visit not in {q["visit"]["id"] for q in specialist.get("/v1/referrals").json()["items"]}
    history = client_as("doctor").get(f"/v1/visits/{visit}/history").json()
    assert history["referrals"][0]["answered_by"] == 1
    assert history["opinions"][0]["author"]["role"] == "specialist"
    assert report(client_as("doctor"), visit)["version"] == 2


def test_questions_are_ordered_by_priority_then_by_waiting_time(client_as):
    site, doctor = client_as("site"), client_as("doctor")
    referrer = {"referrer": {"id": "D-7", "name": DOCTOR}}
    quiet = site.post("/v1/visits", files=[("context", (None, b'{"referrer": {"id": "D-7"}}', "application/json"))])
    first, second = post(site, **referrer), post(site, **referrer)
    for each in (quiet.json()["id"], second, first):
        assert ask(doctor, each, to_site="central").status_code == 201
    order = [q["visit"]["id"] for q in client_as("specialist").get("/v1/referrals").json()["items"]]
    assert order.index(second) < order.index(first) < order.index(quiet.json()["id"])


def test_a_question_cannot_be_asked_twice_and_can_be_withdrawn(client_as):
    doctor = client_as("doctor")
    visit = post(client_as("site"), person={**PERSON, "id": "VN-5555"})
    first = ask(doctor, visit, to_site="central")
    again = ask(doctor, visit, to_site="central")
    assert (again.status_code, again.json()["code"]) == (409, "already_asked")
    assert ask(doctor, visit, to_site="another-hospital").status_code == 201  # a question to another hospital
    assert client_as("specialist").delete(f"/v1/visits/{visit}/referrals/{first.json()['id']}").status_code == 404
    assert client_as("specialist").get(f"/v1/visits/{visit}").status_code == 200
    assert doctor.delete(f"/v1/visits/{visit}/referrals/{first.json()['id']}").status_code == 204
    assert doctor.delete(f"/v1/visits/{visit}/referrals/{first.json()['id']}").status_code == 404
    assert (
        client_as("specialist").get(f"/v1/visits/{visit}").status_code == 403
    )  # a specialist no longer sees a visit whose question was withdrawn
    assert ask(doctor, visit, to_site="central").status_code == 201


@pytest.mark.parametrize("role", ["site", "specialist", "admin", "other_doctor"])
def test_only_the_referring_doctor_may_ask(client_as, visit, role):
    assert ask(client_as(role), visit).status_code == 403


# ------------------------------------------------------------------ reading blind
def test_a_blind_reader_sees_no_findings_before_signing(client_as, visit):
    doctor, specialist = client_as("doctor"), client_as("specialist")
    assert sign(doctor, visit, 1, text="tôi nghĩ là viêm phổi").status_code == 201
    assert ask(doctor, visit, to_site="central", blind=True).status_code == 201
    seen = specialist.get(f"/v1/visits/{visit}").json()
    assert (seen["organs"], seen["models"], seen["priority_reasons"]) == ({}, [], [])
    assert seen["inputs"][0]["accepted"]
    (listed,) = (q["visit"] for q in specialist.get("/v1/referrals").json()["items"] if q["visit"]["id"] == visit)
    assert listed["organs"] == {}
    (in_list,) = (v for v in specialist.get("/v1/visits").json()["items"] if v["id"] == visit)
    assert in_list["organs"] == {}
    assert specialist.get(f"/v1/visits/{visit}/history").json()["opinions"] == []
    for hidden in ("report.json", "report.pdf", "report/sr.dcm"):
        assert specialist.get(f"/v1/visits/{visit}/{hidden}").status_code == 403
    assert specialist.get(f"/v1/visits/{visit}/evidence/pneumonia/0.png").status_code == 404
    assert specialist.get(f"/v1/visits/{visit}/comparison").json() == {"earlier": [], "courses": []}
    page = specialist.get(f"/visits/{visit}", headers={"Accept-Language": "en"}).text
    assert "80%" not in page
    assert "tôi nghĩ" not in page
    signed = sign(specialist, visit, 2, judgements=[{"finding": "pneumonia", "verdict": "add"}])
    assert signed.json()["blind"] is True
    assert specialist.get(f"/v1/visits/{visit}").json()["organs"]["lung"]["findings"]
    assert len(specialist.get(f"/v1/visits/{visit}/history").json()["opinions"]) == 2


# ------------------------------------------------------------------ outcomes, earlier visits, statistics
def test_earlier_outcomes_are_kept(client_as, visit):
    doctor = client_as("doctor")
    for outcome in ("lost", "confirmed"):
        made = doctor.post(
            f"/v1/visits/{visit}/outcomes", json={"finding": "pneumonia", "outcome": outcome, "source": "cấy đờm"}
        )
        assert made.status_code == 201
    recorded = doctor.get(f"/v1/visits/{visit}/history").json()["outcomes"]
    assert [each["outcome"] for each in recorded] == ["lost", "confirmed"]
    assert client_as("other_doctor").post(f"/v1/visits/{visit}/outcomes", json={}).status_code in (403, 422)


def test_a_visit_is_compared_with_the_persons_earlier_visits(client_as):
    site, doctor = client_as("site"), client_as("doctor")
    person = {**PERSON, "id": "VN-7777"}
    earlier = post(site, person=person, visited_on="2025-11-20")
    now = post(site, person=person, visited_on="2026-11-20")
    post(site, person={**PERSON, "id": "VN-8888"})
    compared = doctor.get(f"/v1/visits/{now}/comparison").json()
    assert [(each["id"], each["on"]) for each in compared["earlier"]] == [(earlier, "2025-11-20")]
    assert compared["earlier"][0]["changes"][0]["turn"] == "still"
    ask(doctor, now, to_site="central")
    assert (
        client_as("specialist").get(f"/v1/visits/{earlier}").status_code == 200
    )  # as an earlier visit of the person they were asked about
    assert client_as("elsewhere").get(f"/v1/visits/{earlier}").status_code == 403


def test_statistics_of_a_site(served):
    """Three visits: signed without changes, with a specialist who disagrees, and referred without an outcome."""
    site = served.key("site", "figures")
    doctor = served.key("doctor", "figures", doctor_id="D-F", label="BS. Thử Nghiệm Số Liệu")
    specialist = served.key("specialist", "figures-hospital", doctor_id="S-F", label="BS. Thử Nghiệm Số Liệu Hai")
    with served.client(site) as at_site, served.client(doctor) as d, served.client(specialist) as s:
        one, two, three = (post(at_site, referrer={"id": "D-F"}) for _ in range(3))
        sign(d, one, 1)
        sign(d, two, 1)
        ask(d, two, to_site="figures-hospital")
        sign(s, two, 2, judgements=[{"finding": "pneumonia", "verdict": "disagree"}])
        sign(d, three, 1, advice="refer")
        found = d.get("/v1/statistics").json()
        (row,) = found["turnaround"]
        assert (row["site"], row["visits"], row["signed"], row["asked"], row["answered"]) == ("figures", 3, 3, 1, 1)
        pairs = {(a["first"], a["second"]): a for a in found["agreement"] if a["finding"] == "pneumonia"}
        assert (pairs["machine", "referrer"]["both"], pairs["machine", "referrer"]["share"]) == (3, 1.0)
        assert (pairs["machine", "specialist"]["first_only"], pairs["machine", "specialist"]["share"]) == (1, 0.0)
        assert [each["visit"] for each in found["unheard"]] == [three]
        d.post(f"/v1/visits/{three}/outcomes", json={"finding": "pneumonia", "outcome": "confirmed"})
        assert d.get("/v1/statistics").json()["unheard"] == []
        written = d.get("/v1/statistics/turnaround.csv")
        assert written.headers["content-type"].startswith("text/csv")
        assert written.text.splitlines()[1].startswith("figures,3,3,")
    with served.client() as admin:
        sites = {row["site"] for row in admin.get("/v1/statistics").json()["turnaround"]}
        assert {"figures", "commune"} <= sites


def test_a_visit_that_is_not_finished_cannot_be_signed(client_as):
    slow = [("image", ("slow.png", b"SLOW 3", "image/png"))]
    about = ("context", (None, b'{"referrer": {"id": "D-7"}}', "application/json"))
    made = client_as("site").post("/v1/visits", files=[*slow, about], headers={"Prefer": "respond-async"})
    assert made.status_code == 202
    refused = sign(client_as("doctor"), made.json()["id"], 1)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_finished")
    assert client_as("doctor").get(f"/v1/visits/{made.json()['id']}/report.json").status_code == 404


def test_a_signature_has_the_current_time(client_as, visit):
    signed = sign(client_as("doctor"), visit, 1).json()
    at = datetime.fromisoformat(signed["signed_at"])
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
