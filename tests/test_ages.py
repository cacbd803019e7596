"""One age, whatever way a birth date or an age comes in: to the digit, and never rounded up to a birthday."""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Callable
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from scipy.io import savemat

from data_specs.cxr.files import read_image
from data_specs.dicom.reference import reference_in
from data_specs.visit.context import Context, Person
from service.errors import InvalidRequest
from service.protocols.er7 import NotUsable, encoded
from service.receive.context import read_context
from service.receive.dicom.context import context_of
from service.receive.fhir.request import context_of_bundle
from service.receive.hl7.order_messages import read_orders
from service.receive.orders import merge_order
from tests.data_specs import ecg_made
from tests.service.receive.dicom import made
from training.cohorts.table import load_table

Way = Callable[[date, date], float | None]


# ---------------------------------------------------------------- the ways in, by birth date and day of examination
def posted_film(born: date, on: date, **tags: str) -> float | None:
    return read_image(made.film(PatientBirthDate=f"{born:%Y%m%d}", StudyDate=f"{on:%Y%m%d}", **tags)).age_years


def posted_film_with_dotted_dates(born: date, on: date) -> float | None:
    return read_image(made.film(PatientBirthDate=f"{born:%Y.%m.%d}", StudyDate=f"{on:%Y.%m.%d}")).age_years


def sent_film(born: date, on: date, **tags: str) -> float | None:
    """C-STORE and STOW-RS: the context that the headers of a study state."""
    return sent(made.film(PatientBirthDate=f"{born:%Y%m%d}", StudyDate=f"{on:%Y%m%d}", **tags))


def sent_film_with_dotted_dates(born: date, on: date) -> float | None:
    return sent(made.film(PatientBirthDate=f"{born:%Y.%m.%d}", StudyDate=f"{on:%Y.%m.%d}"))


def sent(content: bytes) -> float | None:
    reference = reference_in(content)
    assert reference is not None
    return context_of([reference]).person.age_years


def dicom_ecg(born: date, on: date, age: str = "") -> float | None:
    days = {"PatientBirthDate": f"{born:%Y%m%d}", "AcquisitionDateTime": f"{on:%Y%m%d}101500"}
    return read_ecg(made.recording(PatientAge=age, **days))


def read_ecg(content: bytes | dict[str, bytes]) -> float | None:
    return ecg_made.read(content, ecg_unit="mV").age_years


@functools.cache
def ecg(kind: str) -> bytes:
    """A recording of eight seconds in one of the formats."""
    counts = ecg_made.counts(seconds=8)
    return ecg_made.scp(counts) if kind == "scp" else getattr(ecg_made, kind)(counts)


def changed(content: bytes, *replaced: tuple[bytes, str]) -> bytes:
    for old, new in replaced:
        assert old in content
        content = content.replace(old, new.encode())
    return content


def aecg(born: date, on: date, age: str = "", unit: str = "a") -> float | None:
    stated = (
        '<component><relatedObservation><code code="21612-7"/>'
        f'<value value="{age}" unit="{unit}"/></relatedObservation></component></AnnotatedECG>'
    )
    return read_ecg(
        changed(
            ecg("aecg"),
            (b"19720301", f"{born:%Y%m%d}"),
            (b"20261121", f"{on:%Y%m%d}"),
            (b"</AnnotatedECG>", stated if age else "</AnnotatedECG>"),
        )
    )


def muse(born: date, on: date, age: str = "", unit: str = "YEARS") -> float | None:
    stated = f"<PatientAge>{age}</PatientAge><AgeUnits>{unit}</AgeUnits>" if age else ""
    birth = f"<DateofBirth>{born:%m-%d-%Y}</DateofBirth>"
    return read_ecg(
        changed(
            ecg("muse"),
            (b"<PatientAge>54</PatientAge><AgeUnits>YEARS</AgeUnits>", stated + birth),
            (b"11-21-2026", f"{on:%m-%d-%Y}"),
        )
    )


def cardiosoft(born: date, on: date, age: str = "", unit: str = "years") -> float | None:
    birth = "<BirthDateTime><Day>{0.day}</Day><Month>{0.month}</Month><Year>{0.year}</Year></BirthDateTime>"
    stated = f'<Age units="{unit}">{age}</Age>' if age else ""
    return read_ecg(
        changed(
            ecg("cardiosoft"),
            (b'<Age units="years">54</Age>', stated + birth.format(born)),
            (b"<Day>21</Day><Month>11</Month><Year>2026</Year>", birth.format(on)[15:-16]),
        )
    )


def philips(born: date, on: date, age: str = "") -> float | None:
    text = ecg("philips").decode("utf-16")
    text = text.replace("1972-03-01</dateofbirth>", f"{born}</dateofbirth>" + (f"<years>{age}</years>" if age else ""))
    return read_ecg(text.replace("2026-11-21", f"{on}").encode("utf-16"))


def edf(born: date, on: date) -> float | None:
    return read_ecg(
        changed(ecg("edf"), (b"02-MAY-1951", f"{born:%d-%b-%Y}".upper()), (b"02-MAR-2002", f"{on:%d-%b-%Y}".upper()))
    )


def scp(born: date, on: date, age: int = 0, unit: int = 0) -> float | None:
    """Tag 5 (birth) in the place of tag 2 (identifier), which is as long; tag 4 (age); tag 25 (acquisition)."""

    def tag(number: int, value: bytes) -> bytes:
        return struct.pack("<BH", number, len(value)) + value

    def day(of: date) -> bytes:
        return struct.pack("<HBB", of.year, of.month, of.day)

    content = ecg("scp")
    for old, new in (
        (tag(2, b"P-1\0"), tag(5, day(born))),
        (tag(4, struct.pack("<HB", 54, 1)), tag(4, struct.pack("<HB", age, unit))),
        (tag(25, day(date(2026, 11, 21))), tag(25, day(on))),
    ):
        assert content.count(old) == 1
        content = content.replace(old, new)
    return read_ecg(content)


def posted_context(born: date, on: date, **stated: float) -> float | None:
    document = {"person": {"birth_date": f"{born}", **stated}, "visited_on": f"{on}"}
    return read_context(json.dumps(document).encode()).person.age_years


def fhir(born: date, on: date, *, dated: str = "occurrenceDateTime") -> float | None:
    request = {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "urn:uuid:00000000-0000-4000-8000-000000000001"},
        dated: f"{on}T08:00:00+07:00",
    }
    patient = {"resourceType": "Patient", "birthDate": f"{born}"}
    entries = [
        {"fullUrl": f"urn:uuid:00000000-0000-4000-8000-{n:012d}", "resource": resource}
        for n, resource in enumerate((request, patient))
    ]
    document = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    try:
        return context_of_bundle(document).person.age_years
    except InvalidRequest as refused:
        fields = [fault.field for fault in refused.faults]
    assert fields == ["context.entry.1.resource.birthDate"]
    return None


def fhir_by_its_date(born: date, on: date) -> float | None:
    return fhir(born, on, dated="authoredOn")


def hl7_order(born: date, on: date) -> Context | None:
    segments = [
        f"MSH|^~\\&|HIS|BV|SANGLOC|SL|{on:%Y%m%d}||ORM^O01^ORM_O01|1|P|2.5.1||||||UNICODE UTF-8",
        f"PID|1||P-17||Thử||{born:%Y%m%d}|F",
        f"ORC|NW|ORD-1|||||||{on:%Y%m%d}080000",
        "OBR|1|ORD-1|F-1|36643-5^XR^LN||||||||||||||ACC-1",
    ]
    try:
        return read_orders(encoded(segments), on).instructions[0].context
    except NotUsable as refused:
        location = refused.location
    assert location == "PID^1^7"
    return None


def hl7(born: date, on: date) -> float | None:
    order = hl7_order(born, on)
    return order.person.age_years if order else None


def hl7_order_of_another_day(born: date, on: date) -> float | None:
    """An order of the day of birth, joined to a later visit: the age is that of the visit's day."""
    order = hl7_order(born, born)
    assert order is not None
    return merge_order(Context(visited_on=on), order).person.age_years


WAYS: tuple[Way, ...] = (
    *(posted_film, posted_film_with_dotted_dates, sent_film, sent_film_with_dotted_dates),
    *(dicom_ecg, aecg, muse, cardiosoft, philips, edf, scp),
    *(posted_context, fhir, fhir_by_its_date, hl7, hl7_order_of_another_day),
)


# ---------------------------------------------------------------- from birth dates
def around_birthdays() -> list[tuple[date, date, float | None]]:
    """Born, examined, age: the day before a birthday, the birthday, the day after."""
    one_day = timedelta(days=1)
    birthdays = [(date(2026 - years, 7, 15), date(2026, 7, 15), years) for years in (1, 6, 18, 86, 96, 130)]
    birthdays += [
        (date(2024, 2, 29), date(2025, 3, 1), 1),  # 29 February, in a year that has none
        (date(2020, 2, 29), date(2026, 3, 1), 6),
        (date(2008, 2, 29), date(2026, 3, 1), 18),
        (date(1940, 2, 29), date(2026, 3, 1), 86),
        (date(1928, 2, 29), date(2024, 2, 29), 96),
    ]
    table: list[tuple[date, date, float | None]] = []
    for born, birthday, years in birthdays:
        table += [(born, birthday - one_day, years - 0.01), (born, birthday, years), (born, birthday + one_day, years)]
    return table


TABLE = [
    *around_birthdays(),
    (date(2026, 1, 2), date(2026, 1, 2), 0.0),
    (date(2008, 1, 16), date(2026, 7, 15), 18.49),
    (date(2026, 1, 3), date(2026, 1, 2), None),  # not born yet
    (date(2099, 1, 1), date(2026, 1, 2), None),
    (date(1896, 7, 1), date(2026, 7, 15), None),  # over 130
    (date(1895, 7, 15), date(2026, 7, 15), None),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_one_birth_date_gives_one_age(way: Way) -> None:
    found = [(born, on, way(born, on)) for born, on, _ in TABLE]
    assert found == TABLE


# ---------------------------------------------------------------- from stated ages
BORN, ON = date(2008, 7, 15), date(2026, 7, 14)
"""The day before an eighteenth birthday: 17.99 by the birth date."""

STATED = [  # age in the unit, unit as in DICOM, years
    (17, "Y", 17.0),
    (18, "Y", 18.0),
    (0, "Y", None),  # consoles write 000Y for an age that they do not know
    (0, "M", None),
    (0, "D", None),
    (1, "D", 1 / 365.25),
    (130, "Y", 130.0),
    (131, "Y", None),
    (11, "M", 11 / 12),
    (215, "M", 215 / 12),
    (216, "M", 18.0),
    (52, "W", 364 / 365.25),
    (365, "D", 365 / 365.25),
    (366, "D", 366 / 365.25),
]
UNITS = {
    "muse": {"Y": "YEARS", "M": "MONTHS", "W": "WEEKS", "D": "DAYS"},
    "cardiosoft": {"Y": "years", "M": "months", "W": "weeks", "D": "days"},
    "aecg": {"Y": "a", "M": "mo", "W": "wk", "D": "d"},
}


@pytest.mark.parametrize(("number", "unit", "years"), STATED)
def test_one_stated_age_gives_one_age(number: int, unit: str, years: float | None) -> None:
    """Over the bound, and for 0, there is no stated age, and none by a birth date that is after the examination."""
    unborn = ON + timedelta(days=1)
    text = f"{number:03}{unit}"
    expected = None if years is None else pytest.approx(years, rel=1e-15)
    assert posted_film(unborn, ON, PatientAge=text) == expected
    assert sent_film(unborn, ON, PatientAge=text) == expected
    assert dicom_ecg(unborn, ON, text) == expected
    assert muse(unborn, ON, str(number), UNITS["muse"][unit]) == expected
    assert cardiosoft(unborn, ON, str(number), UNITS["cardiosoft"][unit]) == expected
    assert aecg(unborn, ON, str(number), UNITS["aecg"][unit]) == expected
    assert scp(unborn, ON, number, " YMWD".index(unit)) == expected
    if unit == "Y":
        assert philips(unborn, ON, str(number)) == expected
        assert wfdb(str(number)) == csv(str(number)) == mat(number) == expected
    assert csv(text) == csv(f"{number} {unit.lower()}") == expected
    assert wfdb(f"{number} {UNITS['cardiosoft'][unit]} <sex>: F") == expected


def test_a_decimal_comma_is_a_point() -> None:
    assert csv("17,99") == csv("17.99") == 17.99


def wfdb(age: str) -> float | None:
    files = dict(ecg_made.wfdb16(ecg_made.counts(seconds=8)))
    return read_ecg(files | {"rec.hea": changed(files["rec.hea"], (b"#Age: 54", f"#Age: {age}"))})


def csv(age: str) -> float | None:
    return read_ecg(ecg_made.csv(ecg_made.counts(seconds=8), head=f"# age: {age}\n"))


def mat(age: float) -> float | None:
    file = BytesIO()
    savemat(file, {"ECG": {"sex": "F", "age": age, "data": ecg_made.millivolts(ecg_made.counts(seconds=8))}})
    return read_ecg(file.getvalue())


@pytest.mark.parametrize("text", ["054", "Y", "05 4Y", "-54Y", "5.4.Y", "54X", "nan", "054Y\\055Y", "9" * 400 + "Y"])
def test_an_age_that_cannot_be_read_is_absent(text: str) -> None:
    unborn = ON + timedelta(days=1)
    assert posted_film(unborn, ON, PatientAge=text) is None
    assert sent_film(unborn, ON, PatientAge=text) is None
    assert dicom_ecg(unborn, ON, text) is None
    assert posted_film(BORN, ON, PatientAge=text) == sent_film(BORN, ON, PatientAge=text) == 17.99
    assert dicom_ecg(BORN, ON, text) == 17.99


@pytest.mark.parametrize("age", [17, 18, 54])
def test_a_stated_age_counts_before_a_birth_date(age: int) -> None:
    text = f"{age:03}Y"
    assert posted_film(BORN, ON, PatientAge=text) == age
    assert sent_film(BORN, ON, PatientAge=text) == age
    assert dicom_ecg(BORN, ON, text) == age
    assert [way(BORN, ON, str(age)) for way in (aecg, muse, cardiosoft, philips)] == [age] * 4
    assert scp(BORN, ON, age, 1) == age
    assert posted_context(BORN, ON, age_years=age) == age
    order = hl7_order(BORN, BORN)
    assert order is not None
    assert merge_order(Context(person=Person(age_years=age), visited_on=ON), order).person.age_years == age


def test_a_cohort_takes_ages_as_its_table_states_them(tmp_path: Path) -> None:
    ages = [years for _, _, years in TABLE if years is not None]
    lines = [f"P{n},{n}.png,{age!r},0" for n, age in enumerate(ages)]
    (tmp_path / "t.csv").write_text("\n".join(["person,file,age,y", *lines]))
    manifest = {
        "name": "c",
        "modality": "cxr",
        "table": "t.csv",
        "columns": {"person": "person", "file": "file", "age_years": "age"},
        "labels": {"pneumonia": "y"},
        "source": {"citation": "c", "licence": "l"},
    }
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(manifest))
    assert load_table(tmp_path / "cohort.yaml").frame.age_years.tolist() == ages
