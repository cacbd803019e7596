"""Makes a visit of files that were uploaded piece by piece."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.orm import Session

from data_specs.fields import FILE_FIELDS, field_of
from data_specs.visit.context import Context
from service.errors import (
    BodyTooLarge,
    FieldFault,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    Unavailable,
    UploadGone,
    UploadUnfinished,
)
from service.keys import Key
from service.receive.body import PIECE_BYTES, ZIP, FileReader
from service.receive.commit import (
    RETRY_AFTER_S,
    Accepted,
    StoredFile,
    commit_visit,
    first_visit,
    new_visit,
    put_in_store,
    queue_full,
    upload_turn,
    with_order,
)
from service.receive.posted import LIMITS, Part
from service.receive.uploads import find_upload, offset_of
from service.state import Service
from service.storage.database import rowcount
from service.storage.drafts import START_BYTES, Drafts
from service.storage.outages import disk_outages
from service.storage.pieces import Pieces
from service.storage.tables import UploadRow

MAX_PER_VISIT = LIMITS["image"] + LIMITS["ecg"]
_ZIP_MAGIC = b"PK"


async def visit_of_uploads(
    service: Service,
    key: Key,
    upload_ids: Sequence[str],
    context: Context,
    *,
    posted: Sequence[Part] = (),
    idempotency_key: str | None = None,
) -> Accepted:
    """Make a visit of finished uploads. One transaction inserts the visit and deletes the rows of its uploads.

    Parameters
    ----------
    posted
        Files that came with the request itself; the caller removes their drafts.

    Raises
    ------
    Unavailable, QueueFull, IdempotencyConflict, StorageUnavailable
        As :func:`service.receive.accept.accept_visit`.
    NotFound, UploadGone, UploadUnfinished
        One of the uploads cannot be used.
    BodyTooLarge
        Together they are larger than a posted visit may be.
    InvalidRequest
        They are more films or recordings than a visit may hold.
    """
    if not service.available:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    await service.room.wait_for_check()
    if len(set(upload_ids)) != len(upload_ids):
        raise InvalidRequest(FieldFault("uploads", "field_repeated"))
    digest = _digest(upload_ids, posted, context)
    if (first := await _first(service, key, idempotency_key, digest)) is not None:
        return first  # its uploads are deleted by now
    try:
        return await _make_visit(service, key, upload_ids, context, posted, digest, idempotency_key)
    except (NotFound, UploadGone):
        # the first request may have made the visit meanwhile, and deleted its uploads
        if (first := await _first(service, key, idempotency_key, digest)) is not None:
            return first
        raise


async def _first(service: Service, key: Key, idempotency_key: str | None, digest: str) -> Accepted | None:
    """What the first request with this ``Idempotency-Key`` has made.

    Raises
    ------
    IdempotencyConflict
        That request had another body.
    """
    first = await service.database.read(lambda session: first_visit(session, key.site, idempotency_key))
    if first is None:
        return None
    if first.body_hash != digest:
        raise IdempotencyConflict
    return Accepted(first, False)


async def _make_visit(
    service: Service,
    key: Key,
    upload_ids: Sequence[str],
    context: Context,
    posted: Sequence[Part],
    digest: str,
    idempotency_key: str | None,
) -> Accepted:
    rows = [await find_upload(service, key, upload_id) for upload_id in upload_ids]
    for row in rows:
        if (offset := await offset_of(service, row)) != row.n_bytes:
            raise UploadUnfinished(offset, row.n_bytes)
    if sum(row.n_bytes for row in rows) > service.settings.max_upload_bytes:
        raise BodyTooLarge("", f"{service.settings.max_upload_mb} MB")
    async with upload_turn(service, key.id) as take_turn:
        await take_turn()
        files = await asyncio.to_thread(_put_files_in_store, service, rows, posted)
    context = await with_order(service, key.site, context)
    visit = new_visit(key.site, key.id, context, files, digest, idempotency_key=idempotency_key)
    accepted = await commit_visit(service, visit, in_same_transaction=lambda session: _delete_rows(session, upload_ids))
    if accepted is None:
        raise queue_full()
    if accepted.is_new:
        for row in rows:
            await asyncio.to_thread(service.pieces.remove, row.id)
    return accepted


def _digest(upload_ids: Sequence[str], posted: Sequence[Part], context: Context) -> str:
    """SHA-256 of what the visit is made of. The content of a finished upload never changes, so its id stands for it."""
    listed = [*upload_ids, *((part.field, part.filename, part.draft.sha256) for part in posted)]
    stated = context.model_dump_json(exclude_unset=True)
    return hashlib.sha256(json.dumps(["uploads", listed, stated]).encode()).hexdigest()


def _delete_rows(session: Session, upload_ids: Sequence[str]) -> None:
    deleted = session.execute(delete(UploadRow).where(UploadRow.id.in_(upload_ids)))
    if rowcount(deleted) != len(upload_ids):  # another request made a visit of one of them in the meantime
        raise UploadGone


def _put_files_in_store(service: Service, rows: Sequence[UploadRow], posted: Sequence[Part]) -> list[StoredFile]:
    drafts = Drafts(service.store.drafts)
    try:
        parts = [part for row in rows for part in _parts(service.pieces, row, drafts)]
        parts += posted
        for field in FILE_FIELDS:
            if sum(part.field == field for part in parts) > LIMITS[field]:
                raise InvalidRequest(FieldFault(field, "field_too_many", str(LIMITS[field])))
        return [put_in_store(service, part) for part in parts]
    finally:
        drafts.remove()


@disk_outages()
def _parts(pieces: Pieces, row: UploadRow, drafts: Drafts) -> list[Part]:
    """The files of an upload: one, or those of a zip with films."""
    with pieces.open(row.id) as file:
        start = file.read(START_BYTES)
        file.seek(0)
        if start.startswith(_ZIP_MAGIC):
            reader = FileReader(ZIP, drafts)
            while piece := file.read(PIECE_BYTES):
                reader.feed(piece)
            members = reader.finish()
            if len(members) == 1 and members[0].field == "ecg":  # the zip itself: the reader of recordings opens it
                return [Part("ecg", row.filename or members[0].filename, members[0].draft)]
            return members
        draft = drafts.new()
        while piece := file.read(PIECE_BYTES):
            draft.write(piece)
    field = field_of(start, row.field)
    return [Part(field, row.filename or f"{field}-{row.id[:8]}", draft)]
