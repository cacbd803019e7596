"""Rows of tables as lines of JSON, the same from SQLite and from PostgreSQL."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Date, DateTime, MetaData, Table, insert, select, union_all
from sqlalchemy import func as sql

from service.storage.tables import NAMING_FILES

AT_ONCE = 200
"""Rows that are in memory at a time."""
NOT_SAVED = {"alembic_version", "uploads"}
"""The first is the manifest's ``revision``. Uploads are files that still grow, and end within a day: their sender
begins again."""


def saved_tables(connection: Connection) -> Sequence[Table]:
    """The tables that are saved, as the database has them, each behind those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name not in NOT_SAVED]


def write_rows(connection: Connection, table: Table, path: Path) -> int:
    """Write all rows of a table, and return how many they are."""
    count = 0
    # no name and no time in the header, so that the same rows give the same file
    with path.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as lines:
        for row in connection.execute(select(table).execution_options(yield_per=AT_ONCE)):
            lines.write(json.dumps(row._asdict(), ensure_ascii=False, default=_as_text).encode() + b"\n")
            count += 1
    return count


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one table as they were written.

    Raises
    ------
    ValueError, EOFError, OSError, zlib.error
        The file is damaged.
    """
    with gzip.open(path, "rb") as lines:
        for line in lines:
            yield json.loads(line)


def insert_rows(connection: Connection, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows that :func:`write_rows` wrote."""
    keeps_zones = connection.dialect.name != "sqlite"
    moments = [column.name for column in table.columns if isinstance(column.type, DateTime)]
    days = [column.name for column in table.columns if isinstance(column.type, Date)]
    while some := list(islice(rows, AT_ONCE)):
        for row in some:
            for name in moments:
                if row[name] is not None:
                    moment = datetime.fromisoformat(row[name])
                    row[name] = moment if keeps_zones else moment.replace(tzinfo=None)
            for name in days:
                if row[name] is not None:
                    row[name] = datetime.fromisoformat(row[name]).date()
        connection.execute(insert(table), some)


def write_names(connection: Connection, tables: Sequence[Table], path: Path) -> tuple[int, int]:
    """Write SHA-256 and size of every file that a row names, in order; how many, and their size together."""
    naming = [select(each.c.sha256, each.c.n_bytes) for each in tables if each.name in NAMING_FILES]
    named = union_all(*naming).subquery()
    query = select(named.c.sha256, sql.max(named.c.n_bytes)).group_by(named.c.sha256).order_by(named.c.sha256)
    count = total = 0
    with path.open("w", encoding="ascii") as lines:
        for sha256, n_bytes in connection.execute(query.execution_options(yield_per=AT_ONCE)):
            lines.write(f"{sha256} {n_bytes}\n")
            count, total = count + 1, total + n_bytes
    return count, total


def _as_text(value: object) -> str:
    """A moment in UTC, as SQLite has it too, or a day."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a value of the kind {type(value).__name__}")
