"""A package: a folder of files and ``manifest.json``, which names each of them with its digest.

The digest of the manifest stands for the whole. It is told to the other side by another way than the package, and a
package that is not exactly what the digest stands for is refused as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from data_specs.problems import Refused
from data_specs.schema import Moment, Schema
from service.export.tables import Anonymity
from service.storage.commands import NotDone
from service.storage.store import fsync_folder

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 20_000_000
MAX_FILE_BYTES = 200_000_000
MAX_PACKAGE_BYTES = 50_000_000_000
MAX_FILES = 100_000
VISITS, FILES, TABLES, ANSWERS = "visits", "files", "tables", "answers.json"
NAME = re.compile(r"(?:(?:visits|files|tables)/)?[a-z0-9][a-z0-9._-]{0,79}", re.ASCII)
FORMAT: Literal["sangloc-export-1"] = "sangloc-export-1"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]


class PackedFile(Schema):
    sha256: Digest
    n_bytes: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class Code(Schema):
    """A code of DICOM CID 7050."""

    value: str
    meaning: str


class Manifest(Schema):
    """What a package holds, how it was made, and on which legal basis.

    Parameters
    ----------
    about
        Digest of the manifest that answers are about; ``None`` where the package holds visits.
    profile
        Profile and options of PS3.15, as in (0012,0064) of each DICOM object.
    removed
        Elements of posted DICOM headers, by what table E.1-1 says of them; none of them was copied.
    blacked_out
        By file, what was blacked out in its pixels: first row and column, and those behind the last.
    withheld
        Posted files that did not leave, by the code of the reason.
    """

    format: Literal["sangloc-export-1"] = FORMAT
    kind: Literal["visits", "answers"]
    made_at: Moment
    made_by: Line
    recipient: Line
    legal_basis: Line
    about: Digest | None = None
    profile: tuple[Code, ...] = ()
    rules: dict[str, str] = Field(default={})
    counts: dict[str, int] = Field(default={})
    removed: dict[str, int] = Field(default={})
    blacked_out: dict[str, tuple[tuple[int, int, int, int], ...]] = Field(default={})
    withheld: dict[str, int] = Field(default={})
    anonymity: Anonymity | None = None
    files: Annotated[dict[str, PackedFile], Field(max_length=MAX_FILES)]


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is what its digest says."""

    folder: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """A file of the package, checked once more: it may have been changed since.

        Raises
        ------
        Refused
            ``export_altered``
        """
        return _checked(self.folder / name, name, self.manifest.files[name])


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """A folder that a package is written into; nothing is left in it where that fails.

    Raises
    ------
    NotDone
        There is something in it already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise NotDone(f"{folder} is not empty")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for inner in folder.iterdir():
            if inner.is_dir():
                shutil.rmtree(inner, ignore_errors=True)
            else:
                inner.unlink(missing_ok=True)
        raise


def write_file(folder: Path, name: str, content: bytes, files: dict[str, PackedFile]) -> None:
    """Write a file of a package that is being made, and note it in ``files``."""
    path = folder / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    files[name] = PackedFile(sha256=hashlib.sha256(content).hexdigest(), n_bytes=len(content))


def finish(folder: Path, manifest: Manifest, record: Callable[[str], None]) -> str:
    """Write the manifest, last and in one step; returns its digest. A folder without it is no package.

    Parameters
    ----------
    record
        Called with the digest before the package is there: one that nobody has recorded would get no answers.
    """
    content = (
        json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False, sort_keys=True).encode() + b"\n"
    )
    for inner in (path for path in folder.iterdir() if path.is_dir()):
        fsync_folder(inner)
    draft = folder / f"{MANIFEST}.draft"
    with draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    digest = hashlib.sha256(content).hexdigest()
    record(digest)
    draft.rename(folder / MANIFEST)
    fsync_folder(folder)
    return digest


def read_package(folder: Path, digest: str, kind: Literal["visits", "answers"]) -> Package:
    """Look at a whole package before anything of it is used.

    Raises
    ------
    Refused
        ``export_no_package``, ``export_other_manifest``, ``export_unknown_format``, ``export_wrong_kind``,
        ``export_other_files``, ``export_altered``: nothing of it is taken.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise Refused("export_no_package", folder.name, MANIFEST)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise Refused("export_other_manifest", found[:16], digest[:16])
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refused("export_unknown_format", ".".join(map(str, first["loc"]))[:60], FORMAT) from None
    if manifest.kind != kind:
        raise Refused("export_wrong_kind", manifest.kind, kind)
    _check_names(folder, manifest.files)
    for name, file in manifest.files.items():
        _checked(folder / name, name, file)
    return Package(folder, manifest, digest)


def _check_names(folder: Path, files: Mapping[str, PackedFile]) -> None:
    there: set[str] = set()
    for path in folder.rglob("*"):
        if len(there) > MAX_FILES or path.is_symlink():
            raise Refused("export_other_files", len(there), len(files))
        if not path.is_dir():
            there.add(path.relative_to(folder).as_posix())
    if there - {MANIFEST} != set(files) or not all(NAME.fullmatch(name) for name in files):
        raise Refused("export_other_files", len(there - {MANIFEST}), len(files))
    if sum(file.n_bytes for file in files.values()) > MAX_PACKAGE_BYTES:
        raise Refused("export_other_files", ">", f"{MAX_PACKAGE_BYTES // 10**9} GB")


def _checked(path: Path, name: str, file: PackedFile) -> bytes:
    with path.open("rb") as opened:
        content = opened.read(file.n_bytes + 1)
    if len(content) != file.n_bytes or hashlib.sha256(content).hexdigest() != file.sha256:
        raise Refused("export_altered", name, file.sha256[:16])
    return content
