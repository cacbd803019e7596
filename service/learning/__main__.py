"""``python -m service.learning``: a package of visits without names becomes cases of a teaching site.

The package is one of ``python -m service.export write --with-truth``. Database and store are those of the service's
environment (``SANGLOC_…``).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from inference.readers.pool import Readers
from service.export.arguments import digest, line, site
from service.export.kept import on_what_is_kept
from service.learning.cases import take_cases
from service.logs import set_up_logs
from service.settings import Settings
from service.storage.commands import DONE, carried_out, one_at_a_time
from service.storage.database import Database
from service.storage.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Take a package. Returns 0: done; 1: refused; 2: something cannot be used."""
    given = _parse(arguments)
    return carried_out("learning", lambda: on_what_is_kept(partial(_take, given)))


def _take(given: argparse.Namespace, settings: Settings, database: Database, store: Store) -> int:
    with one_at_a_time(settings, database), closing(Readers()) as readers:
        n_cases = take_cases(
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
    print(f"taken: {n_cases:,} cases at {given.site}" if n_cases else "this package was taken before")
    return DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.learning", description="Cases to learn from.")
    commands = parser.add_subparsers(required=True)
    take = commands.add_parser("take", help="take a package of visits without names as cases")
    take.add_argument("folder", type=Path)
    take.add_argument("--manifest", type=digest, required=True, help="digest of the manifest of this package")
    take.add_argument("--site", type=site, required=True, help="the teaching site; its name begins with teaching:")
    take.add_argument("--who", type=line, required=True, help="who does it, for the record")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    set_up_logs(logging.CRITICAL)  # main() says what went wrong
    os.umask(0o077)
    sys.exit(main())
