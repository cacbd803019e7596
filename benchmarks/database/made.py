"""Databases of several sizes in one PostgreSQL, each grown from a copy of the one before it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from tqdm import tqdm

from benchmarks.chaos.postgres import Cluster
from benchmarks.database.copies import multiply
from benchmarks.database.first import First, first_visits
from service.storage.migrate import run_alone

SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
}
"""Of the measured PostgreSQL; everything else is as it comes."""
FIRST = "first.json"
SHOWN_BYTES = 1_000_000
"""Smaller tables and indexes are not shown."""


def name_of(visits: int) -> str:
    return f"visits_{visits}"


def databases(cluster: Cluster, sizes: Sequence[int], *, kept: Path | None = None) -> tuple[First, dict[int, str]]:
    """The first visits, and the address of a database of each size; what is there already is left as it is.

    Parameters
    ----------
    sizes
        Numbers of visits, the smallest first.
    kept
        A folder that remembers the first visits.
    """
    if kept is not None and (kept / FIRST).exists():
        first = First(**json.loads((kept / FIRST).read_text()))
    else:
        _create(cluster, name_of(0))
        first = first_visits(cluster.url_of(name_of(0)))
        if kept is not None:
            (kept / FIRST).write_text(json.dumps(asdict(first)))
    before = 0
    for visits in sizes:
        if _create(cluster, name_of(visits), name_of(before)):
            engine = create_engine(cluster.url_of(name_of(visits)))
            with tqdm(total=visits - before, unit="visit", desc=f"{visits} visits", mininterval=5) as bar:
                for added in multiply(engine, first, before, visits):
                    bar.update(added)
            engine.dispose()
        before = visits
    return first, {visits: cluster.url_of(name_of(visits)) for visits in sizes}


def sizes_of(url: str) -> dict[str, float]:
    """MB (10^6 bytes) of each table, with what lies beside it and its indexes, and of each index; the largest first."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return {name: size / 1e6 for name, size in connection.execute(_SIZES) if size >= SHOWN_BYTES}
    finally:
        engine.dispose()


def counts_of(url: str) -> dict[str, int]:
    """The rows of each table that has any, as the planner counts them; the most first."""
    query = "SELECT relname, reltuples::bigint FROM pg_class WHERE relkind = 'r' AND reltuples > 0"
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(text(f"{query} AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC"))
            return {name: n for name, n in rows}
    finally:
        engine.dispose()


_SIZES = text(
    "SELECT relname, CASE relkind WHEN 'r' THEN pg_total_relation_size(oid) ELSE pg_relation_size(oid) END "
    "FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC"
)


@contextmanager
def without(urls: Sequence[str], revision: str) -> Iterator[list[float]]:
    """The databases without what one migration changed, meanwhile.

    Gives a list that has, at the end, how many seconds the migration took in each database.
    """
    seconds: list[float] = []
    engines = [create_engine(url) for url in urls]
    try:
        for engine in engines:
            with engine.begin() as connection:
                run_alone(connection, revision, "downgrade")
        yield seconds
        for engine in engines:
            began = time.perf_counter()
            with engine.begin() as connection:
                run_alone(connection, revision, "upgrade")
            seconds.append(time.perf_counter() - began)
    finally:
        for engine in engines:
            engine.dispose()


@contextmanager
def copy_of(cluster: Cluster, visits: int) -> Iterator[str]:
    """The address of a copy of the database with so many visits; it is removed at the end."""
    name = "harmed"
    _create(cluster, name, name_of(visits))
    try:
        yield cluster.url_of(name)
    finally:
        with _server(cluster) as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def _server(cluster: Cluster) -> Iterator[Connection]:
    engine = create_engine(cluster.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _create(cluster: Cluster, name: str, like: str = "template0") -> bool:
    """Make a database; ``False`` where it is there already."""
    with _server(cluster) as connection:
        if connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}).first():
            return False
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {like} STRATEGY FILE_COPY"))
        return True
