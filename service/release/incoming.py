"""A release on its way into the folder of the bundles of a node: its files, and whether they can be used.

::

    BUNDLES/
      .incoming/
        lock                    held by the process that works here
        parts/DIGEST[.gz]       files that have not come whole
        lung-1.4.1/…            files that have, each of the size and digest that was signed
        decided.json            a release that has passed every check (service.release.in_force)
      lung-1.4.0/…              what serves
      registry.jsonl
      releases/16.json

Whatever is in ``.incoming`` serves nobody. Everything here blocks: use it in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from inference.bundles.deciding import NotDone, check_servable
from inference.bundles.registry import read_registry
from service.release.kept import last_release
from service.release.signed import NotTaken, Release, ReleasedBundle, ReleasedFile, SignedRelease
from service.release.tables import check_tables
from service.storage.store import fsync_folder

if TYPE_CHECKING:
    from inference.runtime.session import Machine

INCOMING, PARTS = ".incoming", "parts"
PACKED = ".gz"
READ_BYTES = 256 * 1024
MAX_PACKED_OVERHEAD = 1024
"""By which a compressed file may be larger than the file, at most a thousandth more (RFC 1951, stored blocks)."""


@contextlib.contextmanager
def working(bundles: Path, *, wait: bool) -> Iterator[bool]:
    """Work in the folder alone; ``False`` where another process does, and ``wait`` is false.

    Raises
    ------
    OSError
        The folder of the bundles cannot be written.
    """
    folder = bundles / INCOMING
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


# ---------------------------------------------------------------- before anything is fetched
def check_offer(bundles: Path, signed: SignedRelease, release: Release) -> bool:
    """Check what can be checked without files; whether the release is a new one.

    Raises
    ------
    NotTaken
        ``number``: it is older than what is here, or another one has its number. ``version_differs``: a version that is
        here has other files. ``table``.
    """
    here = last_release(bundles)
    if here is not None and release.number <= here.release.number:
        if release.number < here.release.number or signed.sha256 != here.signed.sha256:
            raise NotTaken("number", f"{release.number}, and {here.release.number} is here")
        return False
    check_tables(release)
    registry = read_registry(bundles)
    for bundle in release.bundles:
        manifest = next((file.sha256 for file in bundle.files if file.path == "screening.json"), None)
        if manifest is None:
            raise NotTaken("bundle", f"{bundle.folder}: it has no screening.json")
        logged = (entry.sha256 for entry in registry.entries if (entry.name, entry.to_version) == _named(bundle))
        if next((sha256 for sha256 in logged if sha256), manifest) != manifest:
            raise NotTaken("version_differs", f"{bundle.folder} was another one when it was first logged")
    return True


def _named(bundle: ReleasedBundle) -> tuple[str, str]:
    return bundle.name, bundle.version


# ---------------------------------------------------------------- files
class Incoming:
    """The files of one release.

    Parameters
    ----------
    bundles
        The folder of the bundles; :func:`working` has to be entered.

    Raises
    ------
    NotTaken
        ``version_differs``: a version of the release is here, with other files.
    """

    def __init__(self, bundles: Path, release: Release) -> None:
        self._bundles, self._folder, self._release = bundles, bundles / INCOMING, release
        self._new = [bundle for bundle in release.bundles if not self._is_here(bundle)]
        self._forget_others()

    def missing(self) -> list[tuple[ReleasedBundle, ReleasedFile]]:
        """The files that have to come: those that are in no version here. What is here is copied."""
        return [(bundle, file) for bundle in self._new for file in bundle.files if not self._found(bundle, file)]

    def part_of(self, file: ReleasedFile) -> tuple[str, int]:
        """Under which name a part of the file is here, and how many bytes it has; without a part, its digest and 0."""
        for name in (file.sha256 + PACKED, file.sha256):
            with contextlib.suppress(OSError):
                return name, (self._folder / PARTS / name).stat().st_size
        return file.sha256, 0

    def add(self, file: ReleasedFile, name: str, at: int, piece: bytes) -> None:
        """Add a piece to a part.

        Parameters
        ----------
        name
            The file's digest, or that with :data:`PACKED`, where the bytes are gzip's.
        at
            Where the piece begins. A part of another length is begun again, from the piece if that is the first.
        """
        path = self._folder / PARTS / name
        with path.open("ab") as part:
            if part.tell() != at or at + len(piece) > file.n_bytes * 1.001 + MAX_PACKED_OVERHEAD:
                part.truncate(0)
                if at:
                    return
            part.write(piece)

    def drop(self, file: ReleasedFile) -> None:
        """Forget the part of a file."""
        for name in (file.sha256 + PACKED, file.sha256):
            (self._folder / PARTS / name).unlink(missing_ok=True)

    def finish(self, bundle: ReleasedBundle, file: ReleasedFile) -> None:
        """Make the part of a file the file, if it has the bytes that were signed.

        Raises
        ------
        NotTaken
            ``file_differs``; the part is forgotten.
        """
        name, _ = self.part_of(file)
        try:
            with (
                (self._folder / PARTS / name).open("rb") as part,
                _written(self._draft(file), self._staged(bundle, file)) as whole,
            ):
                _unpack(part, whole, file, is_packed=name.endswith(PACKED))
        except (zlib.error, ValueError, FileNotFoundError):
            raise NotTaken("file_differs", f"{bundle.folder}/{file.path}") from None
        finally:
            self.drop(file)

    def check(self, machine: Machine) -> None:
        """Check the bundles as a server checks them at its start, on ``machine``; golden cases included.

        Raises
        ------
        NotTaken
            ``bundle``, with the reason.
        """
        for bundle in self._release.bundles:
            where = self._folder if bundle in self._new else self._bundles
            try:
                manifest = check_servable(read_registry(where), bundle.name, bundle.version, machine)
            except NotDone as refusal:
                raise NotTaken("bundle", str(refusal)) from None
            if manifest.organ != bundle.organ:
                raise NotTaken("bundle", f"{bundle.folder}: its organ is {manifest.organ}, not {bundle.organ}")

    def _is_here(self, bundle: ReleasedBundle) -> bool:
        folder = self._bundles / bundle.folder
        if not folder.is_dir():
            return False
        for file in bundle.files:
            if not _has(folder / file.path, file):
                raise NotTaken("version_differs", f"{bundle.folder}/{file.path}")
        return True

    def _found(self, bundle: ReleasedBundle, file: ReleasedFile) -> bool:
        """Whether the file has come, or could be copied from another version: weights often stay the same."""
        target = self._staged(bundle, file)
        if target.is_file():  # it was verified before it got its name
            return True
        for other in sorted(self._bundles.glob(f"{bundle.name}-*/{file.path}")):
            if _has(other, file):
                with other.open("rb") as content, _written(self._draft(file), target) as copy:
                    shutil.copyfileobj(content, copy)
                return True
        return False

    def _staged(self, bundle: ReleasedBundle, file: ReleasedFile) -> Path:
        return self._folder / bundle.folder / file.path

    def _draft(self, file: ReleasedFile) -> Path:
        return self._folder / PARTS / f"{file.sha256}.draft"

    def _forget_others(self) -> None:
        """Remove what came of another release that was never put in force, so that the folder stays small."""
        folders = {bundle.folder: {file.path for file in bundle.files} for bundle in self._new}
        digests = {file.sha256 for bundle in self._new for file in bundle.files}
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in {PARTS, *folders}:
                shutil.rmtree(path)
        for name, paths in folders.items():
            for path in (self._folder / name).rglob("*"):
                if path.is_file() and path.relative_to(self._folder / name).as_posix() not in paths:
                    path.unlink()
        for path in (self._folder / PARTS).iterdir():
            if path.name.removesuffix(PACKED) not in digests:
                path.unlink()


def _has(path: Path, file: ReleasedFile) -> bool:
    try:
        if path.stat().st_size != file.n_bytes:
            return False
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


@contextlib.contextmanager
def _written(draft: Path, target: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when all of it is on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        fsync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def _unpack(part: IO[bytes], whole: IO[bytes], file: ReleasedFile, *, is_packed: bool) -> None:
    """Write the content of a part.

    Raises
    ------
    ValueError, zlib.error
        It is not the file.
    """
    unpacked = zlib.decompressobj(wbits=31) if is_packed else None
    digest, n_bytes = hashlib.sha256(), 0
    while piece := part.read(READ_BYTES):
        while piece:
            content = unpacked.decompress(piece, READ_BYTES) if unpacked else piece
            piece = unpacked.unconsumed_tail if unpacked else b""
            n_bytes += len(content)
            if n_bytes > file.n_bytes:
                raise ValueError
            digest.update(content)
            whole.write(content)
    if (n_bytes, digest.hexdigest()) != (file.n_bytes, file.sha256):
        raise ValueError
