"""Posting visits of several persons in a real browser, to the real server: dropping, assigning, what was refused.

Needs Debian's ``chromium``; skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a folder to leave
pictures in.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from data_specs.vocabulary import LANGUAGES
from service.language.texts import text
from tests.conftest import ROOT
from tests.service.serving import ADMIN, real_server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import expect  # noqa: E402

FILM, RECORDING = ROOT / "samples/film-abnormal.jpg", [ROOT / "samples/E07517.hea", ROOT / "samples/E07517.mat"]
AGE = "42"
"""As the recording states it."""
ASSESSED_MS = 30_000


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    process = real_server(tmp_path_factory.mktemp("posting"))
    try:
        yield process.start(seconds=120).served.address
    finally:
        process.stop()


@pytest.fixture(scope="module")
def signed_in(browser, address):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}/login?next=/post")
    page.fill("#key", ADMIN)
    page.press("#key", "Enter")
    page.wait_for_url(f"{address}/post")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def opened(browser, address, signed_in):
    contexts, complaints = [], []

    def open_page(width=1440, language="en", **more):
        context = browser.new_context(
            base_url=address, storage_state=signed_in, viewport={"width": width, "height": 900}, locale=language, **more
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
        page.goto(f"{address}/post")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def drop(page, paths, selector="h1"):
    """Drop files or folders on what ``selector`` finds, as a person does with the mouse."""
    box = page.locator(selector).first.bounding_box()
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    devtools = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        devtools.send("Input.dispatchDragEvent", {"type": step, **at, "data": data})


def names(page, number):
    return page.locator(f"form[data-number='{number}'] .sending .name").all_inner_texts()


def all_sent(page, n):
    expect(page.locator(".sending .how", has_text=text("upload_sent", "en"))).to_have_count(n)


def visit_at(page, address, receipt):
    href = receipt.locator("a").get_attribute("href")
    return page.request.get(f"{address}/v1{href}").json()


def shot(page, name):
    if (folder := os.environ.get("SANGLOC_TEST_SHOTS")) is not None:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_files_dropped_anywhere_become_a_visit(opened, address):
    page = opened()
    drop(page, [FILM, *RECORDING])
    all_sent(page, 3)
    page.fill("#age", AGE)
    page.click("[data-send]")
    page.wait_for_url("**/visits/*", timeout=ASSESSED_MS)
    visit = page.request.get(f"{address}/v1{page.url.removeprefix(address)}").json()
    assert [(each["field"], each["accepted"]) for each in visit["inputs"]] == [
        ("image", True),
        ("ecg", True),
        ("ecg", True),
    ]


def test_a_folder_of_several_persons(opened, address, tmp_path):
    """The person posting says whose the files are: one each, then two put together again. Hidden files stay out."""
    folder = tmp_path / "morning"
    (folder / "ward").mkdir(parents=True)
    for name in ("first.jpg", "second.jpg", "ward/third.jpg"):
        shutil.copy(FILM, folder / name)
    for each in RECORDING:
        shutil.copy(each, folder / each.name)
    (folder / ".hidden").write_text("x")
    page = opened()
    drop(page, [folder])
    all_sent(page, 5)
    assert len(page.locator("form.post").all()) == 1
    page.get_by_role("button", name=text("post_split", "en")).click()
    assert sorted(len(names(page, n)) for n in (1, 2, 3, 4)) == [1, 1, 1, 2]
    ids = page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    of_recording = next(n for n in (1, 2, 3, 4) if len(names(page, n)) == 2)
    whose = next(n for n in (1, 2, 3, 4) if names(page, n) == ["first.jpg"])
    film = page.locator(f"form[data-number='{whose}'] .sending select")
    film.focus()
    film.select_option(str(of_recording))
    assert set(names(page, of_recording)) == {*(each.name for each in RECORDING), "first.jpg"}
    assert names(page, whose) == []
    page.locator(f"form[data-number='{whose}'] [data-drop-person]").click()
    shot(page, "posting-several")
    for form in page.locator("form.post:visible").all():
        number = form.get_attribute("data-number")
        form.locator("[name=person_id]").fill(f"BN-{number}")
        form.locator("[name=age]").fill(AGE)
    page.get_by_role("button", name=text("post_send_all", "en")).click()
    receipts = page.locator(".receipt")
    expect(receipts).to_have_count(3, timeout=3 * ASSESSED_MS)
    expect(page.locator(".receipt", has_text=text("post_assessed", "en"))).to_have_count(3, timeout=ASSESSED_MS)
    shot(page, "posting-receipts")
    found = {visit["person"]["id"]: visit for visit in (visit_at(page, address, each) for each in receipts.all())}
    assert sorted(len(visit["inputs"]) for visit in found.values()) == [1, 1, 3]
    assert len(found[f"BN-{of_recording}"]["inputs"]) == 3
    assert page.url.endswith("/post")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_could_not_be_used_is_said_while_one_still_stands_there(opened, address, tmp_path, language):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(FILM.read_bytes()[:3000])
    page = opened(width=390 if language == "vi" else 1440, language=language)
    page.set_input_files("#image", broken)
    page.fill("#person_id", "BN-77")
    page.fill("#age", AGE)
    page.click("[data-send]")
    receipt = page.locator(".receipt")
    expect(receipt.locator("[role=alert]")).to_have_text(text("post_not_taken", language), timeout=ASSESSED_MS)
    visit = visit_at(page, address, receipt)
    expect(receipt.locator("li b")).to_have_text("broken.jpg")
    reason = page.request.get(f"{address}/v1/visits/{visit['id']}", headers={"Accept-Language": language}).json()[
        "inputs"
    ][0]["problems"][0]["message"]
    expect(receipt.locator("li")).to_contain_text(reason)
    shot(page, f"posting-refused-{language}")
    receipt.get_by_role("button", name=text("post_again", language)).click()
    assert page.input_value("#person_id") == "BN-77"
    assert page.locator(".sending li").count() == 0
    page.set_input_files("#image", FILM)
    page.click("[data-send]")
    expect(page.locator(".receipt")).to_have_count(2, timeout=ASSESSED_MS)
    expect(page.locator(".receipt", has_text=text("post_assessed", language))).to_have_count(1, timeout=ASSESSED_MS)
    first, second = (visit_at(page, address, each) for each in page.locator(".receipt").all())
    assert first["id"] != second["id"]
    assert {first["person"]["id"], second["person"]["id"]} == {"BN-77"}


def test_a_refused_form_among_several_keeps_its_files_and_its_words(opened, address):
    page = opened()
    page.get_by_role("button", name=text("post_another_person", "en")).click()
    page.set_input_files("#p2-image", FILM)
    all_sent(page, 1)
    page.fill("#p2-person_name", "Người Thử Nghiệm")
    page.fill("#p2-age", "two hundred")
    page.locator("form[data-number='2'] details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    page.fill("#p2-potassium", "4.1")
    page.locator("form[data-number='2'] [data-send]").click()
    page.locator("#p2-age-error").wait_for()
    assert names(page, 2) == ["film-abnormal.jpg"]
    assert page.input_value("#p2-age") == "two hundred"
    assert page.input_value("#p2-person_name") == "Người Thử Nghiệm"
    assert page.input_value("#p2-potassium") == "4.1"
    page.fill("#p2-age", AGE)
    page.locator("form[data-number='2'] [data-send]").click()
    page.locator("#p2-potassium-error").wait_for()
    assert text("post_choose_unit", "en") in page.locator("#p2-potassium-error").inner_text()
    page.select_option("form[data-number='2'] [name=potassium_unit]", "mmol/L")
    page.locator("form[data-number='2'] [data-send]").click()
    expect(page.locator(".receipt")).to_have_count(1, timeout=ASSESSED_MS)
    assert len(visit_at(page, address, page.locator(".receipt"))["inputs"]) == 1


def test_who_was_signed_out_loses_nothing(opened, address):
    page = opened()
    page.fill("#person_id", "BN-OUT")
    page.fill("#creatinine", "88")
    page.select_option("[name=creatinine_unit]", "umol/L")
    kept = page.context.cookies()
    page.context.clear_cookies()
    page.click("[data-send]")
    alert = page.locator("form [data-alert]")
    expect(alert).to_contain_text(text("post_signed_out", "en"))
    assert page.input_value("#person_id") == "BN-OUT"
    page.context.add_cookies(kept)  # as the other window does
    page.click("[data-send]")
    page.wait_for_url(re.compile("/visits/"), timeout=ASSESSED_MS)
    assert page.locator("h1").inner_text() == "BN-OUT"


def test_files_that_differ_in_their_content_alone_are_two_uploads(opened):
    """Two persons' files of one name, size and time, sent at the same time: neither is taken for the other."""
    page = opened()
    page.context.new_cdp_session(page).send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 2_000_000},
    )
    ids = page.evaluate(
        """async () => {
          const words = document.querySelector('[data-posting]').dataset;
          const file = (letter) => new File([letter.repeat(2_500_000)], 'IM0001', { lastModified: 1 });
          const send = (letter) => uploads.send(file(letter), '', { removed: false }, () => {}, words);
          const first = send('A');
          while (!localStorage.length) await new Promise((resolve) => { setTimeout(resolve, 10); });
          return Promise.all([first, send('B'), send('A')]);
        }"""
    )
    assert len(set(ids)) == 3
    headers = {"Tus-Resumable": "1.0.0"}
    sizes = [page.request.head(f"/v1/uploads/{each}", headers=headers).headers["upload-offset"] for each in ids]
    assert sizes == ["2500000"] * 3
