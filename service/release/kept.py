"""The releases that lie beside the bundles, and what the last of them names.

``releases/NUMBER.json`` in the folder of the bundles are the releases, at the centre as at its nodes. The one with the
highest number is in force: the centre offers it, and a node has it. So a node can have nodes of its own.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import structlog

from service.release.signed import NotTaken, Release, SignedRelease, read_signed
from service.storage.store import fsync_folder

RELEASES = "releases"
_FILE = re.compile(r"([1-9]\d{0,8})\.json")

log = structlog.get_logger()


@dataclass(frozen=True)
class Kept:
    """A release that lies beside the bundles.

    Parameters
    ----------
    since
        When its file was written: at a node, when it came into force.
    """

    signed: SignedRelease
    release: Release
    since: datetime


def last_release(bundles: Path) -> Kept | None:
    """The release in force; ``None`` where there is none. A file that cannot be read is no release."""
    for number in reversed(numbers(bundles)):
        if (kept := read_kept(bundles, number)) is not None:
            return kept
    return None


def numbers(bundles: Path) -> list[int]:
    """Numbers of the releases whose files are there, rising."""
    try:
        names = os.listdir(bundles / RELEASES)
    except OSError:
        return []
    return sorted(int(match[1]) for name in names if (match := _FILE.fullmatch(name)))


def read_kept(bundles: Path, number: int) -> Kept | None:
    """One release; ``None`` where its file is gone, or cannot be read, or has another number in it."""
    path = file_of(bundles, number)
    try:
        found = path.stat()
    except OSError:
        return None
    return _read(path, number, found.st_mtime_ns, found.st_size)


def file_of(bundles: Path, number: int) -> Path:
    return bundles / RELEASES / f"{number}.json"


@lru_cache(maxsize=8)
def _read(path: Path, number: int, mtime_ns: int, _size: int) -> Kept | None:
    try:
        signed = read_signed(path.read_bytes())
        release = signed.release()
    except (OSError, NotTaken) as error:
        log.error("release_not_read", number=number, reason=getattr(error, "code", type(error).__name__))
        return None
    if release.number != number:
        log.error("release_not_read", number=number, reason="number")
        return None
    return Kept(signed, release, datetime.fromtimestamp(mtime_ns / 1e9, UTC))


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whenever the machine stops."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    fsync_folder(path.parent)
