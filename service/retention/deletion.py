"""Delete rows and files, with a record that names nobody.

Rows are deleted first, and the record is written in the same transaction: it says which files may have to follow. A
file goes when no row names it any more, and when it was last put so long ago that no request can be about to name it.
So a command that is stopped, or comes too early, is completed by the next one.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, Table, delete, select, update
from sqlalchemy.orm import Session

from service.background import lease_ended
from service.storage.audit import note
from service.storage.database import Database, database_now, insert_rows, rowcount
from service.storage.store import Store
from service.storage.tables import NAMING_FILES, VISITS, Base, DeletionRow, DeliveryRow

QUIET_S = 2 * 3600.0
"""A file that was put within this time stays for now: a body may take an hour (``body_seconds``) from its first file to
the row that names it."""
FILES_AT_ONCE = 500

Which = Sequence[tuple[Table, ColumnElement[bool]]]
"""Rows to delete, those that refer to others first."""
TABLES = Base.metadata.tables
DELIVERIES = cast("Table", DeliveryRow.__table__)


def of_visits(ids: Collection[str]) -> Which:
    """The rows of these visits in all tables."""
    with_visit = [table for table in reversed(Base.metadata.sorted_tables) if "visit_id" in table.columns]
    return [*((table, table.c.visit_id.in_(ids)) for table in with_visit), (VISITS, VISITS.c.id.in_(ids))]


def free_visits(session: Session, ids: Collection[str]) -> list[str]:
    """Those of the visits that no process works on or sends, locked until the transaction ends.

    A visit that waits for a process is free. One that a process has taken a moment before its rows are deleted is lost
    to that process in the same way as one that another process took over: it writes nothing.
    """
    now = database_now(session)
    sent = select(DELIVERIES.c.visit_id).where(
        DELIVERIES.c.visit_id.in_(ids), DELIVERIES.c.state == "waiting", ~lease_ended(DELIVERIES, now)
    )
    free = select(VISITS.c.id).where(VISITS.c.id.in_(ids), lease_ended(VISITS, now), VISITS.c.id.not_in(sent))
    return list(session.scalars(free.with_for_update(of=VISITS)))


def delete_rows(session: Session, rule: str, which: Which) -> Counter[str]:
    """Delete rows and record it, in the transaction of ``session``; how many of which table."""
    if session.get_bind().dialect.name == "sqlite":
        session.connection().exec_driver_sql("PRAGMA secure_delete = ON")  # what is deleted is overwritten
    digests: set[str] = set()
    for table, condition in which:
        if table.name in NAMING_FILES:
            digests |= set(session.scalars(select(table.c.sha256).where(condition)))
    visits = [visit for table, condition in which if table is VISITS for visit in session.scalars(_ids(condition))]
    counts: Counter[str] = Counter()
    for table, condition in which:
        counts[table.name] += rowcount(session.execute(delete(table).where(condition)))
    counts = +counts
    if counts:
        now = database_now(session)
        record = DeletionRow(
            id=str(uuid.uuid4()),
            at=now,
            rule=rule,
            counts=json.dumps(counts),
            digests=json.dumps(sorted(digests)),
            finished_at=None if digests else now,
        )
        insert_rows(session, record)
        for visit in visits:
            note(session, "visit_deleted", visit, rule=rule, deletion=record.id)
        note(session, "rows_deleted", rule=rule, deletion=record.id, counts=counts)
    return counts


def _ids(condition: ColumnElement[bool]) -> Select[Any]:
    return select(VISITS.c.id).where(condition)


def remove_files(database: Database, store: Store) -> tuple[int, int]:
    """Remove the files of all recorded deletions that no row names; how many are gone, and how many have to wait.

    Raises
    ------
    StorageUnavailable
    """
    removed = waiting = 0
    put_before = time.time() - QUIET_S  # before the rows are asked: whatever was put earlier is named by now, or never
    unfinished = select(DeletionRow).where(DeletionRow.finished_at.is_(None)).order_by(DeletionRow.at)
    with database.transaction() as session:
        records = session.scalars(unfinished).all()
    for record in records:
        digests: list[str] = json.loads(record.digests)
        n_left = 0
        for start in range(0, len(digests), FILES_AT_ONCE):
            some = digests[start : start + FILES_AT_ONCE]
            for sha256 in set(some) - still_named(database, some):
                is_gone = store.remove(sha256, put_before)
                removed, n_left = removed + is_gone, n_left + (not is_gone)
        waiting += n_left
        if not n_left:
            with database.transaction(write=True) as session:
                done = update(DeletionRow).where(DeletionRow.id == record.id)
                session.execute(done.values(finished_at=database_now(session)))
    return removed, waiting


def still_named(database: Database, digests: Collection[str]) -> set[str]:
    """Those of the files that a row names."""
    with database.transaction() as session:
        columns = [TABLES[name].c.sha256 for name in NAMING_FILES]
        return {sha256 for each in columns for sha256 in session.scalars(select(each).where(each.in_(digests)))}


def empty_log(database: Database) -> None:
    """SQLite: write its log into the database and empty it, so that what was deleted is in neither."""
    if database.is_sqlite:
        connection = database.engine.raw_connection()  # outside of any transaction
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
