"""Identifiers of DICOM objects (UIDs): whether one is written as the standard asks, and what is wrong where it is not.

An identifier that breaks the rule is kept as it came, because under it the hospital's archive has the object.

References
----------
DICOM PS3.5, section 9.1 (parts of digits without leading zeros, with points between them; 64 characters at most) and
table 6.2-1 (UI: one NUL at the end where the length would be odd).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from data_specs.problems import Problem

IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""Keywords of the identifiers that a hospital gives: of study, series and object."""
MAX_LENGTH = 64
MAX_KEPT = 512
"""Characters of the longest identifier that is kept. Together with a site and a hash it has to fit into a row of an
index of PostgreSQL, which has 2,704 bytes."""
RULE = "DICOM PS3.5 9.1"


def faults(written: str) -> tuple[str, ...]:
    """What is wrong with an identifier, as names of the vocabulary; nothing where it follows the rule.

    Parameters
    ----------
    written
        As the file has it, with what it is padded with.
    """
    bare = bare_uid(written)
    if not bare:
        return ("uid_missing",)
    parts = bare.split(".")
    found = {
        "uid_blanks": written not in (bare, f"{bare}\0"),
        "uid_too_long": len(bare) > MAX_LENGTH,
        "uid_characters": re.search(r"[^0-9.]", bare) is not None,
        "uid_empty_part": "" in parts,
        "uid_leading_zero": re.search(r"(^|\.)0[0-9]", bare) is not None,
        "uid_one_part": len(parts) == 1,
    }
    return tuple(fault for fault, is_there in found.items() if is_there)


def is_uid(text: str) -> bool:
    """Whether a text, without padding, is an identifier that follows the rule."""
    return text == bare_uid(text) and not faults(text)


def bare_uid(written: str) -> str:
    """An identifier without what it is padded with: blanks and NULs around it are no part of it."""
    return written.strip(" \0")


def kept_uid(written: str) -> str:
    """The identifier that is kept: as it came, without padding; empty where it cannot be kept whole."""
    bare = bare_uid(written)
    return bare if len(bare) <= MAX_KEPT and bare.isprintable() else ""


def names_something(uid: str) -> bool:
    """Whether an identifier is one at all. Words that devices put in its place (``UNKNOWN``, ``0``) name nothing."""
    return re.search(r"[1-9]", uid) is not None


def identifier_problems(written: Mapping[str, str]) -> tuple[Problem, ...]:
    """A reserve ``identifier_malformed`` for each kind of fault, with the keywords of the identifiers that have it.

    Parameters
    ----------
    written
        The object's :data:`IDENTIFIERS` by keyword, as the file has them; those that it lacks may be left out.
    """
    keywords: dict[str, list[str]] = {}
    for keyword in IDENTIFIERS:
        for fault in faults(written.get(keyword, "")):
            keywords.setdefault(fault, []).append(keyword)
    return tuple(
        Problem("identifier_malformed", "warn", ", ".join((fault, *which)), RULE) for fault, which in keywords.items()
    )
