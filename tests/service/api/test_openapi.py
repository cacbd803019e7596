"""The OpenAPI document is what the service does: wrong values for every parameter of every operation.

Each answer has a status and a media type that the document declares, and a body of the declared schema; none is a fault
of the service; and a value that the document forbids is refused.
"""

from __future__ import annotations

import functools
import io
import json
import re
import tempfile
from pathlib import Path
from urllib.parse import quote

import openapi_spec_validator
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image

from data_specs.conditions import CONDITIONS
from data_specs.labs import ANALYTES
from data_specs.problems import sentences
from data_specs.visit.context import Vitals
from data_specs.visit.contract import ORGANS
from data_specs.vocabulary import findings_of
from service import create_app
from service.api.examples import BODIES as BODIES_OF_EXAMPLES
from service.api.examples import CONTEXT
from service.api.refusals import STATUS
from tests.conftest import ROOT
from tests.service.serving import serving, settings_for, visit_files
from tests.service.standin import StandIn

FEW = settings(max_examples=4, deadline=None, derandomize=True, database=None)
NUMBERS = st.sampled_from(["0.5", "1e3", "x", "", " ", "1,2", "NaN", "0x1", "--1", "9" * 400, "true", "null", "½"])
DAYS = st.sampled_from(["0.5", "1795334400", "-1", "yesterday", "20261121", "2026-13-01T00:00:00Z", "12:00", "", "NaN"])
TEXT = st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), min_size=1, max_size=80)
SENT = st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_categories=("Cc", "Zs"))
VISIBLE = st.text(SENT, min_size=1, max_size=80)
"""Of headers (RFC 9110, section 5.5): visible ASCII and other bytes."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@functools.cache
def document():
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(settings_for(Path(folder)), StandIn())
        made = app.openapi()
        app.state.service.database.close()
    return made


OPERATIONS = [(method, path) for path, operations in document()["paths"].items() for method in operations]
PARAMETERS = [
    (method, path, parameter["name"])
    for method, path in OPERATIONS
    for parameter in document()["paths"][path][method].get("parameters", [])
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serving(settings_for(tmp_path_factory.mktemp("site"), max_upload_mb=1)) as it:
        yield it


@pytest.fixture(scope="module")
def known(site):
    """Values of path parameters that lead to something."""
    picture = io.BytesIO()
    Image.new("L", (256, 256), 90).save(picture, "PNG")
    with site.client() as client:
        visit = client.post("/v1/visits", files=visit_files(picture.getvalue(), person={"id": "P-1"})).json()["id"]
        opened = client.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "5"})
        found = client.get("/dicomweb/studies").json()
        yield {
            "visit_id": visit,
            "study": found[0]["0020000D"]["Value"][0],
            "upload_id": opened.headers["location"].rpartition("/")[2],
            "finding": "pneumonia",
        }


# ---------------------------------------------------------------- values
def plain(schema):
    """A parameter's schema without the alternative that it is absent."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    assert len(kinds) == 1, schema
    return kinds[0]


def right(parameter, known):
    schema = plain(parameter["schema"])
    if parameter["name"] in known:
        return known[parameter["name"]]
    if "example" in parameter:
        return str(parameter["example"])
    values = [schema["const"]] if "const" in schema else schema.get("enum", [schema.get("minimum", "1.2")])
    return str(values[0])


def wrong(parameter):
    """Values that the schema forbids; ``None`` if it forbids none."""
    schema = plain(parameter["schema"])
    text = VISIBLE if parameter["in"] == "header" else TEXT
    if schema["type"] == "integer":
        bounds = []
        if "minimum" in schema:
            bounds.append(str(schema["minimum"] - 1))
        if "maximum" in schema:
            bounds.append(str(schema["maximum"] + 1))
        values = NUMBERS | st.sampled_from(bounds) if bounds else NUMBERS
    elif schema["type"] == "boolean":
        values = text.filter(lambda value: value not in ("true", "false"))
    elif schema.get("format") == "date-time":
        values = DAYS
    else:
        values = st.nothing()
        if "maxLength" in schema:
            values |= st.just("a" * (schema["maxLength"] + 1))
        if {"pattern", "enum", "const"} & set(schema):
            values |= text.filter(lambda value: not Draft202012Validator(schema).is_valid(value))
        if values.is_empty:
            return None
    if parameter["in"] == "header":
        values = values.filter(lambda value: value == value.strip() and max(value, default="") < "\u0100")
    return values.filter(lambda value: value or parameter["in"] == "query")


# ---------------------------------------------------------------- asking, and what is answered
def ask(client, method, path, known, name=None, value=None, body=None):
    """Call an operation with right values, but for the parameter of this name."""
    operation = document()["paths"][path][method]
    query, headers = {}, {}
    for parameter in operation.get("parameters", []):
        is_asked = parameter["name"] == name
        if not (is_asked or parameter.get("required")):
            continue
        given_value = value if is_asked else right(parameter, known)
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(given_value, safe=""))
        elif parameter["in"] == "query":
            query[parameter["name"]] = given_value
        else:
            headers[parameter["name"]] = given_value.encode("latin-1")
    kinds = operation.get("requestBody", {}).get("content", {})
    if kinds:
        kind = next(iter(kinds))
        content = b"{}" if kind.endswith("json") else b"--b--\r\n"
        headers["Content-Type"] = f"{kind}; boundary=b" if kind.startswith("multipart") else kind
        return client.request(method, path, params=query, headers=headers, content=body or content)
    return client.request(method, path, params=query, headers=headers)


def check(answer, method, path):
    """The answer is one of those that the document declares."""
    said = f"{method} {answer.request.url}: {answer.status_code} {answer.text[:300]}"
    declared = document()["paths"][path][method]["responses"]
    assert answer.status_code < 500 or (answer.status_code, path) == (503, "/readyz"), said
    assert str(answer.status_code) in declared, said
    content = declared[str(answer.status_code)].get("content", {})
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if not answer.content:
        return
    assert kind in content, said
    schema = content[kind].get("schema")
    if schema and kind.endswith("json"):
        whole = {**schema, "components": document()["components"]}
        Draft202012Validator(whole).validate(answer.json())


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_an_operation_answers_as_declared(site, known, method, path):
    with site.client() as client:
        check(ask(client, method, path, known), method, path)
        if document()["paths"][path][method].get("security"):
            del client.headers["Authorization"]
            answer = ask(client, method, path, known)
            assert answer.status_code == 401
            check(answer, method, path)


@pytest.mark.parametrize(("method", "path", "name"), PARAMETERS)
def test_a_wrong_value_is_refused_as_declared(site, known, method, path, name):
    operations = document()["paths"][path][method]["parameters"]
    (parameter,) = (each for each in operations if each["name"] == name)
    values, text = wrong(parameter), VISIBLE if parameter["in"] == "header" else TEXT
    text = text.filter(lambda value: value not in (".", ".."))
    with site.client() as client:

        @FEW
        @given(text if values is None else values)
        def send(value):
            answer = ask(client, method, path, known, name, value)
            check(answer, method, path)
            if values is not None:
                assert 400 <= answer.status_code < 500, (value, answer.text[:200])

        send()


BODIES = [
    (method, path)
    for method, path in OPERATIONS
    if "application/json" in document()["paths"][path][method].get("requestBody", {}).get("content", {})
]


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_wrong_body_is_refused_as_declared(site, known, method, path):
    content = document()["paths"][path][method]["requestBody"]["content"]["application/json"].get("schema", {})
    named = re.sub(r".*/", "", content.get("$ref", ""))
    members = document()["components"]["schemas"].get(named, content).get("properties", {})
    objects = st.fixed_dictionaries({}, optional=dict.fromkeys(members, JSON))
    with site.client() as client:

        @FEW
        @given(objects | JSON)
        def send(body):
            check(ask(client, method, path, known, body=json.dumps(body).encode()), method, path)

        send()


def test_times_are_written_as_times(site):
    with site.client() as asking:
        for value in ("0.5", "1795334400", "-1.5e3", "20261121"):
            answer = asking.get("/v1/visits", params={"since": value})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.since"), value
        for value in ("2026-11-21T08:00:00Z", "2026-11-21T08:00:00+07:00", "2026-11-21T08:00:00", "2026-11-21"):
            assert asking.get("/v1/visits", params={"since": value}).status_code == 200, value


# ---------------------------------------------------------------- what it says to those who connect a system
def test_the_document_is_valid_and_has_good_names():
    openapi_spec_validator.validate(document())
    operations = [document()["paths"][path][method] for method, path in OPERATIONS]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", name)] == []
    assert {tag for each in operations for tag in each["tags"]} == {each["name"] for each in document()["tags"]}
    assert {"/v1/uploads", "/v1/uploads/{upload_id}", "/dicomweb/studies"} <= set(document()["paths"])
    assert {"get", "head", "patch", "delete"} <= set(document()["paths"]["/v1/uploads/{upload_id}"])
    assert "``" not in json.dumps(document())


def test_every_name_and_code_is_listed():
    schemas = document()["components"]["schemas"]

    def listed(schema, member):
        about = schemas[schema]["properties"][member]
        return set(about["enum"] if "enum" in about else about["anyOf"][0]["enum"])

    assert listed("Lab", "name") == {each.name for each in ANALYTES}
    assert listed("Lab", "unit") == {unit for each in ANALYTES for unit in each.accepted_units}
    for each in ANALYTES:
        assert (
            f"- `{each.name}`: {' | '.join(each.accepted_units)};"
            in schemas["Lab"]["properties"]["name"]["description"]
        )
    conditions = schemas["Context"]["properties"]["conditions"]["anyOf"][0]["items"]
    assert conditions["anyOf"][0]["enum"] == list(CONDITIONS)
    assert set(schemas["Vitals"]["properties"]) == set(Vitals.model_fields)
    assert listed("ProblemDocument", "code") == {kind.code for kind in STATUS}
    raised = set()
    for path in (ROOT / "service").rglob("*.py"):
        raised |= set(
            re.findall(r'FieldFault\([^()]*?"((?:field|body|site)_[a-z]+(?:_[a-z]+)*)"', path.read_text("utf-8"))
        )
    assert {"field_invalid", "body_malformed", "site_unknown"} <= raised <= listed("FieldProblem", "code")
    assert {"wrong_view", "condition_unknown", "lab_unknown", "no_image"} <= listed("Reason", "code")
    every = listed("Reason", "code") | listed("FieldProblem", "code") | listed("ProblemDocument", "code")
    assert set(sentences("en")) - every == {
        *("field_invalid_found", "field_unknown_known", "hint_number", "person_mismatch_PatientID"),
        *(f"sign_in_refused_{why}" for why in ("not_begun", "denied", "not_verified", "claim_missing", "no_role")),
        *("sign_in_refused_revoked", "sign_in_refused_needs_https"),
    }
    assert listed("Finding", "name") == {term.name for organ in ORGANS for term in findings_of(organ)}


def examples():
    """Every example with its schema, by what it is an example of."""
    for method, path in OPERATIONS:
        operation = document()["paths"][path][method]
        parts = {"body": operation.get("requestBody", {}), **operation["responses"]}
        for part, about in parts.items():
            for kind, content in about.get("content", {}).items():
                for name, example in content.get("examples", {}).items():
                    yield (operation["operationId"], part, kind, name), example["value"], content["schema"]
                if "example" in content and kind.endswith("json"):
                    yield (operation["operationId"], part, kind, ""), content["example"], content["schema"]


def test_examples_are_valid_and_differ():
    bodies, told = [], set()
    for (operation, part, kind, name), example, schema in examples():
        Draft202012Validator({**schema, "components": document()["components"]}).validate(example)
        if part == "body":
            bodies.append(json.dumps(example))
        if kind == "application/problem+json":
            path = next(p for m, p in OPERATIONS if document()["paths"][p][m]["operationId"] == operation)
            assert (example["code"], example["instance"].count("/")) == (name, path.count("/"))
            assert "—" not in example["detail"], example
            told.add((example["code"], example["detail"]))
    assert len(set(bodies)) == len(bodies) >= 7
    assert len({code for code, _ in told}) == len(told) > 20
    posted = document()["paths"]["/v1/visits"]["post"]
    assert set(posted["responses"]["503"]["content"]["application/problem+json"]["examples"]) > {"busy", "unavailable"}
    for method, path in BODIES:
        content = document()["paths"][path][method]["requestBody"]["content"]["application/json"]
        assert "example" in content or path.startswith("/v2/"), path


def test_examples_of_bodies_are_taken(site, known):
    """Where it does not depend on what was sent before."""
    with site.client() as client:
        assert client.post("/v1/keys", json=BODIES_OF_EXAMPLES["create_key"]).status_code == 201
        context = {"context": (None, json.dumps(CONTEXT), "application/json")}
        assert client.post("/v1/visits", files=context).status_code == 201


@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "get" and path.startswith("/v1/")])
def test_an_unknown_query_parameter_is_refused_with_the_known_ones(site, known, path):
    declared = [
        each["name"] for each in document()["paths"][path]["get"].get("parameters", []) if each["in"] == "query"
    ]
    with site.client() as client:
        client.params = {"no_such_parameter": "1"}
        answer = ask(client, "get", path, known)
        client.headers.pop("authorization")
        without_key = ask(client, "get", path, known)
    needs_key = "security" in document()["paths"][path]["get"]
    assert without_key.status_code == (401 if needs_key else 422), "a caller without a key learns of the key first"
    assert answer.status_code == 422, answer.text
    (fault,) = answer.json()["errors"]
    assert (fault["field"], fault["code"]) == ("query.no_such_parameter", "field_unknown")
    assert all(name in fault["message"] for name in declared)
