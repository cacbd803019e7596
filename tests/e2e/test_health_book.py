"""The pages of the health book in a real browser, in three languages, at a telephone's and a desk's width.

Needs Debian's ``chromium``; skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a folder to leave
pictures in.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("signxml", reason="signxml is not installed: nothing is sent to a health book in this run")

from sqlalchemy import update

from data_specs.vocabulary import LANGUAGES, Language
from service.language.texts import text
from service.storage.tables import DestinationRow, VisitRow
from tests.e2e.test_incident import fits
from tests.e2e.test_loop import FILM, reading  # noqa: F401  a fixture
from tests.service.delivery.health_book.gateway import BookGateway, new_pair, new_table
from tests.service.delivery.senders.test_health_book import PERSON, post, ready, sign, until_stage
from tests.service.serving import ADMIN, Served, serving, settings_for


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BookGateway]:
    folder = tmp_path_factory.mktemp("keys")
    with BookGateway(new_pair(folder, "facility"), new_pair(folder, "doctor")) as it:
        yield it


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, gateway: BookGateway) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("book")
    table = new_table(folder, gateway.facility, gateway.doctor)
    with serving(settings_for(folder / "data", health_book=table)) as it:
        yield ready(it, gateway)


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return {"admin": ADMIN}


@pytest.fixture(scope="module")
def visits(served: Served, gateway: BookGateway) -> dict[str, str]:
    """One that arrived, one refused, and two that are late: one lacks a number, one is not signed."""
    without = {name: value for name, value in PERSON.items() if name != "national_id"}
    made = {"saved": post(served, PERSON, FILM), "lacking": post(served, without, FILM), "refused": post(served)}
    sign(served, made["saved"])
    until_stage(served, made["saved"], "saved")
    sign(served, made["lacking"])
    until_stage(served, made["lacking"], "validation")
    gateway.scripted.append(("codes", "CM_SUCCESS", "PS_DS_CA_SIGNATURE_INVALID"))
    sign(served, made["refused"])
    until_stage(served, made["refused"], "signature")
    made["unsigned"] = post(served, PERSON, FILM)
    with served.app.state.service.database.transaction(write=True) as session:
        old = datetime.now(UTC) - timedelta(hours=25)
        session.execute(update(DestinationRow).values(created_at=old - timedelta(hours=1)))
        late = [made["lacking"], made["unsigned"]]
        session.execute(update(VisitRow).where(VisitRow.id.in_(late)).values(received_at=old))
    return made


def row_of(page, visit):
    """What the page of the health book says of a visit."""
    return page.locator("[aria-labelledby=due] li").filter(has=page.locator(f'a[href="/visits/{visit}"]'))


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_not_there_is_listed_with_what_has_to_be_done(visits, reading, language: Language):  # noqa: F811
    admin = reading("admin", language)
    admin.goto("/health-book")
    late = admin.inner_text("[aria-labelledby=late]")
    assert f"1 {text('health_book_why_unsigned', language)}" in late
    assert f"1 {text('health_book_why_given_up', language)}" in late
    for visit, stage, why in (
        (visits["unsigned"], "unsigned", text("book_late", language)),
        (visits["lacking"], "validation", "person.national_id"),
        (visits["refused"], "signature", "PS_DS_CA_SIGNATURE_INVALID"),
    ):
        row = row_of(admin, visit)
        assert text(f"book_stage_{stage}", language) in row.inner_text()
        assert why in row.inner_text()
    assert visits["saved"] not in admin.content()
    fits(admin, f"health-book-{language}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_visit_says_how_far_it_has_come(visits, reading, language: Language):  # noqa: F811
    admin = reading("admin", language)
    for name, stage in (("saved", "saved"), ("lacking", "validation"), ("unsigned", "unsigned")):
        admin.goto(f"/visits/{visits[name]}")
        told = admin.inner_text("[aria-labelledby=deliveries]")
        assert text(f"book_stage_{stage}", language) in told
        assert (text("book_late", language) in told) == (name != "saved")
        fits(admin, f"health-book-{name}-{language}")


def test_an_admin_sends_again_what_was_given_up(served, gateway, visits, reading):  # noqa: F811
    admin = reading("admin", "vi")
    admin.goto("/health-book")
    row_of(admin, visits["refused"]).get_by_role("button", name=text("health_book_again", "vi")).click()
    admin.wait_for_url("**/health-book")
    until_stage(served, visits["refused"], "saved")
    admin.reload()
    assert row_of(admin, visits["refused"]).count() == 0
    unsigned = row_of(admin, visits["unsigned"])
    assert unsigned.count() == 1
    assert unsigned.get_by_role("button").count() == 0
