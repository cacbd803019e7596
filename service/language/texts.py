"""The texts of the pages in three languages, and numbers, ages and times as each language writes them."""

from __future__ import annotations

import tomllib
from datetime import datetime
from functools import cache
from pathlib import Path

from data_specs.visit.contract import Category, Finding, Organ
from data_specs.visit.report import ReportFinding
from data_specs.vocabulary import Language, is_reassuring, shown_unit, term_of, with_unit

NARROW_SPACE = "\u202f"


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
    """A number with about three digits and the language's decimal mark; a minus is U+2212, where no line breaks."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    written = f"{value:.{decimals}f}"
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    written = written.replace("-", "−")
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
    return shown, shown_unit(unit, language) if unit else ""


def quantity(value: float | str, unit: str | None, language: Language) -> str:
    """A measured value with its unit, as it stands in a sentence."""
    return with_unit(measured(value, unit, language)[0], unit, language)


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
    """What a probability decides, in the reader's words; empty where it is not there to decide."""
    if finding.positive is None:
        if finding.use == "information":
            return text("information_only", language)
        return text("undecided", language) if finding.strength == "undecided" else ""
    if term_of(finding.name).risk and finding.probability is not None and finding.operating_point is not None:
        risk, limit = (percent(p, language) for p in (finding.probability, finding.operating_point.threshold))
        if finding.positive:
            return text("risk_above", language, risk=risk, limit=limit)
        return text("risk_below", language, risk=risk, limit=limit)
    if is_reassuring(finding.name):
        return text("looks_normal", language) if finding.positive else text("looks_not_normal", language)
    strength = finding.strength or ("flagged" if finding.positive else "below")
    return text(f"strength_{strength}", language)


def category_words(organ: Organ, category: Category, language: Language) -> str:
    """An organ's category: of the kidneys a risk (KDIGO), of lungs and heart how clearly something is flagged."""
    return text(f"risk_{category}", language) if organ == "kidney" else text(f"flag_{category}", language)


def likelihood(finding: Finding | ReportFinding, language: Language) -> str:
    """How much such a result says, as a likelihood ratio in words; empty where it is not known."""
    ratio = finding.likelihood_ratio
    if ratio is None or finding.positive is None or is_reassuring(finding.name):
        return ""
    if ratio >= 1:
        return text("times_as_often", language, times=number(ratio, language))
    return text("times_as_seldom", language, times=number(1 / ratio, language)) if ratio > 0 else ""
