"""STOW-RS: DICOM objects posted by a hospital's archive, read as they arrive and kept like those of C-STORE.

The body is read to its end before anything is kept, so that nothing is left of a body that breaks off. Then each object
is taken or refused by itself, and the answer says which.

References
----------
DICOM PS3.18, section 10.5 (Store transaction; table 10.5.3-1 has its statuses) and annex I.2 (Store Instances Response
Module, its failure reasons); section 8.7.1 (application/dicom); RFC 2387 (multipart/related); RFC 2046, section 5.1.1.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request
from python_multipart.multipart import parse_options_header

from data_specs.dicom.reference import DicomReference
from service.errors import FieldFault, InvalidRequest, UnsupportedMediaType
from service.keys import Key
from service.receive.body import feed_in_pieces
from service.receive.commit import upload_turn
from service.receive.dicom.arrivals import CANNOT_UNDERSTAND, DOES_NOT_MATCH_CLASS, OUT_OF_RESOURCES, receive
from service.receive.dicom.header import read_reference
from service.receive.multipart import Headers, PartsReader, check_encoding
from service.state import Service
from service.storage.drafts import Draft, Drafts

DICOM, RELATED = b"application/dicom", b"multipart/related"
ACCEPTED = 'multipart/related; type="application/dicom"'
MAX_PARTS = 100
"""Objects of one request: each holds a file open until the body ends. An archive sends about ten at a time."""
MAX_BOUNDARY = 200
"""RFC 2046, section 5.1.1 allows 70 characters; Orthanc sends 73."""


class RelatedReader(PartsReader):
    """Reads a ``multipart/related`` body of DICOM objects, piece by piece. It blocks: to be used from a thread.

    Parameters
    ----------
    drafts
        For the objects; the caller removes them, also when this raises.

    Raises
    ------
    UnsupportedMediaType
        The body, or one of its parts, is something else.
    InvalidRequest
        It cannot be read, or (from :meth:`feed` and :meth:`finish`) holds no object, or too many.
    """

    def __init__(self, content_type: str, drafts: Drafts) -> None:
        kind, options = parse_options_header(content_type[:1000])
        inner = options.get(b"type", DICOM).strip().lower()
        if kind.lower() != RELATED or inner != DICOM:
            shown = kind if kind.lower() != RELATED else inner
            raise UnsupportedMediaType(shown.decode("latin-1")[:60], ACCEPTED)
        boundary = options.get(b"boundary", b"")
        super().__init__(boundary if len(boundary) <= MAX_BOUNDARY else b"", ACCEPTED)
        self._drafts = drafts
        self._objects: list[Draft] = []

    def finish(self) -> list[Draft]:
        """The objects of a body that was fed to its end."""
        if not self._ended or not self._objects:
            raise self._malformed()
        return self._objects

    def _begin_part(self, headers: Headers) -> Draft:
        if len(self._objects) >= MAX_PARTS:
            raise InvalidRequest(FieldFault("body", "field_too_many", str(MAX_PARTS)))
        kind, _ = parse_options_header(headers.get(b"content-type", DICOM))
        if kind.lower() != DICOM:
            raise UnsupportedMediaType(kind.decode("latin-1")[:60], DICOM.decode())
        check_encoding(headers, "body")
        return self._drafts.new()

    def _end_part(self, draft: Draft) -> None:
        self._objects.append(draft)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether one posted object was taken.

    Parameters
    ----------
    reference
        ``None`` where the object's header cannot be read.
    failure
        FailureReason (0008,1197), one of those in :mod:`service.receive.dicom.arrivals`; ``None`` where it was taken.
    """

    reference: DicomReference | None
    failure: int | None = None


async def store_objects(service: Service, key: Key, request: Request, study: str | None) -> list[Outcome]:
    """Take the posted objects; those that are taken are on disk when this returns.

    Parameters
    ----------
    study
        StudyInstanceUID that all of them must have; ``None`` where any study may come.

    Raises
    ------
    UnsupportedMediaType, InvalidRequest, BodyTooLarge, BodyTooSlow, QueueFull, StorageFull, StorageUnavailable
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding: {encoding[:20]}", "identity")
    await service.room.wait_for_check()
    drafts = Drafts(service.store.drafts)
    reader = RelatedReader(request.headers.get("content-type", ""), drafts)
    try:
        async with upload_turn(service, key.id) as take_turn:
            rest = await feed_in_pieces(reader, request, take_turn)
            await asyncio.to_thread(reader.feed, rest)
            return [await asyncio.to_thread(_take, service, key, draft, study) for draft in reader.finish()]
    finally:
        if drafts:
            await asyncio.to_thread(drafts.remove)


def _take(service: Service, key: Key, draft: Draft, study: str | None) -> Outcome:
    """Take one object. It blocks: to be called from a thread."""
    reference = read_reference(service.readers, draft)
    if reference is None:
        return Outcome(None, CANNOT_UNDERSTAND)
    if study is not None and reference.StudyInstanceUID != study:
        return Outcome(reference, DOES_NOT_MATCH_CLASS)
    refusal = receive(service, key.site, key.id, draft)
    return Outcome(reference, None if refusal is None else refusal.status)


def status_of(outcomes: list[Outcome]) -> int:
    """HTTP status: 200 where all were taken, 202 some of them; 503 where there was no room for any, 409 else.

    References
    ----------
    PS3.18, table 10.5.3-1, and section 8.5 for 503: the client may send the same request again.
    """
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    if len(failures) < len(outcomes):
        return 202 if failures else 200
    return 503 if set(failures) == {OUT_OF_RESOURCES} else 409


def response_document(outcomes: list[Outcome], root: str) -> dict[str, Any]:
    """The Store Instances Response as DICOM JSON.

    Parameters
    ----------
    root
        Address of this DICOMweb service. Only objects that the service made can be retrieved: the study has an
        address, that of a posted object is left empty.
    """
    from pydicom import Dataset  # noqa: PLC0415  pydicom is loaded on first use

    import data_specs.dicom.header  # noqa: F401, PLC0415  pydicom would warn of identifiers, and quote them

    taken: list[Dataset] = []
    failed: list[Dataset] = []
    unidentified: list[Dataset] = []
    studies: set[str] = set()
    for outcome in outcomes:
        item = Dataset()
        if outcome.reference:
            item.ReferencedSOPClassUID = outcome.reference.SOPClassUID
            item.ReferencedSOPInstanceUID = outcome.reference.SOPInstanceUID
        if outcome.failure is not None:
            item.FailureReason = outcome.failure
            (failed if outcome.reference else unidentified).append(item)
        elif outcome.reference:
            item.RetrieveURL = ""
            taken.append(item)
            studies.add(outcome.reference.StudyInstanceUID if outcome.reference.names_its_study else "")
    answer = Dataset()
    study = studies.pop() if len(studies) == 1 else ""
    answer.RetrieveURL = f"{root}/studies/{quote(study, safe='')}" if study else ""
    sequences = {"ReferencedSOPSequence": taken, "FailedSOPSequence": failed, "OtherFailuresSequence": unidentified}
    for keyword, items in sequences.items():
        if items:
            setattr(answer, keyword, items)
    document: dict[str, Any] = answer.to_json_dict()
    return document
