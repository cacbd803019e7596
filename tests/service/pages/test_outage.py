"""What a browser is shown where the database is away."""

from __future__ import annotations

import html

import pytest

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES
from service.errors import DatabaseUnavailable
from tests.service.serving import ADMIN, serving, settings_for, visit_files

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def away(tmp_path_factory, own_postgres):
    """A client of a server whose database is away; and the id of a visit."""
    settings = settings_for(tmp_path_factory.mktemp("away"), database_url=own_postgres.new_database())
    with serving(settings) as served, served.client() as client:
        visit = client.post("/v1/visits", files=visit_files()).json()["id"]
        own_postgres.stop()
        yield client, visit
        own_postgres.start()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("path", ["/worklist", "/questions", "/statistics", "/visits/{visit}"])
def test_each_page_says_it_in_the_language_of_its_reader(away, path, language):
    client, visit = away
    answer = client.get(path.format(visit=visit), headers={**HTML, "Accept-Language": language})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert answer.headers["retry-after"] == str(DatabaseUnavailable().retry_after_s)
    assert f'lang="{language}"' in answer.text
    assert message("database_unavailable", language) in html.unescape(answer.text)


def test_forms_say_it_too(away):
    client, visit = away
    for path, form in (
        ("/login", {"key": f"{ADMIN}-of-another"}),
        (f"/visits/{visit}/outcome", {"finding": "pneumonia", "outcome": "confirmed"}),
        (f"/visits/{visit}/sign", {"version": "1"}),
    ):
        answer = client.post(path, data=form, headers=HTML)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8"), path
        assert message("database_unavailable", "en") in answer.text


def test_an_opinion_that_could_not_be_signed_can_be_sent_again_from_the_page(away):
    client, visit = away
    typed = {"version": "1", "add": ["mass", "nodule"], "text": "Ho & <sốt>", "confirmed": "1"}
    answer = client.post(f"/visits/{visit}/sign", data=typed, headers=HTML)
    assert answer.status_code == 503
    assert f'action="/visits/{visit}/sign"' in answer.text
    for name, value in (("version", "1"), ("add", "mass"), ("add", "nodule"), ("text", "Ho &amp; &lt;sốt&gt;")):
        assert f'<input type="hidden" name="{name}" value="{value}">' in answer.text
    assert 'name="confirmed"' not in answer.text, "it is looked over again before it is signed"


def test_a_part_of_a_page_does_not_replace_what_was_typed(away):
    client, visit = away
    sent = client.post(f"/visits/{visit}/outcome", data={"finding": "pneumonia"}, headers={"HX-Request": "true"})
    assert sent.headers["hx-reswap"].startswith("afterbegin")
    assert 'class="card login refused"' in sent.text
    renewed = client.get("/worklist", headers={"HX-Request": "true"})
    assert renewed.headers["hx-reswap"] == "none"


def test_programs_get_a_problem_document(away):
    client, visit = away
    for path in (f"/v1/visits/{visit}", f"/v1/visits/{visit}/report.html"):
        answer = client.get(path, headers=HTML)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
