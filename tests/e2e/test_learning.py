"""Pages of learning and of exports in a real browser, in three languages, narrow and wide.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a
folder to leave pictures of every page in.
"""

from __future__ import annotations

import hashlib
import os
from importlib.resources import files
from pathlib import Path

import pytest

from data_specs.vocabulary import LANGUAGES
from service.export.__main__ import DONE
from service.language.texts import text
from tests.service.delivery.sinks import Sink
from tests.service.export.ends import WRITE
from tests.service.learning.test_round import SITE, Class
from tests.service.serving import ADMIN, serving, settings_for

PHONE, DESK = 390, 1440
LOCALE = {"vi": "vi-VN", "fr": "fr-FR", "en": "en-GB"}


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """Two cases, and a trainee for each language."""
    folder = tmp_path_factory.mktemp("classroom")
    settings = settings_for(folder / "data", max_upload_mb=16)
    with pytest.MonkeyPatch.context() as patch, Sink() as sink, serving(settings) as served:
        with served.client() as admin:
            to = {"kind": "webhook", "address": sink.address, "options": {"content": "link"}}
            assert admin.post("/v1/destinations", json=to).status_code == 201
        made = Class(served, settings, patch, folder, 1, 1)
        assert made.end.command("write", folder / "out", *WRITE, "--with-truth") == DONE
        digest = hashlib.sha256((folder / "out" / "manifest.json").read_bytes()).hexdigest()
        assert made.take(folder / "out", digest) == DONE
        made.cases = [each.id for each in made.end.wait_for(SITE, 2)]
        made.trainees = {
            language: served.key("doctor", SITE, doctor_id=f"T-{language}", label="BS. Học Viên Thử Nghiệm")
            for language in LANGUAGES
        }
        yield made


@pytest.fixture
def opened(classroom, browser):
    """Opens a page for a key; one that complains fails the test."""
    contexts, complaints = [], []

    def open_page(path, key, language, width):
        context = browser.new_context(
            base_url=classroom.served.address,
            viewport={"width": width, "height": 900},
            locale=LOCALE[language],
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/login")  # a file that is saved is asked for with the session's cookie
        page.fill("#key", key)
        page.press("#key", "Enter")
        page.wait_for_url(lambda address: "/login" not in address)
        page.goto(path)
        return page

    yield open_page
    for each in contexts:
        each.close()
    assert complaints == []


def looked_at(page, name, width, *, axe):
    """Keep a picture, and expect that nothing is wider than the screen and, if asked for, that axe finds nothing."""
    if folder := os.environ.get("SANGLOC_TEST_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if axe:
        page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_trainee_reads_a_case_and_sees_how_they_did(classroom, opened, language):
    page = opened("/learning", classroom.trainees[language], language, PHONE)
    page.click("form[action='/learning/next'] button")
    assert page.get_by_text(text("learning_note_blind", language)).is_visible()
    looked_at(page, f"reading-{language}", PHONE, axe=language == "vi")
    page.check("input[name=add][value=pneumonia]")
    page.click("#sign button.primary")
    assert page.get_by_text(text("learning_sign_this", language)).is_visible()
    assert page.get_by_text(text("signed_is_final", language)).count() == 0, "no report follows from it"
    looked_at(page, f"signing-{language}", PHONE, axe=False)
    page.click("button[name=confirmed]")
    assert page.get_by_text(text("learning_result", language)).is_visible()
    looked_at(page, f"result-{language}", PHONE, axe=language == "vi")
    with page.expect_download() as saved:
        page.click(".film-name a")
    assert saved.value.path().stat().st_size > 1000, "the file as it came"
    page.goto("/learning")
    assert page.get_by_text(text("learning_figures", language)).is_visible()
    looked_at(page, f"figures-{language}", PHONE, axe=language == "vi")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_of_teachers_and_of_exports_fit_and_can_be_used_by_all(classroom, opened, language, width):
    page = opened("/learning", ADMIN, language, width)
    pages = {"teacher": "/learning", "case": f"/learning/cases/{classroom.cases[0]}", "export": "/export"}
    for name, path in pages.items():
        page.goto(path)
        looked_at(page, f"{name}-{language}", width, axe=(language, width) == ("vi", PHONE))
