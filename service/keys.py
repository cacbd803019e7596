"""Access keys: random, shown once, stored as a hash, each with what it may do.

A key has 256 random bits and cannot be guessed, so a plain SHA-256 is enough; a slow password hash would only slow down
every request. The look-up by hash also gives no timing information about the secret itself.

References
----------
NIST SP 800-63B-4, section 3.1.2 (look-up secrets with at least 112 bits need no iterated hashing).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

from pydantic import StringConstraints
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.errors import Busy, KeyOfProvider, NotFound, TooManyWrongKeys
from service.places import Places
from service.storage.audit import note
from service.storage.database import THREADS, Database, database_now
from service.storage.tables import KeyRow, SessionRow
from service.wrong_keys import WrongKeys

T = TypeVar("T")

Role = Literal["site", "doctor", "specialist", "admin", "node"]
PERSONS: tuple[Role, ...] = ("doctor", "specialist")
"""The roles of one person each, with an identifier of their own; the others are a programme's or an operator's."""
MAX_LABEL = 200
MAX_DOCTOR_ID = 200
SiteName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*$")
]
BOOTSTRAP_ID = "bootstrap"
ADMIN_SITE = "admin"
"""Site of the visits that the first admin key posts."""
LOOK_UPS_AT_ONCE = THREADS // 2
"""Of secrets that were not right before. The database's other threads are left to requests with a key."""
LOOK_UP_WAIT_S = 5.0
RIGHT_REMEMBERED = 1000


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


BOOTSTRAP = Key(BOOTSTRAP_ID, "admin", ADMIN_SITE, label="from the settings")


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Keys:
    """The keys in the database, and one that the settings may name.

    Parameters
    ----------
    bootstrap
        An admin key that is valid as long as the settings name it; it is never stored.
    wrong
        Counts the secrets that are not known.
    """

    def __init__(self, database: Database, bootstrap: str | None, wrong: WrongKeys) -> None:
        self._database = database
        self.bootstrap_hash = hash_secret(bootstrap) if bootstrap else None
        self._right: dict[str, None] = {}
        """Hashes that were right when they were last looked up; the latest is last."""
        self._look_ups = Places(LOOK_UPS_AT_ONCE)
        self.wrong = wrong

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
        if self.is_bootstrap(digest):
            return BOOTSTRAP
        key = await self.look_up(digest, network, lambda session: self.by_hash(session, digest))
        if key is None:
            self.count_wrong(network)
        return key

    def count_wrong(self, network: str) -> None:
        """Count a wrong key, or a sign-in by the provider that was refused.

        Raises
        ------
        TooManyWrongKeys
        """
        if (wait_s := self.wrong.count(network)) is not None:
            raise TooManyWrongKeys("", f"{wait_s} s", retry_after_s=wait_s)

    async def look_up(self, digest: str, network: str, read: Callable[[Session], T | None]) -> T | None:
        """Read in the database what a secret or a cookie opens. One that was right before is read at once; others wait
        for each other.

        Raises
        ------
        Busy
            As :meth:`find`.
        """
        if digest in self._right:
            found = await self._database.read(read)
        else:
            try:
                await self._look_ups.take(network, LOOK_UP_WAIT_S)
            except TimeoutError:
                raise Busy("", f"{LOOK_UP_WAIT_S:g} s", retry_after_s=round(LOOK_UP_WAIT_S)) from None
            try:
                found = await self._database.read(read)
            finally:
                self._look_ups.give(network)
        self._right.pop(digest, None)
        if found is not None:
            self._right[digest] = None
            if len(self._right) > RIGHT_REMEMBERED:
                del self._right[next(iter(self._right))]
        return found

    def is_bootstrap(self, digest: str) -> bool:
        return self.bootstrap_hash is not None and hmac.compare_digest(digest, self.bootstrap_hash)

    def by_hash(self, session: Session, digest: str) -> Key | None:
        """The valid key with this hash; ``None`` if there is none."""
        if self.is_bootstrap(digest):
            return BOOTSTRAP
        query = select(KeyRow).where(KeyRow.hash == digest, KeyRow.revoked_at.is_(None))
        row = session.scalars(query).one_or_none()
        return key_of(row) if row else None

    async def create(self, role: Role, site: str, doctor_id: str | None, label: str) -> tuple[KeyRow, str]:
        """A new key and its secret, which cannot be shown again."""
        secret, key = new_secret(), Key(str(uuid.uuid4()), role, site, doctor_id, label)

        def insert(session: Session) -> KeyRow:
            note(session, "key_made", key=key.id, role=role, site=site)
            return insert_key(session, key, hash_secret(secret))

        return await self._database.write(insert), secret

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
        KeyOfProvider
        """
        secret, retired_id = new_secret(), str(uuid.uuid4())

        def rotate(session: Session) -> KeyRow:
            row = _valid(session, key_id)
            if row.by_provider:
                raise KeyOfProvider
            old = row.hash
            row.hash = hash_secret(secret)
            session.flush()
            retired = insert_key(session, replace(key_of(row), id=retired_id), old)
            retired.revoked_at = retired.created_at
            session.flush()
            note(session, "key_renewed", key=key_id)
            return row

        return await self._database.write(rotate), secret

    async def name(self, key_id: str, label: str) -> None:
        """Give a doctor's or specialist's key another name. What was signed keeps the name that it was signed with.

        Raises
        ------
        NotFound
            There is no such key of a person, or it was revoked before.
        KeyOfProvider
        """

        def rename(session: Session) -> None:
            row = _valid(session, key_id)
            if row.by_provider:
                raise KeyOfProvider
            if row.doctor_id is None:
                raise NotFound
            row.label = label
            note(session, "key_named", key=key_id)

        await self._database.write(rename)

    async def revoke(self, key_id: str) -> None:
        """Make a key invalid, and end its sessions; its row stays, so that what it did can be traced.

        Raises
        ------
        NotFound
            There is no such key, or it was revoked before.
        """

        def revoke(session: Session) -> None:
            row = _valid(session, key_id)
            row.revoked_at = database_now(session)
            session.execute(delete(SessionRow).where(SessionRow.key_hash == row.hash))
            note(session, "key_revoked", key=key_id)

        await self._database.write(revoke)

    async def readmit(self, key_id: str) -> None:
        """Let a person who signs in by the provider and was revoked sign in again. A revoked secret stays revoked.

        Raises
        ------
        NotFound
            No such person was revoked.
        """

        def readmit(session: Session) -> None:
            row = session.get(KeyRow, key_id, with_for_update=True)
            if row is None or row.revoked_at is None or not row.by_provider:
                raise NotFound
            row.revoked_at = None
            note(session, "key_readmitted", key=key_id)

        await self._database.write(readmit)


def key_of(row: KeyRow) -> Key:
    return Key(row.id, row.role, row.site, row.doctor_id, row.label)  # type: ignore[arg-type]  # roles only


def _valid(session: Session, key_id: str) -> KeyRow:
    """The row of a valid key, which no other transaction changes until this one ends."""
    query = select(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None)).with_for_update()
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFound
    return row


def new_secret() -> str:
    return f"sangloc_{secrets.token_urlsafe(32)}"


def insert_key(session: Session, key: Key, digest: str) -> KeyRow:
    """Store a new key."""
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
