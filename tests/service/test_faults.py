"""Every refusal of a field says what stood there and what is known, in three languages, and names nobody."""

from __future__ import annotations

import json

import pytest

from data_specs.conditions import CONDITIONS
from data_specs.labs import ANALYTES, standard_labs
from data_specs.visit.context import Context, Lab
from data_specs.vocabulary import LANGUAGES
from inference.kidney import unknown_conditions
from service.faults import quoted_value
from tests.service.serving import visit_files

PERSON = "id | name | birth_date | age_years | sex"


def posted(**context):
    return ("POST", "/v1/visits", {"files": {"context": (None, json.dumps(context))}})


def asked(path, **query):
    return ("GET", path, {"params": query})


def sent(path, **body):
    return ("POST", path, {"json": body})


def tus(length="5", metadata=""):
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": length, "Upload-Metadata": metadata}
    return ("POST", "/v1/uploads", {"headers": headers})


def bundle(**patient):
    order = {"resourceType": "ServiceRequest", "status": "active", "subject": {"reference": "Patient/1"}}
    people = [{"resource": {"resourceType": "Patient", "id": "1", **patient}, "fullUrl": "Patient/1"}]
    return posted(resourceType="Bundle", type="collection", entry=[{"resource": order}, *people])


REFUSED = {
    "a sex": (posted(person={"sex": "F"}), "context.person.sex", "F", "female | male | other | unknown"),
    "a sex in words": (posted(person={"sex": "woman"}), "context.person.sex", "woman", "female | male | other"),
    "a comma": (posted(labs=[{"name": "k", "value": "1,2", "unit": "mmol/L"}]), "context.labs.0.value", "1,2", "0.5"),
    "a number as text": (posted(person={"age_years": "54"}), "context.person.age_years", "54", "0.5"),
    "an age": (posted(person={"age_years": 500}), "context.person.age_years", "500", "≤ 130"),
    "a vital": (posted(vitals={"spo2_percent": 12}), "context.vitals.spo2_percent", "12", "≥ 30"),
    "true": (posted(vitals={"weight_kg": True}), "context.vitals.weight_kg", "true", "0.5"),
    "a day": (posted(visited_on="21/11/2026"), "context.visited_on", "21/11/2026", "YYYY-MM-DD"),
    "an unknown member": (posted(person={"surname": "x"}), "context.person.surname", "", PERSON),
    "an unknown lab member": (posted(labs=[{"nom": "k"}]), "context.labs.0.nom", "", "name | value | unit"),
    "an unknown top member": (posted(lab=[]), "context.lab", "", "person | referrer | order | visited_on | labs"),
    "a unit of the recording": (posted(ecg_unit="V"), "context.ecg_unit", "V", "uV | mV"),
    "an unknown part": (("POST", "/v1/visits", {"files": {"photo": b"x"}}), "photo", "", "image | ecg | context"),
    "a priority": (asked("/v1/visits", priority="high"), "query.priority", "high", "urgent | soon | routine"),
    "a status": (asked("/v1/visits", status="done"), "query.status", "done", "accepted | complete | failed"),
    "a limit": (asked("/v1/visits", limit="1,2"), "query.limit", "1,2", "0, 1, 2"),
    "a large limit": (asked("/v1/visits", limit="900"), "query.limit", "900", "≤ 200"),
    "a time": (asked("/v1/visits", since="21/11/2026"), "query.since", "21/11/2026", "YYYY-MM-DD"),
    "an unknown parameter": (
        asked("/v1/visits", patient="1"),
        "query.patient",
        "",
        "priority | status | since | person | before | q | site | signed | asked | cursor | limit",
    ),
    "another address's parameter": (asked("/v1/models", limit="1"), "query.limit", "", ""),
    "a parameter of the figures": (asked("/v1/statistics", until="2026-01-01"), "query.until", "", "since | before"),
    "a role": (sent("/v1/keys", role="king", site="x"), "body.role", "king", "site | doctor | specialist | admin"),
    "an unknown member of a key": (sent("/v1/keys", roles="site"), "body.roles", "", "role | site | doctor_id | label"),
    "a doctor without a name": (sent("/v1/keys", role="doctor", site="x"), "body.doctor_id", "", ""),
    "a site that is a doctor": (
        sent("/v1/keys", role="site", site="x", doctor_id="D-1"),
        "body.doctor_id",
        "",
        "role: doctor | specialist",
    ),
    "a visit without its version": (
        sent("/v1/deliveries/retry", destination="x", visit="x"),
        "body.version",
        "",
        "",
    ),
    "no finding": (sent("/v1/visits/x/outcomes", finding="cough"), "body.finding", "cough", "pneumonia | "),
    "a finding twice": (
        sent("/v1/visits/x/opinions", judgements=[{"finding": "edema", "verdict": "agree"}] * 2),
        "body.judgements",
        "",
        "1 × finding",
    ),
    "a kind of destination": (sent("/v1/destinations", kind="fax", address="x"), "body.kind", "fax", "webhook"),
    "the length of an upload": (tus("1,2"), "Upload-Length", "1,2", "0, 1, 2"),
    "the field of an upload": (tus(metadata="field ZmlsbQ=="), "Upload-Metadata: field", "film", "image | ecg"),
    "a member of the uploads": (sent("/v1/uploads/visit", files=[]), "files", "", "uploads | context"),
    "an unknown attribute": (asked("/dicomweb/studies", Patient="1"), "query.Patient", "", "limit | offset"),
    "a page of studies": (asked("/dicomweb/studies", limit="x"), "query.limit", "x", "0 …"),
    "a gender": (bundle(gender="F"), "gender", "F", "female | male | other | unknown"),
}


@pytest.fixture(scope="module")
def new_database():
    """SQLite only: a field is refused before any database is asked."""
    return lambda: ""


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_field_says_what_was_found_and_what_is_known(served, case):
    (method, path, request), field, found, known = REFUSED[case]
    details = set()
    for language in LANGUAGES:
        with served.client(**{"Accept-Language": language}) as client:
            answer = client.request(method, path, **request)
        assert answer.status_code == 422, answer.text
        document = answer.json()
        (fault, *_) = [each for each in document["errors"] if field in each["field"]]
        assert not found or f"'{found}'" in fault["message"], fault
        assert known in fault["message"], fault
        assert "{" not in fault["message"].replace("{…}", "")
        details.add(document["detail"])
    assert len(details) == len(LANGUAGES)


NEVER_RIGHT = (None, True, -1, 1.5, 10**30, "", "\x00", "x" * 100_000, [], ["\x00"], [[]], {}, {"?": 1})


def bodies_with_one_wrong_member(client):
    """Every operation that takes JSON, with each member of its body by turns set to what cannot be right."""
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            model = document["components"]["schemas"].get(content.get("schema", {}).get("$ref", "").rpartition("/")[2])
            right = next(iter(content.get("examples", {}).values()), {}).get("value", {})
            for member in model["properties"] if model else ():
                for wrong in NEVER_RIGHT:
                    yield method, path.replace("{", "").replace("}", ""), {**right, member: wrong}


def test_no_refusal_of_a_body_leaves_out_what_is_expected(client):
    tried = 0
    for method, path, body in bodies_with_one_wrong_member(client):
        answer = client.request(method, path, json=body)
        for fault in answer.json().get("errors", []) if answer.status_code == 422 else []:
            tried += 1
            assert "—" not in fault["message"], (path, fault)
    assert tried > 100


def test_no_refusal_of_a_context_leaves_out_what_is_expected(client):
    document = client.get("/openapi.json").json()["components"]["schemas"]
    tried = 0
    for member in document["Context"]["properties"]:
        inner = next((name for name in document if name.lower() == member.rstrip("s")), None)
        for wrong in NEVER_RIGHT:
            wrongs = [{each: wrong} for each in document[inner]["properties"]] if inner else []
            for value in (wrong, *wrongs, *([each] for each in wrongs)):
                answer = client.post("/v1/visits", files={"context": (None, json.dumps({member: value}))})
                for fault in answer.json().get("errors", []) if answer.status_code == 422 else []:
                    tried += 1
                    assert "—" not in fault["message"], (member, fault)
    assert tried > 100


def test_a_decimal_comma_is_explained(served):
    request = posted(labs=[{"name": "creatinine", "value": "1,2", "unit": "mg/dL"}])
    for language, words in {"en": "not a comma", "fr": "pas une virgule", "vi": "không dùng dấu phẩy"}.items():
        with served.client(**{"Accept-Language": language}) as client:
            assert words in client.request(request[0], request[1], **request[2]).json()["detail"]


@pytest.mark.parametrize("value", ["Nguyen Van An", "a" * 13, "x\ny", None, [1], {"a": 1}, 10**40])
def test_what_may_name_a_person_is_not_quoted(value):
    assert quoted_value(value) == ""


def test_a_birth_date_is_not_quoted(client):
    answer = client.request(*(request := posted(person={"birth_date": "21/11/1970"}))[:2], **request[2])
    assert "1970" not in answer.text


def test_unknown_labs_and_units_name_the_known_ones():
    _, (unknown,) = standard_labs([Lab(name="ferritin", value=1, unit="ug/L")])
    for language in LANGUAGES:
        assert all(analyte.name in unknown.message(language) for analyte in ANALYTES)
    for analyte in ANALYTES:
        _, (unit,) = standard_labs([Lab(name=analyte.name, value=1, unit="furlong")])
        assert (unit.code, "furlong" in unit.found) == ("unit_not_accepted", True)
        assert len(unit.expected.split(", ")) == len(analyte.units)


def test_an_unknown_condition_is_a_reserve_that_names_the_known_ones():
    stated = Context(conditions=("Diabetes", "asthma", "gout<b>"))
    (reserve,) = unknown_conditions(stated)
    assert (reserve.code, reserve.severity, reserve.found) == ("condition_unknown", "warn", "asthma, goutb")
    for language in LANGUAGES:
        assert all(name in reserve.message(language) for name in CONDITIONS)
    assert unknown_conditions(Context(conditions=("smoker",))) == unknown_conditions(Context()) == []


def test_visits_of_one_person(served):
    with served.client(served.key("site", "persons")) as client:
        mine = [client.post("/v1/visits", files=visit_files(person={"id": "P-77"})).json()["id"] for _ in range(2)]
        client.post("/v1/visits", files=visit_files(person={"id": "P-7"}))
        client.post("/v1/visits", files=visit_files())
        found = client.get("/v1/visits", params={"person": "P-77", "limit": 1}).json()
        rest = client.get("/v1/visits", params={"person": "P-77", "cursor": found["next"]}).json()
        assert [each["id"] for each in (*found["items"], *rest["items"])] == mine[::-1]
        assert client.get("/v1/visits", params={"person": "p-77"}).json()["items"] == []
        assert client.get("/v1/visits", params={"person": ""}).status_code == 422
    with served.client(served.key("site", "others")) as client:
        assert client.get("/v1/visits", params={"person": "P-77"}).json()["items"] == []
