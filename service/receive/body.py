"""A posted visit that is one file: the body is the file, streamed once to where a multipart's parts go.

A zip is the visit's files in one wrapping. One without films is the recordings' own (:mod:`data_specs.ecg.files` opens
it); one with films is taken apart here, and its files become inputs as if each had been posted. A zip that cannot be
read, or breaks the bounds, is kept as it came, and refused where every other file is: as an outcome of its visit.

References
----------
RFC 9110, section 8.3 (Content-Type) and 15.5.16 (415, also for a Content-Encoding).
RFC 4648, sections 4 and 5: the alphabets of base64.
"""

from __future__ import annotations

import zipfile
import zlib
from base64 import b64decode
from collections.abc import Mapping
from typing import Protocol

from data_specs.cxr.files import sniff
from data_specs.dicom.reference import is_dicom, is_waveform
from data_specs.ecg.files import is_not_a_recording
from data_specs.ecg.posted import PostedFile, check_zip_bounds, is_zip_member
from data_specs.problems import Refused
from service.errors import FieldFault, InvalidRequest, UnsupportedMediaType
from service.receive.multipart import LIMITS, Field, MultipartReader, Part, clean_filename
from service.storage.drafts import START_BYTES, Draft, Drafts

DICOM, ZIP = "application/dicom", "application/zip"
KINDS = frozenset({DICOM, ZIP, "image/png", "image/jpeg", "image/tiff"})
CONTEXT_HEADER = "Sangloc-Context"
PIECE_BYTES = 256 * 1024
"""A body, and a member of a zip, is handed on in pieces of about this size."""


def context_in_header(headers: Mapping[str, str]) -> bytes | None:
    """The JSON document in ``Sangloc-Context``, which is base64 of either alphabet.

    Raises
    ------
    InvalidRequest
        It is not base64.
    """
    given = headers.get(CONTEXT_HEADER.lower())
    if given is None:
        return None
    try:
        plain = given.strip().rstrip("=").replace("-", "+").replace("_", "/")
        document = b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:  # binascii.Error is one
        document = b""
    if not document:
        raise InvalidRequest(FieldFault(CONTEXT_HEADER, "body_malformed", "base64"))
    return document


class Reader(Protocol):
    """Takes a body in. It blocks: to be used from a thread."""

    def feed(self, data: bytes) -> None: ...

    def finish(self) -> list[Part]:
        """The parts of a body that was fed to its end."""


def reader_of(headers: Mapping[str, str], drafts: Drafts) -> Reader:
    """What reads a body with these headers, whichever of the accepted kinds it is.

    Raises
    ------
    UnsupportedMediaType, InvalidRequest
        As :class:`service.receive.multipart.MultipartReader`; a compressed body is not read.
    """
    content_type = headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in KINDS:
        return MultipartReader(content_type, drafts)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: {encoding[:20]}", "identity")
    return FileReader(kind, drafts)


class FileReader:
    """A body that is one file, or a zip of a visit's files."""

    def __init__(self, kind: str, drafts: Drafts) -> None:
        self._kind, self._drafts = kind, drafts
        self._draft: Draft | None = None

    def feed(self, data: bytes) -> None:
        self._draft = self._draft or self._drafts.new()
        self._draft.write(data)

    def finish(self) -> list[Part]:
        draft = self._draft or self._drafts.new()
        with draft.open() as file:
            recording = self._kind == ZIP or (self._kind == DICOM and is_waveform(file.read(START_BYTES)))
        field: Field = "ecg" if recording else "image"
        whole = Part(field, f"{field}-0", draft)
        if self._kind != ZIP:
            return [whole]
        try:
            return _members(whole, self._drafts) or [whole]
        except (Refused, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, OSError):
            return [whole]  # the reader of recordings says what is wrong with it


def _members(archive: Part, drafts: Drafts) -> list[Part]:
    """The files of a zip that holds films; none of one that holds recordings alone.

    Raises
    ------
    InvalidRequest
        More films or recordings than a visit has places for, or recordings' files of one name in different folders.
    Refused, zipfile.BadZipFile, and what else a damaged archive raises
        It is not to be used.
    """
    with archive.draft.open() as file, zipfile.ZipFile(file) as opened:
        listed = [info for info in opened.infolist() if is_zip_member(info.filename)]
        check_zip_bounds(listed, archive.draft.n_bytes)
        films = {info.filename for info in listed if _is_film(opened, info)}
        if not films:
            return []
        parts: list[Part] = []
        counts = dict.fromkeys(LIMITS, 0)
        names: set[str] = set()
        for info in listed:
            field: Field = "image" if info.filename in films else "ecg"
            if field == "image":
                _count(counts, field)
            draft = _extracted(opened, info, drafts.new())
            name = clean_filename(info.filename) or f"{field}-{len(parts)}"
            if field == "ecg":
                with draft.open() as member:
                    if is_not_a_recording(PostedFile(0, name, member.read())):
                        continue
                _count(counts, field)
                if name.lower() in names:
                    raise InvalidRequest(FieldFault(field, "field_repeated"))
                names.add(name.lower())
            parts.append(Part(field, name, draft))
        return parts


def _count(counts: dict[Field, int], field: Field) -> None:
    counts[field] += 1
    if counts[field] > LIMITS[field]:
        raise InvalidRequest(FieldFault(field, "field_too_many", str(LIMITS[field])))


def _is_film(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    with archive.open(info) as opened:
        start = opened.read(START_BYTES)
    return sniff(start) in ("png", "jpeg", "tiff") or (is_dicom(start) and not is_waveform(start))


def _extracted(archive: zipfile.ZipFile, info: zipfile.ZipInfo, draft: Draft) -> Draft:
    """A member in its draft; no more than it claims to be is inflated, and the bounds hold for its claim."""
    with archive.open(info) as opened:
        while piece := opened.read(PIECE_BYTES):
            draft.write(piece)
    return draft
