"""A posted file, the parts of its name, and the files in a zip."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO

from data_specs.problems import Refused
from data_specs.reading import refusals_only, require_memory

MAX_ZIP_MEMBERS = 512
MAX_ZIP_ENTRIES, MAX_DIRECTORY_BYTES = 4 * MAX_ZIP_MEMBERS, 256 << 10
"""Of the directory of an archive, folders and what macOS adds included. Python takes 10 µs for an entry."""
MAX_ZIP_BYTES, MAX_ZIPS_BYTES = 128 << 20, 256 << 20
"""Of one archive, and of all archives of a visit together."""
MAX_ZIP_RATIO = 200
"""Inflated to packed size of a whole archive; ECGs pack to a half or a third, a flat trace to a hundredth."""


@dataclass(frozen=True)
class PostedFile:
    """One file of a visit. ``index`` is its place among the visit's inputs; a zip's members carry the zip's."""

    index: int
    filename: str
    content: bytes

    @cached_property
    def folder(self) -> str:
        """Folders of the name, in lower case; empty where it has none."""
        return _path(self.filename).lower().rpartition("/")[0]

    @cached_property
    def base(self) -> str:
        return base(self.filename)

    @cached_property
    def stem(self) -> str:
        """The name without folders and extension, in lower case."""
        return self.base.rpartition(".")[0] or self.base

    @cached_property
    def extension(self) -> str:
        return extension(self.filename)


def base(filename: str) -> str:
    """A name without folders, in lower case."""
    return _path(filename).rsplit("/", 1)[-1].lower()


def extension(filename: str) -> str:
    """The extension of a name, in lower case and without its dot; empty where there is none."""
    return base(filename).rpartition(".")[2] if "." in filename else ""


def _path(filename: str) -> str:
    return filename.replace("\\", "/")


# ---------------------------------------------------------------- zip


def is_zip(content: bytes) -> bool:
    return content.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"))


def unzip(file: PostedFile, budget: int = MAX_ZIP_BYTES) -> list[PostedFile]:
    """The files in a zip, without folders and what macOS adds.

    Parameters
    ----------
    budget
        Bytes that the members may have together.

    Raises
    ------
    Refused
        ``unreadable``: damaged, encrypted or out of bounds.
    """
    with refusals_only("ZIP", "ZIP"), open_zip(io.BytesIO(file.content)) as archive:
        members = [info for info in archive.infolist() if is_zip_member(info.filename)]
        check_zip_bounds(members, len(file.content))
        sizes = [info.file_size for info in members]
        require_memory(sum(sizes) + max(sizes, default=0))
        posted = []
        for info in members:
            with archive.open(info) as opened:
                content = opened.read(budget + 1)
            budget -= len(content)
            if budget < 0:
                raise Refused("unreadable", found=f"ZIP > {MAX_ZIP_BYTES >> 20} MB", expected="ZIP")
            posted.append(PostedFile(file.index, info.filename, content))
        return posted


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """Open an archive, whose directory zipfile reads at once, after a look at how large it is.

    Every end record near the end of the file is looked at, because zipfile may take another one than we would.

    Raises
    ------
    Refused
        ``unreadable``: too many entries, or too large a directory.
    zipfile.BadZipFile
        It is no archive.

    References
    ----------
    PKWARE APPNOTE 6.3.10, sections 4.3.14 to 4.3.16 (end of central directory, and its Zip64 form).
    """
    file.seek(-min(_END_WITHIN, file.seek(0, os.SEEK_END)), os.SEEK_END)
    for entries, n_bytes in _directories(file.read()):
        if entries > MAX_ZIP_ENTRIES or n_bytes > MAX_DIRECTORY_BYTES:
            found, most = (
                f"ZIP {entries}, {n_bytes >> 10} kB",
                f"ZIP ≤ {MAX_ZIP_ENTRIES}, ≤ {MAX_DIRECTORY_BYTES >> 10} kB",
            )
            raise Refused("unreadable", found=found, expected=most)
    file.seek(0)
    return zipfile.ZipFile(file)


_END_WITHIN = 22 + 0xFFFF + 20 + 56
"""End record, its comment, and before them the locator and the record of Zip64."""
_END_RECORDS = ((b"PK\x05\x06", struct.Struct("<10xHL"), 22), (b"PK\x06\x06", struct.Struct("<32xQQ"), 56))
"""Signature, number of entries and bytes of the directory, and length of an end record."""


def _directories(tail: bytes) -> Iterator[tuple[int, int]]:
    """Entries and bytes of the directory, as each end record states them."""
    for signature, fields, length in _END_RECORDS:
        at = tail.find(signature)
        while 0 <= at <= len(tail) - length:
            yield fields.unpack_from(tail, at)
            at = tail.find(signature, at + 4)


def is_zip_member(name: str) -> bool:
    """Whether a zip's entry is a file that somebody put there: no folder, no hidden file, nothing that macOS adds."""
    last = _path(name).rsplit("/", 1)[-1]
    return bool(last) and not last.startswith((".", "DICOMDIR")) and not name.startswith("__MACOSX/")


def check_zip_bounds(members: list[zipfile.ZipInfo], packed: int) -> None:
    """Refuse an archive whose directory states too many files, or too large ones; ``packed``: its size in bytes.

    Raises
    ------
    Refused
        ``unreadable``
    """
    size = sum(info.file_size for info in members)
    if len(members) > MAX_ZIP_MEMBERS:
        raise Refused("unreadable", found=f"ZIP {len(members)}", expected=f"ZIP ≤ {MAX_ZIP_MEMBERS}")
    if size > MAX_ZIP_BYTES or size > max(packed, 1 << 16) * MAX_ZIP_RATIO:
        expected = f"ZIP ≤ {MAX_ZIP_BYTES >> 20} MB, ≤ {MAX_ZIP_RATIO}:1"
        raise Refused("unreadable", found=f"ZIP {size >> 20} MB", expected=expected)
