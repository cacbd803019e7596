"""Files on their way into the store: hashed while they are written, gone at the request's end unless they were put."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

START_BYTES = 4096
"""As much of a file as tells a film from a recording."""


class Draft:
    """One file as it comes in. It blocks: to be used from a thread."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / uuid.uuid4().hex
        self.n_bytes = 0
        self.start = b""
        self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, piece: bytes | memoryview) -> None:
        if len(self.start) < START_BYTES:
            self.start += piece[: START_BYTES - len(self.start)]
        self.n_bytes += len(piece)
        self._hash.update(piece)
        self._file.write(piece)

    def close(self) -> None:
        self._file.close()


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
            draft = self._made.pop()
            draft.close()
            draft.path.unlink(missing_ok=True)
