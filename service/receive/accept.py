"""From a posted request to an accepted visit: body read, context checked, files stored, row committed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import Request

from data_specs.visit.context import Context
from service.errors import FieldFault, InvalidRequest, Unavailable
from service.keys import Key
from service.receive.body import PIECE_BYTES, Reader, context_in_header, reader_of
from service.receive.commit import (
    RETRY_AFTER_S,
    Accepted,
    StoredFile,
    commit_visit,
    is_accepted,
    new_visit,
    put_in_store,
    queue_full,
    upload_turn,
    with_order,
)
from service.receive.context import read_context
from service.receive.posted import Part
from service.state import Service
from service.storage.drafts import Drafts

MAX_IDEMPOTENCY_KEY = 255


async def accept_visit(service: Service, key: Key, request: Request) -> Accepted:
    """Take a posted visit on. When this returns, it is on disk: its files, then its row.

    Raises
    ------
    Unavailable, QueueFull, UnsupportedMediaType, InvalidRequest, BodyTooLarge, BodyTooSlow, IdempotencyConflict
    """
    if not service.available:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    idempotency_key = idempotency_key_of(request)
    header_context = context_in_header(request.headers)
    if service.queue_was_full and not await service.database.read(
        partial(is_accepted, service, key.site, idempotency_key)
    ):
        raise queue_full()
    async with upload_turn(service):
        posted = await _read_and_store(service, request, header_context)
    context = await with_order(service, key.site, posted.context)
    row = new_visit(key.site, key.id, context, posted.files, posted.digest, idempotency_key=idempotency_key)
    accepted = await commit_visit(service, row)
    if accepted is None:
        raise queue_full()
    return accepted


def idempotency_key_of(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is not None and not (0 < len(given) <= MAX_IDEMPOTENCY_KEY and given.isascii() and given.isprintable()):
        raise InvalidRequest(FieldFault("Idempotency-Key", "field_invalid", f"1 … {MAX_IDEMPOTENCY_KEY} ASCII"))
    return given


@dataclass(frozen=True, slots=True)
class _Posted:
    """What a body held, its files in the store; ``digest`` is the same whatever boundary it was posted with."""

    context: Context
    files: Sequence[StoredFile]
    digest: str


async def _read_and_store(service: Service, request: Request, header_context: bytes | None) -> _Posted:
    """Read the body in threads, in pieces; one that fits into a piece takes a single turn of a thread.

    Parameters
    ----------
    header_context
        The context that came in a header.
    """
    drafts = Drafts(service.store.drafts)
    reader = reader_of(request.headers, drafts)
    try:
        piece = bytearray()
        async for chunk in request.stream():
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                await asyncio.to_thread(reader.feed, bytes(piece))
                piece.clear()
        return await asyncio.to_thread(_finish_and_store, service, reader, bytes(piece), header_context, drafts)
    finally:
        if drafts:
            await asyncio.to_thread(drafts.remove)


def _finish_and_store(
    service: Service, reader: Reader, last: bytes, header_context: bytes | None, drafts: Drafts
) -> _Posted:
    reader.feed(last)
    parts = reader.finish()
    documents = [_content(part) for part in parts if part.field == "context"]
    if header_context is not None:
        documents.append(header_context)
    if len(documents) > 1:
        raise InvalidRequest(FieldFault("context", "field_repeated"))
    context = read_context(documents[0]) if documents else Context()
    files = [put_in_store(service, part) for part in parts if part.field != "context"]
    drafts.remove()
    return _Posted(context, files, _body_hash(parts, header_context))


def _content(part: Part) -> bytes:
    with part.draft.open() as file:
        return file.read()


def _body_hash(parts: Sequence[Part], header_context: bytes | None) -> str:
    listed = [(part.field, part.filename, part.draft.sha256) for part in parts]
    if header_context is not None:
        listed.append(("context", "", hashlib.sha256(header_context).hexdigest()))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
