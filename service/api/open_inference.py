"""``/v2``: the Open Inference Protocol, by which common tools run the same models and batchers as visits.

It is for operators who test and measure the models: a tensor is not linked to a person, and nothing is stored. Refusals
have the protocol's own form, ``{"error": "…"}`` (:mod:`service.api.refusals`). A site's or an admin's key may infer;
metadata and health need no key, like ``/v1/models`` and ``/readyz``.

References
----------
Open Inference Protocol v2, HTTP/REST: health, server metadata, model metadata, inference; the binary tensor data
extension, and of the model repository extension the index.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import structlog
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from service import errors
from service.api.refusals import protocol_responses
from service.api.session import CurrentKey
from service.errors import (
    BodyTooLarge,
    FieldFault,
    Forbidden,
    InvalidRequest,
    ModelFault,
    ModelUnknown,
    Unavailable,
    UnsupportedMediaType,
)
from service.faults import quoted_value
from service.keys import Key
from service.protocols.tensors import (
    FINITE,
    RETRY_AFTER_S,
    Array,
    InputSpec,
    TensorSpec,
    datatype_of,
    read_request,
    write_answer,
)
from service.state import Service, service_of

if TYPE_CHECKING:
    from inference.bundles.loading import Bundle
    from inference.runtime.batcher import Batcher

ROWS_AT_ONCE = 16
PIECES_AHEAD = 2
"""A request's rows go to the batcher in pieces, a few at a time, so that a visit waits for these pieces and not for
the whole request."""
ALIGNED = 64
SMALL = 50_000
"""Bytes of JSON to read, or values to write, up to which a thread would cost more time than it saves."""
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""``deflate`` is the zlib format (RFC 9110, section 8.4.1.2)."""

router = APIRouter(prefix="/v2", tags=["open inference"])
log = structlog.get_logger()

Name = Annotated[str, Path(max_length=60, description="Name of a bundle: lung, cardiac, kidney, cxr_gate")]
Version = Annotated[str, Path(max_length=60, description="The version in service; other versions are not served")]
_MODEL = protocol_responses(errors.InvalidRequest, errors.ModelUnknown, errors.Unavailable)
_INFER: dict[str, Any] = {
    "responses": {
        200: {"content": {"application/json": {}, "application/octet-stream": {}}},
        **protocol_responses(
            errors.InvalidRequest,
            errors.Unauthorised,
            errors.Forbidden,
            errors.ModelUnknown,
            errors.BodyTooLarge,
            errors.BodyTooSlow,
            errors.UnsupportedMediaType,
            errors.QueueFull,
            errors.ModelFault,
            errors.Unavailable,
        ),
    },
    "response_class": Response,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": "JSON; with `Inference-Header-Content-Length`, JSON and then the binary tensors",
            "content": {"application/json": {}, "application/octet-stream": {}},
        }
    },
}


# ------------------------------------------------------------------ server
@router.get("")
async def server_metadata(request: Request) -> dict[str, Any]:
    """Name and version of the server, and its extensions of the protocol."""
    return {"name": "sangloc", "version": request.app.version, "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
async def server_live() -> dict[str, bool]:
    """The process answers."""
    return {"live": True}


@router.get("/health/ready", responses=protocol_responses(errors.Unavailable))
async def server_ready(request: Request) -> dict[str, bool]:
    """Whether the bundles are loaded and the service is not draining."""
    if not service_of(request).available:
        raise Unavailable(retry_after_s=1)
    return {"ready": True}


@router.post(
    "/repository/index",
    responses=protocol_responses(errors.Unavailable),
    openapi_extra={"requestBody": {"description": "Not used", "content": {"application/json": {}}}},
)
async def repository_index(request: Request) -> list[dict[str, str]]:
    """The bundles in service."""
    await request.body()
    models = {name: _bundle(service_of(request), name) for name in _engine(service_of(request)).bundles}
    return [
        {"name": name, "version": bundle.manifest.version, "state": "READY", "reason": ""}
        for name, bundle in models.items()
    ]


# ------------------------------------------------------------------ a model
@router.get("/models/{name}", responses=_MODEL)
async def model_metadata(request: Request, name: Name) -> dict[str, Any]:
    """Inputs and outputs of a model; -1 stands for the number of rows."""
    return await _metadata(request, name, None)


@router.get("/models/{name}/versions/{version}", responses=_MODEL)
async def version_metadata(request: Request, name: Name, version: Version) -> dict[str, Any]:
    """As without a version, if it is the version in service."""
    return await _metadata(request, name, version)


async def _metadata(request: Request, name: str, version: str | None) -> dict[str, Any]:
    service = service_of(request)
    bundle = _bundle(service, name, version)
    return {
        "name": name,
        "versions": [bundle.manifest.version],
        "platform": "onnx_onnxv1",
        "inputs": [input_of(bundle).metadata()],
        "outputs": [each.metadata() for each in await _outputs(service, name, bundle)],
    }


@router.get("/models/{name}/ready", responses=_MODEL)
async def model_ready(request: Request, name: Name) -> dict[str, Any]:
    """Whether a model is in service."""
    return _readiness(request, name, None)


@router.get("/models/{name}/versions/{version}/ready", responses=_MODEL)
async def version_ready(request: Request, name: Name, version: Version) -> dict[str, Any]:
    """Whether this version of a model is in service."""
    return _readiness(request, name, version)


def _readiness(request: Request, name: str, version: str | None) -> dict[str, Any]:
    service = service_of(request)
    _bundle(service, name, version)
    if not service.available:
        raise Unavailable(retry_after_s=1)
    return {"name": name, "ready": True}


@router.post("/models/{name}/infer", **_INFER)
async def infer(request: Request, key: CurrentKey, name: Name) -> Response:
    """Outputs for rows, computed in the same batches as visits."""
    return await _infer(request, key, name, None)


@router.post("/models/{name}/versions/{version}/infer", **_INFER)
async def infer_version(request: Request, key: CurrentKey, name: Name, version: Version) -> Response:
    """As without a version, if it is the version in service."""
    return await _infer(request, key, name, version)


# ------------------------------------------------------------------ inference
async def _infer(request: Request, key: Key, name: str, version: str | None) -> Response:
    service = service_of(request)
    if not key.may_post:
        raise Forbidden
    if not service.available:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    bundle = _bundle(service, name, version)
    manifest = bundle.manifest
    n_json, n_bytes = _count(request, "inference-header-content-length"), _count(request, "content-length")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *_WINDOW):
        raise UnsupportedMediaType(f"Content-Encoding: {encoding[:20]}", ", ".join(_WINDOW))
    most = service.settings.max_upload_bytes
    with service.tensors.hold_bytes(key.id, most if n_bytes is None or encoding in _WINDOW else n_bytes):
        body = await _read_body(request, n_bytes, n_json)
        if encoding in _WINDOW:
            body = await asyncio.to_thread(_inflated, body, encoding, service)
        max_rows = service.settings.max_infer_rows
        arguments = (body, n_json, input_of(bundle), manifest.outputs, max_rows)
        large = (len(body) if n_json is None else n_json) > SMALL
        asked = await asyncio.to_thread(read_request, *arguments) if large else read_request(*arguments)
        with service.tensors.hold_rows(key.id, len(asked.rows)):
            results = await _unless_left(request, _run(service, name, manifest.version, asked.rows))
        model = {"model_name": name, "model_version": manifest.version}
        n_values = sum(result.size for result in results)
        answer = (model, asked, manifest.outputs, results)
        content, n_head = await asyncio.to_thread(write_answer, *answer) if n_values > SMALL else write_answer(*answer)
    log.info("tensors_inferred", key=key.id, model=name, version=manifest.version, rows=len(asked.rows))
    if n_head is None:
        return Response(content, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(n_head)}
    return Response(content, headers=headers, media_type="application/octet-stream")


async def _read_body(request: Request, n_bytes: int | None, n_json: int | None) -> memoryview:
    """The whole body in one buffer, its binary part aligned for every datatype."""
    if n_bytes is None:
        return memoryview(b"".join([chunk async for chunk in request.stream()]))
    shift = -(n_json or 0) % ALIGNED
    buffer = memoryview(bytearray(shift + n_bytes))
    at = shift
    async for chunk in request.stream():
        buffer[at : at + len(chunk)] = chunk
        at += len(chunk)
    return buffer[shift:at]


def _inflated(body: memoryview, encoding: str, service: Service) -> memoryview:
    most = service.settings.max_upload_bytes
    unpack = zlib.decompressobj(_WINDOW[encoding])
    try:
        plain = unpack.decompress(body, most + 1)
    except zlib.error:
        raise InvalidRequest(FieldFault("body", "body_malformed", encoding)) from None
    if len(plain) > most:
        raise BodyTooLarge("", f"{service.settings.max_upload_mb} MB")
    if not unpack.eof:
        raise InvalidRequest(FieldFault("body", "body_malformed", encoding))
    return memoryview(plain)


async def _run(service: Service, name: str, version: str, rows: Array) -> tuple[Array, ...]:
    """Outputs for all rows, from the batcher of this version."""
    from inference.runtime.batcher import InferenceFailed  # noqa: PLC0415  it imports the runtimes, which are loaded by now

    turn = asyncio.Semaphore(PIECES_AHEAD)

    async def piece(at: int) -> tuple[Array, ...]:
        async with turn:
            _bundle(service, name, version)
            batcher: Batcher = _engine(service).batchers[name]
            return await batcher.infer(rows[at : at + ROWS_AT_ONCE])

    pieces = [asyncio.ensure_future(piece(at)) for at in range(0, len(rows), ROWS_AT_ONCE)]
    try:
        found = await asyncio.gather(*pieces)
    except InferenceFailed as failure:
        if failure.code == "closed":  # the version was replaced a moment ago
            raise Unavailable(retry_after_s=1) from None
        if failure.code == "not_finite":
            raise InvalidRequest(FieldFault("outputs.0.data", "field_invalid", FINITE)) from None
        raise ModelFault(failure.code) from None
    finally:
        for task in pieces:
            task.cancel()
    return found[0] if len(found) == 1 else tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


async def _unless_left(request: Request, work: Any) -> tuple[Array, ...]:
    """The result of ``work``; if the client leaves, ``work`` is cancelled and its rows leave the queue.

    Raises
    ------
    ClientDisconnect
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        result: tuple[Array, ...] = working.result()
        return result
    finally:
        working.cancel()
        leaving.cancel()


# ------------------------------------------------------------------ what is in service
def _engine(service: Service) -> Any:
    if service.engine is None:
        raise Unavailable(retry_after_s=1)
    return service.engine


def _bundle(service: Service, name: str, version: str | None = None) -> Bundle:
    """The bundle in service under ``name``.

    Raises
    ------
    ModelUnknown
        There is none, or another version is in service.
    """
    bundles = _engine(service).bundles
    bundle: Bundle | None = bundles.get(name)
    if bundle is None or version not in (None, bundle.manifest.version):
        known = ", ".join(f"{each} {bundles[each].manifest.version}" for each in bundles)
        shown = "".join(each for each in f"{name} {version or ''}" if each.isprintable()).strip()
        raise ModelUnknown(shown, known)
    return bundle


def input_of(bundle: Bundle) -> InputSpec:
    """The input of a bundle, from its manifest."""
    given = bundle.manifest.input
    if given.modality == "cxr":
        return InputSpec("input", "UINT8", (1, given.size_px, given.size_px))
    if given.modality == "ecg":
        return InputSpec("input", "FP32", (len(given.leads), given.n_samples))
    return InputSpec("input", "FP32", (len(given.features),), unknown=True)


async def _outputs(service: Service, name: str, bundle: Bundle) -> tuple[TensorSpec, ...]:
    """The outputs, found by running one golden row: the manifest has only their names."""
    manifest = bundle.manifest
    known = service.tensors.outputs
    if manifest.weights.sha256 not in known:
        row = await asyncio.to_thread(_golden_row, bundle)
        results = await _run(service, name, manifest.version, row)
        known[manifest.weights.sha256] = tuple(
            TensorSpec(output, datatype_of(values), values.shape[1:])
            for output, values in zip(manifest.outputs, results, strict=True)
        )
    return known[manifest.weights.sha256]


def _golden_row(bundle: Bundle) -> Array:
    with np.load(bundle.folder / bundle.manifest.golden.path, allow_pickle=False) as golden:
        row: Array = golden["input"][:1]
    return row


def _count(request: Request, header: str) -> int | None:
    given = request.headers.get(header)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise InvalidRequest(FieldFault(header, "field_invalid", "0, 1, 2 …", quoted_value(given)))
    return int(given)
