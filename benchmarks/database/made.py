"""Databases of several sizes in one PostgreSQL, each grown from a copy of the one before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import create_engine, text
from tqdm import tqdm

from benchmarks.chaos.postgres import Cluster
from benchmarks.database.copies import multiply
from benchmarks.database.first import First, first_visits

SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "shared_preload_libraries": "pg_stat_statements",
    "track_io_timing": "on",
}
"""Of the measured PostgreSQL; everything else is as it comes."""
FIRST = "first.json"


def name_of(visits: int) -> str:
    return f"visits_{visits}"


def databases(cluster: Cluster, folder: Path, sizes: Sequence[int]) -> tuple[First, dict[int, str]]:
    """The first visits, and the address of a database of each size; what is there already is left as it is.

    Parameters
    ----------
    folder
        Remembers the first visits.
    sizes
        Numbers of visits, the smallest first.
    """
    remembered = folder / FIRST
    if not remembered.exists():
        _create(cluster, name_of(0))
        first = first_visits(cluster.url_of(name_of(0)))
        remembered.write_text(json.dumps(asdict(first)))
    first = First(**json.loads(remembered.read_text()))
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


def _create(cluster: Cluster, name: str, like: str = "template0") -> bool:
    """Make a database; ``False`` where it is there already."""
    engine = create_engine(cluster.url)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}).first():
                return False
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {like}"))
            return True
    finally:
        engine.dispose()
