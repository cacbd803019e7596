"""What is kept of each film, so that a change of its device can be noticed (``service.drift``).

The numbers are no part of the assessment: they say nothing to a reader, and leave the service with no report.
"""

from __future__ import annotations

import json
from typing import Any

from data_specs.dicom.reference import DicomReference
from data_specs.visit.assessment import Assessment
from service.storage.tables import InputRow, VisitRow

MAX_DEVICE = 200
UNKNOWN = "?"
DIGITS = 5
"""Of a number, from its first that is not 0."""


def device_of(file: InputRow, format_: str | None) -> str:
    """Manufacturer and model of a file; where it states neither, its format."""
    made = ""
    if file.dicom:
        said = DicomReference.model_validate_json(file.dicom)
        made = " ".join(f"{said.Manufacturer} {said.ManufacturerModelName}".split())
    return (made or format_ or UNKNOWN)[:MAX_DEVICE]


def film_rows(visit: VisitRow, found: Assessment) -> list[dict[str, Any]]:
    """The rows of a visit's films for the table ``films``; a film that could not be read at all has no numbers."""
    assessed = {each.index: each for each in found.inputs}
    return [
        {
            "visit_id": visit.id,
            "index": file.index,
            "site": visit.site,
            "device": device_of(file, each.format),
            "received_at": visit.received_at,
            "seen_by": each.seen_by,
            "refused": not each.accepted,
            "codes": json.dumps(list(dict.fromkeys(problem.code for problem in each.problems))),
            "traits": json.dumps({name: float(f"{value:.{DIGITS}g}") for name, value in each.traits.items()}),
        }
        for file in visit.inputs
        if file.field == "image" and (each := assessed.get(file.index)) is not None
    ]
