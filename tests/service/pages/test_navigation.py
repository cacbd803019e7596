"""The pages that a reader can go to from every page: by role, each there, and the one that is open marked."""

from __future__ import annotations

import re

import pytest

from data_specs.vocabulary import LANGUAGES
from service.language.texts import text
from service.pages.navigation import ADMINISTRATION, HEALTH_BOOK_PLACE, PLACES
from tests.service.serving import ADMIN


def rows(page: str) -> dict[str, list[str]]:
    """Addresses by the name of their row of navigation."""
    found = re.findall(r'<nav class="places[^"]*" aria-label="([^"]+)">(.*?)</nav>', page, re.DOTALL)
    return {name: re.findall(r'href="([^"]+)"', links) for name, links in found}


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_admin_has_a_second_row_and_every_place_of_both_opens(served, language):
    with served.client(ADMIN, **{"Accept-Language": language}) as client:
        first, second = rows(client.get("/worklist").text).items()
        assert first[0] != second[0] == text("administration", language), "a screen reader tells the rows apart"
        assert second[1] == [place.href for place in ADMINISTRATION if place is not HEALTH_BOOK_PLACE], "has no book"
        assert [href for href in first[1] if href != "/post"] == [place.href for place in PLACES]
        for href in [*first[1], *second[1]]:
            page = client.get(href).text
            assert re.findall(r'href="([^"]+)" aria-current="page"', page) == [href]
            assert list(rows(page).items()) == [first, second]


@pytest.mark.parametrize("role", ["doctor", "specialist"])
def test_who_runs_no_programme_has_one_row_and_is_told_of_no_page_that_is_not_theirs(served, role):
    key = served.key(role, f"of {role}", doctor_id="N-1", label="BS. Thử Nghiệm")
    with served.client(key) as client:
        ((_, places),) = rows(client.get("/worklist").text).items()
        assert not {place.href for place in ADMINISTRATION} & {*places}
        for place in ADMINISTRATION:
            assert client.get(place.href).status_code == 404
