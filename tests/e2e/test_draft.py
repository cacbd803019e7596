"""An opinion that was typed is never lost, in a real browser: conflict, no server, closed tab, ended session.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from service.language.texts import text
from tests.service.serving import Served, serving, settings_for, visit_files

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, BrowserContext, Page  # noqa: E402

DOCTOR = "BS. Thử Nghiệm Tuyến Dưới"
WORDS = "Ho khạc đờm 5 ngày.\nKhông sốt."


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_for(tmp_path_factory.mktemp("draft"))) as it:
        yield it


@pytest.fixture(scope="module")
def keys(served: Served) -> dict[str, str]:
    return {
        "site": served.key("site", "commune"),
        "doctor": served.key("doctor", "commune", doctor_id="D-7", label=DOCTOR),
        "colleague": served.key("doctor", "commune", doctor_id="D-7", label="BS. Thử Nghiệm Đồng Nghiệp"),
        "specialist": served.key("specialist", "central", doctor_id="S-1", label="BS. Thử Nghiệm Tuyến Trên"),
        "other": served.key("specialist", "central", doctor_id="S-2", label="BS. Thử Nghiệm Khác"),
    }


@pytest.fixture
def visit(served: Served, keys: dict[str, str]) -> str:
    with served.client(keys["site"]) as client:
        return str(client.post("/v1/visits", files=visit_files(referrer={"id": "D-7"})).json()["id"])


@pytest.fixture
def device(served: Served, browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=served.address, locale="en-GB")
    yield context
    context.close()


def sign_in(page: Page, key: str) -> None:
    page.goto("/login")
    page.fill("#key", key)
    page.press("#key", "Enter")
    page.wait_for_url(lambda url: "/login" not in url)


def opened(device: BrowserContext, key: str, visit: str) -> Page:
    page = device.new_page()
    page.errors = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    sign_in(page, key)
    page.goto(f"/visits/{visit}")
    return page


def write(page: Page) -> None:
    page.check("input[name='verdict:pneumonia'][value=disagree]")
    page.click(".addable summary")
    page.check("input[name=add][value=effusion]")
    page.check("input[name=advice][value=refer]")
    page.fill("#opinion-text", WORDS)


def is_written(page: Page) -> bool:
    return (
        page.input_value("#opinion-text") == WORDS
        and page.is_checked("input[name='verdict:pneumonia'][value=disagree]")
        and page.is_checked("input[name=add][value=effusion]")
        and page.is_checked("input[name=advice][value=refer]")
    )


def drafts(page: Page) -> list[str]:
    found: list[str] = page.evaluate("Object.keys(localStorage).filter((name) => name.startsWith('opinion:'))")
    return found


def sign(page: Page) -> None:
    page.click(".sign .primary")
    page.wait_for_selector(".review")
    page.click(".review [name=confirmed]")
    page.wait_for_url("**/report?signed=*")


def signed_elsewhere(served: Served, key: str, visit: str, version: int = 1, **opinion: object) -> None:
    with served.client(key) as client:
        made = client.post(f"/v1/visits/{visit}/opinions", json={"version": version, **opinion})
        assert made.status_code == 201, made.text


def test_on_a_conflict_it_stands_beside_what_changed(device, served, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    signed_elsewhere(served, keys["colleague"], visit, text="Đã ký trước.")
    page.click(".sign .primary")
    page.wait_for_selector("#loop [role=alert]:visible")
    assert is_written(page)
    assert page.is_visible("[data-number='1'] [data-since]")
    assert "Đã ký trước." in page.inner_text(".opinions")
    assert len(drafts(page)) == 1
    sign(page)
    assert drafts(page) == []
    assert page.errors == []


def test_a_conflict_at_the_last_step_keeps_it_too(device, served, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    page.click(".sign .primary")
    page.wait_for_selector(".review")
    signed_elsewhere(served, keys["colleague"], visit, text="Đã ký trước.")
    page.click(".review [name=confirmed]")
    page.wait_for_selector("#loop [role=alert]:visible")
    assert is_written(page)
    sign(page)
    with served.client(keys["doctor"]) as client:
        assert len(client.get(f"/v1/visits/{visit}/history").json()["opinions"]) == 2


@pytest.mark.parametrize("step", ["look over", "sign"])
def test_without_a_server_it_stays_and_can_be_sent_again(device, keys, visit, step):
    page = opened(device, keys["doctor"], visit)
    write(page)
    if step == "sign":
        page.click(".sign .primary")
        page.wait_for_selector(".review")
    button = ".review [name=confirmed]" if step == "sign" else ".sign .primary"
    device.set_offline(True)
    page.click(button)
    told = page.wait_for_selector("[data-not-sent]")
    assert told.inner_text().strip() == text("draft_not_sent", "en")
    device.set_offline(False)
    if step == "look over":
        assert is_written(page)
        sign(page)
    else:
        page.click(button)
        page.wait_for_url("**/report?signed=1")
    assert drafts(page) == []


def test_an_answer_of_a_proxy_does_not_take_its_place(device, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    page.route(
        "**/sign", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")
    )
    page.click(".sign .primary")
    page.wait_for_selector("[data-not-sent]")
    assert is_written(page)


def test_where_the_answer_to_a_signature_is_lost_it_is_signed_once(device, served, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    page.click(".sign .primary")
    page.wait_for_selector(".review")

    def lost(route):
        route.fetch()
        route.abort()

    page.route("**/sign", lost, times=1)
    page.click(".review [name=confirmed]")
    page.wait_for_selector("[data-not-sent]")
    assert len(drafts(page)) == 1
    page.click(".review [name=confirmed]")
    page.wait_for_url("**/report?signed=1")
    assert drafts(page) == []
    with served.client(keys["doctor"]) as client:
        assert len(client.get(f"/v1/visits/{visit}/history").json()["opinions"]) == 1


def test_it_is_there_after_the_tab_was_closed(device, served, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    page.close()
    signed_elsewhere(served, keys["colleague"], visit, text="Đã ký trước.")
    page = device.new_page()
    page.goto(f"/visits/{visit}")
    assert is_written(page)
    note = page.inner_text("[data-restored]")
    assert text("draft_restored", "en") in note
    assert text("draft_changed", "en") in note
    assert page.is_visible("[data-number='1'] [data-since]")
    sign(page)
    page.goto(f"/visits/{visit}")
    assert page.input_value("#opinion-text") == ""
    assert not page.is_visible("[data-restored]")


def test_it_can_be_deleted(device, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    page.reload()
    page.click("[data-discard]")
    assert page.input_value("#opinion-text") == ""
    assert not page.is_checked("input[name=add][value=effusion]")
    assert drafts(page) == []
    page.reload()
    assert not page.is_visible("[data-restored]")


def test_it_is_there_after_the_session_has_ended(device, served, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    device.clear_cookies()
    page.click(".sign .primary")
    page.wait_for_url("**/login?*")
    page.fill("#key", keys["doctor"])
    page.press("#key", "Enter")
    page.wait_for_url(f"**/visits/{visit}*")
    assert is_written(page)
    sign(page)


def test_another_reader_of_the_device_does_not_see_it(device, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    sign_in_as = keys["colleague"]
    device.clear_cookies()
    sign_in(page, sign_in_as)
    page.goto(f"/visits/{visit}")
    assert page.input_value("#opinion-text") == ""
    assert not page.is_visible("[data-restored]")


def test_what_the_server_has_is_not_offered_again(device, served, keys, visit):
    """The answer was lost on the way, and the tab with it."""
    page = opened(device, keys["doctor"], visit)
    write(page)
    judgements = [{"finding": "pneumonia", "verdict": "disagree"}, {"finding": "effusion", "verdict": "add"}]
    signed_elsewhere(served, keys["doctor"], visit, text=WORDS, judgements=judgements, advice="refer")
    page.reload()
    assert page.input_value("#opinion-text") == ""
    assert drafts(page) == []


def test_a_blind_reading_is_kept_where_the_findings_come_into_view(device, served, keys, visit):
    with served.client(keys["doctor"]) as client:
        client.post(f"/v1/visits/{visit}/referrals", json={"to_site": "central", "blind": True})
    page = opened(device, keys["specialist"], visit)
    page.check("input[name=add][value=pneumonia]")
    page.check("input[name=add][value=effusion]")
    page.fill("#opinion-text", WORDS)
    signed_elsewhere(served, keys["other"], visit)
    page.reload()
    assert page.is_checked("input[name='verdict:pneumonia'][value=agree]")
    assert page.is_checked("input[name=add][value=effusion]")
    assert page.input_value("#opinion-text") == WORDS


def test_asking_a_specialist_does_not_take_it_away(device, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    page.click(".asking summary")
    page.fill("#question", "?")
    page.click(".asking button")
    page.wait_for_selector(".asked li")
    assert is_written(page)


def test_drafts_are_bounded_and_expire(device, keys, visit):
    page = opened(device, keys["doctor"], visit)
    page.evaluate(
        """() => {
          const day = 24 * 3600 * 1000;
          for (let i = 0; i < 40; i += 1) {
            localStorage.setItem(`opinion:k:${i}`, JSON.stringify({ at: Date.now() - i * day, version: 1, typed: [] }));
          }
          localStorage.setItem('opinion:k:broken', '{');
          localStorage.setItem('other', 'stays');
        }"""
    )
    write(page)
    left = drafts(page)
    assert len(left) == 15  # this one, and those of the last fourteen days
    assert "opinion:k:broken" not in left
    assert page.evaluate("localStorage.getItem('other')") == "stays"
    mine = json.loads(page.evaluate("(name) => localStorage.getItem(name)", next(n for n in left if visit in n)))
    assert mine["version"] == 1


def test_nothing_jumps_while_it_is_looked_over(device, keys, visit):
    page = opened(device, keys["doctor"], visit)
    write(page)
    page.click(".sign .primary")
    page.wait_for_selector(".review")
    page.wait_for_timeout(300)
    assert page.locator(".review .primary").bounding_box()["y"] < page.viewport_size["height"]
    assert page.evaluate("document.activeElement.id") == "your-opinion"
    page.click(".review [name=change]")
    page.wait_for_selector("#opinion-text")
    assert is_written(page)
    assert not page.is_visible("[data-restored]")
    assert page.errors == []
