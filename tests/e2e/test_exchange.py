"""The pages of a node and of its centre in a real browser: nothing is cut off on a phone, and the header fits a screen.

Needs Debian's ``chromium``; skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a folder to leave
pictures in.
"""

from __future__ import annotations

from data_specs.next_steps.table import SHIPPED_TABLE
from data_specs.vocabulary import LANGUAGES
from tests.e2e.test_worklist import DESK, PHONE, shown
from tests.service.exchange.conftest import NODE_SITE
from tests.service.exchange.test_exchange import small_visit
from tests.service.exchange.test_releases import down
from tests.service.release.conftest import kidneys, signer  # noqa: F401  fixtures
from tests.service.release.test_release import resigned
from tests.service.serving import ADMIN, until

INSIDE = """() => [...document.querySelectorAll('.top .wide > *, .exchange *')].filter(each => {
    const box = each.getBoundingClientRect(), room = each.closest('.wide, .card').getBoundingClientRect();
    return box.right > room.right + 1 || box.left < room.left - 12;
}).map(each => each.textContent.trim())"""
"""What runs out of its card, or out of the header."""


def test_nothing_is_cut_off(tmp_path, kidneys, signer, browser):  # noqa: F811
    with down(tmp_path, kidneys, signer.public) as both:
        signer.sign(both.offered, "--next-steps", SHIPPED_TABLE, why="fewer recalls of films with old scars")
        until(lambda: both.number() == 1, 60)
        both.centre.key("node", "na-hau", label="Nà Hẩu")
        resigned(both.offered, signer, number=2, tables={"next_steps": "[rule"})
        until(lambda: 'class="error"' in both.page(both.centre), 60)
        both.link.cut()
        with both.node.client(both.node.key("site", NODE_SITE)) as client:
            assert client.post("/v1/visits", headers={"Prefer": "wait=20"}, files=small_visit()).status_code == 201
        until(lambda: 'class="facts"' in both.page(both.node), 20)
        for name, served in (("node", both.node), ("centre", both.centre)):
            context = browser.new_context(base_url=served.address)
            page = context.new_page()
            page.goto("/login")
            page.fill("#key", ADMIN)
            page.press("#key", "Enter")
            page.wait_for_url("**/worklist")
            for language in LANGUAGES:
                for width in (PHONE, DESK):
                    page.set_viewport_size({"width": width, "height": 900})
                    page.goto(f"/exchange?lang={language}")
                    assert page.evaluate("document.documentElement.scrollWidth") <= width
                    assert page.evaluate(INSIDE) == [], (name, language, width)
                    if width == DESK:
                        assert page.locator(".top .wide").evaluate("header => header.clientHeight") < 90, "two lines"
                    shown(page, f"exchange-{name}-{language}-{width}")
            context.close()
