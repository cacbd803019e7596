"""Who may do what, by role and route; and what a reader may not learn, whichever way they ask."""

from __future__ import annotations

import json

import pytest

from tests.service.serving import visit_files

HERE = {"Sec-Fetch-Site": "same-origin"}
DOCTOR, SPECIALIST = "BS. Thử Nghiệm Tuyến Dưới", "BS. Thử Nghiệm Tuyến Trên"
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def clients(served):
    """One for each role; ``revoked`` had a site's key, ``nobody`` has none."""
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
    made["admin"], made["nobody"] = served.client(), served.client("no such key")
    (gone,) = (each["id"] for each in made["admin"].get("/v1/keys").json()["items"] if each["label"] == "revoked")
    assert made["admin"].delete(f"/v1/keys/{gone}").status_code == 204
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
    """Referred to ``central``, blind to ``blind``, and no more to ``withdrawn``."""
    made = post(clients["site"], image=b"the matrix", person="VN-matrix")
    ask(clients["doctor"], made, to_site="central")
    ask(clients["doctor"], made, to_site="blind", blind=True)
    taken_back = ask(clients["doctor"], made, to_site="withdrawn")
    assert clients["doctor"].delete(f"/v1/visits/{made}/referrals/{taken_back}").status_code == 204
    return made


SEE = {"site": 200, "doctor": 200, "specialist": 200, "admin": 200, "blind": 200}
SEE_ALL = {**SEE, "blind": 403}
STUDY_LESS = {name: 200 for name in ("site", "other site", "doctor", "other doctor", "namesake", "specialist")}
ANYBODY = {**STUDY_LESS, "not asked": 200, "withdrawn": 200, "blind": 200, "admin": 200}
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
    # a body that asks for nothing that can be done: 422 and 409 say that the role was let through
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
    ("DELETE", f"/v1/visits/{{visit}}/referrals/{NOBODY}", dict.fromkeys(SEE, 404), {}),
    ("GET", "/v1/referrals", ANYBODY, {}),
    ("GET", "/v1/statistics", ANYBODY, {}),
    ("GET", "/v1/statistics/agreement.csv", ANYBODY, {}),
    ("GET", "/dicomweb/instances", ANYBODY, {}),
    ("POST", "/dicomweb/studies", {"site": 415, "other site": 415, "admin": 415}, {}),
    ("POST", "/v1/destinations", POSTERS, {"json": {"kind": "webhook", "address": "ftp://x"}}),
    ("GET", "/v1/destinations", {"site": 200, "other site": 200, "admin": 200}, {}),
    ("GET", "/v1/deliveries", {"site": 200, "other site": 200, "admin": 200}, {}),
    ("POST", "/v1/deliveries/retry", {"site": 404, "other site": 404, "admin": 404}, {"json": {"destination": NOBODY}}),
    ("DELETE", f"/v1/destinations/{NOBODY}", {"site": 404, "other site": 404, "admin": 404}, {}),
    ("POST", "/v1/uploads", POSTERS, {"headers": TUS}),
    ("POST", "/v1/uploads/visit", POSTERS, {"json": {}}),
    ("GET", "/v1/keys", {"admin": 200}, {}),
]


@pytest.mark.parametrize(("method", "path", "let_through", "more"), MATRIX, ids=[f"{m} {p}" for m, p, *_ in MATRIX])
def test_who_is_let_through(clients, visit, method, path, let_through, more):
    said = {name: client.request(method, path.format(visit=visit), **more) for name, client in clients.items()}
    expected = {name: let_through.get(name, 401 if name in ("nobody", "revoked") else 403) for name in clients}
    assert {name: answer.status_code for name, answer in said.items()} == expected


# ---------------------------------------------------------------------- reading blind
def test_figures_do_not_tell_a_blind_reader_what_others_said(clients):
    made = post(clients["site"], image=b"figures", person="VN-figures")
    assert sign(clients["doctor"], made, advice="refer").status_code == 201
    ask(clients["doctor"], made, to_site="blind", blind=True)
    found = clients["blind"].get("/v1/statistics").json()
    assert (found["agreement"], found["unheard"]) == ([], [])
    assert sign(clients["blind"], made, 2).status_code == 201
    found = clients["blind"].get("/v1/statistics").json()
    assert {each["second"] for each in found["agreement"]} == {"referrer", "specialist"}
    assert [each["visit"] for each in found["unheard"]] == [made]


def test_a_film_that_is_read_blind_is_so_in_every_visit_that_has_it(clients):
    """A study to which something comes late makes another visit with the same films."""
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


def test_a_blind_reader_is_not_told_what_others_were_asked(clients):
    made = post(clients["site"], image=b"asked twice", person="VN-twice")
    ask(clients["doctor"], made, question="Viêm phổi 80 %?", to_site="central")
    ask(clients["doctor"], made, question="?", to_site="blind", blind=True)
    told = clients["blind"].get(f"/v1/visits/{made}/history").json()["referrals"]
    assert [each["question"] for each in told] == ["?"]
    assert "80 %" not in clients["blind"].get(f"/visits/{made}").text
    assert len(clients["specialist"].get(f"/v1/visits/{made}/history").json()["referrals"]) == 2


@pytest.mark.parametrize("blank", ["", "  ", "\u00a0", "\u200b"])
def test_those_without_a_number_are_not_one_person(clients, blank):
    one, other = (post(clients["site"], image=f"{n}{blank!r}".encode(), person=blank) for n in range(2))
    ask(clients["doctor"], other, to_site="central")
    assert clients["doctor"].get(f"/v1/visits/{other}/comparison").json()["earlier"] == []
    assert clients["specialist"].get(f"/v1/visits/{one}").status_code == 403


def test_the_programmes_rule_holds_for_the_page_too(served, clients, monkeypatch):
    service = served.app.state.service
    monkeypatch.setattr(service, "settings", service.settings.model_copy(update={"blind_reads": True}))
    made = post(clients["site"], image=b"by rule", person="VN-rule")
    form = clients["doctor"].post(f"/visits/{made}/ask", data={"question": "?", "to_site": "blind"})
    assert form.status_code == 303
    assert clients["blind"].get(f"/v1/visits/{made}").json()["organs"] == {}


# ---------------------------------------------------------------------- signing
def test_a_specialist_signs_only_what_they_were_asked_about(clients):
    earlier, now = (post(clients["site"], image=film, person="VN-prior") for film in (b"then", b"now"))
    ask(clients["doctor"], now, to_site="central")
    assert clients["specialist"].get(f"/v1/visits/{earlier}").status_code == 200, "to be compared with"
    assert sign(clients["specialist"], earlier).status_code == 403
    pages = {each: clients["specialist"].get(f"/visits/{each}").text for each in (earlier, now)}
    assert [f"/visits/{each}/sign" in page for each, page in pages.items()] == [False, True]
    assert clients["specialist"].post(f"/visits/{earlier}/sign", data={"version": "1"}).status_code == 403
    assert sign(clients["specialist"], now).status_code == 201
    assert sign(clients["specialist"], now, 2, text="x").status_code == 201, "who has answered may amend"


# ---------------------------------------------------------------------- what cannot be said
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
def test_what_no_database_takes_is_refused(clients, visit, path, body):
    refused = clients["doctor"].post(f"/v1/visits/{visit}/{path}", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("version", ["9" * 30, "9" * 5000, "-1", "", "²", "x"])
def test_a_form_with_a_version_that_is_none(clients, visit, version):
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
def test_a_zero_in_an_address_is_no_fault_of_ours(clients, visit, method, path):
    assert clients["admin"].request(method, path.format(visit=visit)).status_code < 500


def test_a_zero_in_a_retry_is_no_fault_of_ours(clients):
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
def test_a_site_points_at_no_address_within(clients, address):
    asked = {"kind": "webhook", "address": address}
    refused = clients["site"].post("/v1/destinations", json=asked)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "body.address")


# ---------------------------------------------------------------------- sessions, and requests from elsewhere
@pytest.fixture(scope="module")
def session(served):
    """A browser's session of a doctor, known by its cookie alone; and what ends its key."""
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
    ("DELETE", f"/v1/visits/{{visit}}/referrals/{NOBODY}"),
    ("POST", "/visits/{visit}/sign"),
    ("POST", "/visits/{visit}/ask"),
    ("POST", f"/visits/{{visit}}/withdraw/{NOBODY}"),
    ("POST", "/visits/{visit}/outcome"),
    ("POST", "/post"),
    ("POST", "/logout"),
    ("POST", "/dicomweb/studies"),
    ("POST", "/v1/destinations"),
    ("DELETE", f"/v1/destinations/{NOBODY}"),
    ("POST", "/v1/deliveries/retry"),
    ("POST", "/v1/uploads"),
    ("PATCH", f"/v1/uploads/{NOBODY}"),
    ("POST", f"/v1/uploads/{NOBODY}"),
    ("DELETE", f"/v1/uploads/{NOBODY}"),
    ("POST", "/v1/uploads/visit"),
    ("POST", "/v1/keys"),
    ("POST", "/v1/visits"),
]


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_a_cookie_alone_changes_nothing_from_elsewhere(session, visit, method, path):
    for headers in FORGED:
        forged = session.request(method, path.format(visit=visit), headers={**TUS, **headers})
        assert forged.status_code == 403, headers
    assert session.get(f"/v1/visits/{visit}").status_code == 200, "it is a session still"


def test_every_changing_route_is_held_to_that(served):
    """A route that is added is added above."""
    document = served.app.openapi()
    known = {(method, path.replace(NOBODY, "{}").replace("{visit}", "{}")) for method, path in CHANGING}
    listed = {
        (method.upper(), "/".join("{}" if part.startswith("{") else part for part in path.split("/")))
        for path, operations in document["paths"].items()
        for method in operations
        if method in ("post", "put", "patch", "delete") and not path.startswith("/v2/")
    }
    assert listed - known == {("DELETE", "/v1/keys/{}"), ("POST", "/dicomweb/studies/{}")}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_method_cannot_be_put_on_over_another(session, visit, method):
    """Only uploads know the header, and only on POST."""
    path = f"/v1/visits/{visit}"
    said = session.request(method, path, headers={"X-HTTP-Method-Override": "DELETE", **HERE})
    assert said.status_code == (200 if method == "GET" else 405)


def test_an_upload_is_its_keys_alone(clients):
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


# ---------------------------------------------------------------------- what is shown, and what is not
def test_a_sites_destinations_and_deliveries_are_its_own(clients):
    secret = "s" * 32
    made = (
        clients["other site"]
        .post("/v1/destinations", json={"kind": "webhook", "address": "https://hospital.invalid/x", "secret": secret})
        .json()
    )
    assert made["secret"] is None, "it was given, and is not said back"
    posted = post(clients["other site"], referrer="D-9")
    for name in ("site", "admin", "other site"):
        said = [clients[name].get(f"/v1/{kind}").text for kind in ("destinations", "deliveries")]
        assert [made["id"] in each for each in said] == [name != "site"] * 2, name
        assert not any(secret in each for each in said)
    assert clients["site"].delete(f"/v1/destinations/{made['id']}").status_code == 404
    assert clients["site"].post("/v1/deliveries/retry", json={"destination": made["id"]}).status_code == 404
    assert clients["site"].get("/v1/deliveries", params={"visit": posted}).json()["items"] == []
    assert clients["other site"].delete(f"/v1/destinations/{made['id']}").status_code == 204


def test_what_was_typed_is_text_on_every_page(clients, caplog):
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


def test_logs_name_nobody(clients, served, capfd):
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


def test_a_spreadsheet_is_given_no_formula(served, clients):
    with served.client(served.key("site", '=HYPERLINK("http://x";"y")')) as site:
        post(site)
        rows = site.get("/v1/statistics/turnaround.csv").text.splitlines()
    assert len(rows) == 2
    assert rows[1].startswith("\"'=HYPERLINK(")
