"""The texts of the pages in three languages, and numbers, ages and times as each language writes them."""

from __future__ import annotations

import tomllib
from datetime import datetime
from functools import cache
from pathlib import Path

from data_specs.visit.contract import Finding
from data_specs.visit.report import ReportFinding
from data_specs.vocabulary import Language

NARROW_SPACE = "\u202f"

UNITS = {
    "/min": {"vi": "lần/phút", "fr": "/min", "en": "/min"},
    "mL/min/1.73 m2": {"vi": "mL/phút/1,73 m²", "fr": "mL/min/1,73 m²", "en": "mL/min/1.73 m²"},
    "mL/min/{1.73_m2}": {"vi": "mL/phút/1,73 m²", "fr": "mL/min/1,73 m²", "en": "mL/min/1.73 m²"},
    "deg": {"vi": "°", "fr": "°", "en": "°"},
}
"""Units that readers write in another way than the API; any other unit is shown as it is in the API."""


@cache
def texts() -> dict[str, dict[str, str]]:
    """Every text by key and language, read from ``texts.toml``."""
    with (Path(__file__).parent / "texts.toml").open("rb") as f:
        return tomllib.load(f)


def text(key: str, language: Language, **values: object) -> str:
    """The text of ``key`` in ``language`` with ``values`` filled in.

    Raises
    ------
    KeyError
        There is no such text; a test checks the keys of all templates.
    """
    return texts()[key][language].format(**values)


def opening(words: str) -> str:
    """``words`` with a capital at the beginning; the vocabulary writes them as within a sentence."""
    return words[:1].upper() + words[1:]


def number(value: float, language: Language) -> str:
    """A number with about three digits and the language's decimal mark."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    written = f"{value:.{decimals}f}"
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return written if language == "en" else written.replace(".", ",")


def signed(change: float, language: Language) -> str:
    """A change with its sign; the sign is U+2212, at which no line is broken."""
    written = number(abs(change), language)
    return written if written == "0" else f"{'−' if change < 0 else '+'}{written}"


def percent(share: float, language: Language) -> str:
    """A probability in percent; it is never rounded to 0% or 100%."""
    space = NARROW_SPACE if language == "fr" else ""
    if share < 0.001:
        return f"<{number(0.1, language)}{space}%"
    if share > 0.99:
        return f">99{space}%"
    decimals = 1 if share < 0.1 else 0
    written = f"{100 * share:.{decimals}f}".removesuffix(".0")
    return f"{written if language == 'en' else written.replace('.', ',')}{space}%"


def measured(value: float | str, unit: str | None, language: Language) -> tuple[str, str]:
    """A measured value and its unit in the language; a value that is a word is translated."""
    if isinstance(value, str):
        key = f"value_{value.replace(' ', '_')}"
        shown = text(key, language) if key in texts() else value
    else:
        shown = number(value, language)
    return shown, UNITS.get(unit, {}).get(language, unit) if unit else ""


def age(years: float | None, language: Language) -> str:
    if years is None:
        return text("age_not_given", language)
    if years < 2:
        return text("age_months", language, age=int(years * 12))
    return text("age_years", language, age=int(years))


def moment(at: datetime, language: Language) -> str:
    """Date and time in UTC; the page's script shows it in the reader's own zone."""
    return f"{at:%-d %b %Y %H:%M} UTC" if language == "en" else f"{at:%d/%m/%Y %H:%M} UTC"


def ago(then: datetime, now: datetime, language: Language) -> str:
    minutes = max(0, int((now - then).total_seconds() // 60))
    if minutes < 1:
        return text("just_now", language)
    if minutes < 60:
        return text("minutes_ago", language, n=minutes)
    if minutes < 48 * 60:
        return text("hours_ago", language, n=minutes // 60)
    return text("days_ago", language, n=minutes // (24 * 60))


def verdict(finding: Finding | ReportFinding, language: Language) -> str:
    """What a probability decides, in two or three words; empty where it is not there to decide."""
    if finding.positive is not None:
        return text("above_threshold", language) if finding.positive else text("below_threshold", language)
    if finding.use == "information":
        return text("information_only", language)
    return text("undecided", language) if finding.strength == "undecided" else ""
