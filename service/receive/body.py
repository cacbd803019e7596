"""A posted body, read as it arrives: a form of several parts, or one file.

A body that is one file is streamed to a draft, as a part of a form is. A zip holds the files of one visit. A zip of
recordings alone stays one file, which :mod:`data_specs.ecg.files` opens. A zip with films is unpacked here, and each
of its files becomes an input as if it had been posted by itself. A zip that is damaged or out of bounds is kept as it
came, and is refused as every other unusable file is: as an outcome of its visit.

References
----------
RFC 9110, section 8.3 (Content-Type) and 15.5.16 (415, also for a Content-Encoding).
RFC 4648, sections 4 and 5: the alphabets of base64.
"""

from __future__ import annotations

import asyncio
import zipfile
import zlib
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from fastapi import Request

from data_specs.ecg.files import is_not_a_recording
from data_specs.ecg.posted import PostedFile, check_zip_bounds, is_zip_member, open_zip
from data_specs.fields import field_of
from data_specs.problems import Refused
from service.errors import FieldFault, InvalidRequest, UnsupportedMediaType
from service.receive.multipart import FormReader
from service.receive.posted import LIMITS, Field, Part, clean_filename
from service.storage.drafts import START_BYTES, Draft, Drafts

DICOM, ZIP = "application/dicom", "application/zip"
KINDS = frozenset({DICOM, ZIP, "image/png", "image/jpeg", "image/tiff"})
"""Content types of a body that is one file."""
CONTEXT_HEADER = "Sangloc-Context"
PIECE_BYTES = 256 * 1024
"""A body, and a member of a zip, is read in pieces of about this size."""
BYTES_WITHOUT_TURN = 64 * 1024
"""So much of a body may come before it has a turn: as much again as the server reads ahead of every request."""


def context_in_header(headers: Mapping[str, str]) -> bytes | None:
    """The JSON document in ``Sangloc-Context``, which is base64 of either alphabet; ``None`` without that header.

    Raises
    ------
    InvalidRequest
        It is not base64.
    """
    encoded = headers.get(CONTEXT_HEADER.lower())
    if encoded is None:
        return None
    try:
        standard = encoded.strip().rstrip("=").replace("-", "+").replace("_", "/")
        document = b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError:  # binascii.Error is one
        document = b""
    if not document:
        raise InvalidRequest(FieldFault(CONTEXT_HEADER, "body_malformed", "base64"))
    return document


class Feeds(Protocol):
    """Takes a body in, piece by piece. It blocks: to be used from a thread."""

    def feed(self, data: bytes) -> None: ...


class Reader(Feeds, Protocol):
    """Reads the body of a posted visit."""

    def finish(self) -> list[Part]:
        """The parts of a body that was fed to its end."""


async def feed_in_pieces(reader: Feeds, request: Request, take_turn: Callable[[], Awaitable[None]]) -> bytes:
    """Feed a request's body in pieces, each in a thread.

    Parameters
    ----------
    take_turn
        Called before there is more to keep than a little, and at the end; it waits until the body may be read.

    Returns
    -------
    The rest, less than a piece: the caller feeds it in the thread in which it goes on, so that a small body takes one
    turn of a thread.
    """
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if len(piece) >= BYTES_WITHOUT_TURN:
            await take_turn()
        if len(piece) >= PIECE_BYTES:
            await asyncio.to_thread(reader.feed, bytes(piece))
            piece.clear()
    await take_turn()
    return bytes(piece)


def reader_of(headers: Mapping[str, str], drafts: Drafts) -> Reader:
    """The reader of a body with these headers.

    Raises
    ------
    UnsupportedMediaType, InvalidRequest
        As :class:`service.receive.multipart.FormReader`; a compressed body is not read.
    """
    content_type = headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in KINDS:
        return FormReader(content_type, drafts)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: {encoding[:20]}", "identity")
    return FileReader(kind, drafts)


class FileReader:
    """Reads a body that is one file, or a zip of a visit's files.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    drafts
        For the files; the caller removes them, also when this raises.
    """

    def __init__(self, kind: str, drafts: Drafts) -> None:
        self._kind, self._drafts = kind, drafts
        self._draft: Draft | None = None

    def feed(self, data: bytes) -> None:
        self._draft = self._draft or self._drafts.new()
        self._draft.write(data)

    def finish(self) -> list[Part]:
        """The file, or a zip's files where films are among them."""
        draft = self._draft or self._drafts.new()
        with draft.open() as file:
            field = field_of(file.read(START_BYTES), "" if self._kind == ZIP else "image")
        whole = Part(field, f"{field}-0", draft)
        if self._kind != ZIP:
            return [whole]
        try:
            return _members(whole, self._drafts) or [whole]
        except (Refused, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, OSError):
            return [whole]  # the reader of recordings says what is wrong with it


def _members(archive: Part, drafts: Drafts) -> list[Part]:
    """The files of a zip that holds films; none of a zip that holds recordings alone.

    Raises
    ------
    InvalidRequest
        It holds more films or recordings than a visit may, or recordings' files of one name in different folders.
    Refused, zipfile.BadZipFile, and what else a damaged archive raises
        It cannot be used.
    """
    with archive.draft.open() as file, open_zip(file) as opened:
        listed = [info for info in opened.infolist() if is_zip_member(info.filename)]
        check_zip_bounds(listed, archive.draft.n_bytes)
        fields = [_field_of_member(opened, info) for info in listed]
        if "image" not in fields:
            return []
        parts: list[Part] = []
        counts = dict.fromkeys(LIMITS, 0)
        names: set[str] = set()
        for info, field in zip(listed, fields, strict=True):
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


def _field_of_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Field:
    with archive.open(info) as opened:
        return field_of(opened.read(START_BYTES))


def _extracted(archive: zipfile.ZipFile, info: zipfile.ZipInfo, draft: Draft) -> Draft:
    """A member in its draft. zipfile stops at the size that the member states, and the stated sizes are in bounds."""
    with archive.open(info) as opened:
        while piece := opened.read(PIECE_BYTES):
            draft.write(piece)
    return draft
