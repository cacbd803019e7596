"""From a request to an accepted visit: parts read, context checked, files stored, row committed; then the answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.context import Context
from service.database import InputRow, VisitRow, database_now
from service.errors import FieldFault, IdempotencyConflict, InvalidRequest, QueueFull, Unavailable
from service.keys import Key
from service.multipart import Part
from service.raw_bodies import context_in_header, read_body
from service.state import Service
from service.store import new_drafts
from service.validation import read_context

RETRY_AFTER_S = 5
MAX_IDEMPOTENCY_KEY = 255


@dataclass(frozen=True, slots=True)
class Accepted:
    """The visit, and whether this request is the one that made it."""

    row: VisitRow
    is_new: bool


async def accept_visit(service: Service, key: Key, request: Request) -> Accepted:
    """Take a posted visit on. When this returns, it is on disk: its files, then its row.

    Raises
    ------
    Unavailable, QueueFull, UnsupportedMediaType, InvalidRequest, BodyTooLarge, BodyTooSlow, IdempotencyConflict
    """
    if not service.available:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    idempotency_key = _idempotency_key(request)
    beside = context_in_header(request.headers)
    await service.database.read(lambda session: _refuse_when_full(session, service, key, idempotency_key))
    async with _upload_turn(service):
        drafts = await asyncio.to_thread(new_drafts, service.store)
        try:
            parts = await read_body(request.headers, request.stream(), drafts)
            context, files = await asyncio.to_thread(_check_and_store, service, parts, beside)
        finally:
            await asyncio.to_thread(shutil.rmtree, drafts)
    row = _new_row(key, context, files, idempotency_key, _body_hash(parts, beside))
    return await _commit(service, key, row)


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is not None and not (0 < len(given) <= MAX_IDEMPOTENCY_KEY and given.isascii() and given.isprintable()):
        raise InvalidRequest(FieldFault("Idempotency-Key", "field_invalid", f"1 … {MAX_IDEMPOTENCY_KEY} ASCII"))
    return given


@asynccontextmanager
async def _upload_turn(service: Service) -> AsyncIterator[None]:
    """Wait for one of the places for bodies being read, so that their drafts and threads stay bounded."""
    try:
        await asyncio.wait_for(service.uploads.acquire(), service.settings.idle_seconds)
    except TimeoutError:
        raise QueueFull("", f"{RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S) from None
    try:
        yield
    finally:
        service.uploads.release()


def _check_and_store(service: Service, parts: Sequence[Part], beside: bytes | None) -> tuple[Context, list[Part]]:
    """``beside``: the context that came in a header."""
    documents = [part.draft.read_bytes() for part in parts if part.field == "context"]
    if beside is not None:
        documents.append(beside)
    if len(documents) > 1:
        raise InvalidRequest(FieldFault("context", "field_repeated"))
    context = read_context(documents[0]) if documents else Context()
    files = [part for part in parts if part.field != "context"]
    for file in files:
        service.store.put(file.draft, file.sha256)
    return context, files


def _body_hash(parts: Sequence[Part], beside: bytes | None) -> str:
    """Identity of what was posted, whatever boundary it was posted with."""
    listed = [(part.field, part.filename, part.sha256) for part in parts]
    if beside is not None:
        listed.append(("context", "", hashlib.sha256(beside).hexdigest()))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _new_row(key: Key, context: Context, files: Sequence[Part], idempotency_key: str | None, digest: str) -> VisitRow:
    visit_id = str(uuid.uuid4())
    return VisitRow(
        id=visit_id,
        site=key.site,
        key_id=key.id,
        referrer_id=context.referrer.id if context.referrer else None,
        context=context.model_dump_json(exclude_unset=True),
        status="accepted",
        priority="unassessed",
        idempotency_key=idempotency_key,
        body_hash=digest,
        attempts=0,
        faults=0,
        inputs=[
            InputRow(
                visit_id=visit_id,
                index=index,
                field=file.field,
                filename=file.filename,
                sha256=file.sha256,
                n_bytes=file.n_bytes,
                refused=False,
            )
            for index, file in enumerate(files)
        ],
    )


async def _commit(service: Service, key: Key, row: VisitRow) -> Accepted:
    """Insert the visit, leased to this process where it has a hand free, and set to work on it at once."""
    leased = service.work.reserve()
    is_new = False

    def insert(session: Session) -> VisitRow:
        first = _first_visit(session, key, row.idempotency_key)
        if first is not None:
            return first
        _refuse_when_full(session, service, key, None)
        row.received_at = database_now(session)
        if leased:
            service.work.lease(row, row.received_at)
        session.add(row)
        return row

    try:
        try:
            stored = await service.database.write(insert)
        except IntegrityError:  # PostgreSQL: the same Idempotency-Key was committed between our look and our insert
            stored = await service.database.read(lambda session: _expect_first(session, key, row.idempotency_key))
        is_new = stored.id == row.id
    finally:
        if leased:
            service.work.use_reservation(row if is_new else None)
    if stored.body_hash != row.body_hash:
        raise IdempotencyConflict
    return Accepted(stored, is_new)


def _first_visit(session: Session, key: Key, idempotency_key: str | None) -> VisitRow | None:
    if idempotency_key is None:
        return None
    query = select(VisitRow).where(VisitRow.site == key.site, VisitRow.idempotency_key == idempotency_key)
    return session.scalars(query).one_or_none()


def _expect_first(session: Session, key: Key, idempotency_key: str | None) -> VisitRow:
    row = _first_visit(session, key, idempotency_key)
    assert row is not None  # noqa: S101  visits are never deleted
    return row


def _refuse_when_full(session: Session, service: Service, key: Key, idempotency_key: str | None) -> None:
    """A repeated request is not refused: its visit has its place already."""
    query = select(func.count()).select_from(VisitRow).where(VisitRow.status == "accepted")
    unfinished = session.scalars(query).one()
    if unfinished >= service.settings.max_queue and _first_visit(session, key, idempotency_key) is None:
        raise QueueFull("", f"{RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S)
