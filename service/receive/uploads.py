"""Resumable uploads: files that come in piece by piece over a link that breaks, for hours or days.

An upload is a row, which says whose it is, and its bytes (:mod:`service.storage.pieces`). A piece is written only if
the upload ends where the sender says that the piece begins. So two requests for one upload never mix, for example when
the first of them was cut off and the server has not noticed yet.

Where several machines share a database and an object store, any of them takes an upload's next piece.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect

from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    NotFound,
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
from service.storage.tables import UploadRow

EXPIRES = timedelta(hours=24)
"""From its creation. After a longer interruption the file has to be sent again."""
MAX_OPEN = 64
"""Uploads that a key may have open at a time: two visits with as many files as a visit may have, and some abandoned."""

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

    def insert(session: Session) -> bool:
        query = select(func.count()).select_from(UploadRow).where(UploadRow.key_id == key.id)
        if session.execute(query).scalar_one() >= MAX_OPEN:
            return False
        row.created_at = database_now(session)
        row.expires_at = row.created_at + EXPIRES
        session.add(row)
        return True

    try:
        await asyncio.to_thread(service.pieces.begin, row.id)
        if not await service.database.write(insert):
            raise TooManyUploads("", MAX_OPEN, retry_after_s=RETRY_AFTER_S)
    except ServiceError:  # nobody knows the id, even where the row was committed
        await asyncio.to_thread(service.pieces.remove, row.id)
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
        Its bytes are not here.
    StorageUnavailable
        They could not be put on the disk.
    """
    return await asyncio.to_thread(service.pieces.append, row.id, None, b"", durable=True)


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
    pieces, held = service.pieces, bytearray()
    at = await asyncio.to_thread(pieces.append, row.id, offset, b"")
    try:
        async for piece in body:
            held += piece
            if at + len(held) > row.n_bytes:
                raise BodyTooLarge("", f"{row.n_bytes - offset} B")
            if len(held) >= pieces.piece_bytes:
                at = await asyncio.to_thread(pieces.append, row.id, at, bytes(held))
                held.clear()
        return await asyncio.to_thread(pieces.append, row.id, at, bytes(held), durable=True)
    except (ClientDisconnect, BodyTooSlow):
        await asyncio.to_thread(pieces.append, row.id, at, bytes(held), durable=True)
        raise
    except StorageUnavailable as error:
        raise UploadStopped(error.found) from error


async def remove_upload(service: Service, row: UploadRow) -> None:
    """Delete the upload's row, then its bytes."""
    await service.database.write(lambda session: session.execute(delete(UploadRow).where(UploadRow.id == row.id)))
    await asyncio.to_thread(service.pieces.remove, row.id)


async def remove_expired(service: Service) -> None:
    """Delete the rows of expired uploads, and bytes that are too old to belong to a row."""

    def delete_expired(session: Session) -> int:
        return rowcount(session.execute(delete(UploadRow).where(UploadRow.expires_at <= database_now(session))))

    await service.database.write(delete_expired)
    await asyncio.to_thread(service.pieces.remove_older, EXPIRES.total_seconds())
