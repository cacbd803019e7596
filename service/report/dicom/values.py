"""Texts, names, dates and times as DICOM allows them. A value that DICOM does not allow becomes empty.

Our own words may be cut to the length of their element. An identifier is never cut, because the shortened one may be
another person's.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

from data_specs.person import dicom_day
from data_specs.visit.opinion import Author


def day(at: datetime) -> str:
    """DA (PS3.5 table 6.2-1) in UTC."""
    return f"{at.astimezone(UTC):%Y%m%d}"


def time(at: datetime) -> str:
    """TM in UTC."""
    return f"{at.astimezone(UTC):%H%M%S}"


def day_time(at: datetime) -> str:
    """DT in UTC, with the offset."""
    return f"{at.astimezone(UTC):%Y%m%d%H%M%S}+0000"


def paragraph(text: str) -> str:
    """Free text for UT, ST and LT, with line breaks but no other control characters (PS3.5 section 6.1.3)."""
    spaced = text.replace("\t", " ")  # the standard allows a tab, but validators refuse it
    kept = "".join(c for c in spaced if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs"))
    return kept.strip().replace("\n", "\r\n") or "—"


def line(text: str) -> str:
    """One line without control characters, and without a backslash, which separates values."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text.replace("\\", "/")).strip()


def short(text: str, limit: int = 64) -> str:
    """One line of our own words for LO and CodeMeaning, at most ``limit`` bytes of UTF-8.

    DICOM limits characters (PS3.5 section 6.2), but some validators and archives count bytes. The full words are always
    in another text of the object too.
    """
    whole = line(text)
    if len(whole.encode()) <= limit:
        return whole
    return whole.encode()[: limit - len("…".encode())].decode(errors="ignore").rstrip() + "…"


def person_name(text: str) -> str:
    """PN with the whole name in its first component, because which part is the family name is not known.

    References
    ----------
    DICOM PS3.5 section 6.2.1 (components, 64 characters a group), PS3.5 section 6.2 (PN).
    """
    return line(re.sub(r"[\^=]", " ", text))[:64].rstrip()


def author_name(author: Author) -> str:
    """A doctor's name as PN; the id if there is no name."""
    return person_name(author.name) or person_name(author.id) or "—"


def header_name(text: str) -> str:
    """PN of a posted header, with its own components and groups (PS3.5 section 6.2.1)."""
    groups = [line(group)[:64] for group in text.replace("\\", " ").split("=")[:3]]
    return "=".join(groups).rstrip("=^ ")


def whole(text: str, limit: int) -> str:
    """An identifier without change; empty if it is too long or has characters that DICOM does not allow."""
    identifier = text.strip()
    return identifier if identifier == line(identifier) and len(identifier) <= limit else ""


def header_date(text: str) -> str:
    """DA of a posted header; empty if it is not a date."""
    found = dicom_day(text)
    return f"{found:%Y%m%d}" if found else ""


def header_time(text: str) -> str:
    """TM of a posted header; empty if it is not a time."""
    pattern = r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"
    return text if re.fullmatch(pattern, text, re.ASCII) else ""
