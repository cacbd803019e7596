"""The sessions of browsers: opened with a key or by the provider, listed and ended by their owners and by admins.

A session's cookie is random and stored as a hash. It opens what its key opens, as long as that key is valid and has the
same secret. What is listed of it are two times, the network around the address, and which browser it was.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from service.errors import NotFound, StorageUnavailable
from service.keys import BOOTSTRAP, Key, Keys, hash_secret, key_of
from service.protocols.peers import prefix_of
from service.storage.audit import Actor, note
from service.storage.database import Database, database_now, rowcount
from service.storage.tables import KeyRow, SessionRow

MOST_OF_ONE_KEY = 200
"""Where a key has so many, the one that was used longest ago ends when another is opened."""
USED_EVERY = timedelta(minutes=1)
"""How exactly it is noted when a session was last used: each note is a write."""
_BROWSERS = (
    ("Edge", re.compile(r"\bEdg(?:e|A|iOS)?/")),
    ("Opera", re.compile(r"\bOPR/|\bOpera\b")),
    ("Samsung Internet", re.compile(r"\bSamsungBrowser/")),
    ("Cốc Cốc", re.compile(r"\bcoc_coc_browser/")),
    ("Firefox", re.compile(r"\b(?:Firefox|FxiOS)/")),
    ("Chrome", re.compile(r"\b(?:Chrome|Chromium|HeadlessChrome|CriOS)/")),
    ("Safari", re.compile(r"\bSafari/")),
)
"""What ``User-Agent`` has of a browser and of none above it (MDN, "Browser detection using the user agent")."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that is open, as its owner and admins see it.

    Parameters
    ----------
    id
        Names it; it opens nothing.
    key
        Whose it is.
    used_at
        To the minute.
    network, browser
        Where it was opened: the network around the address, and the family of the browser; empty where unknown.
    own
        It is the one in which this is asked.
    """

    id: str
    key: Key
    opened_at: datetime
    used_at: datetime
    expires_at: datetime
    network: str
    browser: str
    own: bool


class Sessions:
    """The sessions in the database.

    Parameters
    ----------
    hours
        How long a session lasts.
    """

    def __init__(self, database: Database, keys: Keys, hours: float) -> None:
        self._database, self._keys = database, keys
        self._lasts = timedelta(hours=hours)

    async def open(self, key_hash: str, network: str, user_agent: str) -> str:
        """Open a session with the key of ``key_hash``; its cookie, which cannot be shown again."""
        cookie, session_id = secrets.token_urlsafe(32), str(uuid.uuid4())

        def insert(session: Session) -> None:
            now = database_now(session)
            session.execute(delete(SessionRow).where(SessionRow.expires_at < now))
            of_key = select(SessionRow.hash).where(SessionRow.key_hash == key_hash)
            latest = of_key.order_by(SessionRow.used_at.desc(), SessionRow.opened_at.desc())
            if too_many := session.scalars(latest.offset(MOST_OF_ONE_KEY - 1)).all():
                session.execute(delete(SessionRow).where(SessionRow.hash.in_(too_many)))
            session.add(
                SessionRow(
                    hash=hash_secret(cookie),
                    id=session_id,
                    key_hash=key_hash,
                    opened_at=now,
                    used_at=_minute(now),
                    expires_at=now + self._lasts,
                    network=prefix_of(network),
                    browser=browser_family(user_agent),
                )
            )
            if (key := self._keys.by_hash(session, key_hash)) is not None:
                note(session, "signed_in", actor=Actor(key.id, key.role), session=session_id)

        await self._database.write(insert)
        return cookie

    async def find(self, cookie: str, network: str) -> Key | None:
        """The key that a session was opened with; ``None`` if there is no such session, or it has ended.

        An unknown cookie is not counted as a wrong key, since every session ends one day.

        Raises
        ------
        Busy
            As :meth:`service.keys.Keys.find`.
        """
        digest = hash_secret(cookie)

        def read(session: Session) -> tuple[Key, bool] | None:
            row = session.get(SessionRow, digest)
            if row is None or row.expires_at <= (now := database_now(session)):
                return None
            key = self._keys.by_hash(session, row.key_hash)
            return None if key is None else (key, now - row.used_at >= USED_EVERY)

        found = await self._keys.look_up(digest, network, read)
        if found is None:
            return None
        key, is_later = found
        if is_later:
            with suppress(StorageUnavailable):  # what is only read goes on while nothing can be written
                await self._database.write(lambda session: _note_use(session, digest))
        return key

    async def list(self, key: Key, cookie: str = "") -> list[OpenSession]:
        """The open sessions that ``key`` may see, the latest first: an admin all of them, a person their own.

        Parameters
        ----------
        cookie
            Of the session in which this is asked.
        """
        own = hash_secret(cookie)

        def read(session: Session) -> Sequence[OpenSession]:
            query = (
                select(SessionRow, KeyRow)
                .join(KeyRow, KeyRow.hash == SessionRow.key_hash, isouter=True)
                .where(self._seen_by(key), SessionRow.expires_at > database_now(session))
            )
            query = query.order_by(SessionRow.opened_at.desc(), SessionRow.id)
            return [_told(row, of, row.hash == own) for row, of in session.execute(query)]

        return list(await self._database.read(read))

    async def end(self, key: Key, session_id: str | None = None, *, of_key: str | None = None) -> int:
        """End the session of this id, all sessions of a key's id, or all that ``key`` may see; how many ended.

        Raises
        ------
        NotFound
            ``key`` may see no session of this id.
        """

        def end(session: Session) -> int:
            query = select(SessionRow.hash).join(KeyRow, KeyRow.hash == SessionRow.key_hash, isouter=True)
            query = query.where(self._seen_by(key))
            if session_id is not None:
                query = query.where(SessionRow.id == session_id)
            if of_key is not None:
                query = query.where(self._of(of_key))
            gone = delete(SessionRow).where(SessionRow.hash.in_(query))
            ended = rowcount(session.execute(gone.execution_options(synchronize_session=False)))
            if session_id is not None and not ended:
                raise NotFound
            if ended:
                note(session, "sessions_ended", ended=ended, session=session_id, of_key=of_key)
            return ended

        return await self._database.write(end)

    async def close(self, cookie: str) -> bool:
        """End the session of a cookie; whether it was opened by the provider."""
        digest = hash_secret(cookie)

        def end(session: Session) -> bool:
            key_hash = session.scalar(select(SessionRow.key_hash).where(SessionRow.hash == digest))
            session.execute(delete(SessionRow).where(SessionRow.hash == digest))
            row = session.scalar(select(KeyRow).where(KeyRow.hash == key_hash))
            if key_hash is not None:
                of = key_of(row) if row is not None else BOOTSTRAP
                note(session, "signed_out", actor=Actor(of.id, of.role))
            return row is not None and row.by_provider

        return await self._database.write(end)

    def _seen_by(self, key: Key) -> ColumnElement[bool]:
        """Sessions of valid keys: for an admin of all of them, else of this one."""
        is_valid = and_(KeyRow.id.is_not(None), KeyRow.revoked_at.is_(None))
        if key.role == "admin":
            return or_(is_valid, self._of(BOOTSTRAP.id))
        return and_(is_valid, KeyRow.id == key.id)

    def _of(self, key_id: str) -> ColumnElement[bool]:
        if key_id == BOOTSTRAP.id:
            return SessionRow.key_hash == (self._keys.bootstrap_hash or "")
        return KeyRow.id == key_id


def _told(row: SessionRow, of: KeyRow | None, own: bool) -> OpenSession:
    key = BOOTSTRAP if of is None else key_of(of)
    return OpenSession(row.id, key, row.opened_at, row.used_at, row.expires_at, row.network, row.browser, own)


def _note_use(session: Session, digest: str) -> None:
    minute = _minute(database_now(session))
    later = update(SessionRow).where(SessionRow.hash == digest, SessionRow.used_at < minute)
    session.execute(later.values(used_at=minute))


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def browser_family(user_agent: str) -> str:
    """The name of the browser that ``user_agent`` is of; empty where it is none of the usual ones."""
    return next((name for name, pattern in _BROWSERS if pattern.search(user_agent[:500])), "")
