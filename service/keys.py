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
import math
import os
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.errors import Busy, NotFound, TooManyWrongKeys
from service.places import Places
from service.storage.database import THREADS, Database, database_now, rowcount
from service.storage.store import fsync_folder
from service.storage.tables import KeyRow, SessionRow

Role = Literal["site", "doctor", "specialist", "admin", "node"]
PERSONS: tuple[Role, ...] = ("doctor", "specialist")
"""The roles of one person each, with an identifier of their own; the others are a programme's or an operator's."""
MAX_LABEL = 200
BOOTSTRAP_ID = "bootstrap"
ADMIN_SITE = "admin"
"""Site of the visits that the first admin key posts."""
LOOK_UPS_AT_ONCE = THREADS // 2
"""Of secrets that were not right before. The database's other threads are left to requests with a key."""
LOOK_UP_WAIT_S = 5.0
RIGHT_REMEMBERED = 1000
WRONG_AT_ONCE = 100
WRONG_EVERY_S = 3.0
"""Wrong keys of one address: so many at once, then one in this time."""
ADDRESSES_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Key:
    """A known key.

    Parameters
    ----------
    role
        ``site``: posts visits, and sees those of its site. ``doctor``: sees the visits of its site that ``doctor_id``
        referred, and signs them. ``specialist``: sees and answers what was referred to its site or to any site.
        ``admin``: sees everything, manages keys and destinations, and does not sign. ``node``: exchanges the visits of
        its site with the server of that site.
    doctor_id, label
        Identifier of a doctor or specialist, and the person's name, with which they sign. The label of other keys is
        what they are for.
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
    def may_upload(self) -> bool:
        return self.may_post or self.role == "node"

    @property
    def may_sign(self) -> bool:
        return self.role in PERSONS and self.doctor_id is not None


_BOOTSTRAP = Key(BOOTSTRAP_ID, "admin", ADMIN_SITE, label="from the settings")


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
        self._right: dict[str, None] = {}
        """Hashes that were right when they were last looked up; the latest is last."""
        self._look_ups = Places(LOOK_UPS_AT_ONCE)
        self._wrong = WrongKeys()

    async def find(self, secret: str, network: str) -> Key | None:
        """The key with this secret; ``None`` if it is not known.

        Parameters
        ----------
        network
            Where the request comes from, as :func:`service.protocols.peers.network_of` says it.

        Raises
        ------
        TooManyWrongKeys
            It is not known, and too many from this network were not. A right key is never refused for that.
        Busy
            The look-up had to wait too long for others.
        """
        digest = hash_secret(secret)
        if self._is_bootstrap(digest):
            return _BOOTSTRAP
        key = await self._look_up(digest, network, lambda session: self._by_hash(session, digest))
        if key is None and (wait_s := self._wrong.count(network)) is not None:
            raise TooManyWrongKeys("", f"{wait_s} s", retry_after_s=wait_s)
        return key

    async def find_by_cookie(self, cookie: str, network: str) -> Key | None:
        """The key that a session was opened with; ``None`` if there is no such session, or it has ended.

        An unknown cookie is not counted as a wrong key, since every session ends one day.

        Raises
        ------
        Busy
            As :meth:`find`.
        """
        digest = hash_secret(cookie)

        def read(session: Session) -> Key | None:
            row = session.get(SessionRow, digest)
            if row is None or row.expires_at <= database_now(session):
                return None
            return _BOOTSTRAP if self._is_bootstrap(row.key_hash) else self._by_hash(session, row.key_hash)

        return await self._look_up(digest, network, read)

    async def _look_up(self, digest: str, network: str, read: Callable[[Session], Key | None]) -> Key | None:
        """Read in the database. A secret that was right before is read at once; others wait for each other."""
        if digest in self._right:
            key = await self._database.read(read)
        else:
            try:
                await self._look_ups.take(network, LOOK_UP_WAIT_S)
            except TimeoutError:
                raise Busy("", f"{LOOK_UP_WAIT_S:g} s", retry_after_s=round(LOOK_UP_WAIT_S)) from None
            try:
                key = await self._database.read(read)
            finally:
                self._look_ups.give(network)
        self._right.pop(digest, None)
        if key is not None:
            self._right[digest] = None
            if len(self._right) > RIGHT_REMEMBERED:
                del self._right[next(iter(self._right))]
        return key

    def _is_bootstrap(self, digest: str) -> bool:
        return self._bootstrap_hash is not None and hmac.compare_digest(digest, self._bootstrap_hash)

    def _by_hash(self, session: Session, digest: str) -> Key | None:
        query = select(KeyRow).where(KeyRow.hash == digest, KeyRow.revoked_at.is_(None))
        row = session.scalars(query).one_or_none()
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

    async def rotate(self, key_id: str) -> tuple[KeyRow, str]:
        """A new secret for a key, which keeps its id: what it signed, asked and posted stays its own.

        The old secret and the sessions that were opened with it end. It stays as a revoked key, so that the key file of
        the first start does not make it valid again.

        Raises
        ------
        NotFound
            There is no such key, or it was revoked before.
        """
        secret, retired_id = new_secret(), str(uuid.uuid4())

        def rotate(session: Session) -> KeyRow:
            query = select(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None)).with_for_update()
            row = session.scalars(query).one_or_none()
            if row is None:
                raise NotFound
            old = row.hash
            row.hash = hash_secret(secret)
            session.flush()
            retired = _insert(session, replace(key_of(row), id=retired_id), old)
            retired.revoked_at = retired.created_at
            session.flush()
            return row

        return await self._database.write(rotate), secret

    async def name(self, key_id: str, label: str) -> None:
        """Give a doctor's or specialist's key another name. What was signed keeps the name that it was signed with.

        Raises
        ------
        NotFound
            There is no such key of a person, or it was revoked before.
        """

        def rename(session: Session) -> int:
            query = update(KeyRow).where(
                KeyRow.id == key_id, KeyRow.revoked_at.is_(None), KeyRow.doctor_id.is_not(None)
            )
            return rowcount(session.execute(query.values(label=label)))

        if not await self._database.write(rename):
            raise NotFound

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


class WrongKeys:
    """How many wrong keys came from where, lately.

    Of each network one number is kept: when all its wrong keys will be forgiven. Networks are forgotten where too many
    others came later.
    """

    def __init__(self) -> None:
        self._forgiven_at: dict[str, float] = {}

    def count(self, network: str) -> int | None:
        """Count a wrong key; in seconds, how long to wait before the next, if there are too many."""
        now = time.monotonic()
        forgiven_at = max(self._forgiven_at.pop(network, now), now) + WRONG_EVERY_S
        wait_s = forgiven_at - now - WRONG_AT_ONCE * WRONG_EVERY_S
        self._forgiven_at[network] = forgiven_at if wait_s <= 0 else forgiven_at - WRONG_EVERY_S
        if len(self._forgiven_at) > ADDRESSES_REMEMBERED:
            del self._forgiven_at[next(iter(self._forgiven_at))]
        return math.ceil(wait_s) if wait_s > 0 else None


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
