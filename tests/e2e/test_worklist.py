"""The worklist in a real browser: dense on a screen, readable on a phone, light on a thin link, told of news.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a
folder to leave pictures in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import text
from service.pages import events
from tests.service.serving import Served, serving, settings_for, visit_files

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, Page  # noqa: E402

PHONE, DESK = 390, 1440
ROWS_IN_SIGHT = 25
MOST_BYTES = 60_000
THIN_LINK_BYTES_PER_S = 50_000
FIRST_PAINT_MS = 1500
NAMES = ("Nguyễn Thị Đào", "Bùi Văn Ấn", "Trần Thị Kim Ngân", "Lê Hoàng Phương Thảo Nguyên")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Forty-five persons, the last of whom has three visits; told of new ones every 0.3 s."""
    before, events.LOOK_EVERY_S = events.LOOK_EVERY_S, 0.3
    with serving(settings_for(tmp_path_factory.mktemp("worklist"))) as it:
        it.site = it.key("site", "commune")  # type: ignore[attr-defined]
        with it.client(it.site) as client:  # type: ignore[attr-defined]
            for n in (*range(45), 44, 44):
                person = {"id": f"VN-{n:04}", "name": NAMES[n % 4], "age_years": 20 + n, "sex": "female"}
                files_ = visit_files(f"film {n}".encode(), person=person)
                assert client.post("/v1/visits", files=files_ if n % 3 else files_[1:]).status_code == 201
        yield it
    events.LOOK_EVERY_S = before


@pytest.fixture
def opened(served: Served, browser: Browser) -> Iterator[object]:
    """Opens the worklist in a window of its own; a page that complains fails the test."""
    contexts, complaints = [], []

    def open_page(width: int = DESK, language: Language = "vi", path: str = "/worklist", **more: object) -> Page:
        locale = {"vi": "vi-VN", "fr": "fr-FR", "en": "en-GB"}[language]
        viewport = {"width": width, "height": 900}
        context = browser.new_context(base_url=served.address, viewport=viewport, locale=locale, **more)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/login")
        page.fill("#key", served.site)  # type: ignore[attr-defined]
        page.press("#key", "Enter")
        page.wait_for_url("**/worklist")
        page.goto(path)
        page.wait_for_selector("#list")
        return page

    yield open_page
    for each in contexts:
        each.close()
    assert complaints == []


def shown(page: Page, name: str) -> None:
    if folder := os.environ.get("SANGLOC_TEST_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("language", LANGUAGES)
def test_many_rows_are_in_sight_and_none_runs_off_a_phone(opened, language: Language) -> None:
    desk = opened(DESK, language)
    bottoms = desk.locator(".visit").evaluate_all("rows => rows.map(row => row.getBoundingClientRect().bottom)")
    assert sum(bottom <= 900 for bottom in bottoms) >= ROWS_IN_SIGHT
    assert desk.evaluate("document.documentElement.scrollWidth") <= DESK
    shown(desk, f"worklist-{language}-{DESK}")
    phone = opened(PHONE, language, "/worklist?order=arrival&signed=no")
    phone.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE
    shown(phone, f"worklist-{language}-{PHONE}")


def test_the_first_worklist_is_light(opened) -> None:
    """All that a first look at forty rows takes over the wire, on an empty cache; and when something is painted."""
    page = opened()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    thin = {"offline": False, "latency": 100, "downloadThroughput": THIN_LINK_BYTES_PER_S}
    session.send("Network.emulateNetworkConditions", {**thin, "uploadThroughput": THIN_LINK_BYTES_PER_S})
    weights: list[float] = []
    session.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
    page.goto("/worklist")
    page.wait_for_load_state("load")
    page.wait_for_timeout(300)
    assert page.locator(".visit").count() == 40
    assert 0 < sum(weights) <= MOST_BYTES, sum(weights)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted <= FIRST_PAINT_MS, painted


def test_a_person_is_found_and_the_address_is_the_filter(opened) -> None:
    page = opened(language="fr", timezone_id="Asia/Ho_Chi_Minh")
    page.fill("input[type=search]", "dao 0044")
    page.press("input[type=search]", "Enter")
    page.wait_for_url("**/worklist?q=dao+0044")
    assert page.locator(".visit").count() == 1
    summary = page.locator(".others summary")
    summary.press("Enter")
    assert page.locator(".others li").count() == 2
    page.goto("/worklist")
    page.click(".find summary")
    page.fill("input[name=from]", "2026-01-01")
    page.select_option("select[name=signed]", "no")
    page.click(".search-button")
    page.wait_for_url("**/worklist?from=2026-01-01&offset=420&signed=no")


def test_a_new_urgent_visit_is_told_without_a_new_page(opened, served: Served) -> None:
    page = opened(language="en")
    with page.expect_response("**/worklist/events") as stream:
        page.reload()
    assert stream.value.headers["content-type"].startswith("text/event-stream")
    page.evaluate("window.same = true")
    page.wait_for_timeout(500)
    with served.client(served.site) as client:  # type: ignore[attr-defined]
        made = client.post("/v1/visits", files=visit_files(b"news", person={"id": "VN-NEWS"})).json()["id"]
    told = page.locator(".announced [href]").first
    told.wait_for()
    assert told.inner_text() == text("urgent_arrived", "en", person="VN-NEWS")
    page.wait_for_function("n => document.querySelector('.counts b').innerText === n", arg="48")
    assert page.evaluate("window.same") is True
    shown(page, "announced")
    assert told.get_attribute("href") == f"/visits/{made}"


def test_pages_lead_both_ways(opened) -> None:
    page = opened(path="/worklist?order=person")
    first = page.locator(".row-link").first.inner_text()
    page.click("[rel=next]")
    page.wait_for_url("**cursor=**")
    assert page.locator(".row-link").first.inner_text() != first
    page.click("[rel=prev]")
    page.wait_for_function("name => document.querySelector('.row-link').innerText === name", arg=first)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_axe_finds_nothing_serious(opened, width: int, dark: bool) -> None:
    page = opened(width, path="/worklist?q=VN-0044", color_scheme="dark" if dark else "light")
    page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
