"""The folder that an archive is written to: Parquet parts by day and site, each complete or not there at all.

::

    OUT/rows/2026-01-02/district/….parquet
    OUT/failed.csv   OUT/key   OUT/key.id   OUT/unfinished/   OUT/lock

A part is written under another name, synced and renamed, so a run that is killed leaves whole parts and at most one
unfinished file, which the next run removes. All rows of a case are in one part. Small parts of a partition are merged:
the merged part is there before the small ones are removed, and where a run is killed in between, the next one finds
that the merged part has all that they have, and removes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from data_specs.problems import Problem
from inference.archive.rows import SCHEMA, Partition, Row, Versions, refusals
from inference.archive.scoring import Scored

NO_DAY, NO_SITE = "no-day", "no-site"
"""Folders of cases of which these are not stated."""
SMALL_ROWS = 50_000
"""A part with fewer rows is merged with others of its partition."""
MERGED_AT = 8
"""Small parts of a partition that are merged during a run; at its end, any two are."""
KEY_BYTES = 32
KEYED = ("input", "organ", "version", "gate")


class BadArchive(Exception):
    """The folder cannot be used: ``str()`` says why."""


class Archive:
    """The folder, for one run at a time.

    Parameters
    ----------
    versions
        What this run computes with, by organ: a case is done where it has rows of these for each of its organs.
    key_file
        Where the key of the pseudonyms is kept; made where it is missing.

    Raises
    ------
    BadArchive
        Another run writes there, the key is another one than before, or a part cannot be read.
    """

    def __init__(self, folder: Path, versions: Mapping[str, Versions], key_file: Path | None = None) -> None:
        self.folder, self.rows = folder, folder / "rows"
        self.done: set[str] = set()
        """Inputs that have rows of these versions."""
        self.seen: dict[str, str] = {}
        """Case before it is read, by :func:`inference.archive.scoring.seen`, to its input."""
        self.refused: dict[str, list[tuple[int, Problem]]] = {}
        """Input to why files of it were not used."""
        self._versions = versions
        self._waiting: dict[Partition, list[Row]] = defaultdict(list)
        self._in_merge = False
        with ExitStack() as closing:
            make_durably(self.rows)
            self._lock(closing)
            self._unfinished = folder / "unfinished"
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self._unfinished.mkdir()
            self.key = kept_key(key_file or folder / "key", folder / "key.id")
            self._read()
            self._closing = closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _lock(self, closing: ExitStack) -> None:
        opened = closing.enter_context((self.folder / "lock").open("w"))
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError:
            raise BadArchive(f"{self.folder}: another run writes there") from None

    # ---------------------------------------------------------------- what is there
    def _read(self) -> None:
        """What is done, and what is not removed yet after a merge."""
        have: dict[str, set[str]] = defaultdict(set)
        current: dict[str, set[str]] = defaultdict(set)
        for partition in self._partitions():
            for part in without_merged(partition):
                table = _read_part(part, ["seen", "refused", "problems", *KEYED])
                for row in table.group_by(["seen", *KEYED]).aggregate([]).to_pylist():
                    self.seen[row["seen"]] = row["input"]
                    have[row["input"]].add(row["organ"])
                    if self._is_current(row):
                        current[row["input"]].add(row["organ"])
                for row in table.filter(pc.field("refused")).to_pylist():
                    if self._is_current(row):
                        self._note_refusals(row["input"], [row])
        self.done = {name for name, organs in have.items() if organs <= current.get(name, set())}

    def _is_current(self, row: Mapping[str, Any]) -> bool:
        now = self._versions.get(row["organ"])
        return now is not None and (row["version"], row["gate"]) == (now.version, now.gate)

    def _note_refusals(self, name: str, rows: Sequence[Row]) -> None:
        for found in refusals(rows):
            known = self.refused.setdefault(name, [])
            known += [found] if found not in known else []

    def _partitions(self) -> Iterator[list[Path]]:
        """The parts of each partition, by their size."""
        for folder in sorted({part.parent for part in self.rows.glob("*/*/*.parquet")}):
            yield sorted(folder.glob("*.parquet"), key=lambda part: (part.stat().st_size, part.name))

    # ---------------------------------------------------------------- what is new
    def take(self, scored: Scored) -> bool:
        """Keep the rows of a case for the next :meth:`write`; whether they are new."""
        if scored.input in self.done or not scored.rows:
            return False
        self.done.add(scored.input)
        self._note_refusals(scored.input, scored.rows)
        self._waiting[scored.partition] += scored.rows
        return True

    def write(self) -> None:
        """Write what was taken; when this returns, it is durable."""
        while self._waiting:
            partition, rows = self._waiting.popitem()  # stopped in between, they are scored again and never twice
            self._write_part(self.folder_of(partition), pa.Table.from_pylist(rows, SCHEMA))
        self._merge(MERGED_AT)

    def close_up(self) -> None:
        """Write what was taken, and merge the small parts of each partition."""
        self.write()
        self._merge(2)

    def folder_of(self, partition: Partition) -> Path:
        day = partition.day.isoformat() if partition.day else NO_DAY
        site = quote(partition.site, safe=" ") if partition.site else NO_SITE
        return self.rows / day / site

    def _merge(self, at: int) -> None:
        if self._in_merge:  # stopped there: a merged part may lie beside the small ones until the next run
            return
        for parts in self._partitions():
            small = [part for part in parts if pq.read_metadata(part).num_rows < SMALL_ROWS] if len(parts) >= at else []
            if len(small) >= at:
                self._in_merge = True
                tables = [_read_part(part, SCHEMA.names) for part in small]
                self._write_part(small[0].parent, pa.concat_tables(tables))
                for part in small:
                    part.unlink()
                self._in_merge = False

    def _write_part(self, folder: Path, table: pa.Table) -> None:
        name = f"{uuid.uuid4().hex}.parquet"
        unfinished = self._unfinished / name
        pq.write_table(table, unfinished, compression="zstd")
        sync(unfinished)
        make_durably(folder)
        unfinished.replace(folder / name)
        sync(folder)


def without_merged(parts: Sequence[Path]) -> list[Path]:
    """The parts of a partition, the smallest first, after those are removed whose cases are all in a larger one."""
    if len(parts) < 2:
        return list(parts)
    cases = {part: _cases(part) for part in parts}
    kept = [part for i, part in enumerate(parts) if not any(cases[part] <= cases[larger] for larger in parts[i + 1 :])]
    for part in set(parts) - set(kept):
        part.unlink()
    return kept


def _cases(part: Path) -> set[tuple[Any, ...]]:
    columns = _read_part(part, list(KEYED)).to_pydict()
    return set(zip(*columns.values(), strict=True))


def _read_part(part: Path, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(part) as opened:
            return opened.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise BadArchive(f"{part}: this part cannot be read ({type(error).__name__})") from error


def kept_key(file: Path, mark: Path) -> bytes:
    """The key of an archive, made where there is none.

    Parameters
    ----------
    mark
        File that tells one key from another and does not tell the key.

    Raises
    ------
    BadArchive
        It is no key, or another one than that of the rows that are there.
    """
    if not file.exists():
        if mark.exists():
            raise BadArchive(f"{file}: the key of these rows is not there; name its file with --key")
        write_durably(file, f"{secrets.token_hex(KEY_BYTES)}\n")
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise BadArchive(f"{file} is no key: {2 * KEY_BYTES} hexadecimal digits")
    name = hashlib.sha256(b"key of an archive" + key).hexdigest()[:16]
    if not mark.exists():
        write_durably(mark, f"{name}\n")
    if mark.read_text(encoding="ascii").strip() != name:
        raise BadArchive(f"{file} is not the key of the rows that are there")
    return key


def write_durably(file: Path, text: str) -> None:
    """Write a file that only its owner may read, as a whole."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="utf-8")
    sync(unfinished)
    unfinished.replace(file)
    sync(file.parent)


def make_durably(folder: Path) -> None:
    """Make a folder and those above it, so that they are there after a failure of power."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync(each.parent)


def sync(path: Path) -> None:
    """Make a file's content, or which files a folder has, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parts_of(folder: Path) -> Iterable[Path]:
    """All parts of an archive."""
    return sorted((folder / "rows").glob("*/*/*.parquet"))
