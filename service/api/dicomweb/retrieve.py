"""WADO-RS: retrieval of the objects that the service makes; each is rendered when it is sent.

References
----------
DICOM PS3.18, section 8.7 (media types and how they are asked for), section 10.4 (Retrieve transaction), annex F (JSON);
RFC 2387 (multipart/related); RFC 9110, section 12.5.1 (Accept).
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Request
from python_multipart.multipart import parse_options_header

from service.api.dicomweb.query import Version
from service.errors import NotAcceptable
from service.report.render import dicom_file
from service.state import Service

if TYPE_CHECKING:
    from service.report.dicom.identity import MadeInstance

Found = Sequence[tuple["Version", "MadeInstance"]]

RELATED, DICOM, JSON = "multipart/related", "application/dicom", "application/dicom+json"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
"""Explicit VR Little Endian: the transfer syntax of all objects that are made, and the default of the protocol (PS3.18,
section 8.7.3.5.2)."""
MAX_ACCEPT = 2000


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One entry of ``Accept``."""

    kind: str
    options: dict[str, str]
    weight: float

    def covers(self, kind: str) -> bool:
        return self.kind in ("*/*", kind, f"{kind.partition('/')[0]}/*")


def chosen(request: Request, *offered: str) -> str:
    """The offered media type that the request prefers; the first, if it has no ``Accept``.

    ``multipart/related`` means one of DICOM objects. Another transfer syntax than ours is not acceptable.

    Raises
    ------
    NotAcceptable
        The request accepts none of them.
    """
    header = ",".join(request.headers.getlist("accept"))[:MAX_ACCEPT]
    ranges = _ranges(header) or [MediaRange("*/*", {}, 1.0)]
    for wanted in sorted(ranges, key=lambda each: -each.weight):
        for kind in offered:
            if wanted.weight and wanted.covers(kind) and _fits(wanted, kind):
                return kind
    shown = ", ".join(sorted({each.kind for each in ranges}))[:100]
    raise NotAcceptable(shown, ", ".join(offered))


def _fits(wanted: MediaRange, kind: str) -> bool:
    inner = wanted.options.get("type", DICOM)
    syntax = wanted.options.get("transfer-syntax", EXPLICIT_LITTLE)
    if kind == RELATED and inner not in (DICOM, "*/*", "application/*"):
        return False
    return kind not in (RELATED, DICOM) or syntax in ("*", EXPLICIT_LITTLE)


def _ranges(header: str) -> list[MediaRange]:
    found = []
    for entry in re.findall(r'(?:[^,"]|"[^"]*")+', header):
        kind, raw = parse_options_header(entry)
        options = {name.decode("latin-1").lower(): value.decode("latin-1").lower() for name, value in raw.items()}
        if b"/" in kind:
            found.append(MediaRange(kind.decode("latin-1").strip().lower(), options, _weight(options.get("q", "1"))))
    return found


def _weight(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](\.[0-9]{0,3})?", text, re.ASCII) and float(text) <= 1 else 0.0


# ---------------------------------------------------------------------- objects
async def as_related(service: Service, found: Found, boundary: str, root: str) -> AsyncIterator[bytes]:
    """The objects as parts of a ``multipart/related`` body; one at a time is in memory."""
    for version, instance in found:
        content = await dicom_file(service, version.report, version.language, instance)
        head = (
            f"--{boundary}\r\nContent-Type: {DICOM}; transfer-syntax={EXPLICIT_LITTLE}\r\n"
            f"Content-Location: {address_of(instance, root)}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        yield head.encode()
        yield content
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces, with the first one made before the answer begins: a failure then still gets its status."""
    first = await anext(pieces)

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them()


def new_boundary() -> str:
    return f"sangloc-{uuid.uuid4().hex}"


def address_of(instance: MadeInstance, root: str) -> str:
    series = f"{root}/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
    return f"{series}/instances/{instance.sop_instance_uid}"


# ---------------------------------------------------------------------- metadata and pictures
async def as_metadata(service: Service, found: Found) -> AsyncIterator[bytes]:
    """The objects' attributes without pixels, as one JSON array."""
    start = b"["
    for version, instance in found:
        content = await dicom_file(service, version.report, version.language, instance)
        yield start + await asyncio.to_thread(_metadata, content)
        start = b","
    yield b"]"


def _metadata(content: bytes) -> bytes:
    from pydicom import dcmread  # noqa: PLC0415  pydicom is loaded for DICOM only

    document: dict[str, Any] = dcmread(io.BytesIO(content), stop_before_pixels=True).to_json_dict()
    return json.dumps(document, ensure_ascii=False).encode()


async def as_picture(service: Service, found: Found, kind: str) -> bytes:
    """A secondary capture as PNG or JPEG.

    Raises
    ------
    NotAcceptable
        The object is not a secondary capture.
    """
    ((version, instance),) = found
    if instance.kind != "sc":
        raise NotAcceptable(kind, DICOM)
    content = await dicom_file(service, version.report, version.language, instance)
    return await asyncio.to_thread(_picture, content, kind)


def _picture(content: bytes, kind: str) -> bytes:
    from PIL import Image  # noqa: PLC0415  needed for pictures only
    from pydicom import dcmread  # noqa: PLC0415

    out = io.BytesIO()
    Image.fromarray(dcmread(io.BytesIO(content)).pixel_array).save(out, kind.partition("/")[2].upper())
    return out.getvalue()
