"""Keeps the DICOM objects that devices and archives send, one by one, until they become part of a visit.

Such an object is an *arrival*: its file is in the store and its row in the database before its sender is told that it
was received. :mod:`service.receive.dicom.gathering` makes visits of arrivals.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.dicom.reference import ECG_CLASSES, FILM_CLASSES, START_BYTES
from data_specs.dicom.uids import MAX_LENGTH
from data_specs.fields import field_of
from data_specs.visit.report import uid
from service.errors import StorageUnavailable
from service.logs import where_it_failed
from service.receive.commit import has_room
from service.receive.dicom.header import read_reference
from service.state import Service
from service.storage.audit import acting_for, note
from service.storage.database import database_now, insert_rows
from service.storage.drafts import Draft
from service.storage.tables import ArrivalRow

SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES, DOES_NOT_MATCH_CLASS, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
"""Statuses of the answer to a sender (PS3.7, section C.5.6; PS3.4, section B.2.3, table B.2-1)."""

_OWN = re.compile(rb"\x08\x00\x70\x00.{4}" + re.escape("Sàng Lọc".encode()), re.DOTALL)
"""Manufacturer (0008,0070) of objects that this service made, little endian. The four bytes are VR and length (explicit
VR) or the length alone (implicit VR)."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object was not kept.

    Parameters
    ----------
    code, found, expected
        As :class:`data_specs.problems.Problem`.
    status
        Status of the C-STORE response, and FailureReason (0008,1197) of STOW-RS, which has the same values.
    """

    code: str
    status: int
    found: str = ""
    expected: str = ""


def receive(
    service: Service, site: str, source: str, draft: Draft, *, sop_class_uid: str = "", sop_instance_uid: str = ""
) -> Refusal | None:
    """Keep one DICOM file. It blocks: to be called from a thread that runs no event loop.

    The same object again (site, SOPInstanceUID and content) is a success and changes nothing. Another content with the
    same SOPInstanceUID is kept too. An object that this service made and an archive sends back is a success and is not
    kept, since a report is no input.

    Parameters
    ----------
    source
        Who sent it: a calling AE title, or the id of a key.
    draft
        The whole file. The caller removes it afterwards, also where it is refused.
    sop_class_uid, sop_instance_uid
        As the sender's request states them, if it does; the file has to agree, where it has them.

    Returns
    -------
    ``None`` where the object is on the disk.
    """
    try:
        outcome = _receive(service, site, source, draft, (sop_class_uid, sop_instance_uid))
    except StorageUnavailable as outage:
        outcome = Refusal(outage.code, OUT_OF_RESOURCES)
    except Exception as error:
        log.error("arrival_not_kept", **where_it_failed(error))
        outcome = Refusal("internal_error", OUT_OF_RESOURCES)
    service.metrics.arrivals.labels(outcome.code if isinstance(outcome, Refusal) else outcome).inc()
    return outcome if isinstance(outcome, Refusal) else None


def _receive(service: Service, site: str, source: str, draft: Draft, stated: tuple[str, str]) -> Refusal | str:
    """A refusal; else ``stored``, ``known`` or ``own``, the label of the metric."""
    if service.draining:
        return Refusal("unavailable", OUT_OF_RESOURCES)
    dicom = read_reference(service.readers, draft)
    with draft.open() as file:
        start = file.read(START_BYTES)
    if dicom is None:
        return Refusal("unreadable", CANNOT_UNDERSTAND, "DICOM", "DICOM PS3.10")
    if any(map(_contradicts, stated, (dicom.SOPClassUID, dicom.SOPInstanceUID))):
        return Refusal("unreadable", DOES_NOT_MATCH_CLASS, "SOPClassUID, SOPInstanceUID ≠", "=")
    if dicom.SOPClassUID not in (*FILM_CLASSES, *ECG_CLASSES):
        return Refusal("unsupported_format", SOP_CLASS_NOT_SUPPORTED, dicom.SOPClassUID, "CR, DX, SC, ECG")
    if _OWN.search(start):
        return "own"
    service.room.check()
    service.store.put(draft)
    row = ArrivalRow(
        site=site,
        sop_uid=dicom.SOPInstanceUID,
        sha256=draft.sha256,
        study_uid=dicom.StudyInstanceUID if dicom.names_its_study else uid(draft.sha256, 0, "study"),
        field=field_of(start),
        n_bytes=draft.n_bytes,
        dicom=dicom.model_dump_json(exclude_defaults=True),
        source=source[:100],
        visit_id=None,
    )
    return asyncio.run(_keep(service, row))


def _contradicts(stated: str, own: str) -> bool:
    """Whether a request names another object than it holds.

    Where one of the two says nothing, they do not. DCMTK, and what is made with it, cuts a longer identifier in the
    request to 64 characters.
    """
    return bool(stated and own) and stated not in (own, own[:MAX_LENGTH])


async def _keep(service: Service, row: ArrivalRow) -> Refusal | str:
    """Commit an arrival. It runs on an event loop of this thread: the server's may end while it waits."""

    def keep(session: Session) -> Refusal | str:
        if session.get(ArrivalRow, (row.site, row.sop_uid, row.sha256)) is not None:
            return "known"
        if service.queue_was_full and not has_room(service, session):
            return Refusal("queue_full", OUT_OF_RESOURCES)
        row.received_at = database_now(session)
        insert_rows(session, row)
        note(session, "object_received", actor=acting_for(session, row.source), site=row.site, sha256=row.sha256)
        return "stored"

    try:
        return await service.database.write(keep)
    except IntegrityError:  # PostgreSQL: another thread committed the same object meanwhile
        return "known"
