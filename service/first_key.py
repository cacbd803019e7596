"""The first admin key: made where nobody has one, and left in a file of the data folder."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.keys import ADMIN_SITE, Key, hash_secret, insert_key, new_secret
from service.settings import Settings
from service.storage.audit import note
from service.storage.database import Database
from service.storage.store import fsync_folder
from service.storage.tables import KeyRow


async def first_key(database: Database, settings: Settings) -> Path | None:
    """Make an admin key if there is none and the settings name none; the file with its secret if one was made.

    The file is written before the row: if the process stops between the two, the next start completes it.
    """
    if settings.bootstrap_key:
        return None
    path = settings.data_dir / "admin.key"
    query = select(KeyRow.id).where(KeyRow.role == "admin")
    known = await database.read(lambda session: session.scalars(query.limit(1)).first())
    made = None
    if known is None and not path.exists():
        _write_secret(path)
        made = path
    if path.exists():
        digest = hash_secret(path.read_text("ascii").strip())
        await database.write(lambda session: _insert_once(session, digest))
    return made


def _insert_once(session: Session, digest: str) -> None:
    if session.scalars(select(KeyRow.id).where(KeyRow.hash == digest)).first() is None:
        key = Key(str(uuid.uuid4()), "admin", ADMIN_SITE, label="first start")
        insert_key(session, key, digest)
        note(session, "key_made", key=key.id, role=key.role, site=key.site)


def _write_secret(path: Path) -> None:
    """Write a new secret to a file for the owner alone, unless another process did; the file is never half written."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(new_secret() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):  # another process was first
        os.link(draft, path)
    draft.unlink()
    fsync_folder(path.parent)
