"""Accepts many visits in one request, for a programme that posts what a day has brought.

Each visit stands for itself: one that is refused does not refuse the others, and each is committed as a visit that was
posted by itself. What they share is the request, its turn to be read, and the transactions in which they are committed
(:mod:`service.storage.group_commit`).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from fastapi import Request

from service.errors import FieldFault, InvalidRequest, ServiceError
from service.faults import quoted_name
from service.keys import Key
from service.receive.accept import MAX_IDEMPOTENCY_KEY, Posted, commit, idempotency_key_of, stored, wait_until_open
from service.receive.body import feed_in_pieces
from service.receive.commit import Accepted, queue_full, upload_turn
from service.receive.multipart import Headers, PartsReader, VisitParts, form_boundary
from service.state import Service
from service.storage.drafts import Draft, Drafts

MAX_VISITS = 200
"""Of one request. A lost connection loses the whole request, and every visit of it waits for the last byte."""
MAX_NAME = 64
PART_NAME = "NAME/context | NAME/ecg | NAME/image"
_PART = re.compile(r"(?P<visit>[^/\x00-\x1f]{1,64})/(?P<field>[^/]*)")


@dataclass
class _Visit:
    """One visit of the body, or what is wrong with it."""

    parts: VisitParts = field(default_factory=VisitParts)
    refusal: InvalidRequest | None = None


class BulkReader(PartsReader):
    """Reads many visits: ``multipart/form-data`` whose parts are named ``NAME/FIELD``.

    Parameters
    ----------
    drafts
        For the files; the caller removes them, also when this raises.

    Raises
    ------
    UnsupportedMediaType
        It is not ``multipart/form-data``.
    InvalidRequest
        It is, and cannot be read, a part does not name its visit, or there are too many visits.
    """

    def __init__(self, content_type: str, drafts: Drafts) -> None:
        super().__init__(form_boundary(content_type), "multipart/form-data")
        self._drafts = drafts
        self.visits: dict[str, _Visit] = {}
        self._visit = _Visit()

    def _begin_part(self, headers: Headers) -> Draft:
        name, filename = self.name_and_filename(headers)
        named = _PART.fullmatch(name)
        if named is None:
            raise InvalidRequest(FieldFault(quoted_name(name), "field_unknown", PART_NAME))
        self._visit = self.visits.setdefault(named["visit"], _Visit())
        if len(self.visits) > MAX_VISITS:
            raise InvalidRequest(FieldFault("body", "field_too_many", str(MAX_VISITS)))
        if self._visit.refusal is None:
            try:
                self._visit.parts.begin(named["field"], filename, headers)
            except InvalidRequest as refusal:
                self._visit.refusal = refusal
        return self._drafts.new()

    def _check_size(self, draft: Draft) -> None:
        if self._visit.refusal is None:
            try:
                self._visit.parts.check_size(draft)
            except InvalidRequest as refusal:
                self._visit.refusal = refusal

    def _end_part(self, draft: Draft) -> None:
        if self._visit.refusal is None:
            self._visit.parts.end(draft)
        else:
            draft.remove()


async def accept_visits(service: Service, key: Key, request: Request) -> dict[str, Accepted | ServiceError]:
    """Accept the visits of a body, by their names: each is on disk when this returns, or was refused.

    The ``Idempotency-Key`` of a visit is that of the request, a slash, and its name.

    Raises
    ------
    Unavailable, QueueFull, UnsupportedMediaType, InvalidRequest, BodyTooLarge, BodyTooSlow
    StorageFull, StorageUnavailable
        No visit was made.
    """
    await wait_until_open(service)
    idempotency_key = idempotency_key_of(request)
    if idempotency_key is not None and len(idempotency_key) > MAX_IDEMPOTENCY_KEY - MAX_NAME - 1:
        most = f"1 … {MAX_IDEMPOTENCY_KEY - MAX_NAME - 1} ASCII"
        raise InvalidRequest(FieldFault("Idempotency-Key", "field_invalid", most))
    if service.queue_was_full and idempotency_key is None:
        raise queue_full()
    posted = await _read_and_store(service, key, request)

    async def one(name: str, visit: Posted | InvalidRequest) -> Accepted | ServiceError:
        if isinstance(visit, InvalidRequest):
            return visit
        try:
            return await commit(service, key, visit, idempotency_key and f"{idempotency_key}/{name}")
        except ServiceError as refusal:
            return refusal

    outcomes = await asyncio.gather(*(one(name, visit) for name, visit in posted.items()))
    return dict(zip(posted, outcomes, strict=True))


async def _read_and_store(service: Service, key: Key, request: Request) -> dict[str, Posted | InvalidRequest]:
    """Read the body and store its files, in threads."""
    drafts = Drafts(service.store.drafts)
    reader = BulkReader(request.headers.get("content-type", ""), drafts)

    def finish(rest: bytes) -> dict[str, Posted | InvalidRequest]:
        reader.feed(rest)
        reader.check_ended()
        return {name: _stored(service, visit) for name, visit in reader.visits.items()}

    async with upload_turn(service, key.id) as take_turn:
        try:
            return await asyncio.to_thread(finish, await feed_in_pieces(reader, request, take_turn))
        finally:
            if drafts:
                await asyncio.to_thread(drafts.remove)


def _stored(service: Service, visit: _Visit) -> Posted | InvalidRequest:
    if visit.refusal is not None:
        return visit.refusal
    try:
        return stored(service, visit.parts.finish())
    except InvalidRequest as refusal:
        return refusal
