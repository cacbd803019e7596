"""The page of drift in a real browser: two scanners over twelve weeks, one of which has changed; silence with a reason.

Needs Debian's ``chromium``; the tests are skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a
folder to leave pictures in.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from urllib.parse import urlencode

import numpy as np
import pytest

from data_specs.vocabulary import LANGUAGES, Language
from service.drift.compare import compared
from service.drift.samples import SeenFilm, sample_of
from service.drift.weeks import monday_of, week_of
from service.language.texts import text
from service.storage.tables import AlarmRow, ReferenceRow, WeekRow
from tests.service.serving import ADMIN, Served, serving, settings_for

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, Page  # noqa: E402

from tests.e2e.test_browser import DESK, PHONE  # noqa: E402
from tests.e2e.test_loop import shown  # noqa: E402

LOCALES = {"vi": "vi-VN", "fr": "fr-FR", "en": "en-GB"}
SITE, CHANGED, STEADY = "district-clinic", "Example Corporation DR 1000", "Example Corporation CR 25"
MEANS = {
    "short_side_px": (2048, 0),
    "dark": (8, 3),
    "grey": (131, 12),
    "bright": (216, 9),
    "contrast": (60, 5),
    "detail": (-3.1, 0.2),
    "blocks": (0.02, 0.02),
    "saturated": (0.01, 0.005),
    "gate_chest": (8, 1),
    "gate_inverted": (-9, 1),
    "gate_cut_off": (-3, 1.2),
    "gate_heart_on_the_right": (-5, 0.8),
    "gate_distance": (1.4, 0.5),
    "gate_lung_area": (0.28, 0.03),
    "logit pneumonia (1-5)": (4, 1.2),
    "logit abnormal (18-85)": (1, 1.4),
    "logit effusion (18-85)": (-2, 1.1),
    "logit edema (18-85)": (-1.5, 1.2),
    "distance": (2.5, 0.8),
}
RANDOM = np.random.default_rng(11)


def films(n: int, shift: float = 0.0) -> list[SeenFilm]:
    """Made numbers of films; with ``shift`` they are brighter, by so many standard deviations."""
    return [
        SeenFilm(
            refused=bool(RANDOM.random() < 0.04),
            codes=("lungs_cut_off",) if RANDOM.random() < 0.08 else (),
            traits={
                name: float(RANDOM.normal(mean + (shift * sd if name in ("grey", "bright") else 0), sd))
                for name, (mean, sd) in MEANS.items()
            },
            disagreed=bool(RANDOM.random() < 0.1),
        )
        for _ in range(n)
    ]


def fill(served: Served) -> None:
    """Twelve weeks of two devices; one of them has become brighter in the last two."""
    now = datetime.now(UTC)
    assert served.app is not None
    with served.app.state.service.database.transaction(write=True) as session:
        for device, a_week, shift in ((CHANGED, 250, 0.9), (STEADY, 60, 0.0)):
            reference = sample_of(films(500 if device == CHANGED else 240))
            session.merge(
                ReferenceRow(
                    site=SITE,
                    device=device,
                    seen_by="cxr_gate 1.2.0, lung 1.4.0",
                    since=now - timedelta(weeks=12),
                    until=now - timedelta(weeks=10),
                    films=reference.films,
                    sample=reference.model_dump_json(),
                    begun_by=str(uuid.uuid4()) if device == STEADY else None,
                    reason="The detector was replaced, its films were looked at" if device == STEADY else None,
                )
            )
            for back in range(12):
                of_week = films(a_week, shift if back < 2 else 0.0)
                monday = monday_of(now - timedelta(weeks=back))
                week = week_of(of_week).model_dump_json()
                session.merge(WeekRow(site=SITE, device=device, week=monday, films=a_week, found=week))
                if back == 0:
                    found = [each for each in compared(reference, sample_of(of_week)) if each.p < 1e-6]
            for each in found if device == CHANGED else ():
                session.add(
                    AlarmRow(
                        id=str(uuid.uuid4()),
                        site=SITE,
                        device=device,
                        name=each.name,
                        raised_at=now - timedelta(days=9),
                        before=each.before,
                        now=each.now,
                        n_before=each.n_before,
                        n_now=each.n_now,
                        p=each.p,
                    )
                )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_for(tmp_path_factory.mktemp("drift"))) as it:
        fill(it)
        yield it


@pytest.fixture
def signed_in(served: Served, browser: Browser) -> Iterator[object]:
    """Signs the admin in, in a window of a width and a language; a page that complains fails the test."""
    contexts, complaints = [], []

    def sign_in(language: Language, width: int, dark: bool = False) -> Page:
        context = browser.new_context(
            base_url=served.address,
            viewport={"width": width, "height": 900},
            locale=LOCALES[language],
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/login")
        page.fill("#key", ADMIN)
        page.press("#key", "Enter")
        page.wait_for_url(lambda url: "/login" not in url)
        return page

    yield sign_in
    for each in contexts:
        each.close()
    assert complaints == []


OF_DEVICE, OF_STEADY = (f"/drift?{urlencode({'site': SITE, 'device': each})}" for each in (CHANGED, STEADY))


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_reads_well_on_a_phone_and_on_a_desk(signed_in, language: Language) -> None:
    for width in (PHONE, DESK):
        page = signed_in(language, width)
        for path, name in (("/drift", "drift"), (OF_STEADY, "drift-steady"), (OF_DEVICE, "drift-device")):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert text("drift_alarms", language) in page.inner_text("main")
            shown(page, f"{name}-{language}-{width}")
        assert page.locator(".weeks svg").count() >= 20
        for details in page.query_selector_all("main details"):
            details.evaluate("each => { each.open = true }")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shown(page, f"drift-forms-{language}-{width}")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", ["/drift", OF_DEVICE])
def test_axe_finds_nothing_serious(signed_in, path: str, dark: bool) -> None:
    page = signed_in("vi", PHONE, dark)
    page.goto(path)
    page.wait_for_load_state("networkidle")
    for details in page.query_selector_all("main details"):
        details.evaluate("each => { each.open = true }")
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    serious = [
        (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_an_alarm_is_silenced_with_a_reason(signed_in) -> None:
    page = signed_in("en", DESK)
    page.goto(OF_DEVICE)
    before = page.locator("main details form[action*=silence]").count()
    first = page.locator(".alarms > li").first
    first.locator("summary").click()
    first.locator("input[name=reason]").fill("The exposure was raised on purpose")
    first.locator("button").click()
    page.wait_for_url("**/drift")
    assert page.locator("main details form[action*=silence]").count() == before - 1
    assert "The exposure was raised on purpose" in page.inner_text(".alarms")
    for language in LANGUAGES:
        for width in (PHONE, DESK):
            page = signed_in(language, width)
            page.goto("/drift")
            assert text("drift_silenced_until", language) in page.inner_text(".alarms")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shown(page, f"drift-silenced-{language}-{width}")
