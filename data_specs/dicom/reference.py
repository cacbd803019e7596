"""What a DICOM file is, by its first bytes and its SOP class, and where it belongs: person, order, study, series."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from data_specs.dicom.uids import IDENTIFIERS, is_uid, kept_uid, names_something
from data_specs.problems import Refused
from data_specs.schema import Schema

if TYPE_CHECKING:
    from data_specs.dicom.header import Header


class DicomReference(Schema):
    """Where a posted DICOM object stands in its hospital's archive, as its header says. Keywords of PS3.6.

    Identifiers are as they came, also where they break the rules of DICOM; empty where the object has none.
    """

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
    Manufacturer: str = ""
    ManufacturerModelName: str = ""

    @property
    def names_its_study(self) -> bool:
        """Whether other objects can be known to be of the same study."""
        return names_something(self.StudyInstanceUID)

    @property
    def may_be_referred_to(self) -> bool:
        """Whether an object that follows the rules can name this one: all its UIDs are valid."""
        return all(is_uid(getattr(self, name)) for name in UIDS)


UIDS = (*IDENTIFIERS, "SOPClassUID")
WORDS = tuple(name for name in DicomReference.model_fields if name not in (*UIDS, "Rows", "Columns"))
MAGIC_BYTES = 132
"""Preamble and prefix (PS3.10, section 7.1): enough to see that a file is no DICOM object."""
START_BYTES = 256 * 1024
"""The header of a film is nearly always shorter; where it is longer, the whole file is read."""
MAX_WORD = 200

RADIOGRAPH_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
)
"""SOP classes of CR, and of DX for presentation and for processing (PS3.4, table B.5-1)."""
CAPTURE_CLASS_PREFIX = "1.2.840.10008.5.1.4.1.1.7"
WAVEFORM_CLASS_PREFIX = "1.2.840.10008.5.1.4.1.1.9."
"""Beginnings of the SOP classes of secondary captures and of waveforms (PS3.4, table B.5-1)."""
FILM_CLASSES = (
    *RADIOGRAPH_CLASSES,
    CAPTURE_CLASS_PREFIX,
    f"{CAPTURE_CLASS_PREFIX}.2",
    f"{CAPTURE_CLASS_PREFIX}.3",
)
"""SOP classes of radiographs, and of secondary capture for digitised films: single-frame, multi-frame grayscale byte
and word (PS3.4, table B.5-1)."""
ECG_CLASSES = tuple(f"{WAVEFORM_CLASS_PREFIX}1.{n}" for n in (1, 2, 3, 4))
"""SOP classes of 12-lead, general, ambulatory and general 32-bit ECG waveforms (PS3.4, table B.5-1)."""
WAVEFORM_SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
"""Native transfer syntaxes (PS3.6, table A-1): waveforms are not compressed (PS3.5, section A.4)."""
_WAVEFORM = re.compile(
    rb"(?:\x02\x00\x02\x00UI..|\x08\x00\x16\x00(?:UI..|....))" + re.escape(WAVEFORM_CLASS_PREFIX).encode(), re.DOTALL
)
"""A SOP class that stores waveforms (PS3.4, table B.5-1), in Media Storage SOP Class UID (0002,0002), which is in
Explicit VR Little Endian (PS3.10, section 7.1), or in SOP Class UID (0008,0016)."""
_SOP_CLASS_WITHIN = 4096
"""Both elements stand near the start of a file: no more of it is searched."""


def is_dicom(start: bytes) -> bool:
    """Whether a file begins as a DICOM file does (PS3.10, section 7.1)."""
    return start[128:132] == b"DICM"


def is_waveform(start: bytes) -> bool:
    """Whether a file is a DICOM object that stores waveforms; ``start`` is its first kilobyte or more."""
    return is_dicom(start) and _WAVEFORM.search(start, 132, _SOP_CLASS_WITHIN) is not None


def starts_with_element(start: bytes) -> Literal["explicit", "implicit"] | None:
    """How the first element is written in a DICOM file whose preamble is missing; ``None`` for any other file.

    The first element is of group 0002 or 0008. In explicit VR two capital letters name its value representation; in
    implicit VR its length is short, which other binary files can look like too (PS3.5, section 7.1).
    """
    if len(start) < 8 or start[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return None
    order: Literal["big", "little"] = "big" if start[:2] == b"\x00\x08" else "little"
    if int.from_bytes(start[2:4], order) >= 0x0200:
        return None
    if start[4:6].isalpha() and start[4:6].isupper():
        return "explicit"
    return "implicit" if int.from_bytes(start[4:8], order) < 256 else None


def reference_in(content: bytes) -> DicomReference | None:
    """Which study, series and person the header of a DICOM file names; ``None`` for any other file.

    Parameters
    ----------
    content
        The file, or its beginning.

    Raises
    ------
    Refused
        The header cannot be read; of a beginning, it may only be cut off.
    """
    from data_specs.dicom.header import read_header  # noqa: PLC0415  only DICOM objects need pydicom

    if not is_dicom(content):
        return None
    header = read_header(content)
    uids = {name: kept_uid(header.written(name)) for name in UIDS}
    if header.ends_within_element and not all(uids.values()):
        raise Refused("truncated", f"{len(content)} B", ", ".join(UIDS))  # what it lacks may have been cut off
    words = {name: header.text(name)[:MAX_WORD] for name in WORDS}
    return DicomReference(**uids, **words, Rows=_size(header, "Rows"), Columns=_size(header, "Columns"))


def named_study(references: Iterable[DicomReference]) -> str:
    """StudyInstanceUID of the first object that names its study; empty where none does."""
    return next((each.StudyInstanceUID for each in references if each.names_its_study), "")


def _size(header: Header, keyword: str) -> int | None:
    """A number of pixels; one that cannot be read is the business of the reader of the whole film."""
    try:
        return header.integer(keyword)
    except Refused:
        return None
