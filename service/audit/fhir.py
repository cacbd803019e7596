"""Entries as FHIR AuditEvents, one a line, each with what proves its place in the chain.

References
----------
FHIR R4 (4.0.1), http://hl7.org/fhir/R4/auditevent.html: value sets audit-event-type (system DCM), audit-event-outcome,
audit-entity-type, object-role. Newline-delimited JSON: https://github.com/ndjson/ndjson-spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC
from typing import IO, Any

from service.audit.actions import ACTIONS, DCM, OF_ANOTHER_RELEASE
from service.audit.proof import Proof, Stored
from service.storage.audit import BEFORE_THE_FIRST, Head, digest_of

DICOM_CODES = "http://dicom.nema.org/resources/ontology/DCM"
ACTION, KEY, VISIT = "urn:sangloc:audit-action", "urn:sangloc:key", "urn:sangloc:visit"
ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
SUCCESS, REFUSED = "0", "4"
CONTENT, PREVIOUS, DIGEST = "content", "previous", "digest"


def audit_event(stored: Stored, previous: str) -> dict[str, Any]:
    """An entry as an AuditEvent.

    Parameters
    ----------
    previous
        The digest of the entry before it.
    """
    entry = stored.entry
    action = ACTIONS.get(entry.action, OF_ANOTHER_RELEASE)
    detail: dict[str, Any] = json.loads(entry.detail)
    entities: list[dict[str, Any]] = []
    if entry.visit:
        entities.append(
            {
                "what": {"identifier": {"system": VISIT, "value": entry.visit}},
                "type": {"system": ENTITY_TYPE, "code": "2", "display": "System Object"},
                "role": {"system": OBJECT_ROLE, "code": "4", "display": "Domain Resource"},
            }
        )
    proof = {CONTENT: entry.content(), PREVIOUS: previous, DIGEST: stored.digest}
    entities.append(
        {
            "name": "entry of the audit log",
            "description": "SHA-256 of previous, a line feed and content gives digest",
            "type": {"system": ENTITY_TYPE, "code": "2", "display": "System Object"},
            "role": {"system": OBJECT_ROLE, "code": "13", "display": "Security Resource"},
            "detail": [{"type": name, "valueString": value} for name, value in proof.items()],
        }
    )
    return {
        "resourceType": "AuditEvent",
        "id": f"entry-{entry.number}",
        "type": {"system": DICOM_CODES, "code": action.code, "display": DCM[action.code]},
        "subtype": [{"system": ACTION, "code": entry.action}],
        "action": action.kind,
        "recorded": entry.at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "outcome": REFUSED if int(detail.get("status") or 0) >= 400 else SUCCESS,
        "agent": [
            {
                "role": [{"text": entry.role}],
                "who": {"identifier": {"system": KEY, "value": entry.actor}},
                "requestor": True,
            }
        ],
        "source": {"observer": {"display": "Sàng Lọc"}},
        "entity": entities,
    }


def write_events(events: Iterator[tuple[Stored, str]], out: IO[str]) -> int:
    """Write entries, each with the digest before it, as lines; how many."""
    count = 0
    for stored, previous in events:
        out.write(json.dumps(audit_event(stored, previous), ensure_ascii=False) + "\n")
        count += 1
    return count


def prove_file(lines: IO[str]) -> tuple[Proof, int]:
    """Prove an exported file by itself: each entry by the digest before it, and neighbours by each other.

    Returns
    -------
    What was found, and how many entries between the first and the last are not in the file.

    Raises
    ------
    ValueError
        A line is no exported entry.
    """
    proof, lacking = Proof(), 0
    last: Head | None = None
    for line in lines:
        number, content, previous, digest = _proof_in(line)
        proof.entries += 1
        if last is not None and number <= last.number:
            proof.found(f"entry {number}: stands behind entry {last.number}")
        before = Head(number - 1, previous) if last is None or number != last.number + 1 else last
        if last is not None and number > last.number + 1:
            lacking += number - last.number - 1
        if before.number == 0 and previous != BEFORE_THE_FIRST:
            proof.found("entry 1: there was one before it")
        if digest_of(before.digest, content) != digest or previous != before.digest:
            proof.found(f"entry {number}: its digest does not follow from its content and the digest before it")
        last = proof.head = Head(number, digest)
    return proof, lacking


def _proof_in(line: str) -> tuple[int, str, str, str]:
    """Number, content, digest before it and digest of the entry on a line."""
    try:
        event = json.loads(line)
        detail = {each["type"]: each["valueString"] for each in event["entity"][-1]["detail"]}
        number, *_ = json.loads(detail[CONTENT])
        return int(number), detail[CONTENT], detail[PREVIOUS], detail[DIGEST]
    except (LookupError, TypeError, ValueError, RecursionError):
        raise ValueError("a line is not an exported entry") from None
