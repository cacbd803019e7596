"""Erase a person's data, with a record that does not name the person, and look whether anything is left."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import select

from service.person.found import find, remains
from service.retention.deletion import delete_rows, empty_log, free_visits, remove_files, still_named
from service.storage.database import Database
from service.storage.store import Store
from service.storage.tables import NAMING_FILES

RULE = "person_erased"
"""What the record says instead of a rule of the table."""
LOOK_S = 0.5


@dataclass(frozen=True)
class Erased:
    """What was done, and what is left.

    Parameters
    ----------
    counts
        Deleted rows by table.
    in_work
        Visits that a process still works on or sends.
    files_left
        Files of erased persons that are still in the store, and that no visit needs: they were posted too lately.
    remains
        Rows that still have one of the person's numbers, by ``table.column``.
    """

    counts: Counter[str]
    in_work: int
    files_left: int
    remains: Counter[str]

    @property
    def is_complete(self) -> bool:
        return not (self.in_work or self.files_left or self.remains)


def erase(database: Database, store: Store, site: str, identifier: str, wait_s: float) -> Erased:
    """Erase everything of the person.

    A visit that a process works on is left until it is done, for ``wait_s`` at most. One that waits for a process is
    erased at once; a process that takes it at that moment writes nothing.

    Raises
    ------
    DatabaseUnavailable, StorageUnavailable
        What was erased before stays erased; the same command completes it.
    """
    end = time.monotonic() + wait_s
    counts: Counter[str] = Counter()
    numbers: set[str] = {identifier}
    digests: set[str] = set()
    while True:
        with database.transaction() as session:
            found = find(session, site, identifier)
            numbers |= found.numbers
            for table, condition in found.rows(found.visits):
                if table.name in NAMING_FILES:
                    digests |= set(session.scalars(select(table.c.sha256).where(condition)))
        if not found:
            break
        with database.transaction(write=True) as session:
            free = free_visits(session, found.visits)
            counts += delete_rows(session, RULE, found.rows(free))
        if len(free) < len(found.visits):
            if time.monotonic() >= end:
                break
            time.sleep(LOOK_S)
    _, waiting = remove_files(database, store)
    empty_log(database)
    with database.transaction() as session:
        in_work = len(find(session, site, identifier).visits)
        left = remains(session, site, numbers)
    files_left = sum(store.has(sha256) for sha256 in digests - still_named(database, digests))
    return Erased(counts, in_work, max(files_left, waiting), left)
