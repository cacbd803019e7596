"""An incident in a real browser: raised on a visit's page, found and closed on the list; the log that shows both.

Needs Debian's ``chromium``; skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a folder to leave
pictures in.
"""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files

import pytest
from playwright.sync_api import Page
from sqlalchemy import update

from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import text
from service.storage.tables import IncidentRow
from tests.e2e.test_loop import DESK, PHONE, keys, reading, served, shown, visit  # noqa: F401  fixtures

TOLD = "Phim của một người khác được mở ra. Phát hiện khi so với phim cũ, trước khi ký, nên không ai bị gọi nhầm."
OUTSIDE = """() => [...document.querySelectorAll('main *')].filter(each => {
    const box = each.getBoundingClientRect(), card = each.closest('.card');
    return card && box.width && box.right > card.getBoundingClientRect().right + 1;
}).map(each => each.outerHTML.slice(0, 80))"""
"""What runs out of its card."""


def serious(page: Page) -> list[tuple[str, list[str]]]:
    page.wait_for_load_state("networkidle")
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    return [
        (each["id"], [node["html"][:200] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def fits(page: Page, name: str) -> None:
    """Nothing is cut off on a phone or on a desk; axe finds nothing serious."""
    for width in (PHONE, DESK):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OUTSIDE) == []
        shown(page, f"{name}-{width}")
        assert serious(page) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_incident_is_raised_found_overdue_and_closed(visit, served, reading, language: Language):  # noqa: F811
    doctor = reading("doctor", language)
    doctor.goto(f"/visits/{visit}")
    doctor.click("#incidents summary")
    doctor.check("#incidents input[value=wrong_person]")
    doctor.select_option("#incident-severity", "serious")
    doctor.fill("#incident-text", TOLD)
    fits(doctor, f"incident-form-{language}")
    doctor.click("#incidents .primary")
    doctor.wait_for_url(f"**/visits/{visit}#incidents")
    assert TOLD in doctor.inner_text("#incidents")
    assert text("incident_open", language) in doctor.inner_text("#incidents")
    fits(doctor, f"incident-raised-{language}")
    with served.app.state.service.database.transaction(write=True) as session:
        past = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
        session.execute(update(IncidentRow).where(IncidentRow.visit == visit).values(due_at=past))
    doctor.goto("/incidents")
    mine = doctor.locator("section.card").filter(has=doctor.locator(f'a[href="/visits/{visit}"]'))
    assert text("incident_overdue", language) in mine.inner_text()
    mine.locator("summary").click()
    mine.locator("textarea").fill("Hai phim mang cùng một số phiếu. Máy chụp đã được đặt lại.")
    fits(doctor, f"incidents-{language}")
    mine.locator("button").click()
    doctor.wait_for_url("**/incidents")
    assert text("incident_closed", language) in mine.inner_text()
    fits(doctor, f"incidents-closed-{language}")
    with served.client() as log:
        done = {each["action"] for each in log.get("/v1/audit", params={"visit": visit}).json()["items"]}
    assert done >= {"visit_posted", "visit_assessed", "visit_read", "incident_raised", "incident_closed"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_log_is_read(visit, reading, language: Language):  # noqa: F811
    admin = reading("admin", language)
    admin.goto(f"/visits/{visit}")
    admin.goto("/audit")
    told = admin.inner_text("[aria-labelledby=entries]")
    for action in ("visit_posted", "visit_assessed", "visit_read", "key_made"):
        assert text(f"audit_did_{action}", language) in told
    fits(admin, f"audit-{language}")
    admin.select_option("#action", "visit_read")
    admin.fill("#visit", visit)
    admin.click(".new-key .primary")
    admin.wait_for_url(f"**/audit?visit={visit}&*")
    assert len(admin.locator("[aria-labelledby=entries] li").all()) == 1
