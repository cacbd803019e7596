"""DICOM objects that come in by themselves, one by one: kept as they come, gathered by study, made into visits.

An object is an *arrival*: its file in the store, its row in the database, before its sender hears of success. When no
further object of a study has come for a while, its arrivals become a visit, in one transaction that takes all of them
or none: whatever process dies in between, and however many look, each arrival is in a visit of its own time once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Literal

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.context import Context
from data_specs.dicom_reference import START_BYTES, read_reference
from data_specs.report import DicomReference
from service.database import VISITS, ArrivalRow, database_now, insert_rows, rowcount
from service.dicom.arrival_context import age_on, by_person, context_of, only
from service.drafts import Draft
from service.intake import StoredFile, commit_visit, new_visit
from service.logs import where_it_failed
from service.multipart import LIMITS
from service.orders import find_order, merge_order
from service.state import Service

FIELDS: dict[str, Literal["image", "ecg"]] = {
    "1.2.840.10008.5.1.4.1.1.1": "image",
    "1.2.840.10008.5.1.4.1.1.1.1": "image",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "image",
    "1.2.840.10008.5.1.4.1.1.7": "image",
    "1.2.840.10008.5.1.4.1.1.7.2": "image",
    "1.2.840.10008.5.1.4.1.1.7.3": "image",
    "1.2.840.10008.5.1.4.1.1.9.1.1": "ecg",
    "1.2.840.10008.5.1.4.1.1.9.1.2": "ecg",
}
"""SOP classes that are taken: CR, DX for presentation and for processing, secondary capture (of the multi-frame ones
those that film digitisers write, grayscale byte and word; more than one frame is refused in the visit), 12-lead ECG and
general ECG waveform (PS3.4, table B.5-1)."""

SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES, DOES_NOT_MATCH_CLASS, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
"""What a sender is answered (PS3.7 section C.5.6; PS3.4 section B.2.3, table B.2-1)."""

WRITE_S = 60.0
POLL_S = 0.5
MOST_STUDIES = 32
"""Studies made into visits at a time."""
WORKLIST_SILENCE_S = 30.0
"""A worklist that did not answer is left alone for so long: studies do not wait for it one after the other."""

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
        is_own = _OWN.search(file.read(START_BYTES)) is not None
    if dicom is None:
        return Refusal("unreadable", CANNOT_UNDERSTAND, "DICOM", "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID")
    if any(one and one != other for one, other in zip(said, (dicom.SOPClassUID, dicom.SOPInstanceUID), strict=True)):
        return Refusal("unreadable", DOES_NOT_MATCH_CLASS, "SOPClassUID, SOPInstanceUID ≠", "=")
    if dicom.SOPClassUID not in FIELDS:
        return Refusal("unsupported_format", SOP_CLASS_NOT_SUPPORTED, dicom.SOPClassUID, "CR, DX, SC, ECG")
    if is_own:
        return "own"
    service.store.put(draft)
    row = ArrivalRow(
        site=site,
        sop_uid=dicom.SOPInstanceUID,
        sha256=draft.sha256,
        study_uid=dicom.StudyInstanceUID,
        field=FIELDS[dicom.SOPClassUID],
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
        if service.queue_was_full and not _has_room(service, session):
            return Refusal("queue_full", OUT_OF_RESOURCES)
        row.received_at = database_now(session)
        insert_rows(session, row)
        return "stored"

    try:
        async with asyncio.timeout(WRITE_S):
            return await service.database.write(keep)
    except IntegrityError:  # PostgreSQL: the same object was committed between our look and our insert
        return "known"


def _has_room(service: Service, session: Session) -> bool:
    unfinished: int = session.execute(
        select(func.count()).select_from(VISITS).where(VISITS.c.status == "accepted")
    ).scalar_one()
    service.queue_was_full = unfinished >= service.settings.max_queue
    return not service.queue_was_full


# ---------------------------------------------------------------- from arrivals to visits
class _TakenMeanwhile(Exception):
    """Another process has made a visit of an arrival that we were about to take; nothing was written."""


class Gathering:
    """Makes visits of what has arrived. Any number of processes may gather from one database.

    Parameters
    ----------
    service
        Its settings say how long a study has to be quiet, and which worklist is asked.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._worklist_silent_until = 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._serve())

    async def aclose(self) -> None:
        """End after the visits that are being made."""
        self._ending.set()
        if self._task is not None:
            await self._task

    async def _serve(self) -> None:
        while not self._ending.is_set():
            made = 0
            try:
                made = await self._make_visits()
            except Exception as error:  # the database is away for a moment: what has arrived waits
                log.error("arrivals_not_gathered", **where_it_failed(error))
            if not made:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), POLL_S)

    async def _make_visits(self) -> int:
        """Make what is due; how many visits came of it."""
        if self._service.draining:
            return 0
        due = await self._service.database.read(partial(_due, self._service.settings.dicom_gather_seconds))
        made = await asyncio.gather(*(self._make_visits_of(*each) for each in due), return_exceptions=True)
        for outcome in made:
            if isinstance(outcome, BaseException) and not isinstance(outcome, _TakenMeanwhile):
                log.error("study_not_gathered", **where_it_failed(outcome))
        return sum(outcome for outcome in made if isinstance(outcome, int))

    async def _make_visits_of(self, site: str, study_uid: str) -> int:
        """One visit where the study is one person's and fits into one; else as many as it takes."""
        arrivals = await self._service.database.read(partial(_of_study, site, study_uid))
        persons = by_person([_Arrival.of(row) for row in arrivals], lambda each: each.dicom)
        made = 0
        for person in persons:
            for together in _that_fit(person):
                if any(each.waits for each in together):
                    context = await self._context(site, [each.dicom for each in person], alone=len(persons) == 1)
                    made += await self._make_visit(site, context, together)
        return made

    async def _make_visit(self, site: str, context: Context, together: Sequence[_Arrival]) -> bool:
        files = [
            StoredFile(each.field, f"{each.field}-{index}.dcm", each.sha256, each.n_bytes, each.dicom)
            for index, each in enumerate(together)
        ]
        listed = [site, *((each.dicom.SOPInstanceUID, each.sha256) for each in together)]
        digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        # no client can have chosen this key: what it sends as Idempotency-Key is ASCII
        row = new_visit(site, together[0].source[:36], context, files, digest, idempotency_key=f"arrivals·{digest}")
        accepted = await commit_visit(self._service, row, also=partial(_mark, site, row.id, together))
        return accepted is not None and accepted.is_new

    async def _context(self, site: str, references: Sequence[DicomReference], *, alone: bool) -> Context:
        """What the headers say, with the order of their one AccessionNumber where it is known.

        Parameters
        ----------
        alone
            The study holds no other person's objects, to whom the order might belong.
        """
        context = context_of(references)
        accession_number = only(each.AccessionNumber for each in references)
        if not accession_number or not alone:
            return context
        order = await self._service.database.read(partial(find_order, site=site, accession_number=accession_number))
        order = order or await self._ask_worklist(accession_number)
        if order is None:
            return context
        merged = merge_order(context, order)
        person, visited_on = merged.person, merged.visited_on
        if person.age_years is None and (age := age_on(person.birth_date, visited_on)) is not None:
            person = person.model_copy(update={"age_years": age})
        return merged.model_copy(update={"person": person})

    async def _ask_worklist(self, accession_number: str) -> Context | None:
        """The worklist's answer; none where it has none, or does not answer in time: the study goes on without."""
        settings = self._service.settings
        if not settings.dicom_worklist or time.monotonic() < self._worklist_silent_until:
            return None
        from service.dicom.worklist import WorklistSilent, find  # noqa: PLC0415  a protocol stack, where it is used

        try:
            return await asyncio.to_thread(find, settings, accession_number)
        except WorklistSilent as silent:
            log.warning("worklist_silent", reason=silent.reason)
            self._worklist_silent_until = time.monotonic() + WORKLIST_SILENCE_S
            return None


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A row, read; ``waits`` until it is in a visit."""

    field: Literal["image", "ecg"]
    sha256: str
    n_bytes: int
    source: str
    dicom: DicomReference
    waits: bool

    @classmethod
    def of(cls, row: ArrivalRow) -> _Arrival:
        dicom = DicomReference.model_validate_json(row.dicom)
        return cls(
            "ecg" if row.field == "ecg" else "image", row.sha256, row.n_bytes, row.source, dicom, row.visit_id is None
        )


def _due(quiet_s: float, session: Session) -> list[tuple[str, str]]:
    """Studies with waiting arrivals of which none is young, by the clock that all processes share."""
    quiet_since = database_now(session) - timedelta(seconds=quiet_s)
    studies = (
        select(ArrivalRow.site, ArrivalRow.study_uid)
        .where(ArrivalRow.visit_id.is_(None))
        .group_by(ArrivalRow.site, ArrivalRow.study_uid)
        .having(func.max(ArrivalRow.received_at) <= quiet_since)
        .order_by(func.min(ArrivalRow.received_at))
        .limit(MOST_STUDIES)
    )
    return [(site, study_uid) for site, study_uid in session.execute(studies)]


def _of_study(site: str, study_uid: str, session: Session) -> Sequence[ArrivalRow]:
    """All arrivals of a study, in the order in which they came: those of its earlier visits too."""
    query = select(ArrivalRow).where(ArrivalRow.site == site, ArrivalRow.study_uid == study_uid)
    return session.scalars(query.order_by(ArrivalRow.received_at, ArrivalRow.sop_uid, ArrivalRow.sha256)).all()


def _that_fit(arrivals: Sequence[_Arrival]) -> list[list[_Arrival]]:
    """As many together as a visit has places for; late ones come behind, and leave full ones as they are."""
    visits: list[list[_Arrival]] = []
    counts = {"image": 0, "ecg": 0}
    for each in arrivals:
        number = counts[each.field] // LIMITS[each.field]
        counts[each.field] += 1
        if number == len(visits):
            visits.append([])
        visits[number].append(each)
    return visits


def _mark(site: str, visit_id: str, together: Sequence[_Arrival], session: Session) -> None:
    """Take the waiting ones for this visit, all or none.

    Raises
    ------
    _TakenMeanwhile
        One of them waits no more.
    """
    for each in together:
        if each.waits:
            mine = update(ArrivalRow).where(
                ArrivalRow.site == site,
                ArrivalRow.sop_uid == each.dicom.SOPInstanceUID,
                ArrivalRow.sha256 == each.sha256,
                ArrivalRow.visit_id.is_(None),
            )
            if rowcount(session.execute(mine.values(visit_id=visit_id))) != 1:
                raise _TakenMeanwhile
