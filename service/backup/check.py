"""Check that a backup is whole: every digest, every row, and every file that a row names."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter

from service.backup.contents import KEPT, NAMES, TABLES, Backup, written
from service.backup.copying import Say, shown
from service.backup.rows import read_rows
from service.errors import StoredFileMissing
from service.storage.commands import NotDone
from service.storage.outages import disk_outages
from service.storage.tables import NAMING_FILES


def check(backup: Backup, say: Say) -> None:
    """Read all of a backup.

    Raises
    ------
    NotDone
        It is damaged or incomplete; what is, is named.
    StorageUnavailable
    """
    check_folder(backup)
    lacking = set(backup.manifest.lacking)
    for sha256 in shown(backup.names(), backup.manifest.names.lines, "checked", say):
        if sha256 not in lacking:
            _check_file(backup, sha256)


def check_folder(backup: Backup) -> None:
    """Check all but the content of the posted files: the tables, and that what their rows name is there.

    Raises
    ------
    NotDone
        As :func:`check`.
    """
    manifest, folder = backup.manifest, backup.folder
    parts = {f"{TABLES}/{name}.jsonl.gz": part for name, part in manifest.tables.items()}
    parts |= {NAMES: manifest.names} | {f"{KEPT}/{name}": part for name, part in manifest.kept.items()}
    for name, expected in parts.items():
        if not (folder / name).is_file():
            raise NotDone(f"{folder / name} is missing: the backup is incomplete")
        if written(folder / name, expected.lines) != expected:
            raise NotDone(f"{folder / name} is damaged: it is not what the manifest says")
    lacking = set(manifest.lacking)
    for name, expected in manifest.tables.items():
        counts: Counter[str] = Counter()
        try:
            for row in read_rows(folder / TABLES / f"{name}.jsonl.gz"):
                counts["rows"] += 1
                if name in NAMING_FILES and row["sha256"] not in lacking and not backup.files.has(row["sha256"]):
                    counts["missing"] += 1
        except (ValueError, KeyError, EOFError, zlib.error) as error:
            raise NotDone(f"{folder}: the rows of {name} cannot be read ({type(error).__name__})") from error
        if counts["missing"]:
            raise NotDone(f"{folder}: {counts['missing']} files that {name} names are missing: it is incomplete")
        if counts["rows"] != expected.lines:
            raise NotDone(f"{folder}: {name} has {counts['rows']} rows, and the manifest says {expected.lines}")


def damaged_file(sha256: str) -> NotDone:
    return NotDone(f"the file {sha256} is damaged or missing: the backup is not whole")


def _check_file(backup: Backup, sha256: str) -> None:
    try:
        opened = backup.files.open(sha256)
    except StoredFileMissing:
        raise damaged_file(sha256) from None
    with disk_outages(), os.fdopen(opened.descriptor, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise damaged_file(sha256)
