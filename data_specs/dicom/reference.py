"""Whether a file is a DICOM object, and which person, order, study and series it belongs to."""

from __future__ import annotations

import re
from typing import IO

from data_specs.problems import Refused
from data_specs.visit.report import DicomReference

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
WORDS = tuple(name for name in DicomReference.model_fields if name not in (*UIDS, "Rows", "Columns"))
MAGIC_BYTES = 132
"""Preamble and prefix (PS3.10, section 7.1): enough to see that a file is no DICOM object."""
START_BYTES = 256 * 1024
"""The header of a film is nearly always shorter; where it is longer, the whole file is read."""
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
    """Whether a file is a DICOM object that stores waveforms; ``start`` is its first kilobyte or more."""
    at = start.find(_SOP_CLASS, 132)
    return is_dicom(start) and at >= 0 and start.startswith(_WAVEFORMS, at + len(_SOP_CLASS) + 2)


def read_reference(file: IO[bytes]) -> DicomReference | None:
    """Which study, series and person the header names; ``None`` where the file is no DICOM object or names no study.

    A header that cannot be read gives ``None`` too: the reader of the whole file says what is wrong with it.

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
    if not all(len(uid) <= 64 and _UID.fullmatch(uid) for uid in uids.values()):
        return None
    words = {name: header.text(name)[:MAX_WORD] for name in WORDS}
    return DicomReference(**uids, **words, Rows=header.integer("Rows"), Columns=header.integer("Columns"))
