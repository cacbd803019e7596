"""Reads the header of a DICOM file into plain values; pixels are not decoded."""

from __future__ import annotations

import io
import itertools
import logging
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.charset import convert_encodings, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, PersonName

from data_specs.dicom.uids import IDENTIFIERS
from data_specs.numbers import number
from data_specs.problems import Refused
from data_specs.reading import refusals_only, require_memory

# A malformed DS or CS is no reason to refuse a film, so pydicom does not check values. Its log lines and warnings
# quote values of the file, which may name the person.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", PIXEL_DATA: "PixelData"}

MAX_READS = 60_000
"""Reads that parsing may take, some 4 µs each: a film takes some hundreds, a recording with its annotations 4,000."""

MAX_VALUE_BYTES, MAX_TABLE_BYTES, MAX_TABLES_BYTES = 16 << 10, 256 << 10, 512 << 10
"""Of an element that is read, of a look-up table (65,536 entries of 16 bits are 128 kB), of a sequence of them."""
MAX_SEQUENCE_ITEMS = 16
"""Items of a sequence that are read: one body part, one view, and the first look-up table are used."""

NOT_DECODED = "\ufffd"
"""What decoding gives for bytes that are not of the character set."""

INFLATE_BYTES = 1 << 20
"""Deflated data is inflated in pieces of at most this size."""

MAX_INFLATED = 320 * 2**20
"""Bytes that a deflated data set may inflate to: ``MAX_PIXELS`` of three bytes, and room for the header."""

KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "StudyID"),
    *("StudyDate", "StudyTime", "Modality", "AccessionNumber", "ReferringPhysicianName"),
    *("Manufacturer", "ManufacturerModelName"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "BodyPartExamined", "AnatomicRegionSequence", "ViewPosition", "ViewCodeSequence"),
    *("PatientOrientation", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "PixelSpacing", "ImagerPixelSpacing", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "VOILUTSequence", "BurnedInAnnotation"),
    *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData"),
    "BluePaletteColorLookupTableData",
)
"""The elements that are read (PS3.6); all others are skipped."""

ITEM_KEYWORDS = frozenset(("CodeValue", "CodeMeaning", "LUTDescriptor", "LUTData"))
"""The same in the items of sequences."""

_BINARY_VRS = frozenset(("FD", "FL", "SL", "SS", "UL", "US", "US or SS"))
"""Of numbers that are not written as text (PS3.5 section 6.2)."""

_TAGS: list[BaseTag | int] = [BaseTag(tag) for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
_parsing = threading.Lock()


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data is in ``source``; ``length`` is ``None`` where the file leaves it undefined."""

    keyword: str
    vr: str | None
    source: bytes
    offset: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Header:
    """Elements of :data:`KEYWORDS` as plain values, and where the pixel data is.

    Parameters
    ----------
    transfer_syntax
        UID from the file meta information.
    values
        Keyword to value: ``str``, ``int``, ``float``, ``bytes``, a tuple of them, or a tuple of such mappings for a
        sequence. Absent and empty elements are left out, and text that cannot be decoded; a number that cannot be
        converted is its text.
    little_endian
        Byte order of the data set.
    pixels
        ``None`` where the file has no pixel data.
    ends_within_element
        The file has no pixel data and ends with a piece of an element: it was cut, or something was appended.
    """

    transfer_syntax: str
    values: dict[str, Any]
    little_endian: bool
    pixels: PixelElement | None
    ends_within_element: bool = False

    def text(self, keyword: str) -> str:
        """Value as one string, parts joined by a backslash; empty where absent.

        Letters that could not be decoded are left out.
        """
        return _text(self.values.get(keyword)).replace(NOT_DECODED, "")

    def written(self, keyword: str) -> str:
        """A UID as the file has it, with what it is padded with; empty where absent."""
        return str(self.values.get(keyword, ""))

    @property
    def identifiers(self) -> dict[str, str]:
        """The object's :data:`data_specs.dicom.uids.IDENTIFIERS` as the file has them."""
        return {keyword: self.written(keyword) for keyword in IDENTIFIERS}

    def has_lost_letters(self, keyword: str) -> bool:
        """Whether letters of the value could not be decoded."""
        return NOT_DECODED in _text(self.values.get(keyword))

    def number(self, keyword: str) -> float | None:
        """First value as a number; ``None`` where the file has none.

        Raises
        ------
        Refused
            ``unreadable``: it cannot be converted. What a film shows is never computed with another number instead.
        """
        parts = _parts(self.values.get(keyword), self.little_endian)
        return _converted(parts[0], keyword) if parts else None

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """All values as numbers.

        Raises
        ------
        Refused
            As :meth:`number`.
        """
        return tuple(_converted(part, keyword) for part in _parts(self.values.get(keyword), self.little_endian))

    def integer(self, keyword: str) -> int | None:
        """First value as an integer.

        Raises
        ------
        Refused
            As :meth:`number`, or it is no integer.
        """
        found = self.number(keyword)
        if found is not None and found != int(found):
            raise Refused("unreadable", f"{keyword} {found:g}", f"{keyword} 1")
        return None if found is None else int(found)

    def items(self, keyword: str) -> tuple[dict[str, Any], ...]:
        """Items of a sequence."""
        found = self.values.get(keyword)
        return found if isinstance(found, tuple) and all(isinstance(item, dict) for item in found) else ()

    def words(self, values: Any) -> NDArray[np.uint16]:
        """Look-up table data, ``(n,) uint16``, whether pydicom gave numbers (US) or bytes (OW)."""
        if isinstance(values, bytes):
            order = "<u2" if self.little_endian else ">u2"
            return np.frombuffer(values, dtype=order, count=len(values) // 2).astype(np.uint16)
        numbers = [_converted(part, "LUTData") for part in _parts(values, self.little_endian)]
        return np.asarray(numbers, dtype=np.int64).astype(np.uint16)


def read_header(content: bytes) -> Header:
    """Parse a DICOM file up to its pixel data.

    Raises
    ------
    Refused
        ``unreadable``: no file meta information or no TransferSyntaxUID in it (a transfer syntax is never guessed), or
        a structure that cannot be parsed. ``truncated``: the file ends before its pixel data begins. ``too_costly``:
        a deflated data set inflates to more than :data:`MAX_INFLATED`, or to more than memory allows.

    References
    ----------
    DICOM PS3.10 section 7.1 (file meta information), PS3.5 sections 7.1, A.1, A.2, A.3, A.5.
    """
    with refusals_only("DICOM", "DICOM PS3.10"):
        return _read_header(content)


def _read_header(content: bytes) -> Header:
    start = 132 if content[128:132] == b"DICM" else 0
    with quiet_pydicom():
        meta, _, start, _ = _elements(content, start, implicit=False, little=True, meta=True)
        syntax = _text(_value(meta, "TransferSyntaxUID"))
    if not syntax:
        raise Refused("unreadable", "(0002,0010) —", "(0002,0010) TransferSyntaxUID")
    if syntax == DEFLATED:
        content, start = inflated(content, start, MAX_INFLATED), 0
    little = syntax != EXPLICIT_BIG
    with quiet_pydicom():
        implicit = syntax == IMPLICIT_LITTLE
        elements, pixels, _, cut = _elements(content, start, implicit=implicit, little=little, meta=False)
        return Header(syntax, _plain(elements), little, pixels, cut)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings; one thread at a time, since all threads share the warnings filters.

    Parsing takes about a millisecond; inflating and decoding, which take longer, are done outside.
    """
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(slots=True)
class Reads:
    """How many reads of a file are left."""

    left: int = MAX_READS


class BoundedBytes(io.BytesIO):
    """Bytes that may be read a limited number of times. Parts of one file share what is left.

    ``fell_short`` says that a read gave less than was asked for, but something: they end within an element.
    """

    def __init__(self, content: bytes, reads: Reads) -> None:
        super().__init__(content)
        self._reads = reads
        self.fell_short = False

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads.left -= 1
        if self._reads.left < 0:
            raise Refused("unreadable", f"> {MAX_READS}", "DICOM PS3.10")
        found = super().read(size)
        self.fell_short |= size is not None and 0 < len(found) < size
        return found


def inflated(content: bytes, start: int, at_most: int) -> bytes:
    """Deflated data set, inflated to at most so many bytes (PS3.5 section A.5, RFC 1951).

    Raises
    ------
    Refused
        ``too_costly``, ``unreadable``
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    n_bytes = 0
    with refusals_only("DICOM deflate", "DICOM PS3.5 A.5"):
        for at in range(start, len(content), INFLATE_BYTES):
            piece = content[at : at + INFLATE_BYTES]
            while piece and not inflater.eof:
                parts.append(inflater.decompress(piece, INFLATE_BYTES))
                piece = inflater.unconsumed_tail
                n_bytes += len(parts[-1])
                if n_bytes > at_most:
                    raise Refused("too_costly", f"> {at_most >> 20} MB", f"≤ {at_most >> 20} MB")
                require_memory(2 * n_bytes)  # the parts, and all of them together
        return b"".join(parts)


def _elements(
    content: bytes, start: int, *, implicit: bool, little: bool, meta: bool
) -> tuple[Dataset, PixelElement | None, int, bool]:
    """Wanted elements from ``start`` on, up to the pixel data (or, for ``meta``, up to the end of group 0002).

    With them where the pixel data is, where reading ended, and whether that is within an element.
    """
    stopped: list[tuple[int, str | None, int]] = []

    def stop_when(tag: BaseTag, vr: str | None, length: int) -> bool:
        stop = tag >> 16 != 2 if meta else int(tag) in PIXEL_TAGS
        if stop:
            stopped.append((int(tag), vr, length))
        return stop

    reads = Reads()
    file = BoundedBytes(content, reads)
    file.seek(start)
    if not meta:
        implicit = _is_implicit(content, start, implicit)
    found = {}
    cut = within = False
    tags = None if meta else list(_TAGS)
    try:
        for element in data_element_generator(file, implicit, little, stop_when, specific_tags=tags):
            found[element.tag] = element
            if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
                within |= len(element.value) < element.length != 0xFFFFFFFF
    except (EOFError, OSError) as error:  # an undefined length without its delimiter, a sequence without its items
        if reads.left < 0:
            raise Refused("unreadable", f"> {MAX_READS}", "DICOM PS3.10") from error
        cut = True
    dataset = Dataset(found)
    dataset.set_original_encoding(implicit, little, _encodings(dataset))
    if stopped and not meta:
        tag, vr, length = stopped[0]
        # the file is at the start of the element again: skip its tag, VR and length
        offset = file.tell() + (12 if vr in EXPLICIT_VR_LENGTH_32 else 8)
        keyword = PIXEL_TAGS[tag]
        pixels = PixelElement(keyword, vr, content, offset, None if length == 0xFFFFFFFF else length)
        return dataset, pixels, offset, False
    if cut or file.tell() > len(content):
        raise Refused("truncated", f"{len(content)} B", "(7FE0,0010) PixelData")
    return dataset, None, file.tell(), within or file.fell_short


def _encodings(dataset: Dataset) -> list[str]:
    """Python's names for SpecificCharacterSet (PS3.3 C.12.1.1.2); UTF-8 where it is absent or not known.

    Without it a text has to be ASCII, which is a part of UTF-8; what is written there all the same is mostly UTF-8. A
    letter that is not gets lost, and is never read as another one.
    """
    stated = [_defined_term(part) for part in _text(_value(dataset, "SpecificCharacterSet")).upper().split("\\")]
    # UTF-8 cannot be one of several sets, between which escape sequences change
    if not any(stated) or "ISO_IR 192" in stated or any(part not in python_encoding for part in stated):
        return ["utf8"]
    try:
        return list(convert_encodings(stated))
    except (LookupError, ValueError):
        return ["utf8"]


def _defined_term(stated: str) -> str:
    """A character set by its defined term: some writers state ``ISO-IR 192``, ``ISO 2022 IR 192`` or ``UTF-8``."""
    number = re.fullmatch(r"ISO[ _-]?IR[ _-]?(\d{1,3})", stated)
    if number:
        return f"ISO_IR {number[1]}"
    return "ISO_IR 192" if stated in ("ISO 2022 IR 192", "UTF-8", "UTF8", "UNICODE UTF-8") else stated


def _is_implicit(content: bytes, start: int, stated: bool) -> bool:
    """Whether elements have no VR. The first element shows it: some writers state one syntax and write the other."""
    vr = content[start + 4 : start + 6]
    if len(vr) < 2:
        return stated
    return not (vr.isalpha() and vr.isupper())


def _plain(dataset: Dataset, wanted: frozenset[str] | None = None) -> dict[str, Any]:
    """Elements as keyword to plain value; of the items of a sequence those of ``wanted``."""
    plain = {}
    for tag in dataset.keys():  # noqa: SIM118 (iterating a Dataset converts its elements)
        keyword = pydicom.datadict.keyword_for_tag(tag)
        value = _value(dataset, keyword) if keyword and (wanted is None or keyword in wanted) else None
        if isinstance(value, pydicom.Sequence):
            items = itertools.islice(value, 0 if wanted else MAX_SEQUENCE_ITEMS)
            plain[keyword] = tuple(_plain(item, ITEM_KEYWORDS) for item in items)
        elif value is not None and not (isinstance(value, str | bytes) and not value):
            several = isinstance(value, list | tuple | pydicom.multival.MultiValue)
            plain[keyword] = tuple(value) if several else value
    return plain


def _value(dataset: Dataset, keyword: str) -> Any:
    """Converted value; ``None`` where it is absent, or where pydicom cannot convert it. A number that cannot be
    converted is given as its text: to take it for absent would change what the film shows.

    Raises
    ------
    Refused
        ``unreadable``: it is much longer than such a value is. pydicom makes an object of each number in it.
    """
    try:
        raw = dataset.get_item(keyword)
    except KeyError:
        return None
    is_table = keyword.endswith("Data")
    most = MAX_TABLES_BYTES if keyword.endswith("LUTSequence") else MAX_TABLE_BYTES if is_table else MAX_VALUE_BYTES
    if raw is not None and isinstance(raw.value, bytes) and len(raw.value) > most:
        raise Refused("unreadable", f"{keyword} {len(raw.value)} B", f"≤ {most} B")
    if raw is not None and isinstance(raw.value, bytes) and dictionary_VR(keyword) == "UI":
        return _from_utf8(raw.value.decode("latin-1"))  # pydicom takes away what it is padded with
    try:
        value = dataset.get(keyword)
        if isinstance(value, str) and dictionary_VR(keyword) == "CS":
            return _from_utf8(value)
        return str(value) if isinstance(value, PersonName) else value  # it decodes the name when asked for it
    except Exception:  # pydicom converts on access; damaged bytes make it raise any kind of error
        kind = dictionary_VR(raw.tag) if raw is not None and isinstance(raw.value, bytes) else ""
        if kind in ("DS", "IS"):
            return raw.value.decode("latin-1")
        return f"0x{raw.value[:8].hex()}" if kind in _BINARY_VRS else None


def _from_utf8(text: str) -> str:
    """What was written in UTF-8 and read as ISO 8859-1, as pydicom reads every CS: many devices write accents so."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def decimal(dataset: Dataset, keyword: str) -> float | None:
    """First value of a numeric element of a data set that pydicom has parsed; ``None`` where it has none.

    Raises
    ------
    Refused
        ``unreadable``, as :meth:`Header.number`.
    """
    value = _value(dataset, keyword)
    parts = _parts(tuple(value) if isinstance(value, pydicom.multival.MultiValue) else value, little=True)
    return _converted(parts[0], keyword) if parts else None


def identifiers(dataset: Dataset) -> dict[str, str]:
    """Identifiers of a data set that pydicom has parsed, as :attr:`Header.identifiers`."""
    return {keyword: str(_value(dataset, keyword) or "") for keyword in IDENTIFIERS}


def _text(value: Any) -> str:
    """Value as one printable line, parts joined by a backslash."""
    if value is None:
        return ""
    parts = value if isinstance(value, tuple | list | pydicom.multival.MultiValue) else (value,)
    strings = (part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in parts)
    joined = "\\".join(string.strip(" \0") for string in strings)
    return joined if joined.isprintable() else "".join(c if c.isprintable() else "?" for c in joined)


def _parts(value: Any, little: bool) -> tuple[Any, ...]:
    """The values of a numeric element, converted or as text; none where it is absent or blank."""
    if isinstance(value, bytes):  # pydicom does not convert 'US or SS' in implicit VR
        return tuple(np.frombuffer(value, "<u2" if little else ">u2", len(value) // 2))
    if isinstance(value, str):
        parts: tuple[Any, ...] = tuple(part.strip(" \0") for part in value.split("\\"))
    else:
        parts = value if isinstance(value, tuple) else (value,)
    return parts if any(part not in (None, "") for part in parts) else ()


def _converted(part: Any, keyword: str) -> float:
    return number("" if part is None else str(part), keyword)
