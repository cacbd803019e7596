"""Whether a file is a film or a recording, by its first bytes."""

from __future__ import annotations

from typing import Literal, get_args

from data_specs.cxr.files import sniff
from data_specs.dicom.reference import is_dicom, is_waveform, starts_with_element

FileField = Literal["image", "ecg"]
"""Of a file: a film, or a recording."""
FILE_FIELDS: tuple[FileField, ...] = get_args(FileField)


def field_of(start: bytes, declared: str = "") -> FileField:
    """Whether a file is a film or a recording.

    Parameters
    ----------
    start
        The first :data:`data_specs.dicom.reference.START_BYTES` of the file, or all of it where it is shorter.
    declared
        What the sender says it is: ``image``, ``ecg``, or nothing. A DICOM file says itself what it is; for any other
        file the sender's word decides. Where there is none, a picture is a film, and so is a DICOM file that has lost
        its preamble: the reader of films says what is wrong with it. Everything else is a recording.
    """
    if is_dicom(start):
        return "ecg" if is_waveform(start) else "image"
    if declared in FILE_FIELDS:
        return declared
    is_picture = sniff(start) in ("png", "jpeg", "tiff")
    return "image" if is_picture or starts_with_element(start) == "explicit" else "ecg"
