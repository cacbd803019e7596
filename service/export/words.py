"""What of a free text may leave: the terms of the vocabulary that are in it, as coded names, and no other word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from data_specs.visit.contract import ORGANS
from data_specs.vocabulary import terms


def terms_in(*texts: str | None) -> tuple[str, ...]:
    """Names of the findings that texts speak of, in any language of the vocabulary, in its order."""
    said = _plain(" \n ".join(text for text in texts if text))
    return tuple(name for name, pattern in _patterns().items() if pattern.search(said))


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    findings = (term for term in terms().values() if term.organ in ORGANS)
    return {term.name: _any_of({term.name.replace("_", " "), *term.display.values()}) for term in findings}


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(map(_plain, names), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
