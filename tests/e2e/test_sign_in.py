"""Signing in by a provider in a real browser, with the provider on another site: cookies, policy and the way on hold.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a
folder to leave pictures in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import text
from tests.service.openid_provider import CLIENT_ID, CLIENT_SECRET, openid_provider
from tests.service.provider.test_sign_in import CALLBACK, DOCTOR, ROLES
from tests.service.serving import Served, serving, settings_for, visit_files

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, ConsoleMessage, Page  # noqa: E402

from tests.e2e.test_browser import DESK, PHONE  # noqa: E402

LOCALES = {"vi": "vi-VN", "fr": "fr-FR", "en": "en-GB"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service is ``127.0.0.1``, the provider ``localhost``: to a browser two sites."""
    folder = tmp_path_factory.mktemp("sign-in")
    (folder / "roles.toml").write_text(ROLES, "utf-8")
    with openid_provider("localhost") as provider:
        settings = settings_for(
            folder / "data",
            oidc_issuer=provider.issuer,
            oidc_client_id=CLIENT_ID,
            oidc_client_secret=CLIENT_SECRET,
            oidc_roles=folder / "roles.toml",
        )
        with serving(settings) as it:
            it.provider = provider  # type: ignore[attr-defined]
            provider.redirects.add(f"{it.address}{CALLBACK}")
            provider.person, provider.shows_a_page = dict(DOCTOR), True
            with it.client(it.key("site", "xa")) as site:
                files = visit_files(b"a film", person={"id": "VN-1"}, referrer={"id": "D-1"})
                it.visit = site.post("/v1/visits", files=files).json()["id"]  # type: ignore[attr-defined]
            yield it


def is_complaint(said: ConsoleMessage) -> bool:
    """Answers with 4xx are what some tests are about, and the stand-in's film is no picture."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


@pytest.fixture
def opened(served: Served, browser: Browser) -> Iterator[object]:
    """Opens windows of their own; a page that complains fails the test."""
    contexts, complaints = [], []

    def open_page(width: int = DESK, language: Language = "vi", **more: object) -> Page:
        viewport = {"width": width, "height": 900}
        context = browser.new_context(base_url=served.address, viewport=viewport, locale=LOCALES[language], **more)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for each in contexts:
        each.close()
    assert complaints == []


def shown(page: Page, name: str) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], name
    if folder := os.environ.get("SANGLOC_TEST_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def sign_in(page: Page, language: Language) -> None:
    """By the button of the login, and then the one of the provider's page."""
    page.click(f"text={text('sign_in_by_provider', language)}")
    page.wait_for_url("**/authorize?**")
    page.click("text=Sign in")


@pytest.mark.parametrize("has_script", [True, False])
def test_a_doctor_signs_in_at_another_site_and_lands_where_they_wanted_to_go(opened, served, has_script: bool) -> None:
    page = opened(language="vi", java_script_enabled=has_script)
    page.goto(f"/visits/{served.visit}")
    assert urlsplit(page.url).path == "/login"
    sign_in(page, "vi")
    page.wait_for_url(f"**/visits/{served.visit}")
    assert page.locator("h1").count() == 1
    cookies = {each["name"]: each for each in page.context.cookies(served.address)}
    assert (cookies["session"]["sameSite"], cookies["session"]["httpOnly"]) == ("Strict", True)
    assert "sign_in" not in cookies
    page.goto(f"{served.provider.issuer}/end")
    page.set_content(f'<a href="{served.address}/worklist">from another site</a>')
    page.click("a")
    page.wait_for_url("**/login**")
    assert page.locator("#key").count() == 1, "from another site no session comes along: the step of our own is needed"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_login_and_sessions_fit_the_screen(opened, served, language: Language, width: int) -> None:
    page = opened(width, language)
    page.goto("/login")
    shown(page, f"login-{language}-{width}")
    sign_in(page, language)
    page.wait_for_url("**/worklist")
    other = opened(width, language)
    other.goto("/login")
    sign_in(other, language)
    other.wait_for_url("**/worklist")
    other.close()
    page.click(f"text={text('sessions_link', language)}")
    page.wait_for_url("**/sessions")
    assert page.locator(".access-keys li").count() >= 2
    page.locator("details").first.evaluate("each => { each.open = true; }")
    shown(page, f"sessions-{language}-{width}")
    page.locator("details").last.evaluate("each => { each.open = true; }")
    page.locator("details").last.locator("button").click()
    page.wait_for_url("**/login**")


def test_an_admin_sees_whose_sessions_are_open_and_signs_out_at_the_provider_too(opened, served) -> None:
    doctor = opened(PHONE, "fr")
    doctor.goto("/login")
    sign_in(doctor, "fr")
    doctor.wait_for_url("**/worklist")
    served.provider.person = {"sub": "u-admin", "name": "Quản trị tỉnh", "groups": ["xray-admins"]}
    try:
        admin = opened(DESK, "fr")
        admin.goto("/login")
        sign_in(admin, "fr")
        admin.wait_for_url("**/worklist")
    finally:
        served.provider.person = dict(DOCTOR)
    admin.goto("/sessions")
    assert admin.locator("section.card").count() >= 2
    shown(admin, "sessions-of-all")
    admin.set_viewport_size({"width": PHONE, "height": 900})
    shown(admin, "sessions-of-all-phone")
    admin.goto("/keys")
    assert admin.locator(f"text={text('key_by_provider', 'fr')}").count() >= 2
    shown(admin, "keys-with-persons")
    admin.click(f"text={text('sign_out', 'fr')}")
    admin.wait_for_url("**/login?ended=provider")
    shown(admin, "signed-out")
    admin.click(f"text={text('provider_sign_out', 'fr')}")
    admin.wait_for_url(f"{served.provider.issuer}/end**")


def test_a_refusal_is_a_page_in_the_persons_language(opened, served) -> None:
    served.provider.claims = {"groups": ["staff"]}
    try:
        page = opened(PHONE, "vi")
        page.goto("/login")
        sign_in(page, "vi")
        page.wait_for_selector("[role=alert]")
        assert "vai trò" in page.locator("[role=alert]").inner_text()
        shown(page, "refused")
    finally:
        served.provider.claims = {}
