"""What a backup is: a folder, with one manifest that says what has to be in it.

::

    DESTINATION/
      files/ab/cd…              the posted files of all its backups, by the SHA-256 of their content
      20261130T021500.123Z/     one backup: when its snapshot was taken, in UTC
        manifest.json           what has to be here, with digests
        tables/visits.jsonl.gz  the rows of one table, a JSON object in each line
        files.txt               SHA-256 and size of every file that a row names, in order
        kept/admin.key          files that cannot be made again

A backup is written into a folder ``….draft``, which gets its name when all of it is on the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.storage.commands import NotDone
from service.storage.store import FolderStore

MANIFEST, TABLES, NAMES, KEPT, FILES = "manifest.json", "tables", "files.txt", "kept", "files"
DRAFT = ".draft"
ADMIN_KEY, EXPORT_KEY = "admin.key", "export.key"
KEYS = (ADMIN_KEY, EXPORT_KEY)
"""Secrets in the data folder that no row and no program can give back."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Written(_Part):
    """One file of the backup.

    Parameters
    ----------
    lines
        Rows of a table, or names of files; 0 where lines mean nothing.
    """

    lines: int
    n_bytes: int
    sha256: Digest


class Manifest(_Part):
    """What a backup holds.

    Parameters
    ----------
    software, revision
        The version that saved it, and that of its tables: the last migration.
    database
        What it was saved from. It can be restored to either.
    tables, kept
        By name.
    names
        ``files.txt``.
    files_bytes
        Size of all files that it names.
    lacking
        Files that rows name, and that the store did not have, or had damaged, when it was saved.
    """

    format: Literal[1] = 1
    saved_at: AwareDatetime
    software: str
    revision: str
    database: Literal["sqlite", "postgresql"]
    tables: dict[str, Written]
    names: Written
    files_bytes: int
    lacking: tuple[Digest, ...]
    kept: dict[str, Written]

    @property
    def rows(self) -> int:
        return sum(table.lines for table in self.tables.values())

    def write(self, path: Path) -> None:
        """Write it with its own digest, by which a change of it is noticed."""
        text = self.model_dump_json()
        digest = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps({"sha256": digest, "manifest": json.loads(text)}, indent=1) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read it.

        Raises
        ------
        NotDone
            It is damaged, or of a later format.
        """
        try:
            stored = json.loads(path.read_text("utf-8"))
            manifest = cls.model_validate(stored["manifest"])
            is_whole = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest() == stored["sha256"]
        except (ValueError, ValidationError, KeyError, TypeError):
            is_whole = False
        if not is_whole:
            raise NotDone(f"{path}: the manifest is damaged, or was written by a later version")
        return manifest


@dataclass(frozen=True, slots=True)
class Backup:
    """One complete backup.

    Parameters
    ----------
    files
        The posted files, which it shares with the other backups beside it.
    """

    folder: Path
    manifest: Manifest
    files: FolderStore

    def names(self) -> Iterator[tuple[str, int]]:
        """SHA-256 and size of every file that a row names, in order; those that were lacking too."""
        with (self.folder / NAMES).open(encoding="ascii") as lines:
            for line in lines:
                sha256, n_bytes = line.split()
                yield sha256, int(n_bytes)


def open_backup(source: Path) -> Backup:
    """The backup in ``source``; the latest one where ``source`` is a destination.

    Raises
    ------
    NotDone
        There is none, or its manifest is damaged.
    """
    folder = source if (source / MANIFEST).is_file() else next(iter(reversed(complete(source))), None)
    if folder is None:
        raise NotDone(f"{source}: no complete backup is there")
    return Backup(folder, Manifest.read(folder / MANIFEST), FolderStore(folder.parent / FILES))


def complete(destination: Path) -> list[Path]:
    """The folders of the complete backups, the oldest first."""
    return sorted(path.parent for path in destination.glob(f"*/{MANIFEST}") if path.parent.suffix != DRAFT)


@contextmanager
def in_use(destination: Path) -> Iterator[None]:
    """Keep other commands from writing into ``destination``.

    Raises
    ------
    NotDone
        One does.
    """
    with (destination / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotDone(f"{destination}: another command is writing there") from None
        yield


def written(path: Path, lines: int = 0) -> Written:
    """What a file holds, as it is read from the disk."""
    with path.open("rb") as file:
        return Written(lines=lines, n_bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
