"""Resumable uploads: files that come in piece by piece over a link that breaks, for hours or days.

An upload is a row, which says whose it is, and a file in the folder ``uploads`` of the data folder. The size of that
file is the upload's offset, and is stored nowhere else. A piece is written under a lock, and only if the file ends
where the sender says that the piece begins. So two requests for one upload never mix, for example when the first of
them was cut off and the server has not noticed yet.

Where several machines share a database, the machine that began an upload has to receive all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    NotFound,
    OffsetMismatch,
    ServiceError,
    StorageUnavailable,
    TooManyUploads,
    UploadGone,
    UploadStopped,
)
from service.keys import Key
from service.receive.commit import RETRY_AFTER_S
from service.state import Service
from service.storage.database import database_now, rowcount
from service.storage.outages import disk_outages
from service.storage.store import fsync_folder
from service.storage.tables import UploadRow

EXPIRES = timedelta(hours=24)
"""From its creation. After a longer interruption the file has to be sent again."""
MAX_OPEN = 64
"""Uploads that a key may have open at a time: two visits with as many files as a visit may have, and some abandoned."""
HELD_BYTES = 64 * 1024
"""What arrives is written in pieces of about this size. A killed process loses no more than that."""

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def open_upload(service: Service, key: Key, n_bytes: int, filename: str, field: str) -> UploadRow:
    """Begin an upload; its empty file and its row are on the disk when this returns.

    Parameters
    ----------
    field
        ``image``, ``ecg``, or ``""``: the content then decides.

    Raises
    ------
    BodyTooLarge, TooManyUploads, StorageFull, StorageUnavailable
    """
    if n_bytes > service.settings.max_upload_bytes:
        raise BodyTooLarge("", f"{service.settings.max_upload_mb} MB")
    await service.room.wait_for_check()
    await remove_expired(service)
    row = UploadRow(id=str(uuid.uuid4()), key_id=key.id, filename=filename, field=field, n_bytes=n_bytes)
    path = path_of(service, row.id)

    def insert(session: Session) -> bool:
        query = select(func.count()).select_from(UploadRow).where(UploadRow.key_id == key.id)
        if session.execute(query).scalar_one() >= MAX_OPEN:
            return False
        row.created_at = database_now(session)
        row.expires_at = row.created_at + EXPIRES
        session.add(row)
        return True

    try:
        await asyncio.to_thread(_create, path)
        if not await service.database.write(insert):
            raise TooManyUploads("", MAX_OPEN, retry_after_s=RETRY_AFTER_S)
    except ServiceError:  # nobody knows the id, even where the row was committed
        await asyncio.to_thread(_remove, path)
        raise
    return row


async def find_upload(service: Service, key: Key, upload_id: str) -> UploadRow:
    """The row of an upload of this key.

    Raises
    ------
    NotFound
        There is no upload with this id, or it belongs to another key.
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
    """How many bytes have come. They are on the disk, since the sender will not send them again.

    Raises
    ------
    UploadGone
        The file is not on this machine.
    StorageUnavailable
        They could not be put on the disk.
    """
    return await asyncio.to_thread(_append, path_of(service, row.id), None, b"", durable=True)


async def append_body(service: Service, row: UploadRow, offset: int, body: AsyncIterator[bytes]) -> int:
    """Append ``body`` to the upload.

    What has arrived of a body that is cut off, or too slow, is kept. Of a body that the disk does not take to its end,
    what was written is kept.

    Returns
    -------
    The offset afterwards; so many bytes are on the disk.

    Raises
    ------
    OffsetMismatch
        The upload does not end at ``offset``.
    BodyTooLarge
        More bytes come than were announced.
    StorageFull
        There was no room from the beginning.
    UploadStopped
        The disk became full, or failed.
    UploadGone, BodyTooSlow, ClientDisconnect
    """
    await service.room.wait_for_check()
    path, held = path_of(service, row.id), bytearray()
    at = await asyncio.to_thread(_append, path, offset, b"")
    try:
        async for piece in body:
            held += piece
            if at + len(held) > row.n_bytes:
                raise BodyTooLarge("", f"{row.n_bytes - offset} B")
            if len(held) >= HELD_BYTES:
                at = await asyncio.to_thread(_append, path, at, bytes(held))
                held.clear()
        return await asyncio.to_thread(_append, path, at, bytes(held), durable=True)
    except (ClientDisconnect, BodyTooSlow):
        await asyncio.to_thread(_append, path, at, bytes(held), durable=True)
        raise
    except StorageUnavailable as error:
        raise UploadStopped(error.found) from error


async def remove_upload(service: Service, row: UploadRow) -> None:
    """Delete the upload's row, then its file."""
    await service.database.write(lambda session: session.execute(delete(UploadRow).where(UploadRow.id == row.id)))
    await remove_file(service, row.id)


async def remove_file(service: Service, upload_id: str) -> None:
    """Delete the file of an upload whose row is deleted."""
    await asyncio.to_thread(_remove, path_of(service, upload_id))


async def remove_expired(service: Service) -> None:
    """Delete the rows of expired uploads, and the files that are too old to belong to a row."""

    def delete_expired(session: Session) -> int:
        return rowcount(session.execute(delete(UploadRow).where(UploadRow.expires_at <= database_now(session))))

    await service.database.write(delete_expired)
    await asyncio.to_thread(_remove_old_files, _folder(service))


def _folder(service: Service) -> Path:
    return service.settings.data_dir / "uploads"


def path_of(service: Service, upload_id: str) -> Path:
    """The file of an upload."""
    return _folder(service) / upload_id


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is removed later, by its age
        path.unlink(missing_ok=True)


@disk_outages()
def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    fsync_folder(path.parent)


@disk_outages()
def _append(path: Path, offset: int | None, piece: bytes, *, durable: bool = False) -> int:
    """Write ``piece`` at the file's end; where it ends now.

    Where the disk becomes full within ``piece``, its first bytes are in the file and count. Where the file cannot be
    made durable, it is not certain any more which of its bytes are on the disk: it is removed.

    Parameters
    ----------
    offset
        Where the file has to end before; ``None`` where that does not matter.
    durable
        Wait until all of the file is on the disk.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        raise UploadGone from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # released with the descriptor
        at = os.fstat(descriptor).st_size
        if offset is not None and at != offset:
            raise OffsetMismatch(at, offset)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if durable:
            try:
                os.fsync(descriptor)
            except OSError:
                _remove(path)
                raise
        return at + len(piece)
    finally:
        os.close(descriptor)


@disk_outages()
def _remove_old_files(folder: Path) -> None:
    """Delete files that were last written to so long ago that their upload has expired."""
    oldest = time.time() - EXPIRES.total_seconds()
    for file in folder.glob("*"):
        try:
            if file.stat().st_mtime < oldest:
                file.unlink()
        except FileNotFoundError:  # another request removes them too
            continue
