"""Days and ages: what is unknown stays unknown, whichever way a program writes that."""

from __future__ import annotations

from datetime import date

import pytest

from data_specs.person import (
    OLDEST_TOLD_YEARS,
    SexCoding,
    age_at_examination,
    age_on,
    calendar_day,
    dicom_day,
    ecg_day,
    fhir_day,
    hl7_day,
    pseudonym,
    read_age,
    read_binary_sex,
    read_identifier,
    read_sex,
    years_between,
)
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


SEX_CODES: dict[SexCoding, dict[str, str | None]] = {
    # DICOM PS3.3 C.7.1.1; HL7 v2.5.1 table 0001; EN 1064 section 1 tag 8 (0: not known, 9: not specified).
    "dicom": {"M": "male", "F": "female", "O": "other", "Male": "male", "female": "female", "other": "other",
              "U": None},
    "hl7v2": {"F": "female", "M": "male", "O": "other", "U": "unknown", "A": "other", "N": "unknown", "X": None},
    "scp": {"0": None, "1": "male", "2": "female", "9": None},
    "words": {"F": "female", "Female": "female", "w": "female", "WOMAN": "female", "m": "male", "Male": "male",
              "man": "male", "2": None, "": None},
}  # fmt: skip


@pytest.mark.parametrize(
    ("coding", "code", "sex"), [(c, k, v) for c, codes in SEX_CODES.items() for k, v in codes.items()]
)
def test_codes_of_sexes(coding: SexCoding, code: str, sex: str | None) -> None:
    assert read_sex(f" {code} ", coding) == sex
    assert read_binary_sex(code, coding) == (sex if sex in ("female", "male") else None)


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("P-17", "P-17"),
        (" 0042 ", "0042"),
        ("a\0b\n", "ab"),
        ("X1", "X1"),
        ("x" * 64, "x" * 64),
        ("y" * 65, "y" * 64),
        ("xx", "xx"),
        ("X", None),
        ("x", None),
        ("---", None),
        (". -", None),
        ("", None),
        (None, None),
    ],
)
def test_identifiers(text: str | None, identifier: str | None) -> None:
    assert read_identifier(text) == identifier


@pytest.mark.parametrize(("year", "is_day"), [(1879, False), (1880, True), (1950, True), (2199, True), (2200, False)])
def test_the_first_and_the_last_year_of_days(year: int, is_day: bool) -> None:
    day = date(year, 6, 15)
    expected = day if is_day else None
    assert calendar_day(year, 6, 15) == dicom_day(f"{day:%Y%m%d}") == hl7_day(f"{day:%Y%m%d}") == expected
    assert ecg_day(f"{day:%Y-%m-%d}") == expected


def test_every_month_is_read_by_its_english_name() -> None:
    for month in range(1, 13):
        day = date(2002, month, 22)
        for written in (f"{day:%d-%b-%Y}", f"{day:%d-%b-%Y}".upper(), f"{day:%d %b %Y}", f"{day:%d.%b.%Y}"):
            assert ecg_day(written) == day


@pytest.mark.parametrize(
    ("text", "order", "day"),
    [
        ("20021122101500", "ymd", date(2002, 11, 22)),
        (" 2002-11-22T10:15 ", "ymd", date(2002, 11, 22)),
        ("3-Nov-2002", "ymd", date(2002, 11, 3)),
        ("22-Nob-2002", "ymd", None),
        ("05/07/2002", "dmy", date(2002, 7, 5)),
        ("05/07/2002", "mdy", date(2002, 5, 7)),
        ("5.7.2002", "dmy", date(2002, 7, 5)),
        ("05/07/2002", "ymd", None),
        ("05/13/2002", "dmy", None),
        ("2002-02-30", "ymd", None),
        ("yesterday", "dmy", None),
        (None, "dmy", None),
    ],
)
def test_days_of_the_ecg_formats(text: str | None, order: str, day: date | None) -> None:
    assert ecg_day(text, order) == day  # type: ignore[arg-type]
    if text is not None and order == "ymd":
        assert ecg_day(text) == day


def test_what_is_no_day_at_all_is_said_by_the_message_formats() -> None:
    for text in ("22.11.2002", "2002112", "20021122T10", "xx"):
        with pytest.raises(ValueError, match=r"^no time stamp of HL7$"):
            hl7_day(text)
    for text in ("20021122", "2002-11-22T10:15", "22.11.2002", "2002-13"):
        with pytest.raises(ValueError, match=r"^no date of FHIR$"):
            fhir_day(text)


@pytest.mark.parametrize(
    ("units", "years"),
    [
        (("y", "yr", "yrs", "year", "years", "a", "Y"), 1),
        (("m", "mo", "mon", "month", "months", "M"), 1 / 12),
        (("w", "wk", "week", "weeks", "W"), 7 / 365.25),
        (("d", "day", "days", "D"), 1 / 365.25),
        (("h", "hr", "hour", "hours"), 1 / (24 * 365.25)),
    ],
)
def test_units_of_an_age(units: tuple[str, ...], years: float) -> None:
    for unit in units:
        assert read_age("12", unit) == read_age(f"12 {unit}", "") == pytest.approx(12 * years, rel=1e-12)
    assert read_age("12", "fortnights") is None
    assert read_age("12", "") is None


@pytest.mark.parametrize(
    ("born", "on", "age"),
    [
        ("1960-05-20", "2026-05-19", 65.99),
        ("1960-05-20", "2026-05-20", 66.0),
        ("1960-05-20", "2026-05-21", 66.0),
        # A hundredth of a year is 3.65 days: cut, not rounded.
        ("1960-05-20", "2026-05-23", 66.0),
        ("1960-05-20", "2026-05-24", 66.01),
        ("1960-05-20", "2026-11-18", 66.49),
        ("1960-05-20", "2026-11-19", 66.5),
        ("2026-05-20", "2026-05-20", 0.0),
        ("2026-05-21", "2026-05-20", None),
        # Born on 29 February: the birthday is 1 March in the years without that day.
        ("2004-02-29", "2022-02-28", 17.99),
        ("2004-02-29", "2022-03-01", 18.0),
        ("2004-02-29", "2024-02-28", 19.99),
        ("2004-02-29", "2024-02-29", 20.0),
        # The leap year makes the running year longer: of 366 days, one more is needed for the half.
        ("2003-07-01", "2003-12-31", 0.5),
        ("1896-05-20", "2026-05-20", 130.0),
        ("1896-05-20", "2026-05-24", None),
        ("9990-01-01", "9999-12-31", 9.0),
    ],
)
def test_an_age_on_a_day(born: str, on: str, age: float | None) -> None:
    assert age_on(date.fromisoformat(born), date.fromisoformat(on)) == age


def test_a_stated_age_counts_before_a_birth_date() -> None:
    born, on = date(1960, 5, 20), date(2026, 5, 20)
    assert age_at_examination(40.0, born, on) == 40
    assert age_at_examination(None, born, on) == 66
    assert age_at_examination(None, born, None) is None


def test_a_span_of_time_is_in_years_of_a_quarter_day_more_than_365() -> None:
    assert years_between(date(2020, 1, 1), date(2024, 1, 1)) == 4
    assert years_between(date(2024, 1, 1), date(2020, 1, 1)) == -4
    assert years_between(date(2020, 1, 1), date(2020, 1, 2)) == pytest.approx(1 / 365.25)


def test_a_pseudonym_is_the_keyed_hash_of_all_its_parts() -> None:
    """Computed apart: HMAC-SHA256 of the JSON ``["person", "commune", "MRN-1"]``, its first twenty digits."""
    key = bytes(range(32))
    assert pseudonym(key, "person", "commune", "MRN-1") == "9dd7cacca7da71df60ef"
    others = {pseudonym(key, "person", "commune", "MRN-2"), pseudonym(key, "person", "communeMRN-1"), pseudonym(key)}
    assert len(others | {pseudonym(bytes(32), "person", "commune", "MRN-1"), "9dd7cacca7da71df60ef"}) == 5


def test_ages_that_leave_end_at_ninety() -> None:
    assert OLDEST_TOLD_YEARS == 90
