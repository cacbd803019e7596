"""``python -m service.export``: visits leave without names, are answered elsewhere, and the answers come back.

At home ``write`` makes a package and ``take`` takes the answers to it; at the other end ``import`` takes the package
into a site of its own and ``answers`` makes the package of what was signed there. Each prints the digest of its
manifest, which is told to the other side by another way than the package. Database and store are those of the service's
environment (``SANGLOC_…``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from inference.readers.pool import Readers
from service.export.answers import make_answers, take_answers
from service.export.arguments import digest, line, moment, site
from service.export.importing import import_package
from service.export.kept import on_what_is_kept
from service.export.making import Wanted, make_package
from service.export.names import read_key
from service.export.package import Manifest
from service.export.record import latest
from service.logs import set_up_logs
from service.settings import Settings
from service.storage.commands import DONE, carried_out, one_at_a_time
from service.storage.database import Database
from service.storage.store import Store

MOST_SHOWN = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command. Returns 0: done; 1: refused; 2: something cannot be used."""
    given = _parse(arguments)
    return carried_out("export", lambda: on_what_is_kept(partial(given.command, given)))


def _write(given: argparse.Namespace, settings: Settings, database: Database, store: Store) -> int:
    wanted = Wanted(
        recipient=given.to,
        legal_basis=given.legal_basis,
        who=given.who,
        sites=tuple(given.site or ()),
        visits=tuple(given.visit or ()),
        since=given.since,
        until=given.until,
        with_truth=given.with_truth,
    )
    with one_at_a_time(settings, database), closing(Readers()) as readers:
        key = read_key(settings.data_dir)
        digest, manifest = make_package(
            database, store, readers, key, wanted, given.folder, settings.export_smallest_cell
        )
    _tell(manifest)
    print(f"manifest: {digest}")
    return DONE


def _tell(manifest: Manifest) -> None:
    print(f"exported: {_counts(manifest.counts)}")
    for code, count in manifest.withheld.items():
        print(f"  withheld: {count:,} {code}")
    for name, boxes in manifest.blacked_out.items():
        print(f"  blacked out: {name}, {len(boxes)} parts")
    found = manifest.anonymity
    if found is not None:
        print(f"  k-anonymity by {', '.join(found.quasi_identifiers)}: k = {found.k}", end="")
        print(f"; in classes under {found.smallest_cell}: {found.persons_below:,} of {found.persons:,} persons")


def _import(given: argparse.Namespace, settings: Settings, database: Database, store: Store) -> int:
    with one_at_a_time(settings, database), closing(Readers()) as readers:
        n_visits = import_package(
            database,
            store,
            readers,
            given.folder,
            given.manifest,
            site=given.site,
            who=given.who,
            language=settings.language,
            max_queue=settings.max_queue,
        )
    print(f"imported: {n_visits:,} visits at {given.site}" if n_visits else "this package was imported before")
    return DONE


def _answers(given: argparse.Namespace, _settings: Settings, database: Database, _store: Store) -> int:
    digest, n_opinions = make_answers(
        database, given.manifest, given.folder, who=given.who, legal_basis=given.legal_basis
    )
    print(f"answers: {n_opinions:,} opinions")
    print(f"manifest: {digest}")
    return DONE


def _take(given: argparse.Namespace, settings: Settings, database: Database, _store: Store) -> int:
    n_new, n_gone = take_answers(database, read_key(settings.data_dir), given.folder, given.manifest, who=given.who)
    print(f"taken: {n_new:,} new opinions")
    if n_gone:
        print(f"  {n_gone:,} visits are not here any more")
    return DONE


def _record(_given: argparse.Namespace, _settings: Settings, database: Database, _store: Store) -> int:
    with database.transaction() as session:
        rows = latest(session, MOST_SHOWN)
    for row in reversed(rows):
        counts, about = _counts(json.loads(row.counts)), f", about {row.about}" if row.about else ""
        print(f"{row.at:%Y-%m-%d %H:%M:%SZ} {row.kind} by {row.who}, {row.partner}: {counts}; ", end="")
        print(f"manifest {row.manifest}{about}")
    return DONE


def _counts(counts: Mapping[str, int]) -> str:
    """``visits 2, persons 1``"""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.export", description="Visits leave without names.")
    commands = parser.add_subparsers(required=True)
    for name, command, about in (
        ("write", _write, "write visits without names into a new folder"),
        ("import", _import, "take such a folder into a site of its own"),
        ("answers", _answers, "write what was signed on imported visits into a new folder"),
        ("take", _take, "take the answers to an export, each to its person"),
        ("record", _record, "what was exported, imported, answered and taken, the latest last"),
    ):
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(command=command)
        if name == "record":
            continue
        added.add_argument("folder", type=Path)
        added.add_argument("--who", type=line, required=True, help="who does it, for the record")
        if name in ("write", "answers"):
            added.add_argument("--legal-basis", type=line, required=True, help="why that may be done")
        if name != "write":
            meant = "the package that was imported" if name == "answers" else "this package"
            added.add_argument("--manifest", type=digest, required=True, help=f"digest of the manifest of {meant}")
        if name == "import":
            added.add_argument("--site", type=site, required=True, help="name of the new site")
        if name == "write":
            added.add_argument("--to", type=line, required=True, help="the recipient; each has pseudonyms of its own")
            added.add_argument("--site", nargs="+", help="only visits of these sites")
            added.add_argument("--visit", nargs="+", help="only these visits")
            added.add_argument("--since", type=moment, metavar="YYYY-MM-DD", help="received then (UTC) or later")
            added.add_argument("--until", type=moment, metavar="YYYY-MM-DD", help="received before then (UTC)")
            known = "only visits with an outcome or a specialist's opinion, each with it, to learn from"
            added.add_argument("--with-truth", action="store_true", help=known)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    set_up_logs(logging.CRITICAL)  # main() says what went wrong
    os.umask(0o077)
    sys.exit(main())
