"""A last look at what is about to leave: none of the identifiers that the database has of a visit may stand in it.

What leaves was made of nothing that could hold one. This looks whether that is true, and stops the whole export if not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import PurePath

from data_specs.dicom.reference import DicomReference
from data_specs.problems import Refused
from service.storage.tables import VisitRow

SHORTEST = 5
"""Characters. A shorter number stands in many files that are not about the person."""
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
    said += [order.placer, order.accession_number, order.request] if order else []
    if person.birth_date is not None:
        said += [f"{person.birth_date:%Y-%m-%d}", f"{person.birth_date:%Y%m%d}"]
    for posted in row.inputs:
        stem = PurePath(posted.filename).stem
        said += [stem] if any(c.isdigit() for c in stem) else []
        if posted.dicom:
            header = DicomReference.model_validate_json(posted.dicom)
            said += [getattr(header, name) for name in OF_HEADERS]
    return {word.strip() for word in said if word and len(word.strip()) >= SHORTEST}


def look(contents: Iterable[bytes], words: Collection[str]) -> None:
    """Look for words in contents, as UTF-8, as UTF-16 and as JSON escapes them.

    Raises
    ------
    Refused
        ``export_identifier_left``, without the word.
    """
    wanted = {
        form for word in words for form in (word.encode(), word.encode("utf-16-le"), json.dumps(word)[1:-1].encode())
    }
    for content in contents:
        if any(form in content for form in wanted):
            raise Refused("export_identifier_left", "1", "0")
