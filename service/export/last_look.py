"""A last look at what is about to leave: none of the identifiers that the database has of a visit may stand in it.

What leaves was made of nothing that could hold one. This looks whether that is true, and stops the whole export if not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from pathlib import PurePath

from data_specs.dicom.reference import DicomReference
from data_specs.problems import Refused
from service.storage.tables import VisitRow

SHORTEST, SHORTEST_NUMBER = 5, 7
"""Characters of a word, and of a number: a shorter one stands in many files that are not about the person."""
OLD_DAYS = 800
"""A birth date is looked for where it is longer ago: of an infant it may be the moved day of a visit."""
OF_HEADERS = (
    *("PatientID", "PatientName", "AccessionNumber", "ReferringPhysicianName", "PatientBirthDate"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
)


def words_of(row: VisitRow) -> set[str]:
    """What the database knows of a visit that names somebody, or names something in another archive."""
    context = row.read_context()
    person, referrer, order = context.person, context.referrer, context.order
    said = [row.id, row.person_id, row.accession_number, row.study_uid, person.id, person.name]
    said += [referrer.id, referrer.name] if referrer else []
    said += [person.national_id, *([person.residence.address] if person.residence else [])]
    said += [order.placer, order.accession_number, order.request] if order else []
    if person.birth_date is not None and (row.received_at.date() - person.birth_date).days > OLD_DAYS:
        said += [f"{person.birth_date:%Y-%m-%d}", f"{person.birth_date:%Y%m%d}"]
    for posted in row.inputs:
        stem = PurePath(posted.filename).stem
        said += [stem] if any(c.isdigit() for c in stem) else []
        if posted.dicom:
            header = DicomReference.model_validate_json(posted.dicom)
            said += [getattr(header, name) for name in OF_HEADERS]
    return {word for word in (each.strip() for each in said if each) if _is_telling(word)}


def _is_telling(word: str) -> bool:
    return len(word) >= (SHORTEST_NUMBER if word.isdecimal() else SHORTEST)


def look(contents: Iterable[bytes], words: Collection[str]) -> None:
    """Look for words in contents, as UTF-8, as UTF-16 and as JSON escapes them.

    A word counts where no letter or digit of ASCII stands beside it.

    Raises
    ------
    Refused
        ``export_identifier_left``, without the word.
    """
    forms = {form for word in words for form in (word.encode(), json.dumps(word)[1:-1].encode())}
    wide = {word.encode("utf-16-le") for word in words}
    for content in contents:
        there = (form for form in forms if form in content)
        if any(re.search(rb"(?<![0-9A-Za-z])" + re.escape(form) + rb"(?![0-9A-Za-z])", content) for form in there):
            raise Refused("export_identifier_left", "1", "0")
        if any(form in content for form in wide):
            raise Refused("export_identifier_left", "1", "0")
