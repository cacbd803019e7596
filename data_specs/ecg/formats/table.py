"""The formats of single files, one row each: its name, how its bytes are recognised, the function that reads them.

A new format needs its reader and a row here. WFDB has no row: its recordings are several files, which
:mod:`data_specs.ecg.files` puts together by their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from xml.etree.ElementTree import Element

from data_specs.dicom.reference import is_dicom
from data_specs.ecg.formats import aecg, csv, dicom, edf, ge, mat, philips, scp
from data_specs.ecg.formats.xml import is_xml, parse
from data_specs.ecg.recording import Recording, VoltageUnit
from data_specs.problems import Refused


class Reader(Protocol):
    """Reads the bytes of a file; ``ecg_unit`` is the unit of its samples where the file states none."""

    def __call__(self, content: bytes, /, *, ecg_unit: VoltageUnit | None) -> Recording: ...


class XmlReader(Protocol):
    """Reads a parsed document; ``ecg_unit`` as for :class:`Reader`."""

    def __call__(self, root: Element, /, *, ecg_unit: VoltageUnit | None) -> Recording: ...


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is recognised by the bytes of its files; without a reader where it is known but not supported."""

    name: str
    recognise: Callable[[bytes], bool]
    read: Reader | None = None


@dataclass(frozen=True, slots=True)
class XmlFormat:
    """A format that is recognised by the root element of its documents."""

    name: str
    root: str
    read: XmlReader


def _starts_with(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda content: content.startswith(signatures)


def _read_xml(content: bytes, /, *, ecg_unit: VoltageUnit | None) -> Recording:
    """The document's row of :data:`XML_FORMATS` reads it.

    Raises
    ------
    Refused
        ``unreadable`` (not well-formed, entities), ``unsupported_format`` (another root), and what the readers refuse.
    """
    root = parse(content)
    found = next((row for row in XML_FORMATS if row.root == root.tag), None)
    if found is None:
        quotable = re.sub(r"[^\w.:-]", "", root.tag)[:32]
        expected = ", ".join(row.root for row in XML_FORMATS)
        raise Refused("unsupported_format", found=f"XML <{quotable}>", expected=expected)
    try:
        return found.read(root, ecg_unit=ecg_unit)
    except (ValueError, OverflowError) as error:  # a text where the format has a number
        raise Refused("unreadable", found=f"XML {root.tag}", expected="0-9") from error


XML_FORMATS = (
    XmlFormat("HL7 aECG", "AnnotatedECG", aecg.read),
    XmlFormat("GE MUSE XML", "RestingECG", ge.read_muse),
    XmlFormat("GE CardioSoft XML", "CardiologyXML", ge.read_cardiosoft),
    XmlFormat("Philips XML", "restingecgdata", philips.read),
)

_WITH_SIGNATURE = (
    Format("DICOM", is_dicom, dicom.read),  # first: what stands before its signature may be that of another format
    Format("MAT", mat.is_mat, mat.read),
    Format("HDF5", _starts_with(b"\x89HDF")),
    Format("PDF", _starts_with(b"%PDF")),
    Format("PNG", _starts_with(b"\x89PNG")),
    Format("JPEG", _starts_with(b"\xff\xd8\xff")),
    Format("TIFF", _starts_with(b"II*\0", b"MM\0*")),
    Format("ISHNE", _starts_with(b"ISHNE1.0")),
    Format("MFER", _starts_with(b"MFR ")),
    Format("GZIP", _starts_with(b"\x1f\x8b")),
    Format("7Z", _starts_with(b"7z\xbc\xaf")),
    Format("RAR", _starts_with(b"Rar!")),
    Format("FLAC", _starts_with(b"fLaC")),
    Format("EDF", edf.is_edf, edf.read),
    Format("SCP-ECG", scp.is_scp, scp.read),
    Format("XML", is_xml, _read_xml),
)
"""In the order in which they are tried."""

_CSV = Format("CSV", csv.is_text, csv.read)
"""Tried last: any text may be one."""


def format_of(content: bytes) -> Format | None:
    """The row that recognises the bytes of a file, if one does."""
    return next((row for row in (*_WITH_SIGNATURE, _CSV) if row.recognise(content)), None)


def has_signature(content: bytes) -> bool:
    """Whether a file is of a format that is recognised by a signature, supported or not."""
    return any(row.recognise(content) for row in _WITH_SIGNATURE)


_signed_names = [row.name for row in _WITH_SIGNATURE if row.read not in (None, _read_xml)]
NAMES = ", ".join(["WFDB", *_signed_names, *(row.name for row in XML_FORMATS), _CSV.name])
"""What is read, as refusals name it."""
