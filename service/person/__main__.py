"""``python -m service.person``: find, export and erase what is kept of a person.

A person is named by site and identifier, as visits name them. ``-`` as identifier reads it from standard input, so that
it does not stand in the list of processes. Database and store are those of the service's environment (``SANGLOC_…``).
No name and no identifier is printed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import func, select

from service.logs import set_up_logs
from service.person.erase import erase
from service.person.export import export
from service.person.found import Found, find
from service.settings import read_settings
from service.storage.audit import note
from service.storage.commands import (
    DONE,
    REFUSED,
    NotDone,
    carried_out,
    one_at_a_time,
    open_existing,
)
from service.storage.database import Database
from service.storage.store import Store

Command = Callable[[argparse.Namespace, Database, Store], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns 0: done; 1: refused, or something is left; 2: something cannot be used."""
    given = _parse(arguments)
    return carried_out("person", lambda: _on_what_is_kept(given))


def _on_what_is_kept(given: argparse.Namespace) -> int:
    if given.identifier == "-":
        given.identifier = sys.stdin.readline().rstrip("\n")
    if not given.identifier.strip():
        raise NotDone("the identifier is empty")
    settings = read_settings()
    database, store = open_existing(settings)
    try:
        with one_at_a_time(settings, database):
            code: int = given.command(given, database, store)
    finally:
        database.close()
    return code


def _find(given: argparse.Namespace, database: Database, _store: Store) -> int:
    _tell(given, database)
    return DONE


def _export(given: argparse.Namespace, database: Database, store: Store) -> int:
    found = _tell(given, database)
    with database.transaction(write=True) as session:
        for visit in found.visits:
            note(session, "visit_exported", visit, purpose="person")
    written, lost = export(database, store, given.site, given.identifier, found, given.folder)
    print(f"exported: {given.folder / 'person.json'}, {written} files")
    if lost:
        print(f"  {lost} files are missing or damaged in the store")
    return REFUSED if lost else DONE


def _erase(given: argparse.Namespace, database: Database, store: Store) -> int:
    if not given.yes:
        _tell(given, database)
        raise NotDone("nothing was erased: add --yes to erase this")
    done = erase(database, store, given.site, given.identifier, given.wait)
    print(f"erased: {', '.join(f'{name} {count}' for name, count in sorted(done.counts.items())) or 'nothing'}")
    if done.in_work:
        print(f"  still being worked on: {done.in_work} visits; run the command again")
    if done.files_left:
        print(f"  files posted within the last two hours: {done.files_left}; `python -m service.retention apply` later")
    if done.remains:
        where = ", ".join(f"{name} ({count})" for name, count in sorted(done.remains.items()))
        print(f"  still named, in rows of other persons or free texts: {where}")
    if done.is_complete:
        print("nothing is left: no text of the database at this site has the person's numbers, no file is in the store")
        return DONE
    return REFUSED


def _tell(given: argparse.Namespace, database: Database) -> Found:
    """Print how much there is, by table; the rows.

    Raises
    ------
    NotDone
        There is nothing.
    """
    with database.transaction() as session:
        found = find(session, given.site, given.identifier)
        counts = {
            (table, id(condition)): session.execute(
                select(func.count()).select_from(table).where(condition)
            ).scalar_one()
            for table, condition in found.rows(found.visits)
        }
    if not found:
        raise NotDone("nothing of this person is kept at this site")
    print(f"found: {', '.join(f'{table.name} {count}' for (table, _), count in counts.items() if count)}")
    for visit in found.visits:
        print(f"  visit {visit}")
    for visit in found.elsewhere:
        print(f"  visit {visit} is of another identifier, and holds a file with this one: look whose it is")
    return found


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.person", description="What is kept of a person.")
    commands = parser.add_subparsers(required=True)
    for name, command, about in (
        ("find", _find, "how many rows of which table, and which visits"),
        ("export", _export, "write everything into a new folder: person.json, and the files as they were posted"),
        ("erase", _erase, "delete everything, with a record that does not name the person"),
    ):
        added = commands.add_parser(name, help=about, description=about)
        added.add_argument("site")
        added.add_argument("identifier", help="as it was posted; - reads it from standard input")
        added.set_defaults(command=command)
        if name == "export":
            added.add_argument("folder", type=Path)
        if name == "erase":
            added.add_argument("--yes", action="store_true", help="erase; without it, say what would be erased")
            added.add_argument("--wait", type=float, default=60, help="seconds for visits that are being worked on")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    set_up_logs(logging.CRITICAL)  # main() says what went wrong
    os.umask(0o077)
    sys.exit(main())
