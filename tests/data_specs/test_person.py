"""Days and ages: what is unknown stays unknown, whichever way a program writes that."""

from __future__ import annotations

from datetime import date

import pytest

from data_specs.person import calendar_day, dicom_day, ecg_day, fhir_day, hl7_day, read_age
from data_specs.subject import Subject
from data_specs.visit.context import Person


@pytest.mark.parametrize(
    "text", ["00010101", "19000101", "00000000", "19500000", "19501300", "1950", "195001", "", "99991231"]
)
def test_placeholders_of_dicom_and_hl7_are_no_days(text: str) -> None:
    assert dicom_day(text) is None
    if text != "19501300":  # HL7 says so, because the rest of the message may be as wrong
        assert hl7_day(text) is None


@pytest.mark.parametrize("text", ["0001-01-01", "1900-01-01", "1900-01-01T00:00:00Z", "1950", "1950-07", ""])
def test_placeholders_of_fhir_are_no_days(text: str) -> None:
    assert fhir_day(text) is None


@pytest.mark.parametrize("text", ["1900-01-01", "19000101", "01-JAN-1900", "0001-01-01"])
def test_placeholders_of_the_ecg_formats_are_no_days(text: str) -> None:
    assert ecg_day(text) is None
    assert ecg_day("01.01.1900", "dmy") is None
    assert calendar_day("1900", "1", "1") is None


@pytest.mark.parametrize("text", ["1900-01-01", "0001-01-01"])
def test_placeholders_in_a_context_are_no_birth_dates(text: str) -> None:
    assert Person.model_validate({"birth_date": text}).birth_date is None


@pytest.mark.parametrize("day", ["1900-01-02", "1901-01-01", "1880-01-01", "1950-12-31"])
def test_days_beside_placeholders_are_days(day: str) -> None:
    found = date.fromisoformat(day)
    compact = day.replace("-", "")
    assert dicom_day(compact) == hl7_day(compact) == fhir_day(day) == ecg_day(day) == found
    assert Person.model_validate({"birth_date": day}).birth_date == found


@pytest.mark.parametrize("text", ["000Y", "000M", "000W", "000D", "0", "0 years", "0.0", "00000"])
def test_an_age_of_nothing_is_not_known(text: str) -> None:
    assert read_age(text, "y") is None


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("054Y", 54),
        ("018M", 1.5),
        ("001D", 4 / 1461),
        ("026W", 26 * 7 * 4 / 1461),
        ("130Y", 130),
        ("131Y", None),
        ("54,5", 54.5),
        ("54 x", None),
        ("-5", None),
    ],
)
def test_ages(text: str, years: float | None) -> None:
    assert read_age(text, "y") == (None if years is None else pytest.approx(years, abs=1e-9))


ON = date(2026, 7, 1)


@pytest.mark.parametrize(
    ("stated", "born", "is_said"),
    [
        (54.0, date(1972, 7, 1), False),
        (54.0, date(1971, 7, 2), False),  # the day before the 55th birthday
        (54.0, date(1971, 7, 1), False),  # a birthday between two notes of one age
        (54.0, date(1971, 6, 1), True),
        (54.0, date(1973, 7, 1), False),
        (54.0, date(1973, 8, 1), True),
        (54.0, date(1950, 1, 1), True),
        (0.5, date(2026, 1, 1), False),
        (None, date(1950, 1, 1), False),
        (54.0, None, False),
    ],
)
def test_two_ages_of_one_file_are_said(stated: float | None, born: date | None, is_said: bool) -> None:
    subject = Subject(stated_years=stated, born=born, recorded_on=ON)
    assert [(each.code, each.severity) for each in subject.problems] == [("age_contradicts", "warn")] * is_said


def test_without_the_day_of_the_examination_nothing_is_compared() -> None:
    assert Subject(stated_years=54.0, born=date(1900, 5, 5)).problems == ()
