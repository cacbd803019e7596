"""Export a person's data: every row as JSON, and every file as it was posted."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping, select
from sqlalchemy.orm import Session

from service.errors import StoredFileDamaged, StoredFileMissing
from service.person.found import Found
from service.storage.commands import NotDone
from service.storage.database import Database
from service.storage.store import Store
from service.storage.tables import NAMING_FILES, VISITS

INSIDE = {"owner", "lease_until", "attempts", "faults", "body_hash", "idempotency_key", "key_id", "folded"}
"""Columns of the service itself, which say nothing about the person."""


def export(database: Database, store: Store, site: str, identifier: str, found: Found, folder: Path) -> tuple[int, int]:
    """Write ``person.json`` and ``files/`` into a new folder: how many files were written, and how many are lost.

    Raises
    ------
    NotDone
        The folder exists and is not empty.
    OSError, StorageUnavailable
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise NotDone(f"{folder} is not empty")
    with database.transaction() as session:
        rows = _rows(session, found)
    places: dict[str, str] = {}
    lost = set()
    for row in (row for name in NAMING_FILES for row in rows.get(name, ())):
        sha256 = row["sha256"]
        if sha256 not in places:
            path = Path("files", *_place(row))
            try:
                content = store.read(sha256)
            except (StoredFileMissing, StoredFileDamaged):
                lost.add(sha256)
                continue
            (folder / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            places[sha256] = str(path)
        row["file"] = places[sha256]
    about = {"site": site, "identifier": identifier, "exported_at": datetime.now(UTC), "rows": rows}
    (folder / "person.json").write_text(
        json.dumps(about, indent=2, ensure_ascii=False, default=_as_text) + "\n", "utf-8"
    )
    return len(places), len(lost)


def _rows(session: Session, found: Found) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table, visits first."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for table, condition in reversed(found.rows(found.visits)):
        for row in session.execute(select(table).where(condition)).mappings():
            rows.setdefault(table.name, []).append(_readable(row))
    return {VISITS.name: rows.pop(VISITS.name, []), **rows}


def _readable(row: RowMapping) -> dict[str, Any]:
    """A row without the service's own columns; JSON in its texts is written as JSON."""
    return {name: _parsed(value) for name, value in row.items() if name not in INSIDE}


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _place(row: dict[str, Any]) -> tuple[str, str]:
    """Folder and name of a file: the visit, then the index and what is harmless of the name it was posted under."""
    if "index" in row and "filename" not in row:
        return row["visit_id"], f"{row['index']:02}-preview.jpg"
    if "filename" not in row:
        return "arrivals", f"{row['sha256'][:16]}.dcm"
    name = re.sub(r"[^\w.-]", "_", Path(row["filename"]).name)[-80:]
    return row["visit_id"], f"{row['index']:02}-{name}"


def _as_text(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"a value of the kind {type(value).__name__}")
