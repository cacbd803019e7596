"""What a browser is shown where an address, a method or a request is refused; programs get a problem document."""

from __future__ import annotations

import html

import pytest

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES
from service.language.texts import text
from service.wrong_keys import WRONG_AT_ONCE
from tests.service.serving import ADMIN, serving, settings_for

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OPENED = {**HTML, "Sec-Fetch-Mode": "navigate"}
PAGE, PROBLEM = "text/html; charset=utf-8", "application/problem+json"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(settings_for(tmp_path_factory.mktemp("refused"), max_upload_mb=1)) as running:
        yield running


@pytest.fixture
def client(served):
    with served.client() as opened:
        yield opened


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", ["/nowhere", "/visits", "/visits/1/2/3", "/static/none.css"])
def test_an_unknown_address_is_a_page_with_a_way_back(client, path, language):
    answer = client.get(path, headers={**HTML, "Accept-Language": language})
    assert (answer.status_code, answer.headers["content-type"]) == (404, PAGE)
    shown = html.unescape(answer.text)
    assert f'<html lang="{language}">' in shown
    assert text("not_found_title", language) in shown
    assert 'href="/worklist"' in shown.split("<main", 1)[1]
    assert text("back_to_worklist", language) in shown
    assert answer.headers["content-language"] == language


def test_an_address_that_only_takes_forms_says_so(client):
    answer = client.get("/visits/1/sign", headers=HTML)
    assert (answer.status_code, answer.headers["content-type"], answer.headers["allow"]) == (405, PAGE, "POST")
    assert text("refused_only_forms", "en") in answer.text
    assert client.delete("/worklist", headers=HTML).headers["content-type"] == PAGE


def test_the_language_can_be_changed_there(client):
    moved = client.get("/nowhere?lang=vi", headers=HTML, follow_redirects=True)
    assert moved.status_code == 404
    assert text("not_found_title", "vi") in moved.text


def test_programs_get_a_problem_document(client):
    for path in ("/nowhere", "/visits/1/sign"):
        for accept in ("*/*", "application/json", "image/png"):
            answer = client.get(path, headers={"Accept": accept})
            assert answer.headers["content-type"] == PROBLEM
    for path in ("/v1/nowhere", "/v1/visits/1", "/dicomweb/nowhere", "/v1/keys/x"):
        assert client.get(path, headers=HTML).headers["content-type"] == PROBLEM
    assert "error" in client.get("/v2/nowhere", headers=OPENED).json()
    assert client.get("/metrics/x", headers=OPENED).headers["content-type"] == PROBLEM


def test_a_link_to_a_report_that_is_opened_is_a_page_too(served, client):
    """The visit's page links to ``/v1/…/report.pdf``: who opens it in a browser reads a sentence, or signs in again."""
    missing = client.get("/v1/visits/1/report.pdf", headers=OPENED)
    assert (missing.status_code, missing.headers["content-type"]) == (404, PAGE)
    with served.client() as nobody:
        del nobody.headers["authorization"]
        moved = nobody.get("/v1/visits/1/report.pdf?version=2", headers=OPENED)
        assert moved.status_code == 303
        assert moved.headers["location"] == "/login?next=%2Fv1%2Fvisits%2F1%2Freport.pdf%3Fversion%3D2"
        assert nobody.get("/v1/visits/1/report.pdf", headers=HTML).status_code == 401


@pytest.mark.parametrize("language", LANGUAGES)
def test_refused_forms_are_pages(served, client, language):
    told = {**HTML, "Accept-Language": language}
    large = client.post("/post", files={"image": ("film.png", b"x" * 1_100_000)}, headers=told)
    assert (large.status_code, large.headers["content-type"]) == (413, PAGE)
    assert message("body_too_large", language, expected="1 MB") in html.unescape(large.text)
    assert text("refused_go_back", language) in html.unescape(large.text)
    broken = client.post("/post", content=b"--", headers={**told, "Content-Type": "multipart/form-data"})
    assert (broken.status_code, broken.headers["content-type"]) == (422, PAGE)
    charset = client.post("/post", content=b"", headers={**told, "Content-Type": "multipart/form-data; charset=utf-7"})
    assert (charset.status_code, charset.headers["content-type"]) == (415, PAGE)
    foreign = client.post("/login", data={"key": ADMIN}, headers={**told, "Origin": "http://elsewhere.example"})
    assert (foreign.status_code, foreign.headers["content-type"]) == (403, PAGE)
    assert text("refused_title_forbidden", language) in html.unescape(foreign.text)


def test_too_many_wrong_keys_are_a_page_with_the_time_to_wait(served, hardly_forgiven):
    with served.client("a key that nobody has") as stranger:
        answers = [stranger.get("/worklist", headers=HTML) for _ in range(WRONG_AT_ONCE + 5)]
    assert {answer.status_code for answer in answers[:WRONG_AT_ONCE]} == {303}
    assert (answers[-1].status_code, answers[-1].headers["content-type"]) == (429, PAGE)
    assert answers[-1].headers["retry-after"]
