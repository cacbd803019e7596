"""``python -m service.retention``: apply the table of what is deleted when, and show what was deleted.

Database, store and table are those that the service's environment names (``SANGLOC_…``).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from sqlalchemy import select

from service.logs import set_up_logs
from service.retention.apply import apply_rule, count_due
from service.retention.deletion import empty_log, remove_files
from service.retention.table import KINDS, read_rules
from service.settings import read_settings
from service.storage.commands import (
    DONE,
    REFUSED,
    carried_out,
    one_at_a_time,
    open_existing,
)
from service.storage.tables import DeletionRow


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns 0: done; 1: refused, or files have to wait; 2: something cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m service.retention", description="What is deleted when.")
    commands = parser.add_subparsers(required=True)
    for name, command, about in (
        ("show", _show, "what is kept for how long"),
        ("apply", _apply, "delete what the table says"),
        ("record", _record, "what was deleted, the latest last"),
    ):
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=command)
        if name == "apply":
            added.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")
    given = parser.parse_args(arguments)
    return carried_out("retention", lambda: given.command(given))


def _show(_given: argparse.Namespace) -> int:
    rules = read_rules(read_settings().retention)
    for kind in KINDS:
        of_kind = {name: rule for name, rule in rules.items() if rule.what == kind}
        if not of_kind:
            print(f"{kind:<15} kept")
        for name, rule in of_kind.items():
            where = f", of {', '.join(rule.sites)}" if rule.sites else ""
            print(f"{kind:<15} deleted after {rule.after_days} days{where} ({name})")
    return DONE


def _apply(given: argparse.Namespace) -> int:
    settings = read_settings()
    rules = read_rules(settings.retention)
    database, store = open_existing(settings)
    try:
        if given.dry_run:
            for name, rule in rules.items():
                print(f"{name}: {count_due(database, rule):,} {rule.what} would be deleted")
            return DONE
        with one_at_a_time(settings, database):
            for name, rule in rules.items():
                print(f"{name}: {counts_text(apply_rule(database, name, rule))}")
            removed, waiting = remove_files(database, store)
            empty_log(database)
    finally:
        database.close()
    print(f"files removed: {removed:,}")
    return said_waiting(waiting)


def _record(_given: argparse.Namespace) -> int:
    database, _ = open_existing(read_settings())
    try:
        with database.transaction() as session:
            query = select(DeletionRow).order_by(DeletionRow.at, DeletionRow.id).execution_options(yield_per=100)
            for row in session.scalars(query):
                n_files = len(json.loads(row.digests))
                files = "finished" if row.finished_at else "not removed yet"
                print(f"{row.at:%Y-%m-%d %H:%M:%SZ} {row.rule}: {counts_text(json.loads(row.counts))}", end="")
                print(f"; files named: {n_files} ({files})" if n_files else "")
    finally:
        database.close()
    return DONE


def counts_text(counts: dict[str, int]) -> str:
    """How many rows of which table: ``visits 2, inputs 3``."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "nothing"


def said_waiting(waiting: int) -> int:
    """Say how many files have to wait, and return the exit code."""
    if waiting:
        print(f"files posted within the last two hours: {waiting:,}; run `python -m service.retention apply` later")
    return REFUSED if waiting else DONE


if __name__ == "__main__":
    set_up_logs(logging.CRITICAL)  # main() says what went wrong
    sys.exit(main())
