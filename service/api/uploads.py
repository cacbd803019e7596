"""``/v1/uploads``: resumable upload by the tus protocol, for connections that break before a large file has passed.

Core, creation, expiration and termination of version 1.0.0. Of ``Upload-Metadata`` the service keeps ``filename`` and
``field`` (``image`` or ``ecg``), and returns those. Not offered: checksum (of a piece that was cut off, the bytes that
have arrived are kept, which a checksum would not allow), concatenation, and an upload without a length.

References
----------
https://tus.io/protocols/resumable-upload, version 1.0.0 (2016-03-25).
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from data_specs.visit.contract import Visit
from service import errors
from service.api.examples import ACCEPT_LANGUAGE, IDEMPOTENCY_KEY, PREFER, header
from service.api.refusals import problem_response, problem_responses
from service.api.session import CurrentKey
from service.api.visits import finished_or_not
from service.errors import (
    BodyTooLarge,
    FieldFault,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    ServiceError,
    TusVersion,
    UnsupportedMediaType,
)
from service.faults import BETWEEN, quoted_name, quoted_value
from service.receive.accept import idempotency_key_of
from service.receive.context import read_context
from service.receive.posted import MAX_CONTEXT_BYTES, clean_filename
from service.receive.uploaded_visit import MAX_PER_VISIT, visit_of_uploads
from service.receive.uploads import (
    append_body,
    find_upload,
    offset_of,
    open_upload,
    remove_upload,
)
from service.state import service_of
from service.storage.tables import UploadRow

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,termination"
PIECE = "application/offset+octet-stream"
MAX_METADATA = 4096
NO_STORE = {"Cache-Control": "no-store"}


class TusRoute(APIRoute):
    """Accepts version 1.0.0 only, and names it in every answer, also in refusals."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def in_version(request: Request) -> Response:
            try:
                if request.method != "OPTIONS" and request.headers.get("tus-resumable") != VERSION:
                    raise TusVersion("", VERSION)
                response = await answer(request)
            except ServiceError as error:
                response = problem_response(error, request)
                if isinstance(error, TusVersion):
                    response.headers["Tus-Version"] = VERSION
            response.headers["Tus-Resumable"] = VERSION
            return response

        return in_version


tus = APIRouter(
    prefix="/v1/uploads",
    route_class=TusRoute,
    tags=["uploads"],
    responses=problem_responses(errors.Unauthorised, errors.Forbidden, errors.InvalidRequest, errors.InternalFault),
)
router = APIRouter()

UploadId = Annotated[str, Path(max_length=40, description="Last part of the upload's `Location`")]
_STATE = {
    "Upload-Offset": {"description": "Bytes that have arrived and are on disk", "schema": {"type": "integer"}},
    "Upload-Expires": {"description": "When it expires", "schema": {"type": "string"}},
}
_RESUMABLE = header("Tus-Resumable", "Version of the protocol", VERSION, required=True, const=VERSION)
_LENGTH = header("Upload-Length", "Bytes of the file", "5000000", required=True, type="integer", minimum=0)
_OFFSET = header("Upload-Offset", "Bytes that have arrived", "0", required=True, type="integer", minimum=0)
_ABOUT = header(
    "Upload-Metadata",
    "`filename` and `field` (`image` or `ecg`), each with its value in base64, separated by commas",
    "filename ZmlsbS5kY20=,field aW1hZ2U=",
    maxLength=MAX_METADATA,
)
_GONE = problem_responses(errors.NotFound, errors.UploadGone, errors.TusVersion)


@tus.options("", status_code=204, response_class=Response)
async def get_protocol(request: Request) -> Response:
    """The parts of the protocol that are offered. No key is needed."""
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(service_of(request).settings.max_upload_bytes),
    }
    return Response(status_code=204, headers=headers)


@tus.post(
    "",
    status_code=201,
    response_class=Response,
    responses={
        201: {"description": "Created: send its bytes to `Location`"},
        **problem_responses(
            errors.TusVersion, errors.BodyTooLarge, errors.InvalidRequest, errors.TooManyUploads, errors.InternalFault
        ),
    },
    openapi_extra={"parameters": [_RESUMABLE, _LENGTH, _ABOUT]},
)
async def post_upload(request: Request, key: CurrentKey) -> Response:
    """Begin an upload of `Upload-Length` bytes."""
    if not key.may_upload:
        raise Forbidden
    n_bytes = _number(request, "Upload-Length")
    about = _metadata(request.headers.get("upload-metadata", ""))
    field = about.get("field", "")
    if field not in ("", "image", "ecg"):
        raise InvalidRequest(FieldFault("Upload-Metadata: field", "field_invalid", "image | ecg", quoted_value(field)))
    filename = clean_filename(about.get("filename", ""))
    row = await open_upload(service_of(request), key, n_bytes, filename, field)
    headers = {"Location": f"/v1/uploads/{row.id}", "Upload-Offset": "0", **_expires(row)}
    return Response(status_code=201, headers=headers)


@tus.get(
    "/{upload_id}",
    response_class=Response,
    responses={200: {"description": "How many bytes have arrived", "headers": _STATE, "content": {}}, **_GONE},
    openapi_extra={"parameters": [_RESUMABLE]},
)
async def get_upload(request: Request, key: CurrentKey, upload_id: UploadId) -> Response:
    """How many bytes of an upload have arrived. Use HEAD."""
    service = service_of(request)
    row = await find_upload(service, key, upload_id)
    headers = {
        "Upload-Offset": str(await offset_of(service, row)),
        "Upload-Length": str(row.n_bytes),
        **_expires(row),
        **NO_STORE,
    }
    kept = {name: value for name, value in (("filename", row.filename), ("field", row.field)) if value}
    if kept:
        headers["Upload-Metadata"] = ",".join(f"{name} {b64encode(kept[name].encode()).decode()}" for name in kept)
    return Response(headers=headers)


@tus.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "Received, and on disk", "headers": _STATE},
        **_GONE,
        **problem_responses(
            errors.OffsetMismatch,
            errors.BodyTooLarge,
            errors.BodyTooSlow,
            errors.UnsupportedMediaType,
            errors.InvalidRequest,
            errors.InternalFault,
        ),
    },
    openapi_extra={
        "parameters": [_RESUMABLE, _OFFSET],
        "requestBody": {"content": {PIECE: {"schema": {"type": "string", "format": "binary"}}}},
    },
)
async def patch_upload(request: Request, key: CurrentKey, upload_id: UploadId) -> Response:
    """Send the bytes from `Upload-Offset` on. If the connection breaks, the bytes that have arrived are kept."""
    service = service_of(request)
    row = await find_upload(service, key, upload_id)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != PIECE:
        raise UnsupportedMediaType(kind[:60], PIECE)
    offset = _number(request, "Upload-Offset")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and offset + int(declared) > row.n_bytes:
        raise BodyTooLarge("", f"{max(0, row.n_bytes - offset)} B")
    offset = await append_body(service, row, offset, request.stream())
    return Response(status_code=204, headers={"Upload-Offset": str(offset), **_expires(row)})


@tus.delete(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    responses=_GONE,
    openapi_extra={"parameters": [_RESUMABLE]},
)
async def delete_upload(request: Request, key: CurrentKey, upload_id: UploadId) -> Response:
    """Delete an upload."""
    service = service_of(request)
    await remove_upload(service, await find_upload(service, key, upload_id))
    return Response(status_code=204)


@tus.post("/{upload_id}", include_in_schema=False)
async def overridden(request: Request, key: CurrentKey, upload_id: UploadId) -> Response:
    """For clients whose proxy does not pass PATCH: the method is in ``X-HTTP-Method-Override``."""
    method = request.headers.get("x-http-method-override", "").upper()
    routes = {"PATCH": patch_upload, "DELETE": delete_upload, "HEAD": get_upload}
    if method not in routes:
        raise MethodNotAllowed("POST")
    return await routes[method](request, key, upload_id)


@router.post(
    "/v1/uploads/visit",
    status_code=201,
    response_model=Visit,
    tags=["uploads"],
    responses={
        201: {"description": "The finished visit; for a repeated Idempotency-Key with the same body, the first visit"},
        202: {"description": "Accepted and on disk, not finished yet", "model": Visit},
        **problem_responses(
            errors.Unauthorised,
            errors.Forbidden,
            errors.NotFound,
            errors.UploadUnfinished,
            errors.UploadGone,
            errors.BodyTooLarge,
            errors.BodyTooSlow,
            errors.InvalidRequest,
            errors.QueueFull,
            errors.Unavailable,
            errors.InternalFault,
        ),
    },
    openapi_extra={
        "parameters": [IDEMPOTENCY_KEY, PREFER, ACCEPT_LANGUAGE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["uploads"],
                        "additionalProperties": False,
                        "properties": {
                            "uploads": {"type": "array", "items": {"type": "string"}, "maxItems": MAX_PER_VISIT},
                            "context": {
                                "type": ["object", "null"],
                                "description": "As the `context` of `POST /v1/visits`",
                            },
                        },
                    }
                }
            },
        },
    },
)
async def post_visit_of_uploads(request: Request, key: CurrentKey) -> Response:
    """Make a visit of complete uploads, as if their files were posted to `/v1/visits`. The uploads are then deleted."""
    if not key.may_post:
        raise Forbidden
    upload_ids, context = _asked(await _small_body(request))
    accepted = await visit_of_uploads(
        service_of(request), key, upload_ids, read_context(context), idempotency_key=idempotency_key_of(request)
    )
    return await finished_or_not(request, key, accepted.row)


router.include_router(tus)


async def _small_body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_CONTEXT_BYTES:
            raise BodyTooLarge("", f"{MAX_CONTEXT_BYTES // 1000} kB")
    return bytes(body)


def _asked(body: bytes) -> tuple[list[str], bytes]:
    """Ids of the uploads, and the context as JSON that is read later."""
    try:
        asked = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise InvalidRequest(FieldFault("body", "body_malformed", "JSON")) from None
    if not isinstance(asked, dict):
        raise InvalidRequest(FieldFault("body", "body_malformed", '{"uploads": ["…"], "context": {…}}'))
    for name in asked.keys() - {"uploads", "context"}:
        raise InvalidRequest(FieldFault(quoted_name(name), "field_unknown", BETWEEN.join(("uploads", "context"))))
    uploads = asked.get("uploads")
    if not isinstance(uploads, list) or not all(isinstance(each, str) for each in uploads):
        raise InvalidRequest(FieldFault("uploads", "field_invalid", '["…"]'))
    if len(uploads) > MAX_PER_VISIT:
        raise InvalidRequest(FieldFault("uploads", "field_too_many", str(MAX_PER_VISIT)))
    context = asked.get("context")
    return uploads, json.dumps({} if context is None else context).encode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of a JSON object; a repeated name is refused, since it is not clear which value is meant."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError
    return dict(pairs)


def _number(request: Request, header: str) -> int:
    given = request.headers.get(header, "")
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise InvalidRequest(FieldFault(header, "field_invalid", "0, 1, 2 …", quoted_value(given)))
    return int(given)


def _metadata(header: str) -> dict[str, str]:
    """``Upload-Metadata``: pairs of a key and a value in base64; an empty value is left out."""
    if len(header) > MAX_METADATA:
        raise InvalidRequest(FieldFault("Upload-Metadata", "field_too_large", f"{MAX_METADATA} B"))
    try:
        pairs = [pair.strip().partition(" ") for pair in header.split(",") if pair.strip()]
        return {name: b64decode(value.strip(), validate=True).decode("utf-8") for name, _, value in pairs}
    except ValueError:  # binascii.Error and UnicodeDecodeError are ValueErrors
        raise InvalidRequest(FieldFault("Upload-Metadata", "field_invalid", "filename <base64>")) from None


def _expires(row: UploadRow) -> dict[str, str]:
    return {"Upload-Expires": format_datetime(row.expires_at, usegmt=True)}
