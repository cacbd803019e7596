"""STOW-RS: DICOM objects posted by a hospital's archive, read as they arrive and gathered as C-STORE's are.

The body is read to its end before anything is kept, so that a peer that leaves in the middle leaves nothing behind;
then each object is taken or refused by itself, and the answer says which.

References
----------
DICOM PS3.18, section 10.5 (Store transaction; table 10.5.3-1 has its statuses) and annex I.2 (Store Instances Response
Module, its failure reasons); section 8.7.1 (application/dicom); RFC 2387 (multipart/related); RFC 2046, section 5.1.1.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from data_specs.dicom.reference import DicomReference, read_reference
from service.errors import FieldFault, InvalidRequest, UnsupportedMediaType
from service.keys import Key
from service.receive.accept import upload_turn
from service.receive.body import PIECE_BYTES
from service.state import Service
from service.storage.drafts import Draft, Drafts

if TYPE_CHECKING:
    from pydicom import Dataset

DICOM, RELATED = b"application/dicom", b"multipart/related"
ACCEPTED = 'multipart/related; type="application/dicom"'
MAX_PARTS = 100
"""Objects of one request: each holds a file open until the body ends. An archive sends some ten at a time."""
MAX_BOUNDARY = 200
"""RFC 2046, section 5.1.1 has 70 characters; Orthanc sends 73."""

DOES_NOT_MATCH, NOT_UNDERSTOOD = 0xA900, 0xC000
"""FailureReason (0008,1197) of what is not given to :mod:`service.receive.dicom.arrivals`, which has the others
(PS3.18, section I.2.2)."""


class RelatedReader:
    """Takes a ``multipart/related`` body of DICOM objects in, piece by piece. It blocks: to be used from a thread.

    Parameters
    ----------
    drafts
        For the objects; they belong to the caller, also when this raises.

    Raises
    ------
    UnsupportedMediaType
        It, or one of its parts, is something else.
    InvalidRequest
        It cannot be read, or (from :meth:`feed` and :meth:`finish`) holds nothing, or too many objects.
    """

    def __init__(self, content_type: str, drafts: Drafts) -> None:
        kind, options = parse_options_header(content_type[:1000])
        inner = options.get(b"type", DICOM).strip().lower()
        if kind.lower() != RELATED or inner != DICOM:
            shown = kind if kind.lower() != RELATED else inner
            raise UnsupportedMediaType(shown.decode("latin-1")[:60], ACCEPTED)
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise malformed()
        self._drafts = drafts
        self._taken: list[Draft] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._draft: Draft | None = None
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> None:
        if not data or self._ended:  # RFC 2046, section 5.1.1: what follows the last boundary is to be ignored
            return
        try:
            self._parser.write(data)
        except FormParserError:
            raise malformed() from None

    def finish(self) -> list[Draft]:
        """The objects of a body that was fed to its end."""
        if not self._ended or not self._taken:
            raise malformed()
        return self._taken

    def _on_part_begin(self) -> None:
        self._headers = {}
        if len(self._taken) >= MAX_PARTS:
            raise InvalidRequest(FieldFault("body", "field_too_many", str(MAX_PARTS)))

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        kind, _ = parse_options_header(self._headers.get(b"content-type", DICOM))
        if kind.lower() != DICOM:
            raise UnsupportedMediaType(kind.decode("latin-1")[:60], DICOM.decode())
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in (b"7bit", b"8bit", b"binary"):
            raise InvalidRequest(FieldFault("body: Content-Transfer-Encoding", "field_invalid", "binary"))
        self._draft = self._drafts.new()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._draft is None:
            raise malformed()
        self._draft.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        draft, self._draft = self._draft, None
        if draft is None:
            raise malformed()
        self._taken.append(draft)

    def _on_end(self) -> None:
        self._ended = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one posted object.

    Parameters
    ----------
    reference
        ``None`` where it does not say which object it is.
    failure
        FailureReason (0008,1197), ``None`` where it was taken.
    """

    reference: DicomReference | None
    failure: int | None = None


async def store_objects(service: Service, key: Key, request: Request, study: str | None) -> list[Outcome]:
    """Take the posted objects; those that were taken are on disk when this returns.

    Parameters
    ----------
    study
        StudyInstanceUID that all of them must have, if one is given.

    Raises
    ------
    UnsupportedMediaType, InvalidRequest, BodyTooLarge, BodyTooSlow, QueueFull
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: {encoding[:20]}", "identity")
    drafts = Drafts(service.store.drafts)
    reader = RelatedReader(request.headers.get("content-type", ""), drafts)
    try:
        async with upload_turn(service):
            posted = await _read(reader, request)
            return [await asyncio.to_thread(_take, service, key, draft, study) for draft in posted]
    finally:
        if drafts:
            await asyncio.to_thread(drafts.remove)


async def _read(reader: RelatedReader, request: Request) -> list[Draft]:
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            await asyncio.to_thread(reader.feed, bytes(piece))
            piece.clear()
    await asyncio.to_thread(reader.feed, bytes(piece))
    return reader.finish()


def _take(service: Service, key: Key, draft: Draft, study: str | None) -> Outcome:
    """One object, in a thread."""
    from service.receive.dicom.arrivals import receive  # noqa: PLC0415

    with draft.open() as file:
        reference = read_reference(file)
    if reference is None:
        return Outcome(None, NOT_UNDERSTOOD)
    if study is not None and reference.StudyInstanceUID != study:
        return Outcome(reference, DOES_NOT_MATCH)
    refusal = receive(service, key.site, key.id, draft)
    return Outcome(reference, None if refusal is None else refusal.status)


def status_of(outcomes: list[Outcome]) -> int:
    """200 all taken, 202 some, 409 none."""
    failed = sum(each.failure is not None for each in outcomes)
    return 200 if not failed else 409 if failed == len(outcomes) else 202


def response_document(outcomes: list[Outcome], root: str) -> dict[str, Any]:
    """The Store Instances Response as DICOM JSON.

    Parameters
    ----------
    root
        Address of this DICOMweb service. Only what the service makes can be retrieved: the study has an address, a
        posted object's own is left empty.
    """
    from pydicom import Dataset  # noqa: PLC0415  only who speaks DICOM loads pydicom

    taken = [each.reference for each in outcomes if each.reference and each.failure is None]
    answer = Dataset()
    studies = {each.StudyInstanceUID for each in taken}
    answer.RetrieveURL = f"{root}/studies/{studies.pop()}" if len(studies) == 1 else ""
    if taken:
        answer.ReferencedSOPSequence = [_item(each) for each in taken]
        for item in answer.ReferencedSOPSequence:
            item.RetrieveURL = ""
    failed = [(each.reference, each.failure) for each in outcomes if each.failure is not None]
    known = [_failed(_item(reference), reason) for reference, reason in failed if reference]
    others = [_failed(Dataset(), reason) for reference, reason in failed if not reference]
    if known:
        answer.FailedSOPSequence = known
    if others:
        answer.OtherFailuresSequence = others
    document: dict[str, Any] = answer.to_json_dict()
    return document


def _item(reference: DicomReference) -> Dataset:
    from pydicom import Dataset  # noqa: PLC0415

    item = Dataset()
    item.ReferencedSOPClassUID = reference.SOPClassUID
    item.ReferencedSOPInstanceUID = reference.SOPInstanceUID
    return item


def _failed(item: Dataset, reason: int) -> Dataset:
    item.FailureReason = reason
    return item


def malformed() -> InvalidRequest:
    return InvalidRequest(FieldFault("body", "body_malformed", ACCEPTED))
