"""``/v1/node/release``: the release that a centre offers its nodes, and its files in pieces.

References
----------
RFC 9110, sections 8.8.3 (ETag), 13.1.5 (If-Range) and 14 (Range); 12.5.3 (Accept-Encoding).
"""

from __future__ import annotations

import asyncio
import gzip
import re
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import AwareDatetime

from service import errors
from service.api.node import NodeKey
from service.api.refusals import problem_responses
from service.errors import FieldFault, InvalidRequest, NotFound
from service.exchange.nodes import note_node
from service.exchange.record import NodeState
from service.release.kept import last_release
from service.release.offered import MIN_BYTES, Sent, sent_file
from service.release.signed import Digest, SignedRelease
from service.state import service_of
from service.storage.database import database_now

PACKED_FOLDER = "packed"
"""In the data folder: the files of the release, compressed. They can be made again."""
_RANGE = re.compile(r"bytes=(\d{1,12})-(\d{0,12})", re.ASCII)
_GZIP = re.compile(r"(^|,)\s*gzip\s*(,|$|;\s*q=(1|0\.0{0,2}[1-9]))", re.ASCII | re.IGNORECASE)
"""``gzip`` in Accept-Encoding, with another weight than 0."""
_EXAMPLE = {
    "manifest": '{"format":1,"number":17,"signed_at":"2026-11-30T07:30:00Z","who":"maintainers","why":"fewer recalls",'
    '"bundles":[{"organ":"kidney","name":"kidney","version":"1.2.0","files":[{"path":"screening.json",'
    '"n_bytes":20518,"sha256":"f2aea6a23d3d6b022be4c69e38f11621a6c6d7877e0df9e6ac442c067748ad31"}]}],"tables":{}}',
    "signature": "mJ1s0yVJ0n1mVQ4f9l0tq2W3o7b2uUuK0c3r8n9y3m1o5t3q0e1w2r4t6y8u0i1o3p5a7s9d1f3g5h7j9k1lCg==",
}
_OCTETS: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(
    prefix="/v1/node/release",
    tags=["nodes"],
    responses=problem_responses(
        errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.NotFound, errors.InternalFault
    ),
)


@router.get(
    "",
    response_class=Response,
    responses={200: {"model": SignedRelease, "content": {"application/json": {"example": _EXAMPLE}}}},
)
async def get_release(
    request: Request,
    key: NodeKey,
    number: Annotated[int | None, Query(ge=1, le=999_999_999)] = None,
    since: Annotated[AwareDatetime | None, Query()] = None,
    refused: Annotated[str | None, Query(pattern=r"^[a-z_]{1,60}$")] = None,
) -> Response:
    """The release that is offered, as it was signed. The node says which release it has, since when, and why it has
    refused this one; administrators of the centre see that."""
    service = service_of(request)
    state = NodeState(number=number, since=since, refused=refused)
    await service.database.write(lambda session: note_node(session, key.id, state, database_now(session)))
    kept = await asyncio.to_thread(last_release, service.settings.bundles)
    if kept is None:
        raise NotFound
    content = kept.signed.model_dump_json().encode()
    headers = {"Vary": "Accept-Encoding"}
    if len(content) >= MIN_BYTES and _may_be_packed(request):
        content = await asyncio.to_thread(gzip.compress, content, 6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(content, media_type="application/json", headers=headers)


@router.get(
    "/files/{sha256}",
    response_class=FileResponse,
    responses={
        200: {"content": _OCTETS, "description": "The whole file"},
        206: {"content": _OCTETS, "description": "The bytes that Range asks for, of what Content-Encoding names"},
    },
)
async def get_release_file(
    request: Request,
    _: NodeKey,
    sha256: Annotated[Digest, Path()],
    range_: Annotated[str | None, Header(alias="Range", description="One range: `bytes=0-262143`")] = None,
) -> Response:
    """A file of the release that is offered, by its digest: whole or in pieces, compressed where that pays."""
    service = service_of(request)
    settings = service.settings
    find = partial(sent_file, settings.bundles, settings.data_dir / PACKED_FOLDER, sha256)
    sent = await asyncio.to_thread(find, may_be_packed=_may_be_packed(request))
    if sent is None:
        raise NotFound
    _check_range(range_, sent)
    headers = {"ETag": f'"{sent.name}"', "Vary": "Accept-Encoding"}
    if sent.is_packed:
        headers["Content-Encoding"] = "gzip"
    return FileResponse(sent.path, media_type="application/octet-stream", headers=headers)


def _may_be_packed(request: Request) -> bool:
    return _GZIP.search(request.headers.get("accept-encoding", "")) is not None


def _check_range(text: str | None, sent: Sent) -> None:
    """Refuse a range that is not one, or that begins behind the end or its own end."""
    if text is None:
        return
    n_bytes = sent.path.stat().st_size
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) >= n_bytes or (match[2] and int(match[2]) < int(match[1])):
        raise InvalidRequest(FieldFault("Range", "field_invalid", f"bytes=0-{n_bytes - 1}"))
