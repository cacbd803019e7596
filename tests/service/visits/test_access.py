"""What each role may do by route, and what a reader may not learn from any route."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.service.serving import visit_files

HERE = {"Sec-Fetch-Site": "same-origin"}
DOCTOR, SPECIALIST = "BS. Thử Nghiệm Tuyến Dưới", "BS. Thử Nghiệm Tuyến Trên"
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def clients(served):
    """A client for each role. The key of ``revoked`` was deleted, and that of ``unknown`` never existed."""
    keys = {
        "site": served.key("site", "xa"),
        "other site": served.key("site", "elsewhere"),
        "doctor": served.key("doctor", "xa", doctor_id="D-1", label=DOCTOR),
        "other doctor": served.key("doctor", "xa", doctor_id="D-2", label=DOCTOR),
        "namesake": served.key("doctor", "elsewhere", doctor_id="D-1", label=DOCTOR),
        "specialist": served.key("specialist", "central", doctor_id="S-1", label=SPECIALIST),
        "not asked": served.key("specialist", "far", doctor_id="S-2", label=SPECIALIST),
        "withdrawn": served.key("specialist", "withdrawn", doctor_id="S-3", label=SPECIALIST),
        "blind": served.key("specialist", "blind", doctor_id="S-4", label=SPECIALIST),
        "revoked": served.key("site", "xa", label="revoked"),
    }
    made = {name: served.client(key) for name, key in keys.items()}
    made["admin"], made["unknown"] = served.client(), served.client("no such key")
    (revoked,) = (each["id"] for each in made["admin"].get("/v1/keys").json()["items"] if each["label"] == "revoked")
    assert made["admin"].delete(f"/v1/keys/{revoked}").status_code == 204
    yield made
    for each in made.values():
        each.close()


def post(client, *, image=b"an image", person="VN-1", referrer="D-1", **more):
    files = visit_files(image, person={"id": person}, referrer={"id": referrer}, **more)
    made = client.post("/v1/visits", files=files, headers={"Prefer": "wait=20"})
    assert made.status_code == 201, made.text
    return made.json()["id"]


def ask(client, visit, **question):
    asked = client.post(f"/v1/visits/{visit}/referrals", json=question)
    assert asked.status_code == 201, asked.text
    return asked.json()["id"]


def sign(client, visit, version=1, **opinion):
    return client.post(f"/v1/visits/{visit}/opinions", json={"version": version, **opinion})


# ---------------------------------------------------------------------- roles by routes
@pytest.fixture(scope="module")
def visit(clients):
    """A visit with a question to ``central``, a blind one to ``blind``, and a withdrawn one to ``withdrawn``."""
    made = post(clients["site"], image=b"the matrix", person="VN-matrix")
    ask(clients["doctor"], made, to_site="central")
    ask(clients["doctor"], made, to_site="blind", blind=True)
    taken_back = ask(clients["doctor"], made, to_site="withdrawn")
    assert clients["doctor"].delete(f"/v1/visits/{made}/referrals/{taken_back}").status_code == 204
    return made


SEE = {"site": 200, "doctor": 200, "specialist": 200, "admin": 200, "blind": 200}
SEE_ALL = {**SEE, "blind": 403}
ANY_KEY = {**SEE, **dict.fromkeys(("other site", "other doctor", "namesake", "not asked", "withdrawn"), 200)}
POSTERS = {"site": 422, "other site": 422, "admin": 422}
TUS = {"Tus-Resumable": "1.0.0"}
MATRIX = [
    ("GET", "/v1/visits/{visit}", SEE, {}),
    ("HEAD", "/v1/visits/{visit}", SEE, {}),
    ("GET", "/v1/visits/{visit}/inputs/0", SEE, {}),
    ("GET", "/v1/visits/{visit}/history", SEE, {}),
    ("GET", "/v1/visits/{visit}/comparison", SEE, {}),
    ("GET", "/v1/visits/{visit}/report.json", SEE_ALL, {}),
    ("HEAD", "/v1/visits/{visit}/report.json", SEE_ALL, {}),
    ("GET", "/v1/visits/{visit}/report.json?version=1", SEE_ALL, {}),
    ("GET", "/v1/visits/{visit}/report.hl7", SEE_ALL, {}),
    ("GET", "/v1/visits/{visit}/report/sr.dcm", SEE_ALL, {}),
    # Bodies that cannot be carried out: 422 and 409 show that the role is allowed.
    (
        "POST",
        "/v1/visits/{visit}/opinions",
        {"doctor": 409, "specialist": 409, "blind": 409},
        {"json": {"version": 99}},
    ),
    (
        "POST",
        "/v1/visits/{visit}/referrals",
        {"doctor": 409},
        {"json": {"to_site": "central"}},
    ),
    ("DELETE", f"/v1/visits/{{visit}}/referrals/{UNKNOWN_ID}", dict.fromkeys(SEE, 404), {}),
    ("GET", "/v1/referrals", ANY_KEY, {}),
    ("GET", "/v1/specialists", dict.fromkeys(("doctor", "other doctor", "namesake", "admin"), 200), {}),
    ("GET", "/v1/statistics", ANY_KEY, {}),
    ("GET", "/v1/statistics/agreement.csv", ANY_KEY, {}),
    ("GET", "/dicomweb/instances", ANY_KEY, {}),
    ("POST", "/dicomweb/studies", {"site": 415, "other site": 415, "admin": 415}, {}),
    ("POST", "/v1/destinations", POSTERS, {"json": {"kind": "webhook", "address": "ftp://x"}}),
    ("GET", "/v1/destinations", {"site": 200, "other site": 200, "admin": 200}, {}),
    ("GET", "/v1/deliveries", {"site": 200, "other site": 200, "admin": 200}, {}),
    ("GET", "/v1/deliveries/due", {"site": 200, "other site": 200, "admin": 200}, {}),
    (
        "POST",
        "/v1/deliveries/retry",
        {"site": 404, "other site": 404, "admin": 404},
        {"json": {"destination": UNKNOWN_ID}},
    ),
    ("DELETE", f"/v1/destinations/{UNKNOWN_ID}", {"site": 404, "other site": 404, "admin": 404}, {}),
    ("POST", "/v1/uploads", POSTERS, {"headers": TUS}),
    ("POST", "/v1/uploads/visit", POSTERS, {"json": {}}),
    ("GET", "/v1/audit", {"admin": 200}, {}),
    (
        "POST",
        "/v1/visits/{visit}/incidents",
        {"doctor": 422, "specialist": 422, "blind": 422, "admin": 422},
        {"json": {"kind": "other", "severity": "unknown", "text": "x"}},
    ),
    ("GET", "/v1/incidents", ANY_KEY, {}),
    ("POST", f"/v1/incidents/{UNKNOWN_ID}/close", dict.fromkeys(ANY_KEY, 404), {"json": {"found": "x"}}),
    ("GET", "/v1/drift/devices", {"admin": 200}, {}),
    ("GET", "/v1/drift/device?site=xa&device=none", {"admin": 404}, {}),
    ("GET", "/v1/drift/alarms", {"admin": 200}, {}),
    (
        "POST",
        f"/v1/drift/alarms/{UNKNOWN_ID}/silence",
        {"admin": 404},
        {"json": {"reason": "x", "until": "2026-12-31T00:00:00Z"}},
    ),
    ("POST", "/v1/drift/references", {"admin": 404}, {"json": {"site": "xa", "device": "none", "reason": "x"}}),
    ("GET", "/v1/keys", {"admin": 200}, {}),
    ("POST", "/v1/learning/next", {}, {"json": {}}),
    ("GET", f"/v1/learning/readings/{UNKNOWN_ID}", {}, {}),
    ("POST", f"/v1/learning/readings/{UNKNOWN_ID}", {}, {"json": {}}),
    ("GET", "/v1/learning/figures", {"admin": 404}, {}),
    ("GET", "/v1/learning/certificate.pdf", {"admin": 404}, {}),
    ("GET", "/v1/learning/readers", {"admin": 200}, {}),
    ("GET", "/v1/learning/cases", {"admin": 200}, {}),
    ("POST", f"/v1/keys/{UNKNOWN_ID}/rotate", {"admin": 404}, {}),
    ("POST", f"/v1/keys/{UNKNOWN_ID}/readmit", {"admin": 404}, {}),
    ("GET", "/v1/node/release", {}, {}),
    ("GET", f"/v1/node/release/files/{64 * '0'}", {}, {}),
    ("GET", "/v1/sessions", ANY_KEY, {}),
    ("DELETE", f"/v1/sessions/{UNKNOWN_ID}", dict.fromkeys(ANY_KEY, 404), {}),
]


@pytest.mark.parametrize(("method", "path", "allowed", "more"), MATRIX, ids=[f"{m} {p}" for m, p, *_ in MATRIX])
def test_each_role_may_use_only_its_routes(clients, visit, method, path, allowed, more):
    said = {name: client.request(method, path.format(visit=visit), **more) for name, client in clients.items()}
    expected = {name: allowed.get(name, 401 if name in ("unknown", "revoked") else 403) for name in clients}
    assert {name: answer.status_code for name, answer in said.items()} == expected


# ---------------------------------------------------------------------- reading blind
def test_statistics_do_not_show_a_blind_reader_what_others_said(clients):
    made = post(clients["site"], image=b"figures", person="VN-figures")
    assert sign(clients["doctor"], made, advice="refer").status_code == 201
    ask(clients["doctor"], made, to_site="blind", blind=True)
    found = clients["blind"].get("/v1/statistics").json()
    assert (found["agreement"], found["unheard"]) == ([], [])
    assert sign(clients["blind"], made, 2).status_code == 201
    found = clients["blind"].get("/v1/statistics").json()
    assert {each["second"] for each in found["agreement"]} == {"referrer", "specialist"}
    assert [each["visit"] for each in found["unheard"]] == [made]


def test_a_film_that_is_read_blind_shows_no_findings_in_any_visit(clients):
    """Files of a study that come late make a second visit with the same films."""
    site, doctor, reader = (clients[each] for each in ("site", "doctor", "blind"))
    asked, twin, prior = (post(site, image=film, person="VN-twin") for film in (b"twin", b"twin", b"prior"))
    ask(doctor, asked, to_site="blind", blind=True)
    assert reader.get(f"/v1/visits/{prior}").json()["organs"]
    assert reader.get(f"/v1/visits/{twin}").json()["organs"] == {}
    assert reader.get(f"/v1/visits/{twin}/report.json").status_code == 403
    assert reader.get(f"/v1/visits/{twin}/evidence/pneumonia/0.png").status_code == 404
    assert reader.get(f"/v1/visits/{prior}/comparison").status_code == 200
    assert sign(reader, asked).status_code == 201
    assert reader.get(f"/v1/visits/{twin}").json()["organs"]


def test_a_blind_reader_does_not_see_questions_to_others(clients):
    made = post(clients["site"], image=b"asked twice", person="VN-twice")
    ask(clients["doctor"], made, question="Viêm phổi 80 %?", to_site="central")
    ask(clients["doctor"], made, question="?", to_site="blind", blind=True)
    told = clients["blind"].get(f"/v1/visits/{made}/history").json()["referrals"]
    assert [each["question"] for each in told] == ["?"]
    assert "80 %" not in clients["blind"].get(f"/visits/{made}").text
    assert len(clients["specialist"].get(f"/v1/visits/{made}/history").json()["referrals"]) == 2


@pytest.mark.parametrize("blank", ["", "  ", "\u00a0", "\u200b"])
def test_persons_without_a_number_are_not_taken_for_one_person(clients, blank):
    one, other = (post(clients["site"], image=f"{n}{blank!r}".encode(), person=blank) for n in range(2))
    ask(clients["doctor"], other, to_site="central")
    assert clients["doctor"].get(f"/v1/visits/{other}/comparison").json()["earlier"] == []
    assert clients["specialist"].get(f"/v1/visits/{one}").status_code == 403


def test_the_setting_for_blind_reads_applies_to_the_page_too(served, clients, monkeypatch):
    service = served.app.state.service
    monkeypatch.setattr(service, "settings", service.settings.model_copy(update={"blind_reads": True}))
    made = post(clients["site"], image=b"by rule", person="VN-rule")
    form = clients["doctor"].post(f"/visits/{made}/ask", data={"question": "?", "to_site": "blind"})
    assert form.status_code == 303
    assert clients["blind"].get(f"/v1/visits/{made}").json()["organs"] == {}


# ---------------------------------------------------------------------- signing
def test_a_specialist_may_sign_only_visits_they_were_asked_about(clients):
    earlier, now = (post(clients["site"], image=film, person="VN-prior") for film in (b"then", b"now"))
    ask(clients["doctor"], now, to_site="central")
    assert clients["specialist"].get(f"/v1/visits/{earlier}").status_code == 200, "as an earlier visit, for comparison"
    assert sign(clients["specialist"], earlier).status_code == 403
    pages = {each: clients["specialist"].get(f"/visits/{each}").text for each in (earlier, now)}
    assert [f"/visits/{each}/sign" in page for each, page in pages.items()] == [False, True]
    assert clients["specialist"].post(f"/visits/{earlier}/sign", data={"version": "1"}).status_code == 403
    assert sign(clients["specialist"], now).status_code == 201
    assert sign(clients["specialist"], now, 2, text="x").status_code == 201, (
        "a specialist who has answered may sign again"
    )


# ---------------------------------------------------------------------- invalid values
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("opinions", {"version": 10**30}),
        ("opinions", {"version": 2**31}),
        ("referrals", {"question": "a\0b"}),
        ("referrals", {"question": "?", "to_site": "a\0b"}),
        ("outcomes", {"finding": "pneumonia", "outcome": "lost", "source": "a\0b"}),
    ],
)
def test_values_that_no_database_can_store_are_refused(clients, visit, path, body):
    refused = clients["doctor"].post(f"/v1/visits/{visit}/{path}", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("version", ["9" * 30, "9" * 5000, "-1", "", "²", "x"])
def test_a_form_with_an_invalid_version_is_refused(clients, visit, version):
    assert clients["doctor"].post(f"/visits/{visit}/sign", data={"version": version}).status_code == 409


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/deliveries?destination=%00"),
        ("GET", "/v1/deliveries?visit=%00"),
        ("DELETE", "/v1/destinations/%00"),
        ("DELETE", "/v1/keys/%00"),
        ("DELETE", "/v1/visits/{visit}/referrals/%00"),
        ("POST", "/visits/{visit}/withdraw/%00"),
        ("GET", "/dicomweb/studies/%00"),
        ("GET", "/v1/visits/{visit}/report/%00.dcm"),
        ("GET", "/v1/visits/%00/history"),
        ("GET", "/worklist?cursor=%00"),
        ("GET", "/v1/visits/{visit}/evidence/%00/0.png"),
        ("GET", "/dicomweb/studies?PatientName=%00"),
    ],
)
def test_a_null_character_in_an_address_is_no_server_error(clients, visit, method, path):
    assert clients["admin"].request(method, path.format(visit=visit)).status_code < 500


def test_a_null_character_in_a_retry_is_no_server_error(clients):
    assert clients["admin"].post("/v1/deliveries/retry", json={"destination": "\0"}).status_code in (404, 422)


# ---------------------------------------------------------------------- destinations
@pytest.mark.parametrize(
    "address",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/",
        "https://10.0.0.1:22/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fe80::1%25eth0]/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://127.1/",
    ],
)
def test_a_sites_webhook_cannot_have_a_private_address(clients, address):
    asked = {"kind": "webhook", "address": address}
    refused = clients["site"].post("/v1/destinations", json=asked)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "body.address")


# ---------------------------------------------------------------------- sessions, and requests from other sites
@pytest.fixture(scope="module")
def session(served):
    """A doctor's browser session, which sends a cookie and no key."""
    key = served.key("doctor", "xa", doctor_id="D-1", label="session")
    with served.client() as browser:
        del browser.headers["Authorization"]
        assert browser.post("/login", data={"key": key}, headers=HERE).status_code == 303
        yield browser


FORGED = [{}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}]
FORGED += [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "none", "Origin": "https://evil.example"}]
CHANGING = [
    ("POST", "/v1/visits/{visit}/opinions"),
    ("POST", "/v1/visits/{visit}/referrals"),
    ("POST", "/v1/visits/{visit}/outcomes"),
    ("DELETE", f"/v1/visits/{{visit}}/referrals/{UNKNOWN_ID}"),
    ("POST", "/visits/{visit}/sign"),
    ("POST", "/visits/{visit}/ask"),
    ("POST", f"/visits/{{visit}}/withdraw/{UNKNOWN_ID}"),
    ("POST", "/visits/{visit}/outcome"),
    ("POST", "/v1/visits/{visit}/incidents"),
    ("POST", f"/v1/incidents/{UNKNOWN_ID}/close"),
    ("POST", "/visits/{visit}/incident"),
    ("POST", f"/incidents/{UNKNOWN_ID}/close"),
    ("POST", f"/v1/drift/alarms/{UNKNOWN_ID}/silence"),
    ("POST", "/v1/drift/references"),
    ("POST", f"/drift/alarms/{UNKNOWN_ID}/silence"),
    ("POST", "/drift/references"),
    ("POST", "/normals"),
    ("POST", "/v1/learning/next"),
    ("POST", f"/v1/learning/readings/{UNKNOWN_ID}"),
    ("POST", "/learning/next"),
    ("POST", f"/learning/readings/{UNKNOWN_ID}"),
    ("POST", "/post"),
    ("POST", "/logout"),
    ("POST", "/dicomweb/studies"),
    ("POST", "/v1/destinations"),
    ("DELETE", f"/v1/destinations/{UNKNOWN_ID}"),
    ("POST", "/v1/deliveries/retry"),
    ("POST", "/health-book/retry"),
    ("POST", "/v1/uploads"),
    ("PATCH", f"/v1/uploads/{UNKNOWN_ID}"),
    ("POST", f"/v1/uploads/{UNKNOWN_ID}"),
    ("DELETE", f"/v1/uploads/{UNKNOWN_ID}"),
    ("POST", "/v1/uploads/visit"),
    ("POST", "/v1/keys"),
    ("POST", f"/v1/keys/{UNKNOWN_ID}/rotate"),
    ("POST", f"/v1/keys/{UNKNOWN_ID}/readmit"),
    ("DELETE", "/v1/sessions"),
    ("DELETE", f"/v1/sessions/{UNKNOWN_ID}"),
    ("POST", "/sessions/end"),
    ("POST", f"/sessions/{UNKNOWN_ID}/end"),
    ("POST", f"/sessions/of/{UNKNOWN_ID}/end"),
    ("POST", "/keys"),
    ("POST", f"/keys/{UNKNOWN_ID}/rotate"),
    ("POST", f"/keys/{UNKNOWN_ID}/revoke"),
    ("POST", f"/keys/{UNKNOWN_ID}/readmit"),
    ("POST", "/v1/visits"),
    ("POST", "/v1/visits/bulk"),
    ("PUT", "/v1/node/visits/{visit}"),
    ("PUT", f"/v1/node/visits/{{visit}}/inputs/{UNKNOWN_ID}"),
    ("PUT", f"/v1/node/visits/{{visit}}/inputs/{UNKNOWN_ID}/preview"),
]


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_a_changing_request_from_another_site_is_refused(session, visit, method, path):
    for headers in FORGED:
        forged = session.request(method, path.format(visit=visit), headers={**TUS, **headers})
        assert forged.status_code == 403, headers
    assert session.get(f"/v1/visits/{visit}").status_code == 200, "the session is still valid"


def test_every_changing_route_is_tested(served):
    """A new route has to be added to ``CHANGING``."""
    document = served.app.openapi()
    known = {(method, path.replace(UNKNOWN_ID, "{}").replace("{visit}", "{}")) for method, path in CHANGING}
    listed = {
        (method.upper(), "/".join("{}" if part.startswith("{") else part for part in path.split("/")))
        for path, operations in document["paths"].items()
        for method in operations
        if method in ("post", "put", "patch", "delete") and not path.startswith("/v2/")
    }
    assert listed - known == {("DELETE", "/v1/keys/{}"), ("POST", "/dicomweb/studies/{}")}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_method_cannot_be_overridden_outside_uploads(session, visit, method):
    """``X-HTTP-Method-Override`` has no effect on other routes."""
    path = f"/v1/visits/{visit}"
    said = session.request(method, path, headers={"X-HTTP-Method-Override": "DELETE", **HERE})
    assert said.status_code == (200 if method == "GET" else 405)


def test_an_upload_can_be_used_only_with_the_key_that_made_it(clients):
    headers = {**TUS, "Upload-Length": "3"}
    made = clients["site"].post("/v1/uploads", headers=headers).headers["location"]
    piece = {**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    for name in ("admin", "other site", "doctor", "specialist"):
        assert clients[name].head(made, headers=TUS).status_code == 404
        assert clients[name].patch(made, headers=piece, content=b"abc").status_code == 404
        override = {**piece, "X-HTTP-Method-Override": "PATCH"}
        assert clients[name].post(made, headers=override, content=b"abc").status_code == 404
        assert clients[name].delete(made, headers=TUS).status_code == 404
    assert clients["site"].patch(made, headers=piece, content=b"abc").status_code == 204
    stolen = clients["other site"].post("/v1/uploads/visit", json={"uploads": [made.rpartition("/")[2]]})
    assert stolen.status_code == 404


# ---------------------------------------------------------------------- what is shown
def test_a_sites_destinations_and_deliveries_are_its_own(clients):
    secret = "s" * 32
    made = (
        clients["other site"]
        .post("/v1/destinations", json={"kind": "webhook", "address": "https://hospital.invalid/x", "secret": secret})
        .json()
    )
    assert made["secret"] is None, "a given secret is not shown again"
    posted = post(clients["other site"], referrer="D-9")
    for name in ("site", "admin", "other site"):
        said = [clients[name].get(f"/v1/{kind}").text for kind in ("destinations", "deliveries")]
        assert [made["id"] in each for each in said] == [name != "site"] * 2, name
        assert not any(secret in each for each in said)
    assert clients["site"].delete(f"/v1/destinations/{made['id']}").status_code == 404
    assert clients["site"].post("/v1/deliveries/retry", json={"destination": made["id"]}).status_code == 404
    assert clients["site"].get("/v1/deliveries", params={"visit": posted}).json()["items"] == []
    assert clients["other site"].delete(f"/v1/destinations/{made['id']}").status_code == 204


def test_free_text_is_escaped_on_every_page(clients, caplog):
    files = [("image", (f"{HOSTILE.replace('/', '')}.png", b"hostile", "image/png"))]
    person = {"id": HOSTILE, "name": HOSTILE}
    context = {"person": person, "referrer": {"id": "D-1", "name": HOSTILE}, "order": {"reason": HOSTILE}}
    files.append(("context", (None, json.dumps(context), "application/json")))
    made = clients["site"].post("/v1/visits", files=files, headers={"Prefer": "wait=20"}).json()["id"]
    ask(clients["doctor"], made, question=HOSTILE, to_site="central")
    judgements = [{"finding": "pneumonia", "verdict": "agree", "note": HOSTILE}]
    assert sign(clients["doctor"], made, text=HOSTILE, judgements=judgements).status_code == 201
    outcome = {"finding": "pneumonia", "outcome": "lost", "source": HOSTILE}
    assert clients["doctor"].post(f"/v1/visits/{made}/outcomes", json=outcome).status_code == 201
    for name in ("doctor", "specialist"):
        for path in (f"/visits/{made}", "/worklist", "/questions", "/statistics", f"/v1/visits/{made}/report.html"):
            page = clients[name].get(path)
            assert page.status_code == 200, path
            assert "<script>alert" not in page.text, path
            assert "<img src=x" not in page.text, path
    narrative = clients["doctor"].get(f"/v1/visits/{made}/report.fhir.json").json()
    divs = [each["resource"].get("text", {}).get("div", "") for each in narrative["entry"]]
    assert any("&lt;script&gt;" in each for each in divs)
    assert not any("<script" in each or "<img" in each for each in divs)


def test_logs_hold_no_personal_data(clients, served, capfd):
    made = post(clients["site"], image=b"logged", person="VN-SECRET-77", order={"accession_number": "ACC-SECRET-77"})
    clients["doctor"].post(f"/visits/{made}/ask", data={"question": "QUESTION-SECRET-77", "to_site": "central"})
    sign(clients["doctor"], made, text="OPINION-SECRET-77")
    sign(clients["doctor"], made, 2**40)
    for path in (
        "/dicomweb/studies?PatientID=VN-SECRET-77",
        "/dicomweb/studies?NoSuch=VN-SECRET-77",
        "/dicomweb/studies/1.2.77777.77/series",
        "/v1/visits/VN-SECRET-77",
        f"/v1/visits/{made}/report/VN-SECRET-77.dcm",
        "/VN-SECRET-77",
        "/v1/deliveries?visit=VN-SECRET-77&cursor=SECRET-77",
    ):
        clients["admin"].get(path)
    clients["site"].post(
        "/v1/uploads", headers={**TUS, "Upload-Metadata": "filename U0VDUkVULTc3", "Upload-Length": "1"}
    )
    said = "".join(capfd.readouterr())
    assert "route=" in said
    assert "SECRET-77" not in said
    assert "77777" not in said
    assert "U0VDUkVULTc3" not in said


def test_csv_cells_cannot_be_formulas(served, clients):
    with served.client(served.key("site", '=HYPERLINK("http://x";"y")')) as site:
        post(site)
        rows = site.get("/v1/statistics/turnaround.csv").text.splitlines()
    assert len(rows) == 2
    assert rows[1].startswith("\"'=HYPERLINK(")


@pytest.mark.parametrize("path", ["/login", "/logout", f"/visits/{UNKNOWN_ID}/sign-in"])
def test_a_form_from_another_site_neither_opens_nor_ends_a_session(served, path):
    """The browser does not send the cookie with such a form, so the cookie alone decides nothing here."""
    key = served.key("doctor", "xa", doctor_id="D-1")
    with httpx.Client(base_url=served.address) as browser:
        for headers in FORGED:
            if headers:
                forged = browser.post(path, data={"key": key}, headers=headers)
                assert (forged.status_code, "set-cookie" in forged.headers) == (403, False), headers


def test_a_form_of_this_site_or_of_no_site_opens_a_session(served):
    key = served.key("doctor", "xa", doctor_id="D-1")
    own = {"Origin": served.address}
    for headers in ({}, HERE, HERE | own, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "none"} | own, own):
        with httpx.Client(base_url=served.address) as browser:
            assert browser.post("/login", data={"key": key}, headers=headers).status_code == 303, headers
            assert browser.get("/worklist").status_code == 200
            assert browser.post("/logout", headers=own).status_code == 303
            assert browser.get("/worklist").status_code == 303
