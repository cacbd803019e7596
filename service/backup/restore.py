"""Restore a backup into an empty database and store, of either kind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import Connection, func, inspect, select

from inference.bundles.registry import LOG
from service.backup.check import check_folder, damaged_file
from service.backup.contents import KEPT, KEYS, TABLES, Backup
from service.backup.copying import Say, copy_file, others, shown
from service.backup.rows import insert_rows, read_rows, saved_tables
from service.errors import StoredFileDamaged, StoredFileMissing
from service.settings import Settings
from service.storage.commands import NotDone, one_at_a_time
from service.storage.database import Database
from service.storage.migrate import migrating, upgrade
from service.storage.store import Store, fsync_folder, open_store


def restore(settings: Settings, backup: Backup, say: Say) -> None:
    """Restore ``backup`` to where ``settings`` point.

    The files come first, then the keys, then all rows at once: the database is there when all of it is. A
    command that was stopped is repeated; the files that are there already are what the backup has under these names.

    Raises
    ------
    NotDone
        The target is not empty, the backup is damaged, or a later version of the software made it.
    DatabaseUnavailable, StorageFull, StorageUnavailable
    """
    check_folder(backup)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.database)
    try:
        with one_at_a_time(settings, database):
            _expect_no_database(database)
            keys = _expect_no_other_keys(settings, backup)
            store = open_store(settings.store, settings.data_dir)
            if any(others(store.names(), (sha256 for sha256, _ in backup.names()))):
                raise NotDone("the store is not empty: it has files that this backup does not have")
            _copy(backup, store, say)
            for key in keys:
                _copy_key(backup, key)
            if database.is_sqlite:
                _make_sqlite(settings, database, backup)
            else:
                with migrating(settings, database) as connection:
                    _expect_no_tables(connection)
                    _fill(connection, backup)
    finally:
        database.close()
    if LOG in backup.manifest.kept and not _is_same(backup.folder / KEPT / LOG, settings.bundles / LOG):
        say(f"{settings.bundles / LOG} is not as it was saved: compare it with {backup.folder / KEPT / LOG}")


def _copy(backup: Backup, store: Store, say: Say) -> None:
    lacking = set(backup.manifest.lacking)
    for sha256 in shown(backup.names(), backup.manifest.names.lines, "restored", say):
        if sha256 in lacking:
            continue
        try:
            copy_file(backup.files, sha256, store)
        except (StoredFileMissing, StoredFileDamaged):
            raise damaged_file(sha256) from None


def _expect_no_database(database: Database) -> None:
    if (file := database.sqlite_file) is not None:
        if file.exists():
            raise NotDone(f"{file} exists: a backup is restored into an empty target only")
        return
    with database.snapshot() as connection:
        _expect_no_tables(connection)


def _expect_no_tables(connection: Connection) -> None:
    if inspect(connection).get_table_names():
        raise NotDone("the database has tables: a backup is restored into an empty target only")


def _expect_no_other_keys(settings: Settings, backup: Backup) -> list[Path]:
    """Where keys are to be written: those that were saved, and are not there already."""
    paths = [settings.data_dir / name for name in KEYS if name in backup.manifest.kept]
    lacking = [path for path in paths if not _is_same(backup.folder / KEPT / path.name, path)]
    for path in lacking:
        if path.exists():
            raise NotDone(f"{path} holds another key than the backup")
    return lacking


def _is_same(saved: Path, path: Path) -> bool:
    return path.is_file() and path.read_bytes() == saved.read_bytes()


def _copy_key(backup: Backup, path: Path) -> None:
    draft = path.with_name(f"{path.name}.restoring")
    shutil.copyfile(backup.folder / KEPT / path.name, draft)
    _sync(draft)
    draft.rename(path)
    fsync_folder(path.parent)


def _make_sqlite(settings: Settings, database: Database, backup: Backup) -> None:
    """Fill a file beside the database's, and give it the database's name when it is whole."""
    path = database.sqlite_file
    if path is None:
        raise NotDone("a database in memory cannot be restored to")
    draft = path.with_name(f"{path.name}.restoring")
    for left in path.parent.glob(f"{draft.name}*"):  # of a command that was stopped, its log included
        left.unlink()
    url = database.engine.url.set(database=str(draft)).render_as_string(hide_password=False)
    filling = Database(url)
    try:
        with migrating(settings, filling) as connection:
            _fill(connection, backup)
    finally:
        filling.close()  # the last connection writes SQLite's log into the file and removes it
    _sync(draft)
    try:
        os.link(draft, path)
    except FileExistsError:
        raise NotDone(f"{path} was made meanwhile: a server was started") from None
    draft.unlink()
    fsync_folder(path.parent)


def _fill(connection: Connection, backup: Backup) -> None:
    """Make the tables as they were when the backup was saved, and insert its rows. A server then migrates them."""
    manifest = backup.manifest
    try:
        upgrade(connection, manifest.revision)
    except CommandError:
        raise NotDone(
            f"the backup has tables of revision {manifest.revision}, which this version does not know: "
            f"restore it with {manifest.software} or later"
        ) from None
    tables = {table.name: table for table in saved_tables(connection)}
    if tables.keys() != manifest.tables.keys():
        raise NotDone("the backup has other tables than its revision")
    for name, table in tables.items():
        insert_rows(connection, table, read_rows(backup.folder / TABLES / f"{name}.jsonl.gz"))
        count = connection.execute(select(func.count()).select_from(table)).scalar_one()
        if count != manifest.tables[name].lines:
            raise NotDone(f"{count} rows of {name} were restored, and the manifest says {manifest.tables[name].lines}")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
