"""Messages about alarms, signed as the webhooks of reports are (:mod:`service.delivery.senders.webhook`)."""

from __future__ import annotations

import time

import httpx

from service.delivery.senders.http import expect_success, status_of
from service.delivery.senders.webhook import signature


async def send(
    client: httpx.AsyncClient, address: str, secret: str, notice_id: str, body: bytes, *, timeout_s: float
) -> None:
    """Post a message; every attempt sends the same bytes under the same ``notice_id``.

    Raises
    ------
    NotDelivered
    """
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": notice_id,
        "Sangloc-Signature": signature(secret, body, int(time.time())),
    }
    expect_success(*await status_of(client, "POST", address, headers=headers, content=body, timeout_s=timeout_s))
