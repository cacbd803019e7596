"""A folder, or the files under a prefix of an object store: whatever fsspec opens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_specs.problems import Refused
from inference.archive.cases import MAX_FILE_MB, BadSource, Case, SourceFile

WFDB_HEADER = ".hea"


@dataclass(frozen=True)
class Files:
    """Every file in a folder and its subfolders, without those whose name begins with a dot.

    Each file is a case; a WFDB header (``a.hea``) takes the other files of its stem in its folder.

    Parameters
    ----------
    address
        A path, or a URL such as ``s3://bucket/prefix``.
    number
        Place among the sources.
    site
        The site that all of them come from; empty: not stated.
    """

    address: str
    number: int = 0
    site: str = ""
    max_mb: int = MAX_FILE_MB

    def cases(self) -> Iterator[Case]:
        unlisted: list[str] = []

        def note(error: OSError) -> None:
            unlisted.append(self._place(str(error.filename or self._root)))

        if not self._files.isdir(self._root):
            raise BadSource(f"{self.address}: there is no such folder")
        for folder, _, listed in self._files.walk(self._root, detail=True, on_error=note):
            names = {name: info for name, info in listed.items() if name and not name.startswith(".")}
            if not self._is_hidden(folder):
                yield from (Case(files, self.number, self.site) for files in grouped(self._listed(folder, names)))
            while unlisted:
                place = unlisted.pop()
                yield Case((SourceFile(Path(place).name, place),), self.number, self.site)

    def read(self, file: SourceFile) -> bytes:
        if file.n_bytes == 0:
            return b""  # an object store refuses the first byte of nothing
        limit = self.max_mb * 1_000_000
        try:
            content: bytes = self._files.cat_file(self._path(file.place), start=0, end=limit + 1)
        except FileNotFoundError:
            raise Refused("file_missing", file.name, "./…") from None
        except Exception as error:  # the client of each store has errors of its own
            raise Refused("not_reached", type(error).__name__) from None
        return within(content, self.max_mb)

    def find(self, name: str) -> SourceFile:
        """The file that a table names, relative to this folder; whether it is there shows when it is read."""
        place = name.replace("\\", "/")
        file = SourceFile(place.rpartition("/")[2], place)
        try:
            found = Path(self._path(place)).stat() if self._is_local else None
        except (OSError, ValueError):
            found = None
        return SourceFile(file.name, place, str(found.st_mtime_ns), found.st_size) if found else file

    def _listed(self, folder: str, names: Mapping[str, Mapping[str, Any]]) -> list[SourceFile]:
        return [
            SourceFile(name, self._place(f"{folder}/{name}"), mark_of(info), info.get("size"))
            for name, info in sorted(names.items())
        ]

    def _path(self, place: str) -> str:
        """Where fsspec has it; a table may name a file of another folder of this machine."""
        return place if self._is_local and place.startswith("/") else f"{self._root}/{place}"

    def _place(self, path: str) -> str:
        return path.removeprefix(self._root).lstrip("/")

    def _is_hidden(self, folder: str) -> bool:
        return any(part.startswith(".") for part in self._place(folder).split("/"))

    @property
    def _is_local(self) -> bool:
        return "://" not in self.address

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415  it imports the store's client

        files, root = fsspec.core.url_to_fs(self.address)
        return files, str(root).rstrip("/")

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        """Without the open client, which belongs to its process."""
        return {name: value for name, value in vars(self).items() if name != "_opened"}


def grouped(files: Sequence[SourceFile]) -> list[tuple[SourceFile, ...]]:
    """The files of one folder as cases."""
    headers = {file.name.removesuffix(WFDB_HEADER) for file in files if file.name.endswith(WFDB_HEADER)}
    groups: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        stem = file.name.rpartition(".")[0]
        groups[stem if stem in headers else f"/{file.name}"].append(file)
    return [tuple(group) for group in groups.values()]


def mark_of(info: Mapping[str, Any]) -> str:
    """What changes with an object's content: the ETag of a store, the time of a file."""
    return str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")


def within(content: bytes, max_mb: int) -> bytes:
    """The content, if it is not over the limit.

    Raises
    ------
    Refused
        ``over_limit``.
    """
    if len(content) > max_mb * 1_000_000:
        raise Refused("over_limit", f"> {max_mb} MB", f"≤ {max_mb} MB")
    return content
