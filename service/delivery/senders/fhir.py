"""Documents to a FHIR server, each there once.

``PUT Bundle/{id}`` under an id made from visit and version: however often it is sent, there is one of it. A server
that takes no ids of others answers 405 and is given a conditional create by the bundle's identifier instead.

References
----------
HL7 FHIR R4, RESTful API: 3.1.0.4.1 (update as create), 3.1.0.8.1 (conditional create, ``If-None-Exist``).
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import httpx

from data_specs.visit.report import identifier
from service.delivery.message import Delivery, NotDelivered
from service.delivery.senders.http import expect_success, status_of

MEDIA_TYPE = "application/fhir+json"


async def send(client: httpx.AsyncClient, delivery: Delivery, rendered: bytes, *, timeout_s: float) -> None:
    """Put the document bundle on the server.

    Raises
    ------
    NotDelivered
    """
    bundle_id, bundle_identifier, content = await asyncio.to_thread(_named, delivery, rendered)
    base = f"{delivery.address.rstrip('/')}/Bundle"
    headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE, "Prefer": "return=minimal"}
    headers["Idempotency-Key"] = delivery.key
    if delivery.secret:
        headers["Authorization"] = delivery.secret if " " in delivery.secret else f"Bearer {delivery.secret}"
    if delivery.options.create == "put":
        address = f"{base}/{bundle_id}"
        if delivery.repeated and await _is_there(client, address, headers, timeout_s):
            return
        status, answer = await status_of(client, "PUT", address, headers=headers, content=content, timeout_s=timeout_s)
        if status != 405:
            expect(status, answer)
            return
    headers["If-None-Exist"] = f"identifier={bundle_identifier}"
    status, answer = await status_of(client, "POST", base, headers=headers, content=content, timeout_s=timeout_s)
    if status != 412:  # more than one has this identifier already: it is there
        expect(status, answer)


def expect(status: int, headers: httpx.Headers) -> None:
    """As ``expect_success``; 409 says that somebody else writes the same just now, which passes."""
    if status == 409:
        raise NotDelivered("http_409")
    expect_success(status, headers)


async def _is_there(client: httpx.AsyncClient, address: str, headers: dict[str, str], timeout_s: float) -> bool:
    """Whether an earlier attempt arrived after all; where we may write and not read, it is put again."""
    asked = {name: value for name, value in headers.items() if name in ("Accept", "Authorization")}
    status, _ = await status_of(client, "GET", address, headers=asked, timeout_s=timeout_s)
    return status == 200


def _named(delivery: Delivery, rendered: bytes) -> tuple[str, str, bytes]:
    """The bundle's id, its identifier as a search has it, and the bundle with both in it."""
    bundle: dict[str, Any] = json.loads(rendered)
    made = str(identifier(delivery.visit_id, delivery.version, "Bundle"))
    bundle_id = bundle.setdefault("id", made)
    known = bundle.setdefault("identifier", {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{made}"})
    found = f"{quote(str(known.get('system', '')), safe='')}|{quote(str(known.get('value', '')), safe='')}"
    return quote(str(bundle_id), safe=""), found, json.dumps(bundle, ensure_ascii=False).encode()
