"""``/docs``: the whole OpenAPI document as a page, without a script, without another host."""

from __future__ import annotations

import re

import pytest

from data_specs.vocabulary import LANGUAGES
from service.pages.interface import bounds, described


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_every_operation_and_schema(served, language):
    with served.client(key="", **{"Accept-Language": language}) as client:
        del client.headers["Authorization"]
        answer, document = client.get("/docs"), client.get("/openapi.json").json()
    assert (answer.status_code, answer.headers["content-language"]) == (200, language)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    page = answer.text
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            assert f'id="{about["operationId"]}"' in page
            assert f"<b>{method.upper()}</b>" in page
            assert f'<span class="address">{path}</span>' in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []
    assert len(answer.content) < 900_000  # for engineers; it grows with the operations


def test_descriptions_are_escaped_and_coded():
    assert described("One `name`\n<b>.\n\n- `a`: 1\n- `<i>`: 2") == (
        "<p>One <code>name</code> &lt;b&gt;.</p><ul><li><code>a</code>: 1</li><li><code>&lt;i&gt;</code>: 2</li></ul>"
    )


def test_bounds_are_signs():
    assert bounds({"minimum": 0, "maximum": 130}) == "≥ 0, ≤ 130"
    assert bounds({"minLength": 1, "maxLength": 60, "pattern": "^a$"}) == "≥ 1 × U+, ≤ 60 × U+, ^a$"
    assert bounds({"type": "string"}) == ""
