"""Save the data of a running service: one snapshot of the database, then every file that it names."""

from __future__ import annotations

import os
import shutil
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path

from inference.bundles.registry import LOG
from service.backup.contents import (
    DRAFT,
    FILES,
    KEPT,
    KEYS,
    MANIFEST,
    NAMES,
    TABLES,
    Backup,
    Manifest,
    Written,
    in_use,
    written,
)
from service.backup.copying import Say, copy_file, shown
from service.backup.rows import saved_tables, write_names, write_rows
from service.errors import StoredFileDamaged, StoredFileMissing
from service.settings import Settings
from service.storage.commands import NotDone, one_at_a_time
from service.storage.database import Database
from service.storage.migrate import revision_of
from service.storage.store import FolderStore, Store, fsync_folder

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def save(settings: Settings, database: Database, store: Store, destination: Path, say: Say) -> tuple[Backup, int]:
    """Save into ``destination``; the backup, and how many files were new there.

    Files are never changed, and while this runs nothing is deleted: whatever a row of the snapshot names is still in
    the store when the files are copied. One that the store has lost is left out, and the manifest says so: one bad file
    must not prevent all backups.

    Raises
    ------
    NotDone
        Another command saves, restores or deletes, here or there; or the database has no tables.
    DatabaseUnavailable, StorageFull, StorageUnavailable
    """
    destination.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = FolderStore(destination / FILES)
    with one_at_a_time(settings, database), in_use(destination):
        for left in destination.glob(f"*{DRAFT}"):  # of a command that was stopped
            shutil.rmtree(left)
        folder = destination / f"{uuid.uuid4().hex}{DRAFT}"
        (folder / TABLES).mkdir(mode=0o700, parents=True)
        saved_at = datetime.now(UTC)
        tables: dict[str, Written] = {}
        with database.snapshot() as snapshot:
            revision = revision_of(snapshot)
            if revision is None:
                raise NotDone("the database has no tables yet: no server was started on it")
            found = saved_tables(snapshot)
            for table in found:
                path = folder / TABLES / f"{table.name}.jsonl.gz"
                tables[table.name] = written(path, write_rows(snapshot, table, path))
                say(f"{table.name}: {tables[table.name].lines:,} rows")
            n_files, files_bytes = write_names(snapshot, found, folder / NAMES)
        manifest = Manifest(
            saved_at=saved_at,
            software=_software(),
            revision=revision,
            database="sqlite" if database.is_sqlite else "postgresql",
            tables=tables,
            names=written(folder / NAMES, n_files),
            files_bytes=files_bytes,
            lacking=(),
            kept=_keep(settings, folder / KEPT),
        )
        lacking, n_new = _copy(store, Backup(folder, manifest, files), say)
        manifest = manifest.model_copy(update={"lacking": lacking})
        manifest.write(folder / MANIFEST)
        _make_durable(folder)
        whole = destination / f"{saved_at:%Y%m%dT%H%M%S}.{saved_at.microsecond // 1000:03}Z"
        folder.rename(whole)
        fsync_folder(destination)
    return Backup(whole, manifest, files), n_new


def _copy(store: Store, backup: Backup, say: Say) -> tuple[tuple[str, ...], int]:
    """Copy what the destination does not have: which files the store lacks, and how many were new."""
    lacking, n_new = [], 0
    for sha256 in shown(backup.names(), backup.manifest.names.lines, "saved", say):
        if backup.files.has(sha256):
            continue
        try:
            copy_file(store, sha256, backup.files)
            n_new += 1
        except (StoredFileMissing, StoredFileDamaged):
            lacking.append(sha256)
    return tuple(lacking), n_new


def _keep(settings: Settings, folder: Path) -> dict[str, Written]:
    """Copy what no row and no program can give back: the keys, and the registry's decisions."""
    folder.mkdir(mode=0o700)
    kept = {}
    for path in (*(settings.data_dir / name for name in KEYS), settings.bundles / LOG):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
            kept[path.name] = written(folder / path.name)
    return kept


def _make_durable(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            fsync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _software() -> str:
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    return f"{project['name']} {project['version']}"
