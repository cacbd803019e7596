"""The store of posted files: each under the SHA-256 of its content, never changed, durable before ``put`` returns.

A store is a folder (``file://``), or any URL that fsspec opens (``s3://bucket/prefix``, ``memory://``). Folders do not
go through fsspec, which neither syncs its local files nor renames them into place.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self
from urllib.parse import unquote, urlsplit

from inference.readers.files import OpenFile
from service.errors import StoredFileDamaged, StoredFileMissing
from service.storage.drafts import Draft
from service.storage.object_store import ObjectStore
from service.storage.outages import disk_outages
from service.storage.tables import InputRow

ABANDONED_S = 3600.0
"""A draft without a write for this long belongs to a process that has stopped."""
_NAME = re.compile(r"[0-9a-f]{64}")


class Store(Protocol):
    """Files by the SHA-256 of their content. All methods block: call them in a thread."""

    @property
    def drafts(self) -> Path:
        """Local folder of the drafts."""
        ...

    def put(self, draft: Draft) -> None:
        """Take ``draft`` into the store under its SHA-256; when this returns, the content is durable.

        Raises
        ------
        StorageFull, StorageUnavailable
        """
        ...

    def read(self, sha256: str) -> bytes:
        """The content.

        Raises
        ------
        StoredFileMissing, StoredFileDamaged
            The store does not have it, or its content has changed.
        StorageUnavailable
            The store cannot be read at the moment.
        """
        ...

    def open(self, sha256: str) -> OpenFile:
        """The file, open; its content is checked by whoever reads it, where ``OpenFile.sha256`` is not ``None``.

        Raises
        ------
        StoredFileMissing, StoredFileDamaged
        """
        ...

    def has(self, sha256: str) -> bool:
        """Whether there is a file of this name. Its content is not read."""
        ...

    def names(self) -> Iterator[str]:
        """The SHA-256 of every file, in order."""
        ...

    def remove(self, sha256: str, put_before: float) -> bool:
        """Remove a file, and return whether it is gone; ``False`` where it was put later than ``put_before``.

        Parameters
        ----------
        put_before
            Seconds since 1970. A file is put before the row that names it is committed: one that was put lately may
            be about to be named.

        Raises
        ------
        StorageUnavailable
        """
        ...

    def probe(self) -> None:
        """Write and remove a small file; raises as :meth:`put` if that fails."""
        ...


def open_store(url: str, data_dir: Path) -> Store:
    """The store at ``url``; drafts are within a folder's own root, else in ``data_dir``."""
    parts = urlsplit(url)
    if parts.scheme in ("file", "local"):  # fsspec has both names for a folder
        return FolderStore(Path(unquote(parts.path)))
    return RemoteStore(url, data_dir / "drafts")


class FolderStore:
    """Files ``ROOT/ab/cd…``: each is written as a draft, synced and renamed, then its folder is synced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.drafts = root / "drafts"
        self.drafts.mkdir(parents=True, exist_ok=True)
        self._durable_folders: set[Path] = set()
        remove_abandoned(self.drafts)

    @disk_outages()
    def put(self, draft: Draft) -> None:
        target = self._path(draft.sha256)
        file = draft.durable_file()
        if target.parent not in self._durable_folders:
            # even if another process made it, its entry in the root may not be on disk yet
            target.parent.mkdir(exist_ok=True)
            fsync_folder(self._root)
            self._durable_folders.add(target.parent)
        file.replace(target)
        fsync_folder(target.parent)

    @disk_outages()
    def read(self, sha256: str) -> bytes:
        try:
            content = self._path(sha256).read_bytes()
        except FileNotFoundError:
            raise StoredFileMissing from None
        return _checked(content, sha256)

    @disk_outages()
    def open(self, sha256: str) -> OpenFile:
        try:
            return OpenFile(os.open(self._path(sha256), os.O_RDONLY | os.O_CLOEXEC), sha256)
        except FileNotFoundError:
            raise StoredFileMissing from None

    @disk_outages()
    def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def names(self) -> Iterator[str]:
        with disk_outages():
            folders = sorted(self._root.iterdir())
        for folder in folders:
            with disk_outages():
                found = sorted(folder.name + file.name for file in folder.iterdir()) if len(folder.name) == 2 else []
            yield from filter(_NAME.fullmatch, found)

    @disk_outages()
    def remove(self, sha256: str, put_before: float) -> bool:
        target, aside = self._path(sha256), self.drafts / f"removed-{uuid.uuid4().hex}"
        try:
            if target.stat().st_mtime >= put_before:
                return False
            target.rename(aside)
        except FileNotFoundError:
            return True
        # the same content may have been put between the two calls: then this is the new file, and it goes back
        if is_new := aside.stat().st_mtime >= put_before:
            with suppress(FileExistsError):
                os.link(aside, target)
        aside.unlink()
        fsync_folder(target.parent)
        return not is_new

    @disk_outages()
    def probe(self) -> None:
        draft = self.drafts / f"probe-{uuid.uuid4().hex}"
        try:
            draft.write_bytes(b"probe")
        finally:
            draft.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256[2:]


class RemoteStore:
    """Objects ``PREFIX/ab/cd…`` of an object store, by fsspec; such a store never shows half an object."""

    def __init__(self, url: str, drafts: Path) -> None:
        self.objects = ObjectStore(url)
        self.drafts = drafts
        drafts.mkdir(parents=True, exist_ok=True)
        remove_abandoned(drafts)

    def put(self, draft: Draft) -> None:
        path = self._path(draft.sha256)
        file = str(draft.durable_file())
        with self.objects.asked() as files:
            # also where it is there already: remove() goes by when it was last put
            files.put_file(file, path, **self.objects.within(draft.n_bytes))
            if files.size(path) != draft.n_bytes:
                raise StoredFileDamaged
        draft.remove()

    def read(self, sha256: str) -> bytes:
        with self.objects.asked() as files:
            try:
                content: bytes = files.cat_file(self._path(sha256))
            except FileNotFoundError:
                raise StoredFileMissing from None
        return _checked(content, sha256)

    def open(self, sha256: str) -> OpenFile:
        return OpenFile.of(self.read(sha256))

    def has(self, sha256: str) -> bool:
        with self.objects.asked() as files:
            return bool(files.exists(self._path(sha256)))

    def names(self) -> Iterator[str]:
        with self.objects.asked() as files:
            files.invalidate_cache()
            paths: list[str] = files.find(self.objects.root)
        yield from filter(_NAME.fullmatch, sorted("".join(path.rsplit("/", 2)[1:]) for path in paths))

    def remove(self, sha256: str, put_before: float) -> bool:
        path = self._path(sha256)
        with self.objects.asked() as files, suppress(FileNotFoundError):
            files.invalidate_cache()
            if files.modified(path).timestamp() >= put_before:
                return False
            files.rm_file(path)
        return True

    def probe(self) -> None:
        path = f"{self.objects.root}/probe-{uuid.uuid4().hex}"
        with self.objects.asked() as files:
            files.pipe_file(path, b"probe", **self.objects.within(0))
            files.rm_file(path)

    def _path(self, sha256: str) -> str:
        return f"{self.objects.root}/{sha256[:2]}/{sha256[2:]}"


@dataclass(frozen=True, slots=True)
class StoredInput:
    """A posted file of a visit, which is read from the store when it is needed."""

    index: int
    field: Literal["image", "ecg"]
    filename: str
    sha256: str
    store: Store

    @classmethod
    def of(cls, row: InputRow, store: Store) -> Self:
        return cls(row.index, row.field, row.filename, row.sha256, store)  # type: ignore[arg-type]  # image and ecg only

    def open(self) -> OpenFile:
        return self.store.open(self.sha256)


def remove_abandoned(folder: Path) -> None:
    """Remove old drafts, of processes that stopped while they received a file; newer ones may be in use."""
    oldest = time.time() - ABANDONED_S
    for draft in folder.iterdir():
        try:
            if draft.stat().st_mtime < oldest:
                draft.unlink()
        except FileNotFoundError:  # another process removes them at the same time
            continue


def _checked(content: bytes, sha256: str) -> bytes:
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
