"""Files that come in over a bad link, piece by piece and day after cut-off day: kept, gone on with, made into a visit.

An upload is a row that says whose it is and a file in ``uploads`` of the data folder that took it. The file's own size
is how far it has come: nothing else remembers it, so nothing can disagree with it. A piece is written at the file's
end, under a lock, and only where the writer thinks that the end is; two requests that send the same upload at once (one
of them cut off, and not yet noticed) therefore never mix.

Where several machines share a database, an upload has to go on with the machine that began it.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from data_specs.dicom.reference import is_dicom, is_waveform
from data_specs.visit.context import Context
from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    FieldFault,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    OffsetMismatch,
    QueueFull,
    TooManyUploads,
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
    upload_turn,
    with_order,
)
from service.receive.posted import LIMITS, Field, Part
from service.state import Service
from service.storage.database import database_now, rowcount
from service.storage.drafts import START_BYTES, Drafts
from service.storage.store import fsync_folder
from service.storage.tables import UploadRow

EXPIRES = timedelta(hours=24)
"""From its creation; a district's link that is down for longer has the file sent again."""
MAX_OPEN = 64
"""Uploads that a key may have open at a time: two visits of the largest number of files, and some that were left."""
MAX_PER_VISIT = LIMITS["image"] + LIMITS["ecg"]
HELD_BYTES = 64 * 1024
"""What arrives is written in pieces of about this size; what is held when the process is killed is sent again."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ZIP_MAGIC = b"PK"


async def open_upload(service: Service, key: Key, n_bytes: int, filename: str, field: str) -> UploadRow:
    """Begin an upload; its empty file and its row are on the disk when this returns.

    Parameters
    ----------
    field
        ``image``, ``ecg``, or nothing: the content then tells.

    Raises
    ------
    BodyTooLarge, TooManyUploads
    """
    if n_bytes > service.settings.max_upload_bytes:
        raise BodyTooLarge("", f"{service.settings.max_upload_mb} MB")
    await remove_expired(service)
    row = UploadRow(id=str(uuid.uuid4()), key_id=key.id, filename=filename, field=field, n_bytes=n_bytes)
    await asyncio.to_thread(_create, _path(service, row.id))

    def insert(session: Session) -> bool:
        query = select(func.count()).select_from(UploadRow).where(UploadRow.key_id == key.id)
        if session.execute(query).scalar_one() >= MAX_OPEN:
            return False
        row.created_at = database_now(session)
        row.expires_at = row.created_at + EXPIRES
        session.add(row)
        return True

    if not await service.database.write(insert):
        await asyncio.to_thread(_path(service, row.id).unlink)
        raise TooManyUploads("", MAX_OPEN, retry_after_s=RETRY_AFTER_S)
    return row


async def find_upload(service: Service, key: Key, upload_id: str) -> UploadRow:
    """The upload, if it is this key's.

    Raises
    ------
    NotFound
        There is none, or it is another key's.
    UploadGone
        It has expired.
    """
    if not _ID.fullmatch(upload_id):
        raise NotFound
    query = select(UploadRow).where(UploadRow.id == upload_id, UploadRow.key_id == key.id)

    def find(session: Session) -> tuple[UploadRow | None, datetime]:
        return session.scalars(query).one_or_none(), database_now(session)

    row, now = await service.database.read(find)
    if row is None:
        raise NotFound
    if row.expires_at <= now:
        raise UploadGone
    return row


async def offset_of(service: Service, row: UploadRow) -> int:
    """How many bytes have come, all of them on the disk: who is told so never sends them again.

    Raises
    ------
    UploadGone
        The file is not here.
    """
    return await asyncio.to_thread(_append, _path(service, row.id), None, b"", durable=True)


async def take_in(service: Service, row: UploadRow, offset: int, body: AsyncIterator[bytes]) -> int:
    """Add what comes from ``body`` at ``offset``; the offset afterwards, on the disk.

    A body that is cut off, or too slow, leaves what has arrived of it.

    Raises
    ------
    OffsetMismatch
        The upload does not end at ``offset``.
    BodyTooLarge
        More comes than was announced.
    UploadGone, BodyTooSlow, ClientDisconnect
    """
    path, held = _path(service, row.id), bytearray()
    at = await asyncio.to_thread(_append, path, offset, b"")
    try:
        async for piece in body:
            held += piece
            if at + len(held) > row.n_bytes:
                raise BodyTooLarge("", f"{row.n_bytes - offset} B")
            if len(held) >= HELD_BYTES:
                at = await asyncio.to_thread(_append, path, at, bytes(held))
                held.clear()
    except (ClientDisconnect, BodyTooSlow):
        await asyncio.to_thread(_append, path, at, bytes(held), durable=True)
        raise
    return await asyncio.to_thread(_append, path, at, bytes(held), durable=True)


async def remove_upload(service: Service, row: UploadRow) -> None:
    await service.database.write(lambda session: session.execute(delete(UploadRow).where(UploadRow.id == row.id)))
    await asyncio.to_thread(_path(service, row.id).unlink, missing_ok=True)


async def remove_expired(service: Service) -> None:
    """Remove what was abandoned: rows past their time, and files that no row can speak for any more."""

    def forget(session: Session) -> int:
        return rowcount(session.execute(delete(UploadRow).where(UploadRow.expires_at <= database_now(session))))

    await service.database.write(forget)
    await asyncio.to_thread(_remove_old_files, _folder(service))


async def visit_of_uploads(
    service: Service,
    key: Key,
    upload_ids: Sequence[str],
    context: Context,
    *,
    beside: Sequence[Part] = (),
    idempotency_key: str | None = None,
) -> Accepted:
    """Make finished uploads a visit. Rows of uploads go in the transaction that the visit comes in.

    Parameters
    ----------
    beside
        Files that came with the request itself; their drafts belong to the caller.

    Raises
    ------
    Unavailable, QueueFull, IdempotencyConflict
        As :func:`service.receive.accept.accept_visit`.
    NotFound, UploadGone, UploadUnfinished
        Of one of the uploads.
    BodyTooLarge
        Together they are larger than a posted visit may be.
    InvalidRequest
        More films or recordings than a visit has places for.
    """
    if not service.available:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    if len(set(upload_ids)) != len(upload_ids):
        raise InvalidRequest(FieldFault("uploads", "field_repeated"))
    digest = _digest(upload_ids, beside, context)
    first = await service.database.read(lambda session: first_visit(session, key.site, idempotency_key))
    if first is not None:
        if first.body_hash != digest:
            raise IdempotencyConflict
        return Accepted(first, False)  # its uploads are gone by now
    rows = [await find_upload(service, key, upload_id) for upload_id in upload_ids]
    for row in rows:
        if (offset := await offset_of(service, row)) != row.n_bytes:
            raise UploadUnfinished(offset, row.n_bytes)
    if sum(row.n_bytes for row in rows) > service.settings.max_upload_bytes:
        raise BodyTooLarge("", f"{service.settings.max_upload_mb} MB")
    async with upload_turn(service):
        files = await asyncio.to_thread(_into_the_store, service, rows, beside)
    context = await with_order(service, key.site, context)
    visit = new_visit(key.site, key.id, context, files, digest, idempotency_key=idempotency_key)
    accepted = await commit_visit(service, visit, in_same_transaction=lambda session: _spend(session, upload_ids))
    if accepted is None:
        raise QueueFull("", f"{RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S)
    if accepted.is_new:
        for row in rows:
            await asyncio.to_thread(_path(service, row.id).unlink, missing_ok=True)
    return accepted


def _digest(upload_ids: Sequence[str], beside: Sequence[Part], context: Context) -> str:
    """An upload that is finished never changes, so that its id stands for its content."""
    listed = [*upload_ids, *((part.field, part.filename, part.draft.sha256) for part in beside)]
    said = context.model_dump_json(exclude_unset=True)
    return hashlib.sha256(json.dumps(["uploads", listed, said]).encode()).hexdigest()


def _spend(session: Session, upload_ids: Sequence[str]) -> None:
    gone = session.execute(delete(UploadRow).where(UploadRow.id.in_(upload_ids)))
    if rowcount(gone) != len(upload_ids):  # another request made a visit of one of them in the meantime
        raise UploadGone


def _into_the_store(service: Service, rows: Sequence[UploadRow], beside: Sequence[Part]) -> list[StoredFile]:
    drafts = Drafts(service.store.drafts)
    try:
        parts = [part for row in rows for part in _parts(_path(service, row.id), row, drafts)]
        parts += beside
        for field in ("image", "ecg"):
            if sum(part.field == field for part in parts) > LIMITS[field]:
                raise InvalidRequest(FieldFault(field, "field_too_many", str(LIMITS[field])))
        return [put_in_store(service, part) for part in parts]
    finally:
        drafts.remove()


def _parts(path: Path, row: UploadRow, drafts: Drafts) -> list[Part]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UploadGone from None
    with file:
        start = file.read(START_BYTES)
        file.seek(0)
        if start.startswith(_ZIP_MAGIC):
            reader = FileReader(ZIP, drafts)
            while piece := file.read(PIECE_BYTES):
                reader.feed(piece)
            members = reader.finish()
            if len(members) == 1 and members[0].field == "ecg":  # the archive itself, left for the reader of recordings
                return [Part("ecg", row.filename or members[0].filename, members[0].draft)]
            return members
        draft = drafts.new()
        while piece := file.read(PIECE_BYTES):
            draft.write(piece)
    field = field_of(start, row.field)
    return [Part(field, row.filename or f"{field}-{row.id[:8]}", draft)]


def field_of(start: bytes, said: str) -> Literal["image", "ecg"]:
    """Whether a file is a film or a recording, by how it begins; what was said of it decides where DICOM does not."""
    if is_dicom(start):
        return "ecg" if is_waveform(start) else "image"
    if said in ("image", "ecg"):
        return said  # type: ignore[return-value]
    from data_specs.cxr.files import sniff  # noqa: PLC0415  decoders are loaded by who decodes

    field: Field = "image" if sniff(start) in ("png", "jpeg", "tiff") else "ecg"
    return field  # type: ignore[return-value]


def _folder(service: Service) -> Path:
    return service.settings.data_dir / "uploads"


def _path(service: Service, upload_id: str) -> Path:
    return _folder(service) / upload_id


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    fsync_folder(path.parent)


def _append(path: Path, offset: int | None, piece: bytes, *, durable: bool = False) -> int:
    """Write ``piece`` where the file ends, if that is at ``offset`` (``None``: wherever); where it ends now."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        raise UploadGone from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # given back with the descriptor
        at = os.fstat(descriptor).st_size
        if offset is not None and at != offset:
            raise OffsetMismatch(at, offset)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if durable:
            os.fsync(descriptor)
        return at + len(piece)
    finally:
        os.close(descriptor)


def _remove_old_files(folder: Path) -> None:
    """Remove what was last written to before the oldest upload that can still be open began."""
    oldest = time.time() - EXPIRES.total_seconds()
    for file in folder.glob("*"):
        try:
            if file.stat().st_mtime < oldest:
                file.unlink()
        except FileNotFoundError:  # another request removes them too
            continue
