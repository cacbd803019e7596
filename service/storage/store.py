"""Where posted files are kept: content-addressed by SHA-256, never changed, durable before ``put`` returns.

One small interface, two kinds: a folder (``file://``), and whatever fsspec opens by URL (``s3://bucket/prefix``,
``memory://``). A folder is done here because fsspec's local files are neither fsynced nor renamed into place.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self
from urllib.parse import unquote, urlsplit

from service.errors import StoredFileDamaged, StoredFileMissing
from service.storage.drafts import Draft
from service.storage.tables import InputRow

ABANDONED_S = 3600.0
"""A draft that nobody has written to for this long belongs to a process that is gone."""


class Store(Protocol):
    """Files by the SHA-256 of their content. All methods block: call them from a thread."""

    @property
    def drafts(self) -> Path:
        """Local folder where files are written before they are ``put``."""
        ...

    def put(self, draft: Draft) -> None:
        """Take over ``draft`` under its SHA-256; when this returns, the content is durable."""
        ...

    def read(self, sha256: str) -> bytes:
        """The content.

        Raises
        ------
        StoredFileMissing, StoredFileDamaged
            It is not there, or no longer itself.
        """
        ...

    def probe(self) -> None:
        """Write and remove a small file; raises ``OSError`` where the store cannot be written."""
        ...


def open_store(url: str, data_dir: Path) -> Store:
    """The store at ``url``; drafts lie beside a folder's files, else in ``data_dir``."""
    parts = urlsplit(url)
    if parts.scheme in ("file", "local"):  # fsspec knows a folder under both names
        return FolderStore(Path(unquote(parts.path)))
    return RemoteStore(url, data_dir / "drafts")


class FolderStore:
    """``ROOT/ab/cd…``: written aside, fsynced, renamed, and the folder fsynced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.drafts = root / "drafts"
        self.drafts.mkdir(parents=True, exist_ok=True)
        self._durable_folders: set[Path] = set()
        remove_abandoned(self.drafts)

    def put(self, draft: Draft) -> None:
        target = self._path(draft.sha256)
        file = draft.durable_file()
        if target.parent not in self._durable_folders:
            # that another process has made it does not say that its entry in the root is on the disk yet
            target.parent.mkdir(exist_ok=True)
            fsync_folder(self._root)
            self._durable_folders.add(target.parent)
        file.replace(target)
        fsync_folder(target.parent)

    def read(self, sha256: str) -> bytes:
        try:
            content = self._path(sha256).read_bytes()
        except FileNotFoundError:
            raise StoredFileMissing from None
        return _whole(content, sha256)

    def probe(self) -> None:
        draft = self.drafts / f"probe-{uuid.uuid4().hex}"
        draft.write_bytes(b"probe")
        draft.unlink()

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256[2:]


class RemoteStore:
    """Objects ``PREFIX/ab/cd…`` of an object store, by fsspec; such a store shows an object whole or not at all."""

    def __init__(self, url: str, drafts: Path) -> None:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415  with the client of the store behind it, needed by this kind alone

        self._files: Any
        self._files, self._root = fsspec.core.url_to_fs(url)
        self.drafts = drafts
        drafts.mkdir(parents=True, exist_ok=True)
        remove_abandoned(drafts)

    def put(self, draft: Draft) -> None:
        path = self._path(draft.sha256)
        if not self._files.exists(path) or self._files.size(path) != draft.n_bytes:
            self._files.put_file(str(draft.durable_file()), path)
            if self._files.size(path) != draft.n_bytes:
                raise StoredFileDamaged
        draft.remove()

    def read(self, sha256: str) -> bytes:
        try:
            content: bytes = self._files.cat_file(self._path(sha256))
        except FileNotFoundError:
            raise StoredFileMissing from None
        return _whole(content, sha256)

    def probe(self) -> None:
        path = f"{self._root}/probe-{uuid.uuid4().hex}"
        self._files.pipe_file(path, b"probe")
        self._files.rm_file(path)

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256[2:]}"


@dataclass(frozen=True, slots=True)
class StoredInput:
    """A visit's file that is read from the store when its turn has come."""

    index: int
    field: Literal["image", "ecg"]
    filename: str
    sha256: str
    store: Store

    @classmethod
    def of(cls, row: InputRow, store: Store) -> Self:
        return cls(row.index, row.field, row.filename, row.sha256, store)  # type: ignore[arg-type]  # image and ecg only

    def read(self) -> bytes:
        return self.store.read(self.sha256)


def remove_abandoned(folder: Path) -> None:
    """Remove drafts of processes that died while a body came in; younger ones may be a living process's."""
    oldest = time.time() - ABANDONED_S
    for draft in folder.iterdir():
        try:
            if draft.stat().st_mtime < oldest:
                draft.unlink()
        except FileNotFoundError:  # another process that starts removes them too
            continue


def _whole(content: bytes, sha256: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StoredFileDamaged
    return content


def fsync_folder(folder: Path) -> None:
    """Make durable which files a folder has; each file's content has to be made durable by itself."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
