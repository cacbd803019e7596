"""The pages in a real browser: what a doctor clicks works, nothing is inline, nothing runs off a phone's screen.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a
folder to leave pictures of every page in.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import opening, text
from tests.service.page_fixture import SECRET, Site, running_site

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request  # noqa: E402

PHONE, DESK = 390, 1440


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Real films and recordings where they are found; films and recordings made by the tests where not."""
    from tests.conftest import ROOT

    shared = Path(os.environ.get("SANGLOC_TEST_DATA", ROOT.parent / "shared" / "data"))
    with running_site(tmp_path_factory.mktemp("browser"), shared if shared.is_dir() else None, filler=6) as running:
        yield running


@pytest.fixture(scope="module")
def session(browser: Browser, site: Site) -> dict[str, object]:
    """The cookies of a reader who signed in by the form."""
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(f"{site.url}/visits/{site.ids['urgent']}")
    page.fill("#key", "not the key")
    page.click("button.primary")
    assert page.locator("[role=alert]").inner_text().strip() == text("key_not_known", "en")
    page.fill("#key", SECRET)
    page.press("#key", "Enter")
    page.wait_for_url(f"{site.url}/visits/{site.ids['urgent']}")
    state = context.storage_state()
    context.close()
    return dict(state)


class Reader:
    """A signed-in reader's browser window, and everything that it complained about."""

    def __init__(self, context: BrowserContext, site: Site) -> None:
        self.page: Page = context.new_page()
        self.site = site
        self.complaints: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", self._note_failed)
        self.page.on("response", lambda r: self.complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)

    def _note(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def _note_failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page was left before it came, or a stream's page
            self.complaints.append(f"failed: {request.url}")

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.site.url}{path}")
        self.page.wait_for_load_state("load")
        return self.page

    def visit(self, kind: str) -> Page:
        return self.open(f"/visits/{self.site.ids[kind]}")


@pytest.fixture
def reader(browser: Browser, site: Site, session: dict[str, object]) -> Iterator[Reader]:
    context = browser.new_context(
        storage_state=session,  # type: ignore[arg-type]
        viewport={"width": DESK, "height": 900},
        locale="en-GB",
        timezone_id="Asia/Ho_Chi_Minh",
    )
    reader = Reader(context, site)
    yield reader
    context.close()
    assert reader.complaints == []


def painted(page: Page, selector: str) -> None:
    """Wait until an image is loaded and ready to be painted."""
    page.locator(selector).first.evaluate("image => image.decode()")


def difference(one: bytes, other: bytes) -> float:
    """Mean difference of two screenshots in grey levels; a repeated raster of the same page differs by less than 1."""
    pixels = [np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=float) for shot in (one, other)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


def test_worklist_shows_the_most_pressing_first_and_opens_a_visit(reader: Reader) -> None:
    page = reader.open("/worklist")
    badges = page.locator(".visit .badge").all_inner_texts()
    assert badges[:3] == ["Urgent", "Soon", "Routine"]
    assert badges[-2:] == ["Not assessed", "In progress"]
    page.locator(".visit .row-link").first.press("Enter")
    page.wait_for_url(f"**/visits/{reader.site.ids['urgent']}")
    assert page.locator("h1").inner_text() == "BN-2041"


def test_the_whole_row_opens_the_visit(reader: Reader) -> None:
    page = reader.open("/worklist")
    page.locator(".visit").first.click(position={"x": 900, "y": 20})
    page.wait_for_url(f"**/visits/{reader.site.ids['urgent']}")


def test_filter_by_priority(reader: Reader) -> None:
    page = reader.open("/worklist")
    page.locator(".counts a.soon").click()
    page.wait_for_url("**/worklist?priority=soon")
    assert page.locator(".visit").count() == 1
    assert page.locator(".counts a[aria-current]").inner_text().endswith("Soon")


def test_heatmap_appears_fades_changes_and_goes(reader: Reader) -> None:
    page = reader.visit("urgent")
    film, overlay = page.locator(".film-view").first, page.locator("[data-overlay]")
    painted(page, ".film-image")
    assert not overlay.is_visible()
    without = film.screenshot()

    page.get_by_label("Show where it comes from").check()
    painted(page, "[data-overlay]")
    assert overlay.is_visible()
    assert overlay.bounding_box() == page.locator(".film-image").first.bounding_box()
    shown = film.screenshot()
    assert difference(shown, without) > 3

    page.get_by_label("Opacity").fill("20")
    faint = film.screenshot()
    assert 1 < difference(faint, without) < 0.7 * difference(shown, without)  # the finding's name stays as it is

    choose = page.locator("[data-film] [data-choose]")
    with page.expect_response(lambda response: "cardiomegaly" in response.url):
        choose.select_option(index=3)
    painted(page, "[data-overlay]")
    assert difference(film.screenshot(), faint) > 1

    page.get_by_label("Show where it comes from").uncheck()
    assert not overlay.is_visible()
    assert difference(film.screenshot(), without) < 1


def test_full_resolution_comes_on_demand(reader: Reader) -> None:
    page = reader.visit("urgent")
    image = page.locator(".film-image").first
    painted(page, ".film-image")
    assert max(image.evaluate("i => [i.naturalWidth, i.naturalHeight]")) <= 768
    with page.expect_response(lambda response: response.url.endswith("/film.png")):
        page.get_by_role("button", name="Full resolution").click()
    painted(page, ".film-view.is-full .film-image")
    page.get_by_role("button", name="Full resolution").click()
    assert "max_px=768" in str(image.get_attribute("src"))


def test_trace_is_drawn_at_its_true_size_and_shaded_on_demand(reader: Reader) -> None:
    page = reader.visit("urgent")
    trace = page.locator("[data-page]")
    painted(page, "[data-page]")
    box = trace.bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(270 / 25.4 * 96, abs=1)
    plain = trace.screenshot()
    with page.expect_response(lambda response: "finding=atrial_fibrillation" in response.url):
        page.locator("[data-trace] [data-choose]").select_option(index=1)
    painted(page, "[data-page]")
    page.wait_for_timeout(200)
    assert difference(trace.screenshot(), plain) > 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_switch_of_language_is_kept(reader: Reader, language: Language) -> None:
    page = reader.visit("urgent")
    page.locator(f".languages a[lang={language}]").click()
    page.wait_for_load_state("load")
    assert page.url.endswith(reader.site.ids["urgent"])
    assert page.locator("html").get_attribute("lang") == language
    assert text("strength_flagged", language) in page.locator(".findings").first.inner_text()
    assert reader.open("/worklist").locator("h1").inner_text() == text("worklist", language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_reasons_for_a_refusal_are_in_sight(reader: Reader, language: Language) -> None:
    page = reader.open(f"/visits/{reader.site.ids['unassessed']}?lang={language}")
    reason = opening(message("wrong_body_part", language, found="LEG", expected="CHEST"))
    assert page.locator(".inputs").get_by_text(reason).is_visible()
    assert page.get_by_text(text("input_refused", language), exact=True).is_visible()
    assert page.locator(".organ.is-unassessed").count() == 3
    assert reason in page.locator(".film-refused").inner_text()
    painted(page, ".film-image")  # a doctor reads the film: it is there


def test_times_are_the_readers_own(reader: Reader) -> None:
    page = reader.visit("urgent")
    shown = page.locator("time[data-moment]").first
    assert "UTC" not in shown.inner_text()
    expected = shown.evaluate(
        "t => new Intl.DateTimeFormat('en-GB', {dateStyle: 'medium', timeStyle: 'short', timeZone: 'Asia/Ho_Chi_Minh'})"
        ".format(new Date(t.dateTime))"
    )
    assert shown.inner_text() == expected


def test_a_visit_in_progress_looks_again_by_itself(reader: Reader) -> None:
    page = reader.visit("accepted")
    with page.expect_response(lambda response: response.url == page.url, timeout=30_000):
        pass
    assert page.get_by_text(text("in_progress", "en")).is_visible()


def test_keyboard_reaches_the_content_first(reader: Reader) -> None:
    page = reader.open("/worklist")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_a_foreign_style_or_script_would_not_run(reader: Reader) -> None:
    """The policy is in force: what is inline is blocked, and the page is free of it (no other complaint is noted)."""
    page = reader.open("/worklist")
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
    )
    assert page.evaluate("window.ran") is None
    assert len(reader.complaints) == 1
    assert "Content Security Policy" in reader.complaints.pop()


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_runs_off_the_screen(reader: Reader, language: Language, width: int) -> None:
    page = reader.page
    page.set_viewport_size({"width": width, "height": 844})
    pages = [
        "/worklist",
        *(f"/visits/{reader.site.ids[kind]}" for kind in ("urgent", "soon", "unassessed", "accepted")),
    ]
    for number, path in enumerate(pages):
        reader.open(f"{path}?lang={language}")
        page.locator("details").evaluate_all("all => all.forEach(d => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        if (folder := os.environ.get("SANGLOC_TEST_SHOTS")) is not None:
            page.wait_for_load_state("networkidle")
            page.screenshot(path=Path(folder) / f"{number}-{language}-{width}.png", full_page=True)


def test_pages_work_without_script(browser: Browser, site: Site, session: dict[str, object]) -> None:
    context = browser.new_context(storage_state=session, java_script_enabled=False, locale="en-GB")  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{site.url}/visits/{site.ids['urgent']}")
    assert page.locator(".film-image").first.is_visible()
    assert not page.locator("[data-toggle]").is_visible()
    with page.expect_response(lambda response: "/evidence/abnormal/0.png" in response.url) as blended:
        page.locator("noscript a", has_text="Abnormal chest X-ray").first.click()
    assert blended.value.headers["content-type"] == "image/png"
    context.close()


def test_signing_out(browser: Browser, site: Site) -> None:
    context = browser.new_context(locale="fr-FR")
    page = context.new_page()
    page.goto(f"{site.url}/login")
    page.fill("#key", SECRET)
    page.click("button.primary")
    page.get_by_role("button", name="Se déconnecter").click()
    page.wait_for_url("**/login")
    page.goto(f"{site.url}/worklist")
    assert "/login?next=" in page.url
    context.close()
