"""Signed webhooks.

The signature covers the time and the body: neither can be changed, and a receiver can refuse an old request that is
sent again. ``docs/reference/delivery.md`` shows how a receiver checks it.

References
----------
RFC 2104 (HMAC), FIPS 180-4 (SHA-256).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time

import httpx

from data_specs.visit.report import Report
from service.delivery.message import Delivery
from service.delivery.senders.http import expect_success, status_of


async def send(
    client: httpx.AsyncClient, delivery: Delivery, report: Report, rendered: bytes | None, *, timeout_s: float
) -> None:
    """Post the event.

    Parameters
    ----------
    rendered
        The report as JSON; ``None``: the event has only a link to it.

    Raises
    ------
    NotDelivered
    """
    body = event_body(delivery.key, report, rendered)
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": delivery.key,
        "Sangloc-Version": str(delivery.version),
        "Sangloc-Signature": signature(delivery.secret or "", body, int(time.time())),
    }
    expect_success(
        *await status_of(client, "POST", delivery.address, headers=headers, content=body, timeout_s=timeout_s)
    )


def event_body(key: str, report: Report, rendered: bytes | None) -> bytes:
    """The event as JSON, with ``rendered`` unchanged in it; every attempt sends the same bytes."""
    event = {
        "id": key,
        "type": "report.issued",
        "visit": report.visit,
        "version": report.version,
        "status": report.status,
        "priority": report.priority,
        "issued_at": report.issued_at.isoformat(),
        "href": f"/v1/visits/{report.visit}/report.json?version={report.version}",
    }
    body = json.dumps(event).encode()
    return body if rendered is None else body[:-1] + b', "report": ' + rendered + b"}"


def signature(secret: str, body: bytes, at: int) -> str:
    """``t=…,v1=…``: the signature of ``body`` at the Unix time ``at``, in seconds."""
    mac = hmac.new(secret.encode(), str(at).encode() + b"." + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"
