"""Remove old backups from a destination, and the files that none of those that stay has."""

from __future__ import annotations

import heapq
import math
import shutil
from pathlib import Path

from service.backup.contents import DRAFT, FILES, complete, in_use, open_backup
from service.backup.copying import others
from service.storage.commands import NotDone
from service.storage.store import FolderStore


def prune(destination: Path, keep: int) -> tuple[int, int]:
    """Keep the latest backups: how many backups and files were removed.

    Raises
    ------
    NotDone
        There are no backups, or the manifest of one that stays is damaged: then nothing is removed.
    """
    with in_use(destination):
        found = complete(destination)
        if not found:
            raise NotDone(f"{destination}: no complete backup is there")
        kept = [open_backup(folder) for folder in found[-keep:]]
        for folder in found[:-keep]:
            gone = folder.rename(folder.with_name(f"{folder.name}{DRAFT}"))  # not complete any more, if this is stopped
            shutil.rmtree(gone)
        files = FolderStore(destination / FILES)
        needed = heapq.merge(*(backup.names() for backup in kept))
        n_files = 0
        for sha256 in others(files.names(), (sha256 for sha256, _ in needed)):
            files.remove(sha256, math.inf)
            n_files += 1
        return len(found) - len(kept), n_files
