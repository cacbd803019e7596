"""Drafts: files that are being received. They are hashed while they come, and removed unless the store takes them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import uuid
from pathlib import Path
from typing import IO

from inference.readers.files import OpenFile
from service.storage.outages import disk_outages

START_BYTES = 4096
"""How much of a file shows whether it is a film or a recording."""
HELD_BYTES = 128 * 1024
"""A file up to this size is kept in memory until the store takes it; a larger one is written to disk while it comes."""


class Draft:
    """One file that is being received. It blocks: use it in a thread.

    Where the disk is full or fails, its methods raise :class:`service.errors.StorageFull` or
    :class:`service.errors.StorageUnavailable`. Nothing but :meth:`remove` is of use then.
    """

    def __init__(self, folder: Path) -> None:
        self.n_bytes = 0
        self._path = folder / uuid.uuid4().hex
        self._held = io.BytesIO()
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @disk_outages()
    def write(self, piece: bytes | memoryview) -> None:
        self.n_bytes += len(piece)
        self._hash.update(piece)
        if self._file is None and self.n_bytes > HELD_BYTES:
            self._to_disk()
        (self._file or self._held).write(piece)

    @disk_outages()
    def open(self) -> IO[bytes]:
        """What was written so far, open at its beginning."""
        if self._file is None:
            return io.BytesIO(self._held.getbuffer())
        self._file.flush()
        return self._path.open("rb")

    def handed(self, n_bytes: int | None = None) -> OpenFile:
        """What was written so far, for a reader; ``n_bytes`` of it at most."""
        if self._file is None:
            return OpenFile.of(self._held.getbuffer()[:n_bytes])
        self._file.flush()
        return OpenFile(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC), n_bytes=n_bytes)

    @disk_outages()
    def durable_file(self) -> Path:
        """Finish the draft, and make it durable as a file on disk."""
        if self._file is None:
            self._to_disk()
        assert self._file is not None  # noqa: S101
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._path

    def remove(self) -> None:
        """Remove its file, if the store has not taken it.

        What is kept in memory is not changed: after a request was cut off, a thread may still be storing it, and must
        not store other bytes under its name.
        """
        if self._file is not None:
            with contextlib.suppress(OSError):  # on a full disk: what is still buffered cannot be written
                self._file.close()
            with contextlib.suppress(OSError):  # the disk cannot be written at all: a later start removes the file
                self._path.unlink(missing_ok=True)

    def _to_disk(self) -> None:
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._file.write(self._held.getbuffer())
        self._held = io.BytesIO()


class Drafts:
    """The drafts of one request.

    Parameters
    ----------
    folder
        Where they are written; it has to be on the same disk as the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Draft] = []

    def new(self) -> Draft:
        draft = Draft(self._folder)
        self._made.append(draft)
        return draft

    def __bool__(self) -> bool:
        """Whether there are drafts to remove."""
        return bool(self._made)

    def remove(self) -> None:
        """Remove all that the store has not taken."""
        while self._made:
            self._made.pop().remove()
