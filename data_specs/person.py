"""Sexes, days and ages of persons: how each coding writes them, and the only arithmetic of ages in the tree.

A value that cannot be read is absent (``None``); no default takes its place. An age is never rounded up: the day before
a birthday stays below it, so that a range of ages decides the same, whatever way a file came in.
"""

from __future__ import annotations

import hmac
import json
import re
from datetime import date
from fractions import Fraction
from typing import Literal, get_args

Sex = Literal["female", "male", "other", "unknown"]
"""What a visit's context may state; FHIR R4 has the same words (code system administrative-gender)."""
SEXES: tuple[Sex, ...] = get_args(Sex)
BinarySex = Literal["female", "male"]
"""What a file may state: the two that a context can contradict and that an equation takes."""

MAX_AGE_YEARS = 130
"""The oldest that a visit's context may state (wire contract); a higher number is a code or a mistake."""
FIRST_YEAR, LAST_YEAR = 1880, 2199
"""Days in other years are placeholders, for example 0001-01-01, the empty date of some programs."""
UNKNOWN_DAYS = (date(1, 1, 1), date(1900, 1, 1))
"""What programs and hospital systems write for a day that they do not know."""


# ---------------------------------------------------------------- sexes
SexCoding = Literal["dicom", "hl7v2", "scp", "words"]
_SEX_CODES: dict[SexCoding, dict[str, Sex]] = {
    "dicom": {"F": "female", "FEMALE": "female", "M": "male", "MALE": "male", "O": "other", "OTHER": "other"},
    "hl7v2": {"F": "female", "M": "male", "O": "other", "A": "other", "U": "unknown", "N": "unknown"},
    "scp": {"1": "male", "2": "female"},
    "words": {
        **dict.fromkeys(("F", "FEMALE", "W", "WOMAN"), "female"),
        **dict.fromkeys(("M", "MALE", "MAN"), "male"),
    },
}
"""Code in capitals to sex. ``dicom`` also takes the whole words, which some writers use; cohort tables are read by it.

References
----------
``dicom``: PS3.3 section C.7.1.1, PatientSex. ``hl7v2``: HL7 v2.5.1 table 0001 (A: ambiguous, N: not applicable).
``scp``: EN 1064, section 1, tag 8. ``words``: what the other ECG formats write.
"""


def read_sex(text: object, coding: SexCoding) -> Sex | None:
    """The sex that a code of ``coding`` means, without regard to case."""
    return _SEX_CODES[coding].get(str(text).strip().upper())


def read_binary_sex(text: object, coding: SexCoding) -> BinarySex | None:
    """As :func:`read_sex`, ``None`` for every sex but female and male."""
    sex = read_sex(text, coding)
    return sex if sex in ("female", "male") else None


# ---------------------------------------------------------------- identifiers
def read_identifier(text: str | None) -> str | None:
    """A person's identifier in a file; blanks, dashes and ``X`` (EDF+) mean that there is none."""
    value = "".join(c for c in (text or "") if c.isprintable()).strip()[:64]
    return value if value.strip("-. ") and value not in {"X", "x"} else None


def is_national(kind: str) -> bool:
    """Whether an identifier of this type is that of a country's register.

    References
    ----------
    HL7 v2.5.1, table 0203: ``NI``, and ``NN`` with the three letters of a country (``NNVNM``).
    """
    return kind == "NI" or (kind.startswith("NN") and len(kind) == 5)


PSEUDONYM_DIGITS = 20


def pseudonym(key: bytes, *parts: str) -> str:
    """Twenty hexadecimal digits, which identify nobody without the key (HMAC-SHA256, RFC 2104).

    Everything that leaves without names (outcomes, scored archives, exports) names persons by it, so that one key gives
    one person the same pseudonym everywhere.
    """
    return hmac.digest(key, json.dumps(parts).encode(), "sha256").hex()[:PSEUDONYM_DIGITS]


OLDEST_TOLD_YEARS = 90
"""Ages that leave are in completed years, and every age of 90 or more is 90.

References
----------
45 CFR 164.514(b)(2)(i)(C), the safe harbour of HIPAA.
"""


# ---------------------------------------------------------------- days
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def calendar_day(year: object, month: object, day: object) -> date | None:
    """A day from its three numbers; ``None`` where the calendar has no such day, and for placeholders."""
    try:
        found = date(int(str(year)), int(str(month)), int(str(day)))
    except ValueError:
        return None
    return None if found in UNKNOWN_DAYS or not FIRST_YEAR <= found.year <= LAST_YEAR else found


def dicom_day(text: str) -> date | None:
    """The day of a DICOM date (``20021122``, retired ``2002.11.22``) or date and time.

    References
    ----------
    DICOM PS3.5, table 6.2-1 (DA, DT) and section 6.2 (the retired form of DA).
    """
    time = r"(?:\d\d(?:\d\d(?:\d\d(?:\.\d{1,6})?)?)?)?(?:[+-]\d{4})?"
    match = re.fullmatch(rf"(\d{{4}})(\.?)(\d\d)\2(\d\d){time}", text.strip(), re.ASCII)
    return calendar_day(match[1], match[3], match[4]) if match else None


def ecg_day(text: str | None, order: Literal["ymd", "mdy", "dmy"] = "ymd") -> date | None:
    """A day as the ECG formats other than DICOM write it, with or without a time behind it.

    Read are ``20021122``, ``2002-11-22`` and ``22-Nov-2002``; numbers with the year at the end only where the format
    has an ``order`` of day and month.

    References
    ----------
    EDF+, section 2.1.3.3 (``dd-MMM-yyyy``); HL7 V3, TS (``20021122101500``).
    """
    value = (text or "").strip()
    if match := re.match(r"(\d{4})-?(\d\d)-?(\d\d)", value, re.ASCII):
        return calendar_day(*match.groups())
    if match := re.match(r"(\d{1,2})[-./ ]([A-Za-z]{3})[-./ ](\d{4})$", value, re.ASCII):
        month = match[2].lower()
        return calendar_day(match[3], _MONTHS.index(month) + 1, match[1]) if month in _MONTHS else None
    if order != "ymd" and (match := re.match(r"(\d{1,2})[-./](\d{1,2})[-./](\d{4})$", value, re.ASCII)):
        first, second, year = match.groups()
        return calendar_day(year, first, second) if order == "mdy" else calendar_day(year, second, first)
    return None


def hl7_day(text: str) -> date | None:
    """The day of an HL7 v2 time stamp; ``None`` where it is empty, a placeholder, or a year or month alone.

    Many systems write a year alone as ``19500000``.

    Raises
    ------
    ValueError
        It is no time stamp, or the calendar has no such day.

    References
    ----------
    HL7 v2.5.1, section 2.A.77 (TS: ``YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]``).
    """
    if not text:
        return None
    stamp = re.fullmatch(
        r"(\d{4})(?:(\d\d)(?:(\d\d)(?:\d\d(?:\d\d(?:\d\d(?:\.\d{1,4})?)?)?)?)?)?(?:[+-]\d{4})?", text, re.ASCII
    )
    if not stamp:
        raise ValueError("no time stamp of HL7")
    year, month, day = stamp.groups()
    if not FIRST_YEAR <= int(year) <= LAST_YEAR or not day or "00" in (month, day):
        return None
    found = date(int(year), int(month), int(day))
    return None if found in UNKNOWN_DAYS else found


def fhir_day(text: str) -> date | None:
    """The day of a FHIR date or dateTime, as it is written there; ``None`` where it is empty, or a year or
    month alone.

    Raises
    ------
    ValueError
        It is no date, or the calendar has no such day.

    References
    ----------
    FHIR R4, datatypes (date, dateTime).
    """
    if not text or re.fullmatch(r"\d{4}(-(0[1-9]|1[0-2]))?", text, re.ASCII):
        return None
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)(T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))?", text, re.ASCII)
    if not found:
        raise ValueError("no date of FHIR")
    day = date.fromisoformat(found[1])
    return None if day in UNKNOWN_DAYS else day


# ---------------------------------------------------------------- ages
_DAYS_PER_YEAR = Fraction(1461, 4)
_YEARS_PER_UNIT = {
    **dict.fromkeys(("y", "yr", "yrs", "year", "years", "a"), Fraction(1)),
    **dict.fromkeys(("m", "mo", "mon", "month", "months"), Fraction(1, 12)),
    **dict.fromkeys(("w", "wk", "week", "weeks"), 7 / _DAYS_PER_YEAR),
    **dict.fromkeys(("d", "day", "days"), 1 / _DAYS_PER_YEAR),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 1 / (24 * _DAYS_PER_YEAR)),
}
"""Years in a unit of an age. A year of 365.25 days never makes a whole age before its birthday.

References
----------
DICOM PS3.5 table 6.2-1 (AS: D, W, M, Y); UCUM (a, mo, wk, d, h); words of the ECG formats.
"""


def read_age(value: object, unit: str) -> float | None:
    """An age in years from a number with its unit, exactly as stated: completed years stay completed years.

    Parameters
    ----------
    value
        ``54``, ``54,5``, ``018M``, ``11 months``. A unit in it counts before ``unit``.
    unit
        Unit of a bare number; empty where a bare number is no age (DICOM).

    Returns
    -------
    Up to :data:`MAX_AGE_YEARS`; ``None`` for everything else (PTB-XL writes 300 for 'over 89', others write NaN), and
    for 0 in any unit: ``000Y`` is how consoles write that they know no age
    """
    match = re.fullmatch(r"\s*(\d{1,5}(?:[.,]\d{0,20})?)(?:\s*([A-Za-z]+))?\s*", str(value), re.ASCII)
    years_per_unit = _YEARS_PER_UNIT.get((match[2] or unit).strip().lower()) if match else None
    if match is None or years_per_unit is None:
        return None
    years = Fraction(match[1].replace(",", ".")) * years_per_unit
    return float(years) if 0 < years <= MAX_AGE_YEARS else None


def age_on(born: date | None, on: date | None) -> float | None:
    """The age on a day: completed years and the part of the running one, cut to two digits.

    ``None`` where a day is not known, for a birth after ``on``, and over :data:`MAX_AGE_YEARS`. Who was born on 29
    February has a birthday on 1 March in the years without that day.
    """
    if born is None or on is None or born > on:
        return None
    completed = on.year - born.year - (_birthday(born, on.year) > on)
    last = _birthday(born, born.year + completed)
    hundredths = 0
    if last.year < date.max.year:
        hundredths = 100 * (on - last).days // (_birthday(born, last.year + 1) - last).days
    years = (100 * completed + hundredths) / 100
    return years if years <= MAX_AGE_YEARS else None


def _birthday(born: date, year: int) -> date:
    try:
        return born.replace(year=year)
    except ValueError:  # 29 February in a year that has none
        return date(year, 3, 1)


def age_at_examination(stated: float | None, born: date | None, on: date | None) -> float | None:
    """The age that counts where a file or a message has a stated age, a birth date, or both.

    A stated age counts first, whatever way it came in; a birth date gives the age where none is stated. A stated age
    is about this examination and needs no second date. A birth date is often a placeholder (1 January 1900) or was
    changed when names were taken out of a file, and it gives no age where the day of the examination is not known.

    Parameters
    ----------
    stated
        In years, as :func:`read_age` gives it.
    born, on
        Birth date and day of the examination.
    """
    return stated if stated is not None else age_on(born, on)


def years_between(first: date, last: date) -> float:
    """A span of time in years of 365.25 days, negative where ``last`` comes first: for rates, never for an age."""
    return (last - first).days / float(_DAYS_PER_YEAR)


AGE_BANDS = {0: "<1", 1: "1-5", 6: "6-17", 18: "18-40", 41: "41-60", 61: "61-75", 76: "76+"}
"""First completed year of each band; the bands of adults are those of the shipped cohort."""


def age_band(age_years: float) -> str | None:
    """Band of an age, by completed years; ``None`` if it is unknown or not plausible."""
    if not 0 <= age_years <= MAX_AGE_YEARS:
        return None
    return AGE_BANDS[max(first for first in AGE_BANDS if first <= age_years)]
