"""``python -m service.backup``: save the data of a running service, check what was saved, restore it.

Database and store are those that the service's environment names (``SANGLOC_…``). Run it as the user that the service
runs as: what it writes is for that user alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import inspect

from service.backup.check import check
from service.backup.contents import Backup, open_backup
from service.backup.copying import size
from service.backup.prune import prune
from service.backup.restore import restore
from service.backup.save import save
from service.logs import set_up_logs
from service.settings import read_settings
from service.storage.audit import AUDIT, note
from service.storage.commands import DONE, REFUSED, carried_out, open_existing
from service.storage.database import Database


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns 0: done; 1: refused, or files are lacking; 2: something cannot be used."""
    given = _parse(arguments)
    return carried_out("backup", lambda: given.command(given))


def _save(given: argparse.Namespace) -> int:
    settings = read_settings()
    database, store = open_existing(settings)
    try:
        _note(database, "backup_begun")
        backup, n_new = save(settings, database, store, given.destination, _say)
    finally:
        database.close()
    return _told("saved", backup, f", {n_new:,} of them new here")


def _check(given: argparse.Namespace) -> int:
    backup = open_backup(given.source)
    check(backup, _say)
    return _told("whole", backup)


def _restore(given: argparse.Namespace) -> int:
    backup = open_backup(given.source)
    settings = read_settings()
    restore(settings, backup, _say)
    database, _ = open_existing(settings)
    try:
        _note(database, "backup_restored", saved_at=backup.manifest.saved_at.isoformat())
    finally:
        database.close()
    return _told("restored", backup)


def _note(database: Database, action: str, **detail: Any) -> None:
    """Note it in the audit log; the tables of an earlier release have none until a server migrates them."""
    if inspect(database.engine).has_table(AUDIT.name):
        with database.transaction(write=True) as session:
            note(session, action, **detail)


def _prune(given: argparse.Namespace) -> int:
    n_backups, n_files = prune(given.destination, given.keep)
    print(f"removed: {n_backups} backups, {n_files:,} files that no other backup has")
    return DONE


def _told(what: str, backup: Backup, more: str = "") -> int:
    manifest = backup.manifest
    print(f"{what}: {backup.folder}")
    print(
        f"  {manifest.software}, tables of revision {manifest.revision}: {manifest.rows:,} rows; "
        f"{manifest.names.lines:,} files, {size(manifest.files_bytes)}{more}"
    )
    if manifest.lacking:
        print(f"  {len(manifest.lacking)} files were missing or damaged in the store when it was saved (lacking)")
        return REFUSED
    return DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m service.backup", description="Save, check and restore the data that SANGLOC_… names."
    )
    commands = parser.add_subparsers(required=True)
    for name, command, place, about in (
        ("save", _save, "destination", "save into a folder, while the service runs; only new files are copied"),
        ("check", _check, "source", "read all of a backup (of a destination: its latest)"),
        ("restore", _restore, "source", "restore it into an empty database and store, before the service is started"),
        ("prune", _prune, "destination", "remove old backups, and the files that only they have"),
    ):
        added = commands.add_parser(name, help=about, description=about)
        added.add_argument(place, type=Path)
        added.set_defaults(command=command)
        if name == "prune":
            added.add_argument("--keep", type=_at_least_one, required=True, help="how many of the latest stay")
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    set_up_logs(logging.CRITICAL)  # main() says what went wrong
    os.umask(0o077)
    sys.exit(main())
