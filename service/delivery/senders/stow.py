"""STOW-RS: DICOM files to a DICOMweb server. All of it blocks.

References
----------
DICOM PS3.18, section 10.5 (Store transaction), annex I.2 (its response), annex F (DICOM JSON); RFC 2387
(multipart/related).
"""

from __future__ import annotations

import json
import ssl
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from service.delivery.message import Delivery, NotDelivered
from service.delivery.senders.dicom import check_status
from service.delivery.senders.http import authorization, expect_success, reason_of
from service.delivery.senders.outside_http import OutsideBlockingTransport

MAX_ANSWER_BYTES = 1_000_000


def send(delivery: Delivery, files: Sequence[bytes], *, timeout_s: float) -> None:
    """Send the DICOM files of one report.

    Raises
    ------
    NotDelivered
    """
    inside = delivery.may_be_inside
    stow(delivery.address, files, secret=delivery.secret, timeout_s=timeout_s, may_be_inside=inside)


def stow(url: str, files: Sequence[bytes], *, secret: str | None, timeout_s: float, may_be_inside: bool = True) -> None:
    """Post DICOM files to a DICOMweb server.

    Parameters
    ----------
    url
        The service's root (``https://archive.example/dicom-web``) or its ``…/studies``.
    secret
        A bearer token, or a whole ``Authorization`` (``Basic …``).
    may_be_inside
        Whether the server may be inside our own network.

    Raises
    ------
    NotDelivered
        The server did not answer, refused them, or lists one as failed.
    """
    boundary = f"sangloc-{uuid.uuid4().hex}"
    headers = {
        "Accept": "application/dicom+json",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(sum(map(len, _pieces(files, boundary)))),
        **authorization(secret),
    }
    address = url.rstrip("/")
    address = address if address.endswith("/studies") else f"{address}/studies"
    ends = time.monotonic() + timeout_s
    context = ssl.create_default_context()
    transport = None if may_be_inside else OutsideBlockingTransport(context)
    try:
        with (
            httpx.Client(timeout=timeout_s, verify=context, transport=transport, trust_env=False) as client,
            client.stream("POST", address, content=_pieces(files, boundary), headers=headers) as answer,
        ):
            body = _read(answer.iter_bytes(), ends)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        raise NotDelivered("address", permanent=True) from None
    except httpx.TimeoutException:
        raise NotDelivered("timeout") from None
    except (httpx.HTTPError, OSError) as error:
        raise NotDelivered(reason_of(error)) from None
    if answer.status_code != 409:  # its body says which objects failed
        expect_success(answer.status_code, answer.headers)
    _check_response(body, answer.status_code)


def _pieces(files: Sequence[bytes], boundary: str) -> Iterator[bytes]:
    for file in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield file
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _read(pieces: Iterator[bytes], ends: float) -> bytes:
    """The answer's body, up to a size and a time of the process's clock."""
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise NotDelivered("answer_too_large")
        if time.monotonic() > ends:
            raise NotDelivered("timeout")
    return bytes(body)


def _check_response(body: bytes, status: int) -> None:
    """Check the Store Instances Response: every failure counts, but an object that is there already is none.

    References
    ----------
    DICOM PS3.18, section I.2.2 (FailedSOPSequence, OtherFailuresSequence).
    """
    failed, others = _failure_reasons(body, "00081198"), _failure_reasons(body, "0008119A")
    for reason in (*failed, *others):
        if reason is None:
            raise NotDelivered("stow_failed")
        check_status(reason)
    if status == 409 and not (failed or others):  # refused as a whole, without a reason
        raise NotDelivered("http_409", permanent=True)


def _failure_reasons(body: bytes, sequence: str) -> list[int | None]:
    if not body.strip():
        return []
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise NotDelivered("answer_unreadable") from None
    document = found[0] if isinstance(found, list) and found else found
    element = document.get(sequence) if isinstance(document, dict) else None
    items = element.get("Value") if isinstance(element, dict) else None
    return [_reason(item) for item in items] if isinstance(items, list) else []


def _reason(item: Any) -> int | None:
    """FailureReason (0008,1197) of one item."""
    element = item.get("00081197") if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    if isinstance(values, list) and values and isinstance(values[0], int) and 0 <= values[0] <= 0xFFFF:
        return values[0]
    return None
