"""The bytes of unfinished uploads, where every process that may get their next piece can read them.

With a folder as store, an upload is one file in the data folder, which the processes of one machine share; its size is
the upload's offset. With an object store, which several machines share, it is an object for each piece, and a row that
says where the piece begins: the rows decide what has come, so that two requests for one upload never mix.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.errors import OffsetMismatch, ServiceError, StoredFileDamaged, UploadGone
from service.storage.database import Database
from service.storage.object_store import ObjectStore
from service.storage.outages import disk_outages
from service.storage.store import RemoteStore, Store, fsync_folder
from service.storage.tables import UploadPieceRow, UploadRow

LOOK_EVERY_S = 3600.0
"""An object store is looked through for old pieces at most so often: it lists every one of them."""


class Pieces(Protocol):
    """The bytes of unfinished uploads, by the upload's id. All methods block: call them in a thread.

    Where a disk or the object store is full or away, they raise :class:`service.errors.StorageFull` or
    :class:`service.errors.StorageUnavailable`.
    """

    piece_bytes: int
    """What arrives is written in pieces of about this size. A killed process loses no more than that."""

    def begin(self, upload_id: str) -> None:
        """Make place for an upload, before its row is written."""
        ...

    def append(self, upload_id: str, offset: int | None, piece: bytes, *, durable: bool = False) -> int:
        """Write ``piece`` at the upload's end; where it ends now.

        Parameters
        ----------
        offset
            Where the upload has to end before; ``None``, with an empty ``piece``: only ask where it ends.
        durable
            Wait until all that has come is on the disk.

        Raises
        ------
        UploadGone
            There is no such upload here.
        OffsetMismatch
            It ends elsewhere.
        """
        ...

    def open(self, upload_id: str) -> IO[bytes]:
        """All that has come, open at its beginning.

        Raises
        ------
        UploadGone, StoredFileDamaged
        """
        ...

    def remove(self, upload_id: str) -> None:
        """Delete what has come; what cannot be deleted now is deleted later, by its age."""
        ...

    def remove_older(self, than_s: float) -> None:
        """Delete what was last written to longer ago than ``than_s``, and so belongs to no upload any more."""
        ...


def open_pieces(store: Store, data_dir: Path, database: Database) -> Pieces:
    """The pieces beside ``store``: in it where machines share it, else in the data folder."""
    if isinstance(store, RemoteStore):
        return ObjectPieces(store.objects, store.drafts, database)
    return FilePieces(data_dir / "uploads")


class FilePieces:
    """A file for each upload."""

    piece_bytes = 64 * 1024

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @disk_outages()
    def begin(self, upload_id: str) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(self._folder / upload_id, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        fsync_folder(self._folder)

    @disk_outages()
    def append(self, upload_id: str, offset: int | None, piece: bytes, *, durable: bool = False) -> int:
        """As :meth:`Pieces.append`.

        Where the disk becomes full within ``piece``, its first bytes are in the file and count. Where the file cannot
        be made durable, it is not certain any more which of its bytes are on the disk: it is removed.
        """
        try:
            descriptor = os.open(self._folder / upload_id, os.O_WRONLY | os.O_APPEND)
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
                    self.remove(upload_id)
                    raise
            return at + len(piece)
        finally:
            os.close(descriptor)

    @disk_outages()
    def open(self, upload_id: str) -> IO[bytes]:
        try:
            return (self._folder / upload_id).open("rb")
        except FileNotFoundError:
            raise UploadGone from None

    def remove(self, upload_id: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / upload_id).unlink(missing_ok=True)

    @disk_outages()
    def remove_older(self, than_s: float) -> None:
        oldest = time.time() - than_s
        for file in self._folder.glob("*"):
            try:
                if file.stat().st_mtime < oldest:
                    file.unlink()
            except FileNotFoundError:  # another request removes them too
                continue


class ObjectPieces:
    """An object ``ROOT/uploads/UPLOAD/…`` for each piece of an upload, and its row.

    The object comes first, then the row. A process that is killed in between leaves an object that no row names; it
    goes with the upload's others.

    Parameters
    ----------
    local
        Folder on this machine for an upload that is read as a whole.
    """

    piece_bytes = 256 * 1024

    def __init__(self, objects: ObjectStore, local: Path, database: Database) -> None:
        self._objects, self._local, self._database = objects, local, database
        self._root = f"{objects.root}/uploads"
        self._look_after = 0.0

    def begin(self, upload_id: str) -> None:
        """An object store needs no place to be made."""

    def append(self, upload_id: str, offset: int | None, piece: bytes, *, durable: bool = False) -> int:
        """As :meth:`Pieces.append`; every piece is durable."""
        with self._database.transaction() as session:
            at = _end(session, upload_id, offset)
        if not piece:
            return at
        name = f"{at:012d}-{uuid.uuid4().hex}"
        with self._objects.asked() as files:
            files.pipe_file(f"{self._root}/{upload_id}/{name}", piece, **self._objects.within(len(piece)))
        try:
            with self._database.transaction(write=True) as session:
                _end(session, upload_id, at)
                session.add(UploadPieceRow(upload_id=upload_id, offset=at, n_bytes=len(piece), name=name))
        except IntegrityError:  # another request wrote its piece here, or the upload was removed
            with self._database.transaction() as session:
                end = _end(session, upload_id, None)
            raise OffsetMismatch(end, at) from None
        return at + len(piece)

    def open(self, upload_id: str) -> IO[bytes]:
        pieces = select(UploadPieceRow).where(UploadPieceRow.upload_id == upload_id).order_by(UploadPieceRow.offset)
        with self._database.transaction() as session:
            _end(session, upload_id, None)
            named = [(row.name, row.n_bytes) for row in session.scalars(pieces)]
        with disk_outages():
            whole = tempfile.TemporaryFile(dir=self._local)  # noqa: SIM115  the caller closes it
        try:
            for name, n_bytes in named:
                with self._objects.asked() as files:
                    content = files.cat_file(f"{self._root}/{upload_id}/{name}")
                if len(content) != n_bytes:
                    raise StoredFileDamaged
                with disk_outages():
                    whole.write(content)
            with disk_outages():
                whole.seek(0)
        except BaseException:
            whole.close()
            raise
        return whole

    def remove(self, upload_id: str) -> None:
        with contextlib.suppress(ServiceError):
            self._remove(f"{self._root}/{upload_id}", lambda _: True)

    def remove_older(self, than_s: float) -> None:
        if time.monotonic() < self._look_after:
            return
        self._look_after = time.monotonic() + LOOK_EVERY_S
        oldest = time.time() - than_s
        self._remove(self._root, lambda written_s: written_s < oldest)

    def _remove(self, prefix: str, which: Callable[[float], bool]) -> None:
        with self._objects.asked() as files:
            files.invalidate_cache(prefix)
            found = files.find(prefix, detail=True)
            old = [path for path, about in found.items() if which(_written_s(about))]
            if old:
                files.rm(old, **self._objects.within(0))


def _written_s(about: Mapping[str, Any]) -> float:
    """When an object was written, seconds since 1970, by what fsspec tells of it."""
    written = about.get("LastModified") or about["created"]
    return written.timestamp() if isinstance(written, datetime) else float(written)


def _end(session: Session, upload_id: str, offset: int | None) -> int:
    """Where an upload ends.

    Raises
    ------
    UploadGone
        It has no row.
    OffsetMismatch
        It does not end at ``offset``.
    """
    if session.scalar(select(UploadRow.id).where(UploadRow.id == upload_id)) is None:
        raise UploadGone
    ends = select(func.max(UploadPieceRow.offset + UploadPieceRow.n_bytes))
    at = session.scalar(ends.where(UploadPieceRow.upload_id == upload_id)) or 0
    if offset is not None and at != offset:
        raise OffsetMismatch(at, offset)
    return at
