"""Table E.1-1 is whole, and every element that leaves is one that it lets leave."""

from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from service.export.profile import CODES, action_of, actions, counted, kept, options

OPTIONS = {"", *(value for value, _ in CODES)}


def test_the_table_has_every_row_of_the_basic_profile() -> None:
    """Its number of rows, and some rows of each kind, as the standard prints them."""
    assert len(actions()) == 656
    printed = {
        "00100010": "Z",
        "00080018": "U",
        "00101010": "X",
        "00181030": "X/D",
        "00080023": "Z/D",
        "00080022": "X/Z",
        "00181000": "X/Z/D",
        "00081140": "X/Z/U*",
        "00120010": "D",
        "60xx3000": "X",
        "50xxxxxx": "X",
        "xxxxxxxx": "X",
    }
    assert {tag: actions()[tag] for tag in printed} == printed
    assert set(actions().values()) == {"X", "Z", "D", "U", "Z/D", "X/Z", "X/D", "X/Z/D", "X/Z/U*"}


def test_the_table_has_the_columns_of_the_options() -> None:
    assert options()["00080020"] == {"113107": "C"}
    assert options()["00101010"] == options()["00100040"] == {"113108": "K"}
    assert options()["0008103e"] == {"113105": "C"}
    assert options()["00100010"] == {}
    assert sum("113107" in each for each in options().values()) == 49


@pytest.mark.parametrize("keyword", sorted(kept()))
def test_a_kept_element_does_what_the_table_says_of_it(keyword: str) -> None:
    element = kept()[keyword]
    tag = tag_for_keyword(keyword)
    assert tag is not None
    action = action_of(f"{tag:08x}")
    assert element.action == (action or "")
    assert element.option in OPTIONS
    if element.option:
        allowed = options()[f"{tag:08x}"][element.option]
        assert (allowed, element.value) in {("C", "moved"), ("K", "closed")}
        return
    if action is not None:
        assert action != "X"
        assert element.value == ("pseudonym" if action in ("U", "Z/D") else "empty")
    elif dictionary_VR(tag) in ("LO", "SH", "PN", "ST", "LT", "UT", "UC", "AE", "UR"):
        assert element.value == "empty"  # no free text leaves, whatever the table says


def test_elements_are_counted_by_what_the_table_says() -> None:
    found = counted(["00100010", "00110010", "60023000", "50023000", "00280010", "00080018"])
    assert found == {"Z": 1, "private": 1, "X": 2, "not in the table": 1, "U": 1}
    assert keyword_for_tag("00280010") == "Rows"
