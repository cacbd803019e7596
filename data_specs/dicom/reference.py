"""Whether a file is a DICOM object, by its first bytes, and where it belongs: person, order, study, series."""

from __future__ import annotations

import re
from typing import IO

from pydantic import BaseModel, ConfigDict

from data_specs.problems import Refused


class DicomReference(BaseModel):
    """Where a posted DICOM object stands in its hospital's archive, as its header says. Keywords of PS3.6."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    StudyInstanceUID: str
    SeriesInstanceUID: str
    SOPInstanceUID: str
    SOPClassUID: str
    Modality: str = ""
    Rows: int | None = None
    Columns: int | None = None
    StudyDate: str = ""
    StudyTime: str = ""
    StudyID: str = ""
    AccessionNumber: str = ""
    ReferringPhysicianName: str = ""
    PatientID: str = ""
    IssuerOfPatientID: str = ""
    PatientName: str = ""
    PatientBirthDate: str = ""
    PatientAge: str = ""
    PatientSex: str = ""


UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
WORDS = tuple(name for name in DicomReference.model_fields if name not in (*UIDS, "Rows", "Columns"))
MAGIC_BYTES = 132
"""Preamble and prefix (PS3.10, section 7.1); they show that most other files are no DICOM objects."""
START_BYTES = 256 * 1024
"""Nearly every header is shorter; the whole file is read where it is not."""
MAX_WORD = 200
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_SOP_CLASS = b"\x02\x00\x02\x00UI"
"""Media Storage SOP Class UID (0002,0002); the File Meta Information is in Explicit VR Little Endian (PS3.10, 7.1)."""
_WAVEFORMS = b"1.2.840.10008.5.1.4.1.1.9."
"""Root of the SOP classes that store waveforms, ECGs among them (PS3.4, table B.5-1)."""


def is_dicom(start: bytes) -> bool:
    """Whether a file begins as a DICOM file does (PS3.10, section 7.1)."""
    return start[128:132] == b"DICM"


def is_waveform(start: bytes) -> bool:
    """Whether a file of which the first kilobyte or more is known is a DICOM object that stores waveforms."""
    at = start.find(_SOP_CLASS, 132)
    return is_dicom(start) and at >= 0 and start.startswith(_WAVEFORMS, at + len(_SOP_CLASS) + 2)


def read_reference(file: IO[bytes]) -> DicomReference | None:
    """The header's identity; ``None`` where the file is no DICOM object, or does not say where it belongs.

    A header that cannot be read is not refused here: the reader of the file itself says what is wrong with it.

    References
    ----------
    DICOM PS3.5, section 9.1 (a UID has at most 64 characters).
    """
    start = file.read(MAGIC_BYTES)
    if not is_dicom(start):
        return None
    start += file.read(START_BYTES)
    from data_specs.dicom.header import read_header  # noqa: PLC0415  only DICOM objects need pydicom

    try:
        header = read_header(start)
    except Refused:
        try:
            header = read_header(start + file.read())
        except Refused:
            return None
    uids = {name: header.text(name) for name in UIDS}
    if not all(len(each) <= 64 and _UID.fullmatch(each) for each in uids.values()):
        return None
    words = {name: header.text(name)[:MAX_WORD] for name in WORDS}
    return DicomReference(**uids, **words, Rows=header.integer("Rows"), Columns=header.integer("Columns"))
