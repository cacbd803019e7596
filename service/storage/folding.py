"""Names without case and diacritics, so that a person is found however the name is typed."""

from __future__ import annotations

import unicodedata
from datetime import date
from typing import TypedDict

from data_specs.visit.context import Context

MAX_FOLDED = 400
"""Bytes in UTF-8. With the longest site, referring doctor and person, a row of the index then stays below the 2,704
bytes that PostgreSQL allows."""
_LETTERS = str.maketrans({"đ": "d", "ł": "l", "ø": "o", "ı": "i", "œ": "oe", "æ": "ae", "^": " ", "\0": " "})
"""Letters that have no decomposition in Unicode, and the sign between the parts of a DICOM name."""


class Listed(TypedDict):
    """The columns of a visit by which lists find and sort it."""

    folded: str
    visited_on: date | None


def fold(text: str) -> str:
    """``text`` in small letters, without diacritics, with one space between words.

    References
    ----------
    Unicode Standard Annex 15: NFKD; the marks that it separates are left out.
    """
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    plain = "".join(each for each in apart if not unicodedata.combining(each)).translate(_LETTERS)
    return " ".join(plain.split())


def listed(context: Context, accession_number: str | None) -> Listed:
    """Name, person's identifier and accession number, folded, and the day of the visit."""
    person = context.person
    known = (fold(each) for each in (person.name, person.id, accession_number) if each)
    return {"folded": _cut(" ".join(known)), "visited_on": context.visited_on}


def usable_id(id_: str | None) -> str | None:
    """The person's identifier, ``None`` where it is blank: two blank ones are not the same person."""
    return id_ if id_ and any(each.isprintable() and not each.isspace() for each in id_) else None


def _cut(text: str) -> str:
    return text.encode()[:MAX_FOLDED].decode(errors="ignore")
