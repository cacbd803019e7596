"""The loop between doctors in a real browser: sign, ask, answer, print, in three languages; nothing serious for axe.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a
folder to leave pictures of every page in.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from pypdf import PdfReader

from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import text
from tests.conftest import ROOT
from tests.service.serving import ADMIN, Served, serving, settings_for, visit_files

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, Page  # noqa: E402

PHONE, DESK = 390, 1440
DOCTOR, SPECIALIST = "BS. Thử Nghiệm Tuyến Dưới", "BS. Thử Nghiệm Tuyến Trên"
PERSON = {"id": "VN-0042", "name": "Người Được Khám Thử Nghiệm", "age_years": 65, "sex": "female"}
FILM = (ROOT / "samples/film-normal.jpg").read_bytes()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_for(tmp_path_factory.mktemp("loop"))) as it:
        yield it


@pytest.fixture(scope="module")
def keys(served: Served) -> dict[str, str]:
    return {
        "admin": ADMIN,
        "site": served.key("site", "commune"),
        "doctor": served.key("doctor", "commune", doctor_id="D-7", label=DOCTOR),
        "specialist": served.key("specialist", "central", doctor_id="S-1", label=SPECIALIST),
    }


@pytest.fixture
def visit(served: Served, keys: dict[str, str]) -> str:
    with served.client(keys["site"]) as client:
        context = {"person": PERSON, "referrer": {"id": "D-7", "name": DOCTOR}}
        earlier = client.post("/v1/visits", files=visit_files(FILM, **context, visited_on="2025-11-20"))
        assert earlier.status_code == 201
        made = client.post("/v1/visits", files=visit_files(FILM, **context, visited_on="2026-11-20"))
        return str(made.json()["id"])


@pytest.fixture
def reading(served: Served, keys: dict[str, str], browser: Browser) -> Iterator[object]:
    """Signs a reader in, in a window of a width and a language; a page that complains fails the test."""
    contexts, complaints = [], []

    def sign_in(role: str, language: Language, width: int = DESK, dark: bool = False) -> Page:
        context = browser.new_context(
            base_url=served.address,
            viewport={"width": width, "height": 900},
            locale={"vi": "vi-VN", "fr": "fr-FR", "en": "en-GB"}[language],
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/login")
        page.fill("#key", keys[role])
        page.press("#key", "Enter")
        page.wait_for_url(lambda url: "/login" not in url)
        return page

    yield sign_in
    for each in contexts:
        each.close()
    assert [each for each in complaints if "409 (Conflict)" not in each] == []


def shown(page: Page, name: str) -> None:
    if folder := os.environ.get("SANGLOC_TEST_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def look_over_and_sign(page: Page, name: str) -> None:
    """Both steps: the first shows who signs."""
    page.click(".sign .primary")
    review = page.wait_for_selector(".review")
    assert name in review.inner_text()
    page.click(".review [name=confirmed]")
    page.wait_for_url("**/report?signed=*")


@pytest.mark.parametrize("language", LANGUAGES)
def test_sign_ask_and_answer(visit: str, reading, language: Language) -> None:
    """The referring doctor agrees and asks; the specialist, who reads blind, answers; the doctor finds the answer."""
    doctor = reading("doctor", language)
    doctor.goto(f"/visits/{visit}")
    assert text("not_signed", language) in doctor.inner_text("#loop")
    doctor.check("input[name='verdict:pneumonia'][value=agree]")
    doctor.fill("#opinion-text", "Ho khạc đờm 5 ngày.")
    doctor.check("input[name=advice][value=ask]")
    look_over_and_sign(doctor, DOCTOR)
    assert text("signed_as", language, name=DOCTOR, version=2) in doctor.inner_text(".bar")
    shown(doctor, f"signed-{language}-{DESK}")
    doctor.click(f".bar a[href='/visits/{visit}']")
    doctor.wait_for_selector(".opinions li")
    assert DOCTOR in doctor.inner_text(".opinions")
    assert "UTC" not in doctor.inner_text(".opinions")  # what was fetched is told in the reader's own time, too
    assert text("report_version", language, version=2) in doctor.inner_text("#report-links")
    doctor.click(".asking summary")
    doctor.fill("#question", "Viêm phổi hay xẹp phổi?")
    doctor.select_option("#to-site", "central")
    doctor.check("input[name=blind]")
    doctor.click(".asking button")
    doctor.wait_for_selector(".asked li")
    assert text("waiting_answer", language) in doctor.inner_text(".asked")
    shown(doctor, f"doctor-{language}-{DESK}")

    specialist = reading("specialist", language, PHONE)
    assert specialist.url.endswith("/questions")  # where a specialist begins
    shown(specialist, f"questions-{language}-{PHONE}")
    specialist.click(f"#visit-{visit}")
    specialist.wait_for_selector(".sign")
    assert text("blind_reading", language) in specialist.inner_text(".head")
    assert DOCTOR not in specialist.inner_text(".sign")
    assert specialist.locator(".opinions").count() == 0
    assert specialist.evaluate("document.documentElement.scrollWidth") <= PHONE
    shown(specialist, f"blind-{language}-{PHONE}")
    specialist.check("input[name=add][value=atelectasis]")
    specialist.fill("#opinion-text", "Xẹp phổi dải, không đông đặc.")
    look_over_and_sign(specialist, SPECIALIST)
    assert specialist.locator("[data-finding=pneumonia]").count() == 1  # the findings are in the report
    assert specialist.evaluate("document.documentElement.scrollWidth") <= PHONE
    shown(specialist, f"answered-{language}-{PHONE}")
    specialist.click(f".bar a[href='/visits/{visit}']")
    specialist.wait_for_selector(".opinions li:nth-child(2)")
    assert text("blind_note", language) not in specialist.inner_text(".head")
    assert specialist.locator(".findings").count() == 1
    assert SPECIALIST in specialist.inner_text(".opinions")

    doctor.reload()
    assert text("answered", language) in doctor.inner_text(".asked")
    assert "Xẹp phổi dải" in doctor.inner_text(".opinions")
    assert text("report_version", language, version=3) in doctor.inner_text("#report-links")


def test_who_signs_what_has_changed_is_told(visit: str, reading, served: Served, keys: dict[str, str]) -> None:
    page = reading("doctor", "en")
    page.goto(f"/visits/{visit}")
    with served.client(keys["doctor"]) as client:
        assert client.post(f"/v1/visits/{visit}/opinions", json={"version": 1}).status_code == 201
    page.fill("#opinion-text", "written meanwhile")
    page.click(".sign .primary")
    alert = page.wait_for_selector("#loop [role=alert]")
    assert "version 2" in alert.inner_text()
    assert page.input_value("#opinion-text") == "written meanwhile"
    assert page.is_visible("[data-number='1'] [data-since]")
    look_over_and_sign(page, DOCTOR)


def test_it_works_without_script(visit: str, served: Served, keys: dict[str, str], browser: Browser) -> None:
    context = browser.new_context(base_url=served.address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/login")
    page.fill("#key", keys["doctor"])
    page.press("#key", "Enter")
    page.goto(f"/visits/{visit}")
    look_over_and_sign(page, DOCTOR)
    assert DOCTOR in page.inner_text(".bar")
    context.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_prints_on_one_page_with_every_letter(visit: str, reading, language: Language) -> None:
    page = reading("doctor", language)
    page.goto(f"/v1/visits/{visit}/report.html")
    printed = PdfReader(io.BytesIO(page.pdf(format="A4", print_background=True)))
    assert len(printed.pages) == 1
    words = " ".join(printed.pages[0].extract_text().split())
    assert PERSON["name"] in words
    shown(page, f"report-{language}-{DESK}")
    page.goto(f"/visits/{visit}")
    assert len(PdfReader(io.BytesIO(page.pdf(format="A4"))).pages) >= 1


PLAN = (
    "/planning?finding=lung-1.4.0%2F0%2Fall&people=8000&prevalence=24%2F8000&currency=VND&screening=60000"
    "&recall_visit=150000&confirmatory_test=350000&tests_per_recall=1&treatment_start=900000"
)
ONE_OF_A_KIND = """() => {
    for (const section of document.querySelectorAll("section")) {
        const alike = [...section.children].filter(each => each.matches("details, section"));
        alike.forEach((each, index) => index ? each.remove() : each.setAttribute("open", ""));
    }
}"""
"""Leaves one operation of each section, opened, and one schema: axe needs minutes for the hundreds that are alike."""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "path",
    ["/worklist", "/questions", "/statistics", "/visits/{visit}", "report", "/keys", "/docs", "/post", PLAN],
)
def test_axe_finds_nothing_serious(visit: str, reading, path: str, dark: bool) -> None:
    page = reading("admin" if path in ("/keys", "/post", PLAN) else "doctor", "vi", PHONE, dark)
    page.goto(f"/v1/visits/{visit}/report.html" if path == "report" else path.format(visit=visit))
    page.wait_for_load_state("networkidle")
    if path == "/docs":
        page.evaluate(ONE_OF_A_KIND)
    axe = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_figures_read_well_on_a_phone(visit: str, reading, language: Language) -> None:
    for width in (PHONE, DESK):
        page = reading("doctor", language, width)
        for path in ("/statistics", "/worklist", f"/visits/{visit}"):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shown(page, f"{path.strip('/').split('/')[0]}-{language}-{width}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_plan_is_whole_on_a_desk_and_scrolls_in_its_card_on_a_phone(reading, language: Language) -> None:
    page = reading("admin", language, PHONE)
    page.goto(PLAN)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
    shown(page, f"planning-{language}-{PHONE}")
    page.set_viewport_size({"width": DESK, "height": 900})
    assert page.evaluate("(each => each.scrollWidth - each.clientWidth)(document.querySelector('.scroll'))") <= 0
    shown(page, f"planning-{language}-{DESK}")
