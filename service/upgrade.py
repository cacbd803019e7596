"""``python -m service.upgrade``: which migrations have run, run the rest, and go back to those of an earlier release.

The database is the one that the service's environment names (``SANGLOC_…``). A server runs by itself what older code
can live with; ``run`` runs all, and so says that no older code runs any more.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from sqlalchemy import Connection

from service.logs import set_up_logs
from service.settings import read_settings
from service.storage.commands import DONE, NotDone, carried_out, open_existing
from service.storage.migrate import DEPLOY, REVISIONS, downgrade, migrating, revision_of, upgrade


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns 0: done; 1: refused; 2: the database cannot be used."""
    given = _parse(arguments)
    return carried_out("upgrade", lambda: _on_the_tables(given))


def _on_the_tables(given: argparse.Namespace) -> int:
    settings = read_settings()
    database, _ = open_existing(settings)
    try:
        with migrating(settings, database) as connection:
            given.command(connection, given)
    finally:
        database.close()
    return DONE


def _status(connection: Connection, _given: argparse.Namespace) -> None:
    known, present = REVISIONS, _present(connection)
    for revision in known:
        state = "done" if known.index(revision) <= known.index(present) else "waits"
        print(f"{revision}  {DEPLOY[revision]:<8} {state}")


def _run(connection: Connection, _given: argparse.Namespace) -> None:
    present = _present(connection)
    upgrade(connection, "head")
    print(f"{present} -> {revision_of(connection)}")


def _back(connection: Connection, given: argparse.Namespace) -> None:
    known, present = REVISIONS, _present(connection)
    if given.revision not in known[: known.index(present)]:
        raise NotDone(f"the tables are those of {present}: {given.revision} is not one of those before it")
    downgrade(connection, given.revision)
    print(f"{present} -> {revision_of(connection)}")


def _present(connection: Connection) -> str:
    """The revision of the tables.

    Raises
    ------
    NotDone
        This version does not know it, or there are no tables.
    """
    present = revision_of(connection)
    if present not in REVISIONS:
        raise NotDone(f"the tables are of revision {present}, which this version does not know")
    return present


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.upgrade", description="The migrations of the database.")
    commands = parser.add_subparsers(required=True)
    for name, command, about in (
        ("status", _status, "which migrations have run, and when each may run"),
        ("run", _run, "run all that wait; no server of the release before may run any more"),
        ("back", _back, "undo the migrations after a revision, with all servers stopped; what they added is lost"),
    ):
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=command)
        if name == "back":
            added.add_argument("revision")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    set_up_logs(logging.CRITICAL)  # main() says what went wrong
    sys.exit(main())
