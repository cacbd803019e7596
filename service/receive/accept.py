"""From a request to an accepted visit: parts read, context checked, files stored, row committed; then the answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fastapi import Request
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference, read_reference
from data_specs.visit.context import Context
from data_specs.visit.report import uid
from service.errors import FieldFault, IdempotencyConflict, InvalidRequest, QueueFull, Unavailable
from service.keys import Key
from service.receive.body import PIECE_BYTES, Reader, context_in_header, reader_of
from service.receive.context import read_context
from service.receive.multipart import Part
from service.receive.orders import find_order, merge_order
from service.state import Service
from service.storage.database import database_now, insert_rows
from service.storage.drafts import Drafts
from service.storage.tables import VISITS, InputRow, VisitRow

RETRY_AFTER_S = 5
MAX_IDEMPOTENCY_KEY = 255


@dataclass(frozen=True, slots=True)
class Accepted:
    """The visit, and whether this request is the one that made it."""

    row: VisitRow
    is_new: bool


async def accept_visit(service: Service, key: Key, request: Request) -> Accepted:
    """Take a posted visit on. When this returns, it is on disk: its files, then its row.

    Raises
    ------
    Unavailable, QueueFull, UnsupportedMediaType, InvalidRequest, BodyTooLarge, BodyTooSlow, IdempotencyConflict
    """
    if not service.available:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    idempotency_key = idempotency_key_of(request)
    beside = context_in_header(request.headers)
    if service.queue_was_full and not await service.database.read(
        partial(_has_place, service, key.site, idempotency_key)
    ):
        raise _queue_full()
    async with upload_turn(service):
        posted = await _read_and_store(service, request, beside)
    context = await with_order(service, key.site, posted.context)
    row = new_visit(key.site, key.id, context, posted.files, posted.digest, idempotency_key=idempotency_key)
    accepted = await commit_visit(service, row)
    if accepted is None:
        raise _queue_full()
    return accepted


def idempotency_key_of(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is not None and not (0 < len(given) <= MAX_IDEMPOTENCY_KEY and given.isascii() and given.isprintable()):
        raise InvalidRequest(FieldFault("Idempotency-Key", "field_invalid", f"1 … {MAX_IDEMPOTENCY_KEY} ASCII"))
    return given


async def with_order(service: Service, site: str, context: Context) -> Context:
    """A context that names an accession number, with what the order of that number says beside it."""
    number = context.order.accession_number if context.order else None
    if not number:
        return context
    ordered = await service.database.read(lambda session: find_order(session, site, number))
    return merge_order(context, ordered) if ordered else context


@asynccontextmanager
async def upload_turn(service: Service) -> AsyncIterator[None]:
    """Wait for one of the places for bodies being read, so that their drafts and threads stay bounded."""
    try:
        async with asyncio.timeout(service.settings.idle_seconds):
            await service.uploads.acquire()
    except TimeoutError:
        raise _queue_full() from None
    try:
        yield
    finally:
        service.uploads.release()


def _queue_full() -> QueueFull:
    return QueueFull("", f"{RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that came with a visit, in the store."""

    field: Literal["image", "ecg"]
    filename: str
    sha256: str
    n_bytes: int
    dicom: DicomReference | None


@dataclass(frozen=True, slots=True)
class _Posted:
    """What a body held, its files in the store; ``digest`` is the same whatever boundary it was posted with."""

    context: Context
    files: Sequence[StoredFile]
    digest: str


async def _read_and_store(service: Service, request: Request, beside: bytes | None) -> _Posted:
    """Read the body in threads, in pieces; one that fits into a piece takes a single turn of a thread.

    Parameters
    ----------
    beside
        The context that came in a header.
    """
    drafts = Drafts(service.store.drafts)
    reader = reader_of(request.headers, drafts)
    try:
        piece = bytearray()
        async for chunk in request.stream():
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                await asyncio.to_thread(reader.feed, bytes(piece))
                piece.clear()
        return await asyncio.to_thread(_finish_and_store, service, reader, bytes(piece), beside, drafts)
    finally:
        if drafts:
            await asyncio.to_thread(drafts.remove)


def _finish_and_store(service: Service, reader: Reader, last: bytes, beside: bytes | None, drafts: Drafts) -> _Posted:
    reader.feed(last)
    parts = reader.finish()
    documents = [_content(part) for part in parts if part.field == "context"]
    if beside is not None:
        documents.append(beside)
    if len(documents) > 1:
        raise InvalidRequest(FieldFault("context", "field_repeated"))
    context = read_context(documents[0]) if documents else Context()
    files = [put_in_store(service, part) for part in parts if part.field != "context"]
    drafts.remove()
    return _Posted(context, files, _body_hash(parts, beside))


def put_in_store(service: Service, part: Part) -> StoredFile:
    """Store one part of a visit; where it belongs is read first, while it still lies in memory."""
    assert part.field != "context"  # noqa: S101
    with part.draft.open() as file:
        dicom = read_reference(file)
    service.store.put(part.draft)
    return StoredFile(part.field, part.filename, part.draft.sha256, part.draft.n_bytes, dicom)


def _content(part: Part) -> bytes:
    with part.draft.open() as file:
        return file.read()


def _body_hash(parts: Sequence[Part], beside: bytes | None) -> str:
    listed = [(part.field, part.filename, part.draft.sha256) for part in parts]
    if beside is not None:
        listed.append(("context", "", hashlib.sha256(beside).hexdigest()))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _naming(id_: str | None) -> str | None:
    """An identifier that says something; the blanks of all whom nobody has asked are not one person's."""
    return id_ if id_ and any(each.isprintable() and not each.isspace() for each in id_) else None


def new_visit(
    site: str,
    key_id: str,
    context: Context,
    files: Sequence[StoredFile],
    digest: str,
    *,
    idempotency_key: str | None = None,
) -> VisitRow:
    """The row of a visit that is about to be committed, whatever way it came in.

    Parameters
    ----------
    digest
        SHA-256 of what was posted; with the same ``idempotency_key`` it has to be the same.
    """
    visit_id = str(uuid.uuid4())
    dicom = next((file.dicom for file in files if file.dicom), None)
    ordered = context.order.accession_number if context.order else None
    return VisitRow(
        id=visit_id,
        site=site,
        key_id=key_id,
        referrer_id=context.referrer.id if context.referrer else None,
        person_id=_naming(context.person.id),
        study_uid=dicom.StudyInstanceUID if dicom else uid(visit_id, 0, "study"),
        accession_number=ordered or (dicom.AccessionNumber[:64] if dicom else None) or None,
        context=context.model_dump_json(exclude_unset=True),
        status="accepted",
        priority="unassessed",
        version=1,
        idempotency_key=idempotency_key,
        body_hash=digest,
        attempts=0,
        faults=0,
        inputs=[
            InputRow(
                visit_id=visit_id,
                index=index,
                field=file.field,
                filename=file.filename,
                sha256=file.sha256,
                n_bytes=file.n_bytes,
                refused=False,
                dicom=file.dicom.model_dump_json(exclude_defaults=True) if file.dicom else None,
            )
            for index, file in enumerate(files)
        ],
    )


async def commit_visit(
    service: Service, row: VisitRow, *, also: Callable[[Session], object] = lambda _: None
) -> Accepted | None:
    """Insert the visit, leased to this process where it has a hand free, and set to work on it at once.

    Parameters
    ----------
    also
        What is written in the same transaction, after the visit itself.

    Returns
    -------
    ``None`` where as many visits are unfinished as the service takes on.

    Raises
    ------
    IdempotencyConflict
        The first visit of this ``Idempotency-Key`` had another body.
    """
    leased = service.work.reserve()
    is_new = False

    def insert(session: Session) -> VisitRow | None:
        first = first_visit(session, row.site, row.idempotency_key)
        if first is not None:
            return first
        if not has_room(service, session):
            return None
        row.received_at = database_now(session)
        if leased:
            service.work.lease(row, row.received_at)
        insert_rows(session, row, *row.inputs)
        also(session)
        return row

    try:
        try:
            stored = await service.database.write(insert)
        except IntegrityError:  # PostgreSQL: the same Idempotency-Key was committed between our look and our insert
            if row.idempotency_key is None:
                raise
            stored = await service.database.read(lambda session: _expect_first(session, row.site, row.idempotency_key))
        is_new = stored is row
    finally:
        if leased:
            service.work.use_reservation(row if is_new else None)
    if stored is None:
        return None
    if stored.body_hash != row.body_hash:
        raise IdempotencyConflict
    return Accepted(stored, is_new)


def first_visit(session: Session, site: str, idempotency_key: str | None) -> VisitRow | None:
    """The visit that a site's ``Idempotency-Key`` made, if it has made one."""
    if idempotency_key is None:
        return None
    query = select(VisitRow).where(VisitRow.site == site, VisitRow.idempotency_key == idempotency_key)
    return session.scalars(query).one_or_none()


def _expect_first(session: Session, site: str, idempotency_key: str | None) -> VisitRow:
    row = first_visit(session, site, idempotency_key)
    assert row is not None  # noqa: S101  visits are never deleted
    return row


def has_room(service: Service, session: Session) -> bool:
    """Whether one more visit is taken on."""
    unfinished: int = session.execute(_UNFINISHED).scalar_one()
    service.queue_was_full = unfinished >= service.settings.max_queue
    return not service.queue_was_full


def _has_place(service: Service, site: str, idempotency_key: str | None, session: Session) -> bool:
    """Whether a request is taken on; a repeated one has its place already."""
    return has_room(service, session) or first_visit(session, site, idempotency_key) is not None


_UNFINISHED = select(func.count()).select_from(VISITS).where(VISITS.c.status == "accepted")
