"""The page on which films called normal are signed together, in a real browser, in three languages, narrow and wide.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a
folder to leave pictures of every page in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest
from sqlalchemy import select

from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import text
from service.storage.tables import CertificateRow
from tests.service.normals_made import CHILD, FILM, NORMAL, Scoring, bundles, certify, scores
from tests.service.serving import ADMIN, Served, serving, settings_for, visit_files

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, Page  # noqa: E402

PHONE, DESK = 390, 1440
SITE, DOCTOR = "commune", "BS. Thử Nghiệm Tuyến Dưới"
FILMS = 8
LOCALE: dict[Language, str] = {"vi": "vi-VN", "fr": "fr-FR", "en": "en-GB"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = bundles(tmp_path_factory.mktemp("normals") / "bundles")
    sample = scores(tmp_path_factory.mktemp("sample") / "scores.csv", events=120)
    assert certify(folder, SITE, sample) == 0
    with serving(settings_for(tmp_path_factory.mktemp("data"), bundles=folder), Scoring()) as it:
        with it.client(it.key("site", SITE)) as client:
            for n in range(FILMS):
                person = {**CHILD, "id": f"{NORMAL} VN-{n}", "name": "Người Được Khám Thử Nghiệm"}
                made = client.post("/v1/visits", files=visit_files(FILM, person=person, referrer={"id": "D-7"}))
                assert made.status_code == 201
        yield it


@pytest.fixture(scope="module")
def doctor(served: Served) -> str:
    return served.key("doctor", SITE, doctor_id="D-7", label=DOCTOR)


@pytest.fixture
def opened(served: Served, browser: Browser) -> Iterator[object]:
    """Opens ``/normals`` for a key; a page that complains fails the test."""
    contexts, complaints = [], []

    def open_page(key: str, language: Language, width: int = DESK, dark: bool = False) -> Page:
        context = browser.new_context(
            base_url=served.address,
            viewport={"width": width, "height": 900},
            locale=LOCALE[language],
            color_scheme="dark" if dark else "light",
            extra_http_headers={"Authorization": f"Bearer {key}"},
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/normals")
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for each in contexts:
        each.close()
    assert complaints == []


def shown(page: Page, name: str) -> None:
    if folder := os.environ.get("SANGLOC_TEST_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_film_of_a_batch_is_seen_before_it_is_signed(opened, doctor: str, language: Language, width: int) -> None:
    page = opened(doctor, language, width)
    films = page.locator(".films-called-normal li")
    assert films.count() >= FILMS // 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(page.locator(".films-called-normal img").evaluate_all("all => all.map(each => each.naturalWidth > 100)"))
    assert page.locator(".films-called-normal input:checked").count() == 0
    shown(page, f"normals-{language}-{width}")
    n = films.count()
    films.first.locator("input[type=checkbox]").check()
    page.click(".batch .primary")
    page.wait_for_load_state("networkidle")
    assert text("normals_review", language, n=n - 1) in page.inner_text(".batch h2")
    assert DOCTOR in page.inner_text(".batch")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown(page, f"normals-review-{language}-{width}")
    page.click("[name=change]")
    assert page.locator(".films-called-normal input:checked").count() == 1


@pytest.mark.parametrize("who", ["doctor", "admin"])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(opened, doctor: str, who: str, dark: bool) -> None:
    page = opened(doctor if who == "doctor" else ADMIN, "vi", PHONE, dark)
    shown(page, f"normals-{who}-{'dark' if dark else 'light'}")
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_batch_is_signed_by_one_confirmation(opened, doctor: str) -> None:
    page = opened(doctor, "vi")
    n = page.locator(".films-called-normal li").count()
    page.click(".batch .primary")
    page.wait_for_load_state("networkidle")
    page.click("[name=confirmed]")
    page.wait_for_url("**/normals?signed=*")
    assert text("normals_signed", "vi", n=n) in page.inner_text("main")
    assert page.locator(".films-called-normal li").count() == 0
    shown(page, "normals-signed-vi")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_release_that_was_stopped_says_so_to_doctors_and_admins(
    served: Served, opened, doctor: str, language: Language, width: int
) -> None:
    assert served.app is not None
    with served.app.state.service.database.transaction(write=True) as session:
        (row,) = session.scalars(select(CertificateRow))
        row.stopped_at, row.n_read, row.n_abnormal = datetime(2026, 11, 30, 9, 30, tzinfo=UTC), 212, 4
    beginning = text("normals_stopped", language, abnormal=4, read=212).split(".")[0]
    for who, key in (("doctor", doctor), ("admin", ADMIN)):
        page = opened(key, language, width)
        assert beginning in page.inner_text("main")
        assert page.locator(".promised").count() == 0  # what was shown not to hold is not promised any more
        assert page.locator(".films-called-normal li").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shown(page, f"normals-stopped-{who}-{language}-{width}")
