"""The tree, the table and the sentences hold together; what OpenAPI says is what is served."""

from __future__ import annotations

import re
import tomllib

import pytest

from data_specs import problems
from data_specs.visit.context import Context
from data_specs.vocabulary import LANGUAGES
from service import errors
from service.api.edge import ALWAYS_ANSWERED
from service.api.examples import CONTEXT, VISIT
from service.api.refusals import STATUS, ProblemDocument, problem_document
from service.errors import FieldFault, InvalidRequest, ServiceError
from service.language.choice import accepted_language
from tests.conftest import ROOT

SENTENCES = tomllib.loads((ROOT / "data_specs/messages.toml").read_text("utf-8"))


def tree(kind):
    return {each for child in kind.__subclasses__() for each in (child, *tree(child))}


def test_every_error_has_a_status_and_nothing_else_has():
    assert set(STATUS) == tree(ServiceError)


def test_the_drawn_tree_names_every_error():
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__))
    assert drawn == {each.__name__ for each in tree(ServiceError)}


@pytest.mark.parametrize("kind", sorted(STATUS, key=lambda each: each.__name__))
def test_every_error_has_its_sentences(kind):
    for language in LANGUAGES:
        error = InvalidRequest(FieldFault("f", "field_invalid", "≥ 0")) if kind is InvalidRequest else kind("F", "E")
        document = problem_document(error, language, "/v1/visits")
        assert ProblemDocument.model_validate(document.model_dump()) == document
        assert document.status == STATUS[kind]
        assert "{" not in document.detail


def test_every_code_of_a_field_has_its_sentences():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "service").rglob("*.py"))
    codes = set(re.findall(r"FieldFault\([^()]*(?:\([^()]*\)[^()]*)*?\"((?:field|body|site)_\w+)\"", source))
    codes |= set(re.findall(r"\"(field_\w+)\"", source))
    assert len(codes) >= 6
    for code in codes:
        assert set(SENTENCES[code]) == set(LANGUAGES)
        assert problems.message(code, "vi", expected="1")


def test_errors_know_nothing_of_http():
    source = (ROOT / "service/errors.py").read_text("utf-8")
    assert not re.search(r"^(from|import) (http|fastapi|starlette)", source, re.MULTILINE)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("vi", "vi"),
        ("VI-vn", "vi"),
        ("fr;q=0.2, vi;q=0.8", "vi"),
        ("fr;q=0, *", "en"),
        ("en;q=0, *;q=0.1", "vi"),
        ("de-DE, *;q=0.5", "en"),
        ("vi;q=x", "en"),
        ("vi;q=7", "en"),
        (",,;;=,", "en"),
        ("fr, vi", "fr"),
    ],
)
def test_accept_language(header, language):
    assert accepted_language(header, "en") == language


def test_openapi_is_complete(served, client):
    document = client.get("/openapi.json").json()
    text = str(document)
    for reference in re.findall(r"'#/components/schemas/(\w+)'", text):
        assert reference in document["components"]["schemas"], reference
    post = document["paths"]["/v1/visits"]["post"]
    assert {"201", "202", "401", "403", "408", "409", "413", "415", "422", "429", "503"} <= set(post["responses"])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)
            expected = dict.fromkeys(("408", "413") if "requestBody" in operation else ())
            if path not in ALWAYS_ANSWERED:
                expected["503"] = "`busy`"
            if "security" in operation:
                expected["429"] = "`too_many_wrong_keys`"
            for status, code in expected.items():
                assert (code or "") in operation["responses"][status]["description"], (method, path, status)
            for status, response in operation["responses"].items():
                if path.startswith("/v1/") and status >= "400" and method != "head":
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
    served_paths = {
        re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
        for route in served.app.routes
        if getattr(route, "include_in_schema", False)
    }
    assert served_paths <= set(document["paths"])
    Context.model_validate_json(__import__("json").dumps(CONTEXT), strict=True)
    assert set(VISIT) == set(document["components"]["schemas"]["Visit"]["properties"])
