"""Commits a new visit, whatever way it came in: its files to the store, its row and inputs in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference, named_study
from data_specs.dicom.uids import is_uid
from data_specs.fields import FileField
from data_specs.visit.context import Context
from data_specs.visit.report import own_study
from service.errors import IdempotencyConflict, OutcomeUnknown, QueueFull
from service.receive.dicom.header import read_reference
from service.receive.orders import find_order, merge_order
from service.receive.posted import Part
from service.state import Service
from service.storage.audit import acting_for, note
from service.storage.database import database_now, insert_rows
from service.storage.folding import listed, usable_id
from service.storage.tables import VISITS, InputRow, VisitRow

RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Accepted:
    """A visit, and whether this request made it: a repeated request gets the visit of the first one."""

    row: VisitRow
    is_new: bool


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a visit that is in the store."""

    field: FileField
    filename: str
    sha256: str
    n_bytes: int
    dicom: DicomReference | None


async def with_order(service: Service, site: str, context: Context) -> Context:
    """The context, completed from the order with its accession number, where that order was sent ahead."""
    number = context.order.accession_number if context.order else None
    if not number:
        return context
    ordered = await service.database.read(lambda session: find_order(session, site, number))
    return merge_order(context, ordered) if ordered else context


@asynccontextmanager
async def upload_turn(service: Service, key_id: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A turn to read a body: the number of turns limits drafts on disk, and threads. Each key has its share of them.

    It gives a function that waits for the turn, and does nothing once it has come. It is called as soon as there is
    something to write, so that a body of which nothing comes has no turn. That function raises ``QueueFull`` if no turn
    came within the idle time.
    """
    has_turn = False

    async def take() -> None:
        nonlocal has_turn
        if not has_turn:
            try:
                await service.uploads.take(key_id, service.settings.idle_seconds)
            except TimeoutError:
                raise queue_full() from None
            has_turn = True

    try:
        yield take
    finally:
        if has_turn:
            service.uploads.give(key_id)


def put_in_store(service: Service, part: Part) -> StoredFile:
    """Put one file of a visit in the store. Its DICOM header is read first, while the draft is still in memory."""
    assert part.field != "context"  # noqa: S101
    dicom = read_reference(service.readers, part.draft)
    service.store.put(part.draft)
    return StoredFile(part.field, part.filename, part.draft.sha256, part.draft.n_bytes, dicom)


def new_visit(
    site: str,
    key_id: str,
    context: Context,
    files: Sequence[StoredFile],
    digest: str,
    *,
    idempotency_key: str | None = None,
) -> VisitRow:
    """The row of a visit, ready for :func:`commit_visit`.

    Parameters
    ----------
    digest
        SHA-256 of what was posted. Two requests with the same ``idempotency_key`` must have the same digest.
    """
    visit_id = str(uuid.uuid4())
    dicom = [file.dicom for file in files if file.dicom]
    study = named_study(dicom)
    ordered = context.order.accession_number if context.order else None
    accession_number = ordered or (dicom[0].AccessionNumber[:64] if dicom else None) or None
    return VisitRow(
        id=visit_id,
        site=site,
        key_id=key_id,
        referrer_id=context.referrer.id if context.referrer else None,
        person_id=usable_id(context.person.id),
        study_uid=study if is_uid(study) else own_study(visit_id),
        accession_number=accession_number,
        **listed(context, accession_number),
        context=context.model_dump_json(exclude_unset=True),
        status="accepted",
        priority="unassessed",
        version=1,
        idempotency_key=idempotency_key,
        body_hash=digest,
        attempts=0,
        faults=0,
        inputs=[
            InputRow(
                visit_id=visit_id,
                index=index,
                field=file.field,
                filename=file.filename,
                sha256=file.sha256,
                n_bytes=file.n_bytes,
                dicom=file.dicom.model_dump_json(exclude_defaults=True) if file.dicom else None,
            )
            for index, file in enumerate(files)
        ],
    )


async def commit_visit(
    service: Service, row: VisitRow, *, in_same_transaction: Callable[[Session], object] = lambda _: None
) -> Accepted | None:
    """Insert the visit. Where this process has a free slot, lease the visit and start to work on it at once.

    Parameters
    ----------
    in_same_transaction
        Called after the visit was inserted, to write more in the same transaction.

    Returns
    -------
    ``None`` where the queue is full.

    Raises
    ------
    IdempotencyConflict
        The first visit of this ``Idempotency-Key`` had another body.
    """
    leased = service.work.reserve_slot()
    is_new = False

    def insert(session: Session) -> VisitRow | None:
        first = first_visit(session, row.site, row.idempotency_key)
        if first is not None:
            return first
        if not has_room(service, session):
            return None
        row.received_at = database_now(session)
        if leased:
            service.work.lease(row, row.received_at)
        insert_rows(session, row, *row.inputs)
        posted = {"site": row.site, "files": len(row.inputs), "body": row.body_hash}
        note(session, "visit_posted", row.id, actor=acting_for(session, row.key_id), **posted)
        in_same_transaction(session)
        return row

    try:
        try:
            stored = await service.database.write(insert)
        except IntegrityError:  # PostgreSQL: another request committed this Idempotency-Key meanwhile
            if row.idempotency_key is None:
                raise
            stored = await service.database.read(lambda session: _expect_first(session, row.site, row.idempotency_key))
        is_new = stored is row
    finally:
        if leased:
            service.work.start_in_slot(row if is_new else None)
    if stored is None:
        return None
    if stored.body_hash != row.body_hash:
        raise IdempotencyConflict
    return Accepted(stored, is_new)


def first_visit(session: Session, site: str, idempotency_key: str | None) -> VisitRow | None:
    """The visit that was made by the first request of a site with this ``Idempotency-Key``; ``None`` without one."""
    if idempotency_key is None:
        return None
    query = select(VisitRow).where(VisitRow.site == site, VisitRow.idempotency_key == idempotency_key)
    return session.scalars(query).one_or_none()


def _expect_first(session: Session, site: str, idempotency_key: str | None) -> VisitRow:
    row = first_visit(session, site, idempotency_key)
    if row is None:  # it was deleted again: the same request may be sent again
        raise OutcomeUnknown("deleted")
    return row


def has_room(service: Service, session: Session) -> bool:
    """Whether there is room in the queue for one more visit; ``service.queue_was_full`` remembers the answer."""
    unfinished: int = session.execute(_UNFINISHED).scalar_one()
    service.queue_was_full = unfinished >= service.settings.max_queue
    return not service.queue_was_full


def is_accepted(service: Service, site: str, idempotency_key: str | None, session: Session) -> bool:
    """Whether there is room for a request; one that repeats an accepted request needs none."""
    return has_room(service, session) or first_visit(session, site, idempotency_key) is not None


def queue_full() -> QueueFull:
    return QueueFull("", f"{RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S)


_UNFINISHED = select(func.count()).select_from(VISITS).where(VISITS.c.status == "accepted")
