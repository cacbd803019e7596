"""Accepts a posted visit: reads the body, checks the context, stores the files, commits the visit."""

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
from service.receive.body import Reader, context_in_header, feed_in_pieces, reader_of
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


@dataclass(frozen=True, slots=True)
class Posted:
    """A visit that was read, its files in the store; the parts' boundary does not change ``digest``."""

    context: Context
    files: Sequence[StoredFile]
    digest: str


async def accept_visit(service: Service, key: Key, request: Request) -> Accepted:
    """Accept a posted visit. When this returns, its files and its row are on disk.

    Raises
    ------
    Unavailable, QueueFull, UnsupportedMediaType, InvalidRequest, BodyTooLarge, BodyTooSlow, IdempotencyConflict
    StorageFull, StorageUnavailable, DatabaseUnavailable
        No visit was made.
    OutcomeUnknown
        It is not known whether the visit was made.
    """
    await wait_until_open(service)
    idempotency_key = idempotency_key_of(request)
    header_context = context_in_header(request.headers)
    if service.queue_was_full and not await service.database.read(
        partial(is_accepted, service, key.site, idempotency_key)
    ):
        raise queue_full()
    return await commit(service, key, await _read_and_store(service, key, request, header_context), idempotency_key)


async def wait_until_open(service: Service) -> None:
    """Wait until it is known that there is room on the disks.

    Raises
    ------
    Unavailable, StorageFull
        Nothing is accepted now.
    """
    if not service.available:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    await service.room.wait_for_check()


async def commit(service: Service, key: Key, posted: Posted, idempotency_key: str | None) -> Accepted:
    """Commit a visit whose files are in the store.

    Raises
    ------
    QueueFull, IdempotencyConflict, DatabaseUnavailable, OutcomeUnknown
    """
    context = await with_order(service, key.site, posted.context)
    row = new_visit(key.site, key.id, context, posted.files, posted.digest, idempotency_key=idempotency_key)
    accepted = await commit_visit(service, row)
    if accepted is None:
        raise queue_full()
    return accepted


def idempotency_key_of(request: Request) -> str | None:
    """The request's ``Idempotency-Key``, ``None`` where it has none.

    Raises
    ------
    InvalidRequest
        It is empty, too long, or not printable ASCII.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(FieldFault("Idempotency-Key", "field_invalid", f"1 … {MAX_IDEMPOTENCY_KEY} ASCII"))
    return key


async def _read_and_store(service: Service, key: Key, request: Request, header_context: bytes | None) -> Posted:
    """Read the body and store its files, in threads.

    Parameters
    ----------
    header_context
        The context that came in a header.
    """
    drafts = Drafts(service.store.drafts)
    reader = reader_of(request.headers, drafts)
    async with upload_turn(service, key.id) as take_turn:
        try:
            rest = await feed_in_pieces(reader, request, take_turn)
            return await asyncio.to_thread(_finish_and_store, service, reader, rest, header_context, drafts)
        finally:
            if drafts:
                await asyncio.to_thread(drafts.remove)


def _finish_and_store(
    service: Service, reader: Reader, rest: bytes, header_context: bytes | None, drafts: Drafts
) -> Posted:
    reader.feed(rest)
    posted = stored(service, reader.finish(), header_context)
    drafts.remove()
    return posted


def stored(service: Service, parts: Sequence[Part], header_context: bytes | None = None) -> Posted:
    """Read the context of a visit and put its files in the store. It blocks: to be used from a thread.

    Raises
    ------
    InvalidRequest
        There is more than one context, or it cannot be used.
    """
    documents = [_content(part) for part in parts if part.field == "context"]
    if header_context is not None:
        documents.append(header_context)
    if len(documents) > 1:
        raise InvalidRequest(FieldFault("context", "field_repeated"))
    context = read_context(documents[0]) if documents else Context()
    files = [put_in_store(service, part) for part in parts if part.field != "context"]
    return Posted(context, files, _body_hash(parts, header_context))


def _content(part: Part) -> bytes:
    with part.draft.open() as file:
        return file.read()


def _body_hash(parts: Sequence[Part], header_context: bytes | None) -> str:
    listed = [(part.field, part.filename, part.draft.sha256) for part in parts]
    if header_context is not None:
        listed.append(("context", "", hashlib.sha256(header_context).hexdigest()))
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
