"""``/v1/node/…``: what a node asks its centre for. Its key has the role ``node`` and the site of the node."""

from __future__ import annotations

import asyncio
import zlib
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import errors
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.errors import BodyTooLarge, FieldFault, FileDiffers, Forbidden, InvalidRequest, NotFound, UploadUnfinished
from service.exchange.merge import take
from service.exchange.queue import changed_at_centre
from service.exchange.record import Answer, Id, News, VisitRecord
from service.faults import field_faults
from service.keys import Key
from service.receive.uploads import find_upload, offset_of, remove_upload
from service.release.kept import last_release
from service.sites import with_specialists
from service.state import Service, service_of
from service.storage.audit import note
from service.storage.database import database_now
from service.storage.drafts import Draft, Drafts
from service.storage.tables import ExchangeRow, InputRow, PreviewRow, UploadRow, VisitRow

MAX_RECORD_BYTES = 8_000_000
MAX_PREVIEW_BYTES = 1_000_000
MOST_NEWS = 100
PIECE_BYTES = 256 * 1024

router = APIRouter(
    prefix="/v1/node",
    tags=["nodes"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)


async def node_key(key: CurrentKey) -> Key:
    """The key of the request, which has to be a node's."""
    if key.role != "node":
        raise Forbidden
    return key


NodeKey = Annotated[Key, Depends(node_key)]
VisitId = Annotated[Id, Path()]
Index = Annotated[int, Path(ge=0, lt=1000)]
_RECORD: dict[str, Any] = {
    "received_at": "2026-11-30T07:30:00Z",
    "started_at": "2026-11-30T07:30:00Z",
    "completed_at": "2026-11-30T07:30:01Z",
    "status": "complete",
    "context": "{}",
    "assessment": '{"organs": {}, "inputs": [], "models": []}',
    "study_uid": None,
    "accession_number": None,
    "body_hash": 64 * "0",
    "files": [],
    "followup": {},
}
_SENT = {"upload": "0b5c8f0e-7a51-4c0d-9d5e-3f1c2a6b7d88", "encoding": "gzip"}
_JSON: dict[str, Any] = {"content": {"application/json": {"schema": {"type": "object"}, "example": _RECORD}}}


@router.get("/news")
async def get_news(request: Request, key: NodeKey) -> News:
    """What has changed at the centre that the node has to exchange, and whom its doctors can ask."""
    database = service_of(request).database
    visits = await database.read(lambda session: changed_at_centre(session, key.site, MOST_NEWS))
    specialists = await database.read(with_specialists)
    kept = await asyncio.to_thread(last_release, service_of(request).settings.bundles)
    release = kept.release.number if kept else None
    return News(now=datetime.now(UTC), visits=tuple(visits), specialists=specialists, release=release)


@router.put(
    "/visits/{visit_id}",
    responses=problem_responses(errors.VisitDiffers, errors.BodyTooLarge),
    openapi_extra={"requestBody": _JSON},
)
async def put_visit(request: Request, key: NodeKey, visit_id: VisitId) -> Answer:
    """Exchange a finished visit: all that the node has of it, for all that the centre has. It may be sent again."""
    body = await _body(request, MAX_RECORD_BYTES)
    try:
        record = await asyncio.to_thread(VisitRecord.model_validate_json, body)
    except ValidationError as error:
        raise InvalidRequest(*field_faults(error.errors(include_url=False))) from None

    def merge(session: Session) -> Answer:
        return take(session, key.site, key.id, visit_id, record, database_now(session))

    database = service_of(request).database
    try:
        return await database.write(merge)
    except IntegrityError:  # PostgreSQL: the same record came twice at the same time
        return await database.write(merge)


@router.put(
    "/visits/{visit_id}/inputs/{index}/preview",
    status_code=204,
    response_class=Response,
    responses=problem_responses(errors.NotFound, errors.BodyTooLarge),
    openapi_extra={"requestBody": {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def put_preview(request: Request, key: NodeKey, visit_id: VisitId, index: Index) -> Response:
    """A smaller picture of a film that has not come yet, as JPEG."""
    service = service_of(request)
    await service.database.read(lambda session: _awaited(session, key, visit_id, index))
    content = await _body(request, MAX_PREVIEW_BYTES)

    def keep() -> str:
        drafts = Drafts(service.store.drafts)
        try:
            draft = drafts.new()
            draft.write(content)
            service.store.put(draft)
            return draft.sha256
        finally:
            drafts.remove()

    sha256 = await asyncio.to_thread(keep)
    preview = PreviewRow(visit_id=visit_id, index=index, sha256=sha256, n_bytes=len(content))

    def insert(session: Session) -> None:
        session.merge(preview)
        note(session, "file_received", visit_id, index=index, sha256=sha256, preview=True)

    await service.database.write(insert)
    return Response(status_code=204)


class SentFile(BaseModel):
    """A finished upload that is the file of a visit, as it is or compressed."""

    model_config = ConfigDict(extra="forbid")

    upload: Id
    encoding: Literal["identity", "gzip"] = "identity"


@router.put(
    "/visits/{visit_id}/inputs/{index}",
    status_code=204,
    response_class=Response,
    responses=problem_responses(errors.NotFound, errors.UploadGone, errors.UploadUnfinished, errors.FileDiffers),
    openapi_extra={"requestBody": {"content": {"application/json": {"example": _SENT}}}},
)
async def put_file(request: Request, key: NodeKey, visit_id: VisitId, index: Index, sent: SentFile) -> Response:
    """Make an upload the file of a visit. A file that is here already is kept, and the upload removed."""
    service = service_of(request)
    file = await service.database.read(lambda session: _posted(session, key, visit_id, index))
    row = await find_upload(service, key, sent.upload)
    if file.awaited:
        if (offset := await offset_of(service, row)) != row.n_bytes:
            raise UploadUnfinished(offset, row.n_bytes)
        await asyncio.to_thread(_keep, service, row, sent.encoding, file)
        await service.database.write(partial(_has_come, visit_id, index, file.sha256))
    await remove_upload(service, row)
    return Response(status_code=204)


def _keep(service: Service, row: UploadRow, encoding: str, file: InputRow) -> None:
    """Put an uploaded file in the store, if it is the file that was announced.

    Raises
    ------
    FileDiffers
        It is not.
    """
    drafts = Drafts(service.store.drafts)
    try:
        draft = drafts.new()
        with service.pieces.open(row.id) as content:
            unpacked = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
            while piece := content.read(PIECE_BYTES):
                while piece:
                    _write(draft, unpacked.decompress(piece, PIECE_BYTES) if unpacked else piece, file.n_bytes)
                    piece = unpacked.unconsumed_tail if unpacked else b""
            if unpacked:
                _write(draft, unpacked.flush(), file.n_bytes)
        if draft.sha256 != file.sha256:
            raise FileDiffers
        service.store.put(draft)
    except zlib.error:
        raise FileDiffers from None
    finally:
        drafts.remove()


def _write(draft: Draft, piece: bytes, at_most: int) -> None:
    if draft.n_bytes + len(piece) > at_most:
        raise FileDiffers
    draft.write(piece)


def _posted(session: Session, key: Key, visit_id: str, index: int) -> InputRow:
    """The file of a visit that came from this node.

    Raises
    ------
    NotFound
    """
    query = select(InputRow).join(VisitRow, VisitRow.id == InputRow.visit_id)
    query = query.join(ExchangeRow, ExchangeRow.visit_id == VisitRow.id)
    row = session.scalars(
        query.where(InputRow.visit_id == visit_id, InputRow.index == index, VisitRow.site == key.site)
    ).one_or_none()
    if row is None:
        raise NotFound
    return row


def _awaited(session: Session, key: Key, visit_id: str, index: int) -> InputRow:
    row = _posted(session, key, visit_id, index)
    if row.field != "image":
        raise NotFound
    return row


def _has_come(visit_id: str, index: int, sha256: str, session: Session) -> None:
    one = update(InputRow).where(InputRow.visit_id == visit_id, InputRow.index == index)
    session.execute(one.values(awaited=None))
    note(session, "file_received", visit_id, index=index, sha256=sha256)


async def _body(request: Request, at_most: int) -> bytes:
    """The body, unpacked where it is compressed.

    Raises
    ------
    BodyTooLarge
        It is larger than ``at_most`` bytes.
    InvalidRequest
        It cannot be unpacked.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise InvalidRequest(FieldFault("Content-Encoding", "field_invalid", "gzip"))
    unpacked = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    content = b""
    try:
        async for piece in request.stream():
            content += unpacked.decompress(piece, at_most + 1 - len(content)) if unpacked else piece
            if len(content) > at_most or (unpacked and unpacked.unconsumed_tail):
                raise BodyTooLarge("", f"{at_most // 1_000_000} MB")
    except zlib.error:
        raise InvalidRequest(FieldFault("body", "field_invalid", "gzip")) from None
    if unpacked and not unpacked.eof:
        raise InvalidRequest(FieldFault("body", "field_invalid", "gzip"))
    return content
