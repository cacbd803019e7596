"""The files of the release that a centre offers, for its nodes: as they are, or compressed where that pays."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.release.incoming import PACKED
from service.release.kept import last_release
from service.release.signed import Release

WORTH = 0.95
"""A file is sent compressed where that makes it smaller than this share."""
MIN_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Sent:
    """What is sent of a file; ``name`` is its digest, with :data:`PACKED` where it is compressed."""

    path: Path
    name: str

    @property
    def is_packed(self) -> bool:
        return self.name.endswith(PACKED)


def sent_file(bundles: Path, cache: Path, sha256: str, *, may_be_packed: bool) -> Sent | None:
    """A file of the release in force; ``None`` where the release has none of this digest, or it is not here
    as it was signed.

    Parameters
    ----------
    cache
        Folder of the compressed files. Those of other releases are removed from it.
    """
    kept = last_release(bundles)
    if kept is None:
        return None
    paths = (bundles / bundle.folder / file.path for bundle, file in kept.release.files() if file.sha256 == sha256)
    named = next(paths, None)
    if named is None or not named.is_file():
        return None
    if may_be_packed and named.stat().st_size >= MIN_BYTES:
        packed = cache / f"{sha256}{PACKED}"
        if not packed.exists():
            _forget_others(cache, kept.release)
            if not _pack(named, packed, sha256):
                return None
        if packed.stat().st_size < WORTH * named.stat().st_size:
            return Sent(packed, packed.name)
    return Sent(named, sha256)


def missing_here(bundles: Path, release: Release) -> Iterator[str]:
    """Bundles of a release with a file that is not here, or has another size: nodes cannot get them."""
    for bundle in release.bundles:
        for file in bundle.files:
            path = bundles / bundle.folder / file.path
            if not path.is_file() or path.stat().st_size != file.n_bytes:
                yield bundle.folder
                break


def _pack(path: Path, packed: Path, sha256: str) -> bool:
    """Compress a file; ``False`` where it is not the one that was signed."""
    packed.parent.mkdir(parents=True, exist_ok=True)
    draft = packed.with_name(f"{packed.name}.{uuid.uuid4().hex}")
    with path.open("rb") as content, draft.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as whole:
        shutil.copyfileobj(content, whole)
        content.seek(0)
        is_the_one = hashlib.file_digest(content, "sha256").hexdigest() == sha256
    if is_the_one:
        draft.replace(packed)
    else:
        draft.unlink()
    return is_the_one


def _forget_others(cache: Path, release: Release) -> None:
    digests = {file.sha256 for _, file in release.files()}
    for path in cache.glob("*"):
        if path.name.removesuffix(PACKED) not in digests:
            path.unlink(missing_ok=True)
