"""A posted visit that is one file: the body is the file, streamed once to where a multipart's parts go.

A zip is the visit's files in one wrapping. One without films is the recordings' own (:mod:`data_specs.ecg_files` opens
it); one with films is taken apart here, and its files become inputs as if each had been posted. A zip that cannot be
read, or breaks the bounds, is kept as it came, and refused where every other file is: as an outcome of its visit.

References
----------
RFC 9110, section 8.3 (Content-Type) and 15.5.16 (415, also for a Content-Encoding).
RFC 4648, sections 4 and 5: the alphabets of base64.
"""

from __future__ import annotations

import hashlib
import os
import uuid
import zipfile
import zlib
from asyncio import to_thread
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from data_specs.cxr_files import sniff
from data_specs.ecg_dicom import is_dicom, is_waveform
from data_specs.ecg_files import PostedFile, check_zip_bounds, is_leaflet, is_zip_member
from data_specs.problems import Refused
from service.errors import FieldFault, InvalidRequest, UnsupportedMediaType
from service.multipart import LIMITS, PARSE_BYTES, Field, Part, clean_filename, read_parts

DICOM, ZIP = "application/dicom", "application/zip"
KINDS = frozenset({DICOM, ZIP, "image/png", "image/jpeg", "image/tiff"})
CONTEXT_HEADER = "Sangloc-Context"
START_BYTES = 4096
"""As much of a file as tells a film from a recording."""


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


async def read_body(headers: Mapping[str, str], chunks: AsyncIterator[bytes], drafts: Path) -> list[Part]:
    """Read the body to its end, whichever of the accepted kinds it is.

    Parameters
    ----------
    drafts
        Folder for the files; what lies there belongs to the caller, also when this raises.

    Raises
    ------
    UnsupportedMediaType, InvalidRequest
        As :func:`service.multipart.read_parts`; a compressed body is not read.
    """
    content_type = headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in KINDS:
        return await read_parts(content_type, chunks, drafts)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: {encoding[:20]}", "identity")
    draft = _Draft(drafts)
    try:
        pending: list[bytes] = []
        n_bytes = 0
        async for chunk in chunks:
            pending.append(chunk)
            n_bytes += len(chunk)
            if n_bytes >= PARSE_BYTES:
                await to_thread(draft.write, pending)
                pending, n_bytes = [], 0
        return await to_thread(_finish, draft, kind, pending)
    finally:
        draft.close()


class _Draft:
    """A file on its way in: written and hashed as it comes."""

    def __init__(self, drafts: Path) -> None:
        self.path = drafts / uuid.uuid4().hex
        self.start = b""
        self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._hash = hashlib.sha256()
        self._n_bytes = 0

    def write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            if len(self.start) < START_BYTES:
                self.start += piece[: START_BYTES - len(self.start)]
            self._hash.update(piece)
            self._file.write(piece)
            self._n_bytes += len(piece)

    def close(self) -> None:
        self._file.close()

    def part(self, field: Field, filename: str) -> Part:
        self.close()
        return Part(field, filename, self.path, self._hash.hexdigest(), self._n_bytes)


def _finish(draft: _Draft, kind: str, rest: list[bytes]) -> list[Part]:
    """The parts of a body whose last bytes are ``rest``."""
    draft.write(rest)
    field: Field = "ecg" if kind == ZIP or (kind == DICOM and is_waveform(draft.start)) else "image"
    whole = draft.part(field, f"{field}-0")
    if kind != ZIP:
        return [whole]
    try:
        return _members(whole) or [whole]
    except (Refused, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, ValueError, EOFError, OSError):
        return [whole]  # the reader of recordings says what is wrong with it


def _members(archive: Part) -> list[Part]:
    """The files of a zip that holds films; none of one that holds recordings alone.

    Raises
    ------
    InvalidRequest
        More films or recordings than a visit has places for, or recordings' files of one name in different folders.
    Refused, zipfile.BadZipFile, and what else a damaged archive raises
        It is not to be used.
    """
    with zipfile.ZipFile(archive.draft) as opened:
        listed = [info for info in opened.infolist() if is_zip_member(info.filename)]
        check_zip_bounds(listed, archive.n_bytes)
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
            draft = _extracted(opened, info, archive.draft.parent)
            name = clean_filename(info.filename) or f"{field}-{len(parts)}"
            if field == "ecg":
                if is_leaflet(PostedFile(0, name, draft.path.read_bytes())):
                    continue
                _count(counts, field)
                if name.lower() in names:
                    raise InvalidRequest(FieldFault(field, "field_repeated"))
                names.add(name.lower())
            parts.append(draft.part(field, name))
        return parts


def _count(counts: dict[Field, int], field: Field) -> None:
    counts[field] += 1
    if counts[field] > LIMITS[field]:
        raise InvalidRequest(FieldFault(field, "field_too_many", str(LIMITS[field])))


def _is_film(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    with archive.open(info) as opened:
        start = opened.read(START_BYTES)
    return sniff(start) in ("png", "jpeg", "tiff") or (is_dicom(start) and not is_waveform(start))


def _extracted(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> _Draft:
    """A member in a draft of its own; no more than it claims to be is inflated, and the bounds hold for its claim."""
    draft = _Draft(folder)
    try:
        with archive.open(info) as opened:
            while piece := opened.read(PARSE_BYTES):
                draft.write((piece,))
    finally:
        draft.close()
    return draft
