"""Figures as readers write them: counts, per cent and intervals, the same numbers in every language."""

from __future__ import annotations

from data_specs.vocabulary import Language, display
from service.language.texts import NARROW_SPACE, opening, text
from service.learning.figures import Estimate, Proportion
from service.learning.records import ANY

NOTHING = "—"


def name_of(finding: str, language: Language) -> str:
    """A finding, or the case as a whole."""
    return text("learning_any", language) if finding == ANY else opening(display(finding, language))


def rate(share: Proportion, language: Language) -> tuple[str, str]:
    """A proportion in per cent and its counts and interval: ``85.7%`` and ``6/7, 48.7–97.4%``."""
    if share.value is None or share.low is None or share.high is None:
        return NOTHING, ""
    space = NARROW_SPACE if language == "fr" else ""
    value, low, high = (_point(f"{100 * each:.1f}", language) for each in (share.value, share.low, share.high))
    return f"{value}{space}%", f"{share.n}/{share.of}{_separator(language)} {low}–{high}{space}%"


def estimate(found: Estimate | None, language: Language) -> tuple[str, str]:
    """A figure and its interval: ``0.72`` and ``0.41 to 1.00``, with a sign where it is below 0."""
    if found is None:
        return NOTHING, ""
    if found.low is None or found.high is None:
        return plain(found.value, language), text("learning_no_interval", language)
    low, high = plain(found.low, language), plain(found.high, language)
    return plain(found.value, language), text("learning_range", language, low=low, high=high)


def plain(value: float, language: Language) -> str:
    return _point(f"{value:.2f}".replace("-", "−"), language)


def _separator(language: Language) -> str:
    """Behind counts; a comma would look like the decimal mark of French and Vietnamese."""
    return "," if language == "en" else "\u00a0;" if language == "fr" else ";"


def _point(written: str, language: Language) -> str:
    return written if language == "en" else written.replace(".", ",")
