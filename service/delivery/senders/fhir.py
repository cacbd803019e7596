"""FHIR documents to a FHIR server, where each is stored once.

``PUT Bundle/{id}`` under an id that is made from visit and version, so that sending again replaces the same bundle. A
server that does not accept ids of clients answers 405 and gets a conditional create by the bundle's identifier instead.

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
from service.delivery.senders.http import authorization, expect_success, status_of

MEDIA_TYPE = "application/fhir+json"


async def send(client: httpx.AsyncClient, delivery: Delivery, rendered: bytes, *, timeout_s: float) -> None:
    """Put the document bundle on the server.

    Raises
    ------
    NotDelivered
    """
    bundle_id, bundle_identifier, content = await asyncio.to_thread(_identified, delivery, rendered)
    base = f"{delivery.address.rstrip('/')}/Bundle"
    headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE, "Prefer": "return=minimal"}
    headers |= {"Idempotency-Key": delivery.key, **authorization(delivery.secret)}
    if delivery.options.create == "put":
        address = f"{base}/{bundle_id}"
        if delivery.repeated and await _is_there(client, address, headers, timeout_s):
            return
        status, answer = await status_of(client, "PUT", address, headers=headers, content=content, timeout_s=timeout_s)
        if status != 405:
            _expect_stored(status, answer)
            return
    headers["If-None-Exist"] = f"identifier={bundle_identifier}"
    status, answer = await status_of(client, "POST", base, headers=headers, content=content, timeout_s=timeout_s)
    if status != 412:  # the server has several bundles with this identifier, so it has this one
        _expect_stored(status, answer)


def _expect_stored(status: int, headers: httpx.Headers) -> None:
    """As ``expect_success``, but 409 is not permanent: another client writes the same resource at this moment."""
    if status == 409:
        raise NotDelivered("http_409")
    expect_success(status, headers)


async def _is_there(client: httpx.AsyncClient, address: str, headers: dict[str, str], timeout_s: float) -> bool:
    """Whether the bundle of an earlier attempt has arrived; ``False`` if we may not read there."""
    asked = {name: value for name, value in headers.items() if name in ("Accept", "Authorization")}
    status, _ = await status_of(client, "GET", address, headers=asked, timeout_s=timeout_s)
    return status == 200


def _identified(delivery: Delivery, rendered: bytes) -> tuple[str, str, bytes]:
    """The bundle's id, its identifier as a search parameter, and the bundle with both in it."""
    bundle: dict[str, Any] = json.loads(rendered)
    made = str(identifier(delivery.visit_id, delivery.version, "Bundle"))
    bundle_id = bundle.setdefault("id", made)
    known = bundle.setdefault("identifier", {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{made}"})
    found = f"{quote(str(known.get('system', '')), safe='')}|{quote(str(known.get('value', '')), safe='')}"
    return quote(str(bundle_id), safe=""), found, json.dumps(bundle, ensure_ascii=False).encode()
