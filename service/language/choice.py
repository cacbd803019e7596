"""The language of an answer: the reader's choice (a cookie), else ``Accept-Language``, else the setting.

References
----------
RFC 9110, section 12.5.4 (Accept-Language); RFC 4647, section 3.4 (lookup: ``vi-VN`` gets ``vi``).
"""

from __future__ import annotations

from fastapi import Request

from data_specs.vocabulary import LANGUAGES, Language

COOKIE = "language"
MAX_HEADER = 500
"""Characters of the header that are read; browsers send fewer than 100."""


def accepted_language(header: str, default: Language) -> Language:
    """The language that ``header`` prefers; ``default`` if it names none of ours, or refuses them with ``q=0``.

    Of two languages with the same weight the first is taken.
    """
    best: Language = default
    best_weight = 0.0
    refused: set[str] = set()
    anything = 0.0
    for part in header[:MAX_HEADER].split(","):
        tag, *parameters = (each.strip() for each in part.split(";"))
        primary = tag.lower().split("-")[0]
        weight = _weight(parameters)
        if weight == 0:
            refused.add(primary)
        for language in LANGUAGES:
            if language == primary and weight > best_weight:
                best, best_weight = language, weight
        if tag == "*":
            anything = weight
    if best_weight or not anything or default not in refused:
        return best
    return next((language for language in LANGUAGES if language not in refused), default)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0


def language_of(request: Request) -> Language:
    """Language to answer ``request`` in."""
    for language in LANGUAGES:
        if request.cookies.get(COOKIE) == language:
            return language
    default: Language = request.app.state.service.settings.language
    return accepted_language(request.headers.get("accept-language", ""), default)
