"""Values as DICOM allows them: texts, names, days and times; what it does not allow becomes nothing.

Our own words may be cut to the length of their element; an identifier never is, since half of one is somebody else's.
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
    """DT with its zone."""
    return f"{at.astimezone(UTC):%Y%m%d%H%M%S}+0000"


def paragraph(text: str) -> str:
    """Free text for UT, ST and LT: every letter, line breaks, no other control characters (PS3.5 section 6.1.3)."""
    spaced = text.replace("\t", " ")  # a tab is allowed by the standard and refused by validators
    kept = "".join(c for c in spaced if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs"))
    return kept.strip().replace("\n", "\r\n") or "—"


def line(text: str) -> str:
    """One line: no control characters, no backslash, which would part it into two values."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text.replace("\\", "/")).strip()


def short(text: str, limit: int = 64) -> str:
    """One line of our own words for LO and CodeMeaning.

    DICOM counts characters (PS3.5 section 6.2), but validators and archives are known to count bytes: at most
    ``limit`` of them in UTF-8. Whatever is cut here stands in full in a text beside it.
    """
    whole = line(text)
    if len(whole.encode()) <= limit:
        return whole
    return whole.encode()[: limit - len("…".encode())].decode(errors="ignore").rstrip() + "…"


def person_name(text: str) -> str:
    """PN of a name as it is said, in one component: which part is the family name is not guessed.

    References
    ----------
    DICOM PS3.5 section 6.2.1 (components, 64 characters a group), PS3.5 section 6.2 (PN).
    """
    return line(re.sub(r"[\^=]", " ", text))[:64].rstrip()


def author_name(author: Author) -> str:
    """A doctor's name as PN."""
    return person_name(author.name) or person_name(author.id) or "—"


def said_name(text: str) -> str:
    """A header's PN as it stands, group by group (PS3.5 section 6.2.1)."""
    groups = [line(group)[:64] for group in text.replace("\\", " ").split("=")[:3]]
    return "=".join(groups).rstrip("=^ ")


def whole(text: str, limit: int) -> str:
    """An identifier as it is, or nothing."""
    plain = text.strip()
    return plain if plain == line(plain) and len(plain) <= limit else ""


def is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)+", text, re.ASCII) is not None


def given_date(text: str) -> str:
    """DA, or nothing where it is no day."""
    found = dicom_day(text)
    return f"{found:%Y%m%d}" if found else ""


def given_time(text: str) -> str:
    """TM, or nothing where it is no time."""
    pattern = r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"
    return text if re.fullmatch(pattern, text, re.ASCII) else ""
