"""Identifiers as files have them: which follow the rule, what is wrong with the others, what is kept of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_specs.cxr.files import read_image
from data_specs.dicom.uids import MAX_KEPT, faults, identifier_problems, is_uid, kept_uid, names_something
from data_specs.vocabulary import LANGUAGES, terms
from tests.data_specs import cxr_made, ecg_made

UID = "1.2.826.0.1.3680043.8.498.77"
LONGEST = "1." + "2" * 62
FAULTS = [
    ("", ("uid_missing",)),
    ("\0\0", ("uid_missing",)),
    ("  ", ("uid_missing",)),
    (UID, ()),
    (f"{UID}\0", ()),
    ("0.0", ()),
    ("1.0.10", ()),
    (LONGEST, ()),
    (f"{LONGEST}3", ("uid_too_long",)),
    ("1.02.3", ("uid_leading_zero",)),
    ("01.2.3", ("uid_leading_zero",)),
    ("1.2.00", ("uid_leading_zero",)),
    ("1.2.x", ("uid_characters",)),
    ("1.2.-3", ("uid_characters",)),
    ("1.2\\1.3", ("uid_characters",)),
    ("1.2 .3", ("uid_characters",)),
    ("1.2.3\n", ("uid_characters",)),
    ("1.2.٣", ("uid_characters",)),
    ("1.2.", ("uid_empty_part",)),
    (".1.2", ("uid_empty_part",)),
    ("1..2", ("uid_empty_part",)),
    ("12345", ("uid_one_part",)),
    ("UNKNOWN", ("uid_characters", "uid_one_part")),
    (f"{UID} ", ("uid_blanks",)),
    (f" {UID}", ("uid_blanks",)),
    (f"{UID}\0\0", ("uid_blanks",)),
    (f"\0{UID}", ("uid_blanks",)),
    (" 1.02.x. ", ("uid_blanks", "uid_characters", "uid_empty_part", "uid_leading_zero")),
]


@pytest.mark.parametrize(("written", "wrong"), FAULTS)
def test_what_is_wrong_with_an_identifier(written: str, wrong: tuple[str, ...]) -> None:
    assert faults(written) == wrong
    assert is_uid(written) == (not wrong and not written.endswith("\0"))
    assert all(set(terms()[fault].display) == set(LANGUAGES) for fault in wrong)


@given(st.text("0123. x\0", max_size=70))
def test_an_identifier_without_faults_is_that_of_the_standard(text: str) -> None:
    standard = re.fullmatch(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", text) and len(text) <= 64
    assert is_uid(text) == bool(standard)


def test_an_identifier_is_kept_as_it_came_or_not_at_all() -> None:
    for uid in ("1.02.3", "1.2.", "UNKNOWN", "1.2\\1.3", "1.2.Ă", "1" * MAX_KEPT):
        assert kept_uid(f" {uid}\0") == uid
    assert kept_uid("1" * (MAX_KEPT + 1)) == kept_uid("1.2\n3") == kept_uid("1.2\x003") == ""


@pytest.mark.parametrize("uid", ["", "0", "0.0", "UNKNOWN", "N/A", "-"])
def test_a_word_in_its_place_is_no_identifier(uid: str) -> None:
    assert not names_something(uid)
    assert names_something(f"{uid}1")


def test_a_reserve_names_keyword_and_fault_and_no_identifier() -> None:
    problems = identifier_problems({"StudyInstanceUID": "1.02.3", "SOPInstanceUID": "4.05.x"})
    assert {problem.code for problem in problems} == {"identifier_malformed"}
    assert {problem.severity for problem in problems} == {"warn"}
    assert [problem.found for problem in problems] == [
        "uid_leading_zero, StudyInstanceUID, SOPInstanceUID",
        "uid_missing, SeriesInstanceUID",
        "uid_characters, SOPInstanceUID",
    ]
    said = [problem.message(language) for problem in problems for language in LANGUAGES]
    assert not any("02.3" in sentence or "05.x" in sentence or "uid_" in sentence for sentence in said)
    assert "leading zero, StudyInstanceUID, SOPInstanceUID" in problems[0].message("en")


# ---------------------------------------------------------------- in files
GOOD = {"StudyInstanceUID": UID, "SeriesInstanceUID": f"{UID}.1", "SOPInstanceUID": f"{UID}.1.1"}
IN_FILES = [
    ("StudyInstanceUID", "1.02.3", "uid_leading_zero"),
    ("SeriesInstanceUID", "", "uid_missing"),
    ("SOPInstanceUID", "1." + "2" * 70, "uid_too_long"),
    ("StudyInstanceUID", "1.2.34 ", "uid_blanks"),
    ("StudyInstanceUID", "1.2.3.", "uid_empty_part"),
    ("SeriesInstanceUID", "1.2.3 ", "uid_blanks"),
    ("SeriesInstanceUID", "1.2.34\0\0", "uid_blanks"),
    ("StudyInstanceUID", "1.2.3\0", None),
]


@pytest.mark.parametrize("syntax", [cxr_made.EXPLICIT, cxr_made.IMPLICIT, cxr_made.BIG, cxr_made.DEFLATED])
@pytest.mark.parametrize(("keyword", "written", "fault"), IN_FILES)
def test_a_film_is_read_with_a_reserve(keyword: str, written: str, fault: str | None, syntax: str) -> None:
    film = cxr_made.dicom(cxr_made.phantom(), syntax, **{**GOOD, keyword: written})
    expected = [] if fault is None else [f"{fault}, {keyword}"]
    assert [problem.found for problem in read_image(film).problems] == expected


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("keyword", "written", "fault"), IN_FILES)
def test_a_recording_is_read_with_a_reserve(keyword: str, written: str, fault: str | None, big: bool) -> None:
    content = ecg_made.dicom(ecg_made.counts(), big=big, **{**GOOD, keyword: written})
    expected = [] if fault is None else [f"{fault}, {keyword}"]
    assert [problem.found for problem in ecg_made.read(content).problems] == expected


def test_an_object_without_any_identifier_is_read_with_one_reserve() -> None:
    film = cxr_made.dicom(cxr_made.phantom(), **dict.fromkeys(GOOD))
    assert [problem.found for problem in read_image(film).problems] == [", ".join(("uid_missing", *GOOD))]
