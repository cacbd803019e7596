"""Copies files from one store to another, each checked by its SHA-256; says from time to time how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from service.errors import StoredFileDamaged
from service.storage.drafts import Draft
from service.storage.outages import disk_outages
from service.storage.store import Store

PIECE = 1024 * 1024
SAY_S = 5.0

Say = Callable[[str], None]


def copy_file(source: Store, sha256: str, target: Store) -> None:
    """Copy one file; it is durable when this returns.

    Raises
    ------
    StoredFileMissing, StoredFileDamaged
        The source does not have it, or has other content under its name. The target is not changed.
    StorageFull, StorageUnavailable
    """
    draft = Draft(target.drafts)
    try:
        with disk_outages(), os.fdopen(source.open(sha256).descriptor, "rb") as file:
            file.seek(0)
            while piece := file.read(PIECE):
                draft.write(piece)
        if draft.sha256 != sha256:
            raise StoredFileDamaged
        target.put(draft)
    finally:
        draft.remove()


def others(names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Those of ``names`` that are not in ``known``; both are in order, and neither is held in memory."""
    expected = iter(known)
    current = next(expected, None)
    for name in names:
        while current is not None and current < name:
            current = next(expected, None)
        if current != name:
            yield name


def shown(names: Iterable[tuple[str, int]], of: int, what: str, say: Say) -> Iterator[str]:
    """The names one by one, with a line every few seconds: ``checked: 1,200 of 5,000 files, 3.1 GB``."""
    last, total = time.monotonic(), 0
    for count, (name, n_bytes) in enumerate(names, 1):
        yield name
        total += n_bytes
        if time.monotonic() - last >= SAY_S:
            last = time.monotonic()
            say(f"{what}: {count:,} of {of:,} files, {size(total)}")


def size(n_bytes: int) -> str:
    """A number of bytes in MB or GB of powers of ten."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
