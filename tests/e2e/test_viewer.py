"""The film viewer, the calipers and posting over a bad link, in a real browser; axe-core on the pages they stand on.

Needs Debian's ``chromium``; skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a folder to leave
pictures in.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import io
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import opening, text
from tests.conftest import ROOT
from tests.service.page_fixture import SECRET, Site, made_film, made_recording, running_site
from tests.service.standin import StandIn

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, BrowserContext, Page, expect  # noqa: E402

PHONE, DESK = 390, 1440
MM = 96 / 25.4
"""CSS pixels to the millimetre."""
STATIC = ROOT / "service" / "pages" / "static"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:

    shared = Path(os.environ.get("SANGLOC_TEST_DATA", ROOT.parent / "shared" / "data"))
    with running_site(
        tmp_path_factory.mktemp("viewer"),
        shared if shared.is_dir() else None,
        engine=StandIn(),  # type: ignore[arg-type]  # it has no shadows
    ) as running:
        for _ in range(200):
            if running.service.available:
                break
            time.sleep(0.05)
        yield running


@pytest.fixture(scope="module")
def session(browser: Browser, site: Site) -> dict[str, object]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/login?next=/post")
    page.fill("#key", SECRET)
    page.press("#key", "Enter")
    page.wait_for_url(f"{site.url}/post")
    state = context.storage_state()
    context.close()
    return dict(state)


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, site: Site, session: dict[str, object]) -> Iterator[Opened]:
    """Opens pages in windows that are closed, and were free of complaints, at the end."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(path: str, width: int = DESK, **more: object) -> Page:
        context = browser.new_context(
            storage_state=session,  # type: ignore[arg-type]
            viewport={"width": width, "height": 900},
            **{"locale": "en-GB", **more},  # type: ignore[arg-type]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)
        page.goto(f"{site.url}{path}")
        page.wait_for_load_state("load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def shot(page: Page, name: str) -> None:
    if (folder := os.environ.get("SANGLOC_TEST_SHOTS")) is not None:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def grey(page: Page, selector: str) -> float:
    """Mean of the middle of what is painted, in grey levels."""
    pixels = np.asarray(Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("L"), dtype=float)
    rows, columns = pixels.shape
    return float(pixels[rows // 4 : 3 * rows // 4, columns // 4 : 3 * columns // 4].mean())


def until(page: Page, condition: str) -> None:
    """Wait for a condition of the page; the policy forbids what playwright's own way of waiting would evaluate."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(condition)


def pixel_shift(page: Page) -> tuple[float, float, float]:
    """Scale and shift of the film within its view."""
    found = page.locator(".film-stack").first.evaluate(
        "s => { const m = new DOMMatrix(getComputedStyle(s).transform); return [m.a, m.e, m.f]; }"
    )
    return tuple(found)


def test_the_scripts_stay_small() -> None:
    assert sum((STATIC / name).stat().st_size for name in ("viewer.js", "measure.js", "trace.js")) < 32_000


# ------------------------------------------------------------------ the film
def test_the_film_obeys_the_keys(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    page.locator(".film-image").first.evaluate("image => image.decode()")
    view, said = page.locator("[data-view]").first, page.locator("[data-film] [data-said]").first
    view.focus()
    plain = grey(page, "[data-view]")

    page.keyboard.press("i")
    assert grey(page, "[data-view]") == pytest.approx(255 - plain, abs=3)
    page.keyboard.press("i")
    assert grey(page, "[data-view]") == pytest.approx(plain, abs=1)

    for _ in range(8):
        page.keyboard.press("Shift+L")  # a lower level is a brighter film
    assert grey(page, "[data-view]") > plain + 20
    for _ in range(4):
        page.keyboard.press("w")
    expect(said).to_have_text(text("viewer_state", "en", window=195, level=64, zoom=100))
    assert page.locator("[data-window]").first.input_value() == "195"

    page.keyboard.press("+")
    page.keyboard.press("+")
    scale, x, y = pixel_shift(page)
    assert scale == pytest.approx(1.5625)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    moved = pixel_shift(page)
    assert moved[1] > x
    assert moved[2] > y
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    width = view.evaluate("v => v.clientWidth")
    assert pixel_shift(page)[1] == pytest.approx(width - scale * width, abs=1)  # its edge, and no further
    page.keyboard.press("0")
    assert pixel_shift(page) == (1, 0, 0)

    page.keyboard.press("h")
    assert page.locator(".film-overlay").first.is_visible()
    page.keyboard.press("]")
    assert page.locator("[data-opacity]").first.input_value() == "70"
    page.keyboard.press("?")
    assert page.locator("[data-help]").first.evaluate("d => d.open")
    page.keyboard.press("r")
    assert not page.locator(".film-overlay").first.is_visible()
    expect(said).to_have_text(text("viewer_state", "en", window=255, level=128, zoom=100))
    assert grey(page, "[data-view]") == pytest.approx(plain, abs=1)


def test_the_keys_are_the_films_alone(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    page.keyboard.press("i")
    assert page.locator(".film-image").first.evaluate("i => i.style.filter") == ""


def test_the_mouse_sets_the_window_zooms_and_moves(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    page.locator(".film-image").first.evaluate("image => image.decode()")
    page.locator("[data-view]").first.evaluate("view => view.scrollIntoView()")
    box = page.locator("[data-view]").first.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + 200

    def drag(dx: float, dy: float) -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + dx, y + dy, steps=4)
        page.mouse.up()

    drag(-box["width"] / 5, 0)
    assert float(page.locator("[data-window]").first.input_value()) == pytest.approx(204, abs=5)
    page.mouse.wheel(0, -600)
    until(page, "document.querySelector('.film-stack').style.transform.includes('scale')")
    before = pixel_shift(page)
    assert before[0] > 2
    drag(40, 30)
    assert pixel_shift(page) == pytest.approx((before[0], before[1] + 40, before[2] + 30), abs=1)


def test_two_fingers_enlarge_the_film(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}", PHONE, has_touch=True, is_mobile=True)
    view = page.locator("[data-view]").first
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    wire = page.context.new_cdp_session(page)
    for apart in (40, 60, 80, 120):
        kind = "touchStart" if apart == 40 else "touchMove"
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        wire.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    wire.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert pixel_shift(page)[0] == pytest.approx(3, abs=0.3)


def test_the_dark_page_is_remembered(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}", color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name=text("dark_reading", "en")).first.press("d")
    assert page.evaluate(ground) == "rgb(0, 0, 0)" != light
    page.reload()
    assert page.evaluate(ground) == "rgb(0, 0, 0)"
    button = page.get_by_role("button", name=text("dark_reading", "en")).first
    assert button.get_attribute("aria-pressed") == "true"
    shot(page, "visit-reading")
    button.click()
    assert page.evaluate(ground) == light


def test_an_earlier_film_moves_with_todays(opened: Opened, site: Site) -> None:
    with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {SECRET}"}, timeout=20) as poster:
        for side in (300, 420):
            files = [
                ("image", (f"film-{side}.png", made_film(side))),
                ("context", (None, b'{"person": {"id": "BN-TWICE", "age_years": 50}}')),
            ]
            posted = poster.post("/v1/visits", files=files)
            assert posted.status_code == 201
    asked: list[str] = []
    page = opened("/worklist")
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/visits/{posted.json()['id']}")
    main, prior = page.locator("[data-view]").nth(0), page.locator("[data-prior]")
    page.wait_for_load_state("networkidle")
    assert not prior.is_visible()
    earlier = prior.get_attribute("data-film-at")
    assert earlier
    assert not any(f"{earlier}/film" in url for url in asked)  # a link pays for what is looked at only
    main.focus()
    page.keyboard.press("s")
    prior.locator("img").evaluate("image => image.decode()")
    boxes = [view.bounding_box() for view in (main, prior)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]  # type: ignore[index]
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    shifts = page.locator(".film-stack").evaluate_all("all => all.map(s => s.style.transform)")
    assert shifts[0] == shifts[1] != ""
    prior.focus()
    page.keyboard.press("w")  # each has its own window
    filters = page.locator(".film-image").evaluate_all("all => all.map(i => i.style.filter)")
    assert filters[0] == ""
    assert filters[1] != ""
    assert prior.locator("[data-mark]").inner_text() == page.locator("[data-priors] option").nth(1).inner_text()
    shot(page, "visit-beside")
    page.keyboard.press("r")
    main.focus()
    page.keyboard.press("s")
    assert not prior.is_visible()


def test_a_film_turns_by_quarters_and_its_greys_can_be_chosen(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    page.locator(".film-image").first.evaluate("image => image.decode()")
    page.locator("[data-view]").first.focus()
    turn = page.locator(".film-turn").first
    turns = []
    for _ in range(4):
        page.keyboard.press("t")
        turns.append(turn.evaluate("t => Math.round(new DOMMatrix(t.style.transform).b * 100) / 100"))
    assert [round(each) for each in turns] == [1, 0, -1, 0]
    with page.expect_response(lambda response: "window=lungs" in response.url) as shown:
        page.locator("[data-preset]").select_option("lungs")
    assert shown.value.status == 200
    assert page.get_by_role("button", name=re.compile("mirror", re.IGNORECASE)).count() == 0


def test_the_outline_of_a_finding_is_drawn_and_named(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    page.locator("[data-view]").first.focus()
    with page.expect_response(lambda response: response.url.endswith("/evidence/abnormal/0.svg")) as drawn:
        page.keyboard.press("o")
    assert drawn.value.headers["content-type"] == "image/svg+xml"
    mark = page.locator("[data-mark]").first
    expect(mark).to_have_text("Abnormal chest X-ray: " + text("strength_flagged", "en"))
    page.keyboard.press("o")
    expect(mark).to_be_hidden()


def test_the_ratio_of_heart_and_thorax_is_measured_and_not_kept(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    page.locator(".film-image").first.evaluate("image => image.decode()")
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method != "GET" else None)
    page.locator("[data-view]").first.focus()
    with page.expect_response(lambda response: response.url.endswith("/film.json")):
        page.keyboard.press("c")
    read = page.locator("[data-measured]")
    expect(read).to_contain_text("0.43")  # 0.30 of the width over 0.70
    grips = page.locator("[data-grip]")
    page.keyboard.press("ArrowRight")  # the first end of the heart, which has the focus
    expect(read).to_contain_text("0.42")
    height = grips.nth(0).get_attribute("cy")
    box = grips.nth(3).bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 60, box["y"] + 40, steps=4)
    page.mouse.up()
    assert grips.nth(2).get_attribute("cy") == grips.nth(3).get_attribute("cy")  # the line stays level
    assert grips.nth(0).get_attribute("cy") == height
    assert "0.42" not in read.inner_text()
    page.get_by_role("button", name=text("measure_ratio", "en")).click()
    expect(read).to_be_hidden()
    assert posts == []


def test_a_refused_film_stands_under_its_reason_and_is_enlarged_by_a_click(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    small = page.locator("[data-others] [data-view]")
    assert page.locator("[data-others] .film-refused").inner_text().startswith(text("film_refused", "en"))
    small.locator("img").evaluate("image => image.decode()")
    large = page.locator("[data-view]").first.get_attribute("data-film-at")
    small.click()
    assert page.locator("[data-others] [data-view]").get_attribute("data-film-at") == large
    assert page.locator("[data-toggle]").is_disabled()  # nothing was found on it
    page.keyboard.press("+")
    assert pixel_shift(page)[0] == pytest.approx(1.25)


# ------------------------------------------------------------------ the twelve-lead
def test_calipers_measure_in_milliseconds_and_millivolts(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    page.locator("[data-page]").first.evaluate("image => image.decode()")
    page.locator(".paper").first.focus()
    page.keyboard.press("c")
    legs, read = page.locator(".caliper-x [data-leg]"), page.locator("[data-read]").first
    left, right = (legs.nth(n).bounding_box() for n in (0, 1))
    assert left
    assert right
    assert right["x"] - left["x"] == pytest.approx(25 * MM, abs=0.6)
    assert read.inner_text() == text("caliper_ms", "en", ms=1000, rate=60)
    assert page.evaluate("document.activeElement.matches('[data-leg]')")
    page.keyboard.press("ArrowRight")
    assert read.inner_text() == text("caliper_ms", "en", ms=960, rate=63)
    page.keyboard.press("Shift+ArrowLeft")
    assert read.inner_text() == text("caliper_ms", "en", ms=965, rate=62)
    assert legs.first.get_attribute("aria-valuetext") == read.inner_text()

    grip = legs.nth(1).bounding_box()
    assert grip
    page.mouse.move(grip["x"] + 14, grip["y"] + 150)
    page.mouse.down()
    page.mouse.move(grip["x"] + 14 + 10 * MM, grip["y"] + 150, steps=5)
    page.mouse.up()
    ms = int(re.match(r"\d+", read.inner_text())[0])  # type: ignore[index]
    assert ms == pytest.approx(1365, abs=6)

    page.keyboard.press("v")
    assert read.inner_text().endswith(text("caliper_mv", "en", mv="1.00"))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowUp")
    assert read.inner_text().endswith(text("caliper_mv", "en", mv="1.11"))
    shot(page, "visit-calipers")

    page.keyboard.press("+")  # on enlarged paper a millimetre is still one
    assert f"{ms} ms" in read.inner_text()
    wide = page.locator("[data-sheet]").first.bounding_box()
    assert wide
    assert wide["width"] == pytest.approx(1.25 * 270 * MM, abs=1)
    gap = [legs.nth(n).bounding_box() for n in (0, 1)]
    assert gap[1]["x"] - gap[0]["x"] == pytest.approx(ms / 40 * 1.25 * MM, abs=1)  # type: ignore[index]


def test_paper_prints_at_its_true_size(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}", PHONE)
    page.locator(".paper").first.focus()
    for _ in range(3):
        page.keyboard.press("-")
    page.emulate_media(media="print")
    box = page.locator("[data-page]").first.bounding_box()
    assert box
    assert box["width"] == pytest.approx(270 * MM, abs=1)


def test_measured_intervals_stand_by_the_paper(opened: Opened, site: Site) -> None:
    page = opened(f"/visits/{site.ids['urgent']}")
    beside = page.locator(".intervals").inner_text()
    assert "118" in beside
    assert "452" in beside
    assert page.get_by_text("25 mm/s · 10 mm/mV").first.is_visible()


# ------------------------------------------------------------------ posting
def chosen(tmp_path: Path, film_side: int = 400) -> tuple[Path, list[Path]]:
    """Films and a recording as files to choose; a film of noise, so that it is as large as a film is."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (film_side, film_side), np.uint8)).save(out, "PNG")
    film = tmp_path / "phim ngực.png"
    film.write_bytes(out.getvalue())
    recording = []
    for posted in made_recording("nhịp"):
        recording.append(tmp_path / posted.filename)
        recording[-1].write_bytes(posted.content)
    return film, recording


def test_a_visit_is_posted_and_shown(opened: Opened, site: Site, tmp_path: Path) -> None:
    film, recording = chosen(tmp_path)
    page = opened("/post")
    page.set_input_files("#image", film)
    page.set_input_files("#ecg", recording)
    expect(page.locator(".sending .how")).to_have_text([text("upload_sent", "en")] * 3)
    page.fill("#person_id", "BN-9001")
    page.fill("#age", "61")
    page.select_option("#sex", "female")
    page.fill("#creatinine", "88")
    page.select_option("[name=creatinine_unit]", "umol/L")
    page.check("input[value=diabetes]")
    page.click("[data-send]")
    page.wait_for_url("**/visits/*")
    assert page.locator("h1").inner_text() == "BN-9001"
    visit = page.request.get(f"{site.url}/v1{page.url.removeprefix(site.url)}").json()
    assert [(each["field"], each["filename"]) for each in visit["inputs"]] == [
        ("image", "phim ngực.png"),
        ("ecg", "nhịp.hea"),
        ("ecg", "nhịp.dat"),
    ]
    content = page.request.get(f"{site.url}/v1/visits/{visit['id']}/inputs/0").body()
    assert content == film.read_bytes()


def test_an_upload_survives_the_link_being_away_and_the_page_being_closed(
    opened: Opened, site: Site, tmp_path: Path
) -> None:
    film, _ = chosen(tmp_path, 1800)
    size = film.stat().st_size
    assert size > 3_000_000
    page = opened("/post")
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 20, "downloadThroughput": 1_000_000, "uploadThroughput": 1_200_000}
    network.send("Network.emulateNetworkConditions", slow)
    pieces: list[int] = []
    page.on("request", lambda r: pieces.append(int(r.headers["upload-offset"])) if r.method == "PATCH" else None)
    page.set_input_files("#image", film)
    until(page, "document.querySelector('.sending progress').value > 1_200_000")
    network.send("Network.emulateNetworkConditions", {**slow, "offline": True})  # set_offline would undo the throttle
    expect(page.locator(".sending .how")).to_have_text(text("upload_lost", "en"))
    page.wait_for_timeout(500)
    network.send("Network.emulateNetworkConditions", slow)
    until(page, "document.querySelector('.sending progress').value > 2_100_000")
    page.reload()  # what has arrived by now is not sent again
    before = len(pieces)
    network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    page.set_input_files("#image", film)
    expect(page.locator(".sending .how")).to_have_text(text("upload_sent", "en"), timeout=20_000)
    assert pieces[before] >= 1_000_000
    page.click("[data-send]")
    page.wait_for_url("**/visits/*")
    content = page.request.get(f"{site.url}/v1{page.url.removeprefix(site.url)}/inputs/0").body()
    assert content == film.read_bytes()


def test_a_visit_is_sent_once_when_the_link_comes_back(opened: Opened, site: Site) -> None:
    page = opened("/post")
    page.fill("#person_id", "BN-ONCE")
    page.fill("#creatinine", "90")
    page.select_option("[name=creatinine_unit]", "umol/L")
    page.context.set_offline(True)
    page.click("[data-send]")
    expect(page.locator("[data-send]")).to_have_text(text("upload_lost", "en"))
    page.context.set_offline(False)
    page.wait_for_url("**/visits/*")
    listed = page.request.get(f"{site.url}/v1/visits").json()["items"]
    assert [each["person"]["id"] for each in listed].count("BN-ONCE") == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_wrong_is_said_beside_its_field(opened: Opened, language: Language, tmp_path: Path) -> None:
    film, _ = chosen(tmp_path)
    page = opened(f"/post?lang={language}")
    page.set_input_files("#image", film)
    expect(page.locator(".sending .how")).to_have_text(text("upload_sent", language))
    page.fill("#creatinine", "88")
    page.select_option("[name=creatinine_unit]", "mg/dL")
    page.click("[data-send]")
    wrong = message("value_implausible", language, found="creatinine, 88 mg/dL", expected="10–3500 umol/L")
    expect(page.locator("#creatinine-error")).to_contain_text(opening(wrong))
    assert page.locator("#creatinine").get_attribute("aria-invalid") == "true"
    assert page.evaluate("document.activeElement.matches('[data-alert]')")
    shot(page, f"post-refused-{language}")
    page.select_option("[name=creatinine_unit]", "umol/L")
    page.click("[data-send]")  # the film is here already
    page.wait_for_url("**/visits/*")
    page.get_by_text("phim ngực.png").first.wait_for()


def test_without_script_the_form_posts_it_all(opened: Opened, site: Site, tmp_path: Path) -> None:
    film, recording = chosen(tmp_path)
    page = opened("/post", java_script_enabled=False)
    assert not page.get_by_text(text("post_resumes", "en")).is_visible()
    page.set_input_files("#image", film)
    page.set_input_files("#ecg", recording)
    page.fill("#age", "44")
    page.locator("[data-send]").click()
    page.wait_for_url("**/visits/*")
    visit = page.request.get(f"{site.url}/v1{page.url.removeprefix(site.url)}").json()
    assert len(visit["inputs"]) == 3
    assert visit["person"]["age_years"] == 44

    page.goto(f"{site.url}/post")
    page.locator("[data-send]").click()
    assert text("post_refused", "en") in page.locator("[role=alert]").inner_text()
    assert message("field_missing", "en") in page.locator("#image-error").inner_text()


def test_only_who_may_post_sees_the_form_and_only_this_origin_posts_it(site: Site) -> None:
    keys = site.service.keys
    with ThreadPoolExecutor(1) as aside:  # playwright keeps a loop running on the tests' own thread
        made = aside.submit(asyncio.run, keys.create("doctor", "district", "D-1", "viewer tests"))
        secret = made.result()[1]
    with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {secret}"}) as doctor:
        assert doctor.get("/post").status_code == 404
        assert doctor.post("/post", data={"age": "1"}).status_code == 404
        assert 'href="/post"' not in doctor.get("/worklist").text
    with httpx.Client(base_url=site.url) as reader:
        assert reader.get("/post").headers["location"] == "/login?next=%2Fpost"
        reader.post("/login", data={"key": SECRET}, headers={"Origin": site.url})
        assert 'href="/post"' in reader.get("/worklist").text
        for foreign in ({"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
            assert reader.post("/post", data={"creatinine": "88"}, headers=foreign).status_code == 403
        own = {"Origin": site.url}
        assert (
            reader.post("/post", content=b"--", headers={**own, "Content-Type": "multipart/form-data"}).status_code
            == 422
        )
        for bad in (
            {"creatinine": "1,2"},
            {"creatinine": "nan"},
            {"age": "x"},
            {"age": "200", "creatinine": "88"},
            {"conditions": ["none", "obesity"]},
            {"upload": "nothing"},
            {"person_id": "x" * 300, "creatinine": "88"},
            {"sex": "\x00", "creatinine": "88"},
        ):
            answer = reader.post("/post", data=bad, headers=own)
            assert answer.status_code in (404, 422), bad
            assert "data-post" in answer.text


# ------------------------------------------------------------------ for everybody
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/post", "urgent", "unassessed"])
def test_axe_finds_nothing_serious(opened: Opened, site: Site, path: str, scheme: str) -> None:
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")
    page = opened(path if path.startswith("/") else f"/visits/{site.ids[path]}", color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(d => { d.open = true; })")
    if path == "urgent":
        page.locator(".paper").first.focus()
        page.keyboard.press("c")
        page.keyboard.press("v")
    if path == "/post":
        page.fill("#creatinine", "9000000")
        page.select_option("[name=creatinine_unit]", "umol/L")
        page.click("[data-send]")
        page.locator("#creatinine-error").wait_for()
    page.evaluate(axe)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("tags => axe.run(document, {runOnly: tags})", tags)["violations"]
    said = [
        f"{each['id']}: {node['html'][:160]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    assert said == []


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_runs_off_the_screen(opened: Opened, site: Site, language: Language, width: int) -> None:
    for name, path in (("post", "/post"), ("visit", f"/visits/{site.ids['urgent']}")):
        page = opened(f"{path}?lang={language}", width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        shot(page, f"{name}-{language}-{width}")


def test_what_can_be_pressed_is_large_enough(opened: Opened, site: Site) -> None:
    """WCAG 2.2, 2.5.8: 24 by 24 CSS pixels."""
    for path in ("/post", f"/visits/{site.ids['urgent']}"):
        page = opened(path, PHONE)
        small = page.locator(
            "main button:visible, main select:visible, main input[type=checkbox]:visible, main summary:visible"
        ).evaluate_all(
            "all => all.filter(e => { const b = (e.closest('label') || e).getBoundingClientRect();"
            " return b.width < 24 || b.height < 24; }).map(e => e.outerHTML.slice(0, 80))"
        )
        assert small == []
