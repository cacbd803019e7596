"""Follows what was decided beside the server: versions in service, and releases. Each is in the log once.

The registry's log and the releases are files that commands write. An entry has the digest of the line or of the
release, so that a line that is changed or removed later shows.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from inference.bundles.registry import LOG
from service.logs import where_it_failed
from service.storage.audit import AUDIT, Actor, digest_of_text, lock, note
from service.storage.database import Database

REGISTRY = Actor("registry", "service")
"""Who acts, in the log: what the registry's log says. An actor of its own is found without reading the whole log."""
FOLLOW_EVERY_S = 5.0
RELEASES = "releases"
BUNDLE, RELEASE = "bundle_decided", "release_in_force"
MAX_FOLLOWED = 10_000
"""Lines and releases that are read; more would be a mistake."""

log = structlog.get_logger()


class Decision(NamedTuple):
    """One decision, as a file has it.

    Parameters
    ----------
    action
        ``bundle_decided`` or ``release_in_force``.
    sha256
        Of the line, or of the release's file.
    about
        What the log says of it besides; no person.
    """

    action: str
    sha256: str
    about: dict[str, Any]


async def follow(database: Database, bundles: Path) -> None:
    """Note every decision soon after it was made, for as long as this runs."""
    seen: tuple[object, ...] = ()
    while True:
        try:
            now = await asyncio.to_thread(_state, bundles)
            if now != seen:
                decided = await asyncio.to_thread(read_decisions, bundles)
                await database.write(lambda session, decided=decided: note_new(session, decided))  # type: ignore[misc]
                seen = now
        except Exception as error:  # looked at again by the next turn
            log.error("decisions_not_followed", **where_it_failed(error))
        await asyncio.sleep(FOLLOW_EVERY_S)


def read_decisions(bundles: Path) -> list[Decision]:
    """The lines of the registry's log, oldest first, then the releases.

    Raises
    ------
    OSError
    """
    found = [_of_line(line) for line in _lines(bundles) if line.strip()]
    for path in _releases(bundles):
        found.append(Decision(RELEASE, digest_of_text(path.read_text("utf-8")), {"number": int(path.stem)}))
    return found[:MAX_FOLLOWED]


def note_new(session: Session, decided: Collection[Decision]) -> None:
    """Note those that are not in the log yet."""
    if not decided:
        return
    lock(session)  # another process may be about to note the same
    query = select(AUDIT.c.action, AUDIT.c.detail).where(AUDIT.c.actor == REGISTRY.id)
    query = query.where(AUDIT.c.action.in_({each.action for each in decided}))
    known = {(row.action, json.loads(row.detail).get("sha256")) for row in session.execute(query)}
    for each in decided:
        if (each.action, each.sha256) not in known:
            known.add((each.action, each.sha256))
            note(session, each.action, actor=REGISTRY, sha256=each.sha256, **each.about)


def lines_gone(connection: Connection, bundles: Path) -> list[int]:
    """Numbers of the entries whose line the registry's log no longer has, for example after a new checkout."""
    here = {digest_of_text(line) for line in _lines(bundles)}
    query = select(AUDIT.c.number, AUDIT.c.detail).where(AUDIT.c.actor == REGISTRY.id, AUDIT.c.action == BUNDLE)
    rows = connection.execute(query.order_by(AUDIT.c.number))
    return [row.number for row in rows if json.loads(row.detail).get("sha256") not in here]


def _of_line(line: str) -> Decision:
    about = {}
    try:
        said = json.loads(line)
        about = {name: said.get(name) for name in ("name", "from", "to", "site")} | {"decision": said.get("action")}
    except (ValueError, AttributeError):
        about = {"decision": "unreadable"}
    return Decision(BUNDLE, digest_of_text(line), about)


def _lines(bundles: Path) -> list[str]:
    path = bundles / LOG
    return path.read_text("utf-8", "replace").splitlines() if path.is_file() else []


def _releases(bundles: Path) -> list[Path]:
    folder = bundles / RELEASES
    found = [path for path in folder.glob("*.json") if path.stem.isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.stem))


def _state(bundles: Path) -> tuple[object, ...]:
    """What changes when a decision is added."""
    path = bundles / LOG
    stat = path.stat() if path.is_file() else None
    return (stat and (stat.st_mtime_ns, stat.st_size), tuple(map(str, _releases(bundles))))
