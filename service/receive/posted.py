"""What a visit may hold, whatever way it comes in: its fields, how many files of each, and their names."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

from service.storage.drafts import Draft

Field = Literal["image", "ecg", "context"]
LIMITS: dict[Field, int] = {"image": 8, "ecg": 16, "context": 1}
MAX_CONTEXT_BYTES = 256_000
MAX_PARTS = 2 * sum(LIMITS.values())
"""A browser sends an empty part for each field that was left empty, so more parts may come than a visit may hold."""
MAX_FILENAME = 120
ACCEPTED = "multipart/form-data, application/dicom, application/zip, image/png, image/jpeg, image/tiff"
"""Content types of a posted visit: :mod:`service.receive.multipart` reads the first, ``body`` the others."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file, or the context, of a posted visit."""

    field: Field
    filename: str
    draft: Draft


def clean_filename(name: str) -> str:
    """A filename without its folder and without control and invisible characters, cut to 120 characters.

    The extension is kept whole, so that names that differ only in it (``.hea`` and ``.dat``) stay different.
    """
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(each for each in name if unicodedata.category(each)[0] != "C").strip(" .")
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 20:
        return name[:MAX_FILENAME]
    return stem[: MAX_FILENAME - len(extension) - 1] + dot + extension
