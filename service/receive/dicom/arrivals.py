"""DICOM objects that come in by themselves, one by one, kept as they come.

An object is an *arrival*: its file in the store, its row in the database, before its sender hears of success.
``service.receive.dicom.gathering`` makes visits of them.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.dicom.reference import ECG_CLASSES, FILM_CLASSES, START_BYTES, read_reference
from service.logs import where_it_failed
from service.receive.commit import has_room
from service.receive.posted import field_of
from service.state import Service
from service.storage.database import database_now, insert_rows
from service.storage.drafts import Draft
from service.storage.tables import ArrivalRow

SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES, DOES_NOT_MATCH_CLASS, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
"""What a sender is answered (PS3.7 section C.5.6; PS3.4 section B.2.3, table B.2-1)."""

WRITE_S = 60.0

_OWN = re.compile(rb"\x08\x00\x70\x00.{4}" + re.escape("Sàng Lọc".encode()), re.DOTALL)
"""Manufacturer (0008,0070) of what this service makes, little endian; the four bytes are VR and length, or length."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object was not taken on.

    Parameters
    ----------
    code, found, expected
        As :class:`data_specs.problems.Problem`.
    status
        Status of the C-STORE response, and FailureReason (0008,1197) of STOW-RS, which takes its values from there.
    """

    code: str
    status: int
    found: str = ""
    expected: str = ""


def receive(
    service: Service, site: str, source: str, draft: Draft, *, sop_class_uid: str = "", sop_instance_uid: str = ""
) -> Refusal | None:
    """Keep one DICOM file. It blocks: to be called from a thread that runs no event loop.

    ``None`` says that it is durable. The same object again (site, SOPInstanceUID and content) is success and changes
    nothing; the same SOPInstanceUID with other content is kept beside the first. What this service has made itself
    and an archive sends back is success too, and not kept: a report is no input.

    Parameters
    ----------
    source
        Who sent it: a calling AE title, or the id of a key.
    draft
        The whole file. It stays the caller's, who removes it afterwards whatever came of it.
    sop_class_uid, sop_instance_uid
        What the sender said beside the file, if it said anything; the file has to agree.
    """
    try:
        outcome = _receive(service, site, source, draft, (sop_class_uid, sop_instance_uid))
    except Exception as error:  # the disk, the database, or whatever an object store's client raises
        log.error("arrival_not_kept", **where_it_failed(error))
        outcome = Refusal("internal_error", OUT_OF_RESOURCES)
    service.metrics.arrivals.labels(outcome.code if isinstance(outcome, Refusal) else outcome).inc()
    return outcome if isinstance(outcome, Refusal) else None


def _receive(service: Service, site: str, source: str, draft: Draft, said: tuple[str, str]) -> Refusal | str:
    if service.draining:
        return Refusal("unavailable", OUT_OF_RESOURCES)
    with draft.open() as file:
        dicom = read_reference(file)
        file.seek(0)
        start = file.read(START_BYTES)
    if dicom is None:
        return Refusal("unreadable", CANNOT_UNDERSTAND, "DICOM", "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID")
    if any(one and one != other for one, other in zip(said, (dicom.SOPClassUID, dicom.SOPInstanceUID), strict=True)):
        return Refusal("unreadable", DOES_NOT_MATCH_CLASS, "SOPClassUID, SOPInstanceUID ≠", "=")
    if dicom.SOPClassUID not in (*FILM_CLASSES, *ECG_CLASSES):
        return Refusal("unsupported_format", SOP_CLASS_NOT_SUPPORTED, dicom.SOPClassUID, "CR, DX, SC, ECG")
    if _OWN.search(start):
        return "own"
    service.store.put(draft)
    row = ArrivalRow(
        site=site,
        sop_uid=dicom.SOPInstanceUID,
        sha256=draft.sha256,
        study_uid=dicom.StudyInstanceUID,
        field=field_of(start),
        n_bytes=draft.n_bytes,
        dicom=dicom.model_dump_json(exclude_defaults=True),
        source=source[:100],
        visit_id=None,
    )
    return asyncio.run(_keep(service, row))


async def _keep(service: Service, row: ArrivalRow) -> Refusal | str:
    """Commit an arrival, on an event loop of this thread's own: the server's may end while this one waits."""

    def keep(session: Session) -> Refusal | str:
        if session.get(ArrivalRow, (row.site, row.sop_uid, row.sha256)) is not None:
            return "known"
        if service.queue_was_full and not has_room(service, session):
            return Refusal("queue_full", OUT_OF_RESOURCES)
        row.received_at = database_now(session)
        insert_rows(session, row)
        return "stored"

    try:
        async with asyncio.timeout(WRITE_S):
            return await service.database.write(keep)
    except IntegrityError:  # PostgreSQL: the same object was committed between our look and our insert
        return "known"
