"""Files on their way into the store: hashed as they come, gone at the request's end unless they were put."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from pathlib import Path
from typing import IO

START_BYTES = 4096
"""As much of a file as tells a film from a recording."""
HELD_BYTES = 128 * 1024
"""A file up to this size is held in memory until the store takes it; a larger one is written as it comes."""


class Draft:
    """One file as it comes in. It blocks: to be used from a thread."""

    def __init__(self, folder: Path) -> None:
        self.n_bytes = 0
        self._path = folder / uuid.uuid4().hex
        self._held = io.BytesIO()
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, piece: bytes | memoryview) -> None:
        self.n_bytes += len(piece)
        self._hash.update(piece)
        if self._file is None and self.n_bytes > HELD_BYTES:
            self._to_disk()
        (self._file or self._held).write(piece)

    def open(self) -> IO[bytes]:
        """What was written so far, from its beginning."""
        if self._file is None:
            return io.BytesIO(self._held.getbuffer())
        self._file.flush()
        return self._path.open("rb")

    def durable_file(self) -> Path:
        """The finished draft as a file on the disk; nothing is written to it any more."""
        if self._file is None:
            self._to_disk()
        assert self._file is not None  # noqa: S101
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._path

    def remove(self) -> None:
        """Remove its file, if it has one that the store has not taken over.

        What is held in memory stays as it is: a request that is cut off leaves a thread behind that may be about to
        put it, and must not put something else under its name.
        """
        if self._file is not None:
            self._file.close()
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
        Where they are written; it has to be on the store's own disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Draft] = []

    def new(self) -> Draft:
        draft = Draft(self._folder)
        self._made.append(draft)
        return draft

    def __bool__(self) -> bool:
        """Whether some may be left."""
        return bool(self._made)

    def remove(self) -> None:
        """Remove what the store has not taken over."""
        while self._made:
            self._made.pop().remove()
