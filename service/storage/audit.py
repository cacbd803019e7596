"""The audit log: an append-only chain of entries, each with the digest of the one before.

Whoever changes something notes it in the same transaction (:func:`note`), so that neither is there without the other.
:class:`service.storage.database.Database` appends what was noted as the last thing before the commit. Appending takes a
lock, which makes one chain of all processes, and it is always the last lock, so that nothing waits in a circle.

An entry names a key, a visit and digests, and no person. So a visit can be erased, and the chain stays whole.

References
----------
FIPS 180-4 (SHA-256). RFC 8785 (JSON Canonicalization Scheme): what is digested is an array of strings, whole numbers
and ``null`` in that form. PostgreSQL, sections 13.3.5 (advisory locks) and 20.11.1
(``idle_in_transaction_session_timeout``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Table, insert, select, text
from sqlalchemy.orm import Session

from service.storage.tables import AuditRow

AUDIT = cast("Table", AuditRow.__table__)
BEFORE_THE_FIRST = 64 * "0"
"""Stands for the digest of the entry before the first one."""
ADVISORY_LOCK = 5_264_639
"""PostgreSQL's advisory lock of those that append; any number that no other application uses."""
SILENT_MS = 10_000
"""A machine that stops while it holds the lock keeps the others from writing for so long at most."""


class Actor(NamedTuple):
    """Who acts: the id of a key, or a word for what acts without one, and its role."""

    id: str
    role: str


SERVICE = Actor("service", "service")
"""The service itself: it assesses, and follows what others have decided."""
ACTOR: ContextVar[Actor] = ContextVar("actor", default=SERVICE)
"""Who acts in this request or command."""


def acting_for(session: Session, sender: str) -> Actor:
    """Who acts; a sender without a request of its own, such as a calling AE title, by its own name."""
    acting: Actor = session.info.get("actor") or ACTOR.get()
    return Actor(sender[:60], "peer") if acting == SERVICE else acting


@contextmanager
def acting_as(command: str) -> Iterator[None]:
    """What is done within is done by a command of this name."""
    token = ACTOR.set(Actor(f"command:{command}", "command"))
    try:
        yield
    finally:
        ACTOR.reset(token)


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be noted, before it has a place in the chain."""

    actor: Actor
    action: str
    visit: str | None
    detail: Mapping[str, Any]


class Entry(NamedTuple):
    """One entry of the chain, as it is digested.

    Parameters
    ----------
    detail
        A JSON object, as text.
    """

    number: int
    at: datetime
    actor: str
    role: str
    action: str
    visit: str | None
    detail: str

    def content(self) -> str:
        """The exact text whose digest is in the chain: the entry as a JSON array."""
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        return _canonical([self.number, at, self.actor, self.role, self.action, self.visit, self.detail])


class Head(NamedTuple):
    """The last entry: its number, 0 where there is none, and its digest."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"


def digest_of(previous: str, content: str) -> str:
    """The digest of an entry: SHA-256 over the digest before it, a line feed, and its content."""
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def digest_of_digests(digests: Sequence[str]) -> str:
    """SHA-256 over digests in their order, each followed by a line feed."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def digest_of_text(stored: str) -> str:
    """SHA-256 of a text that a row holds, so that the row can be compared with what was noted."""
    return hashlib.sha256(stored.encode()).hexdigest()


def digest_of_opinion(stored: str) -> str:
    """SHA-256 of an opinion without its number, which a node and its centre may change when they exchange it."""
    opinion: dict[str, Any] = json.loads(stored)
    opinion.pop("number", None)
    return digest_of_text(json.dumps(opinion, ensure_ascii=False, separators=(",", ":"), sort_keys=True))


def note(
    session: Session, action: str, visit: str | None = None, /, *, actor: Actor | None = None, **detail: Any
) -> None:
    """Note what the transaction of ``session`` does. It is in the log if the transaction is committed.

    Parameters
    ----------
    action
        One of :data:`service.audit.actions.ACTIONS`.
    visit
        The id of the visit that it is about.
    actor
        Who acts, where it is not the one of this request.
    detail
        What else is to be known; members that are ``None`` are left out. No name, no identifier, no free text.
    """
    given = {name: value for name, value in detail.items() if value is not None}
    acting = actor or session.info.get("actor") or ACTOR.get()
    session.info.setdefault("noted", []).append(Event(acting, action, visit, given))


def note_event(session: Session, event: Event) -> None:
    """As :func:`note`, of what was put together before."""
    session.info.setdefault("noted", []).append(event)


def append_noted(session: Session) -> None:
    """Append what was noted in this transaction. Nothing but the commit may follow."""
    events: Sequence[Event] = session.info.pop("noted", ())
    if not events:
        return
    now = lock(session)
    number, previous = head_of(session)
    rows = []
    for event in events:
        number += 1
        detail = json.dumps(event.detail, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        entry = Entry(number, now, event.actor.id, event.actor.role, event.action, event.visit, detail)
        previous = digest_of(previous, entry.content())
        rows.append({**entry._asdict(), "digest": previous})
    session.execute(_INSERT, rows)


def head_of(session: Session) -> Head:
    """The last entry."""
    row = session.execute(_HEAD).first()
    return Head(0, BEFORE_THE_FIRST) if row is None else Head(row.number, row.digest)


def lock(session: Session) -> datetime:
    """Wait until no other transaction appends; the time then. On SQLite a writing transaction has the lock already.

    Whoever has to read the log before it notes something takes the lock first, and no other lock in that transaction.
    """
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    row = session.execute(_LOCK, {"ms": str(SILENT_MS), "key": ADVISORY_LOCK}).one()
    now: datetime = row.now
    return now.astimezone(UTC)


def _canonical(value: Sequence[str | int | None]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_LOCK = text(
    "SELECT set_config('idle_in_transaction_session_timeout', :ms, true), pg_advisory_xact_lock(:key), "
    "clock_timestamp() AS now"
)
_HEAD = select(AUDIT.c.number, AUDIT.c.digest).order_by(AUDIT.c.number.desc()).limit(1)
_INSERT = insert(AUDIT)
