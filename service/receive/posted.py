"""What a visit may hold, whatever way it is posted: fields, how many files of each, their names."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

from service.storage.drafts import Draft

Field = Literal["image", "ecg", "context"]
LIMITS: dict[Field, int] = {"image": 8, "ecg": 16, "context": 1}
MAX_CONTEXT_BYTES = 256_000
MAX_PARTS = 2 * sum(LIMITS.values())
"""Of any kind, the empty ones that a browser sends for fields left empty among them."""
MAX_FILENAME = 120
ACCEPTED = "multipart/form-data, application/dicom, application/zip, image/png, image/jpeg, image/tiff"
"""What may be posted: ``service.receive.body`` reads all but the first."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the body."""

    field: Field
    filename: str
    draft: Draft


def clean_filename(name: str) -> str:
    """What is kept of a filename: no folder, no control or invisible character, at most 120 characters.

    The extension is kept whole, and names that differ only in their extension still do (``.hea`` and ``.dat``).
    """
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(each for each in name if unicodedata.category(each)[0] != "C").strip(" .")
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 20:
        return name[:MAX_FILENAME]
    return stem[: MAX_FILENAME - len(extension) - 1] + dot + extension
