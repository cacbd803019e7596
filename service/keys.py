"""Access keys: random, shown once, stored as a hash, each with what it may do.

A key has 256 random bits and cannot be guessed, so a plain SHA-256 is enough; a slow password hash would only slow down
every request. The look-up by hash also gives no timing information about the secret itself.

References
----------
NIST SP 800-63B-4, section 3.1.2 (look-up secrets with at least 112 bits need no iterated hashing).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.storage.database import Database, database_now, rowcount
from service.storage.store import fsync_folder
from service.storage.tables import KeyRow

Role = Literal["site", "doctor", "specialist", "admin"]
BOOTSTRAP_ID = "bootstrap"
ADMIN_SITE = "admin"
"""Site of the visits that the first admin key posts."""


@dataclass(frozen=True, slots=True)
class Key:
    """A known key.

    Parameters
    ----------
    role
        ``site``: posts visits, and sees those of its site. ``doctor``: sees the visits of its site that ``doctor_id``
        referred, and signs them. ``specialist``: sees and answers what was referred to its site or to any site.
        ``admin``: sees everything, manages keys and destinations, and does not sign.
    doctor_id, label
        Identifier of a doctor or specialist, and the name that they sign with.
    """

    id: str
    role: Role
    site: str
    doctor_id: str | None = None
    label: str = ""

    @property
    def may_post(self) -> bool:
        return self.role in ("site", "admin")

    @property
    def may_sign(self) -> bool:
        return self.role in ("doctor", "specialist") and self.doctor_id is not None


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """The keys in the database, and one that the settings may name.

    Parameters
    ----------
    bootstrap
        An admin key that is valid as long as the settings name it; it is never stored.
    """

    def __init__(self, database: Database, bootstrap: str | None) -> None:
        self._database = database
        self._bootstrap_hash = hash_secret(bootstrap) if bootstrap else None

    async def find(self, secret: str) -> Key | None:
        return await self.find_hash(hash_secret(secret))

    async def find_hash(self, digest: str) -> Key | None:
        if self._bootstrap_hash and hmac.compare_digest(digest, self._bootstrap_hash):
            return Key(BOOTSTRAP_ID, "admin", ADMIN_SITE, label="from the settings")
        query = select(KeyRow).where(KeyRow.hash == digest, KeyRow.revoked_at.is_(None))
        row = await self._database.read(lambda session: session.scalars(query).one_or_none())
        return key_of(row) if row else None

    async def create(self, role: Role, site: str, doctor_id: str | None, label: str) -> tuple[KeyRow, str]:
        """A new key and its secret, which cannot be shown again."""
        secret = new_secret()
        key = Key(str(uuid.uuid4()), role, site, doctor_id, label)
        row = await self._database.write(lambda session: _insert(session, key, hash_secret(secret)))
        return row, secret

    async def list(self) -> list[KeyRow]:
        query = select(KeyRow).order_by(KeyRow.created_at, KeyRow.id)
        return list(await self._database.read(lambda session: session.scalars(query).all()))

    async def revoke(self, key_id: str) -> None:
        """Make a key invalid; its row stays, so that what it did can be traced.

        Raises
        ------
        NotFound
            There is no such key, or it was revoked before.
        """

        def revoke(session: Session) -> int:
            query = update(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None))
            return rowcount(session.execute(query.values(revoked_at=database_now(session))))

        if not await self._database.write(revoke):
            raise NotFound

    async def first_start(self, data_dir: Path) -> Path | None:
        """Make an admin key if there is none and the settings name none; the file with its secret if one was made.

        The file is written before the row: if the process stops between the two, the next start completes it.
        """
        if self._bootstrap_hash:
            return None
        path = data_dir / "admin.key"
        query = select(KeyRow.id).where(KeyRow.role == "admin")
        known = await self._database.read(lambda session: session.scalars(query.limit(1)).first())
        if known is None and not path.exists():
            _write_secret(path)
            made = path
        else:
            made = None
        if path.exists():
            digest = hash_secret(path.read_text("ascii").strip())
            await self._database.write(lambda session: _insert_once(session, digest))
        return made


def key_of(row: KeyRow) -> Key:
    return Key(row.id, row.role, row.site, row.doctor_id, row.label)  # type: ignore[arg-type]  # roles only


def new_secret() -> str:
    return f"sangloc_{secrets.token_urlsafe(32)}"


def _insert(session: Session, key: Key, digest: str) -> KeyRow:
    row = KeyRow(
        id=key.id,
        hash=digest,
        role=key.role,
        site=key.site,
        doctor_id=key.doctor_id,
        label=key.label,
        created_at=database_now(session),
        revoked_at=None,
    )
    session.add(row)
    session.flush()
    return row


def _insert_once(session: Session, digest: str) -> None:
    if session.scalars(select(KeyRow.id).where(KeyRow.hash == digest)).first() is None:
        _insert(session, Key(str(uuid.uuid4()), "admin", ADMIN_SITE, label="first start"), digest)


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
