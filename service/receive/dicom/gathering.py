"""Makes visits of arrivals: the objects of a study become a visit when no more of them have come for a while.

An object that comes later makes another visit, with all objects of the study. One transaction takes all new arrivals of
a visit or none, so that each is taken once, also where several processes look for arrivals or one of them is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference
from data_specs.fields import FILE_FIELDS, FileField
from data_specs.visit.context import Context
from service.logs import where_it_failed
from service.receive.commit import StoredFile, commit_visit, new_visit
from service.receive.dicom.context import agreed_value, by_person, context_of
from service.receive.dicom.modality_worklist import ModalityWorklistFailed, ask_modality_worklist
from service.receive.orders import find_order, merge_order
from service.receive.posted import LIMITS
from service.state import Service
from service.storage.database import age_s, database_now, rowcount
from service.storage.tables import ArrivalRow

POLL_S = 0.5
MAX_STUDIES = 32
"""Studies that become visits in one turn."""
WORKLIST_PAUSE_S = 30.0
"""A worklist that did not answer is not asked again for so long: else each study would wait for it."""

log = structlog.get_logger()


class _TakenMeanwhile(Exception):
    """Another process has made a visit of one of the arrivals meanwhile; nothing was written."""


class Gathering:
    """Makes visits of what has arrived. Any number of processes may gather from one database.

    Parameters
    ----------
    service
        Its settings say how long no object of a study may have come, and which worklist is asked.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._worklist_pause_until = 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._serve())

    async def aclose(self) -> None:
        """Finish the visits that are being made, then stop."""
        self._ending.set()
        if self._task is not None:
            await self._task

    async def _serve(self) -> None:
        while not self._ending.is_set():
            made = 0
            try:
                made = await self._make_visits()
            except Exception as error:  # the database cannot be reached: arrivals wait for the next turn
                log.error("arrivals_not_gathered", **where_it_failed(error))
            if not made:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), POLL_S)

    async def _make_visits(self) -> int:
        """Make visits of the studies that are due, and say how many."""
        if self._service.draining:
            return 0
        due = await self._service.database.read(partial(_due, self._service.settings.dicom_gather_seconds))
        made = await asyncio.gather(*(self._make_visits_of(*study) for study in due), return_exceptions=True)
        for outcome in made:
            if isinstance(outcome, BaseException) and not isinstance(outcome, _TakenMeanwhile):
                log.error("study_not_gathered", **where_it_failed(outcome))
        return sum(outcome for outcome in made if isinstance(outcome, int))

    async def _make_visits_of(self, site: str, study_uid: str) -> int:
        """Make the visit of a study; several where it holds several persons' objects, or too many for one visit.

        Returns
        -------
        How many visits were made.
        """
        rows = await self._service.database.read(partial(_rows_of_study, site, study_uid))
        persons = by_person([_Arrival.of(row) for row in rows], lambda arrival: arrival.dicom)
        made = 0
        for person in persons:
            for arrivals in _split_to_visits(person):
                if any(arrival.waits for arrival in arrivals):
                    references = [arrival.dicom for arrival in person]
                    context = await self._context(site, references, one_person=len(persons) == 1)
                    made += await self._make_visit(site, context, arrivals)
        return made

    async def _make_visit(self, site: str, context: Context, arrivals: Sequence[_Arrival]) -> bool:
        """Make one visit; false where the queue is full, or the visit was made before."""
        files = [
            StoredFile(arrival.field, f"{arrival.field}-{index}.dcm", arrival.sha256, arrival.n_bytes, arrival.dicom)
            for index, arrival in enumerate(arrivals)
        ]
        listed = [site, *((arrival.dicom.SOPInstanceUID, arrival.sha256) for arrival in arrivals)]
        digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        # no client can send this key: an Idempotency-Key is ASCII
        row = new_visit(site, arrivals[0].source[:36], context, files, digest, idempotency_key=f"arrivals·{digest}")
        accepted = await commit_visit(self._service, row, in_same_transaction=partial(_take, site, row.id, arrivals))
        return accepted is not None and accepted.is_new

    async def _context(self, site: str, references: Sequence[DicomReference], *, one_person: bool) -> Context:
        """What the headers say, completed from the order with their AccessionNumber where that order is known.

        Parameters
        ----------
        one_person
            All objects of the study are one person's. Otherwise the order could be for another of its persons.
        """
        context = context_of(references)
        accession_number = agreed_value(each.AccessionNumber for each in references)
        if not accession_number or not one_person:
            return context
        order = await self._service.database.read(partial(find_order, site=site, accession_number=accession_number))
        order = order or await self._ask_worklist(accession_number)
        return merge_order(context, order) if order else context

    async def _ask_worklist(self, accession_number: str) -> Context | None:
        """The order in the modality worklist; ``None`` where it has none, or does not answer in time."""
        settings = self._service.settings
        if not settings.dicom_worklist or time.monotonic() < self._worklist_pause_until:
            return None
        try:
            return await asyncio.to_thread(ask_modality_worklist, settings, accession_number)
        except ModalityWorklistFailed as failed:
            log.warning("modality_worklist_failed", reason=failed.reason)
            self._worklist_pause_until = time.monotonic() + WORKLIST_PAUSE_S
            return None


@dataclass(frozen=True, slots=True)
class _Arrival:
    """An arrival; ``waits`` says that it is in no visit yet."""

    field: FileField
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
    """Site and study UID of studies with waiting arrivals, the last of which came at least ``quiet_s`` seconds ago.

    The time is the database's, which all processes share.
    """
    quiet_since = database_now(session) - timedelta(seconds=quiet_s)
    studies = (
        select(ArrivalRow.site, ArrivalRow.study_uid)
        .where(ArrivalRow.visit_id.is_(None))
        .group_by(ArrivalRow.site, ArrivalRow.study_uid)
        .having(func.max(ArrivalRow.received_at) <= quiet_since)
        .order_by(func.min(ArrivalRow.received_at))
        .limit(MAX_STUDIES)
    )
    return [(site, study_uid) for site, study_uid in session.execute(studies)]


def oldest_arrival_s(session: Session) -> float:
    """How long ago the arrival came that has waited longest to become part of a visit; 0 where none waits."""
    oldest = select(func.min(ArrivalRow.received_at)).where(ArrivalRow.visit_id.is_(None))
    return age_s(session.scalars(oldest).one(), database_now(session))


def _rows_of_study(site: str, study_uid: str, session: Session) -> Sequence[ArrivalRow]:
    """All arrivals of a study, also those of its earlier visits, in the order in which they came."""
    query = select(ArrivalRow).where(ArrivalRow.site == site, ArrivalRow.study_uid == study_uid)
    return session.scalars(query.order_by(ArrivalRow.received_at, ArrivalRow.sop_uid, ArrivalRow.sha256)).all()


def _split_to_visits(arrivals: Sequence[_Arrival]) -> list[list[_Arrival]]:
    """Arrivals of one person, in groups as large as a visit may be.

    Late arrivals go to the last groups, so that a group that was full before stays as it was.
    """
    visits: list[list[_Arrival]] = []
    counts = dict.fromkeys(FILE_FIELDS, 0)
    for arrival in arrivals:
        number = counts[arrival.field] // LIMITS[arrival.field]
        counts[arrival.field] += 1
        if number == len(visits):
            visits.append([])
        visits[number].append(arrival)
    return visits


def _take(site: str, visit_id: str, arrivals: Sequence[_Arrival], session: Session) -> None:
    """Take the waiting arrivals for this visit, all or none.

    Raises
    ------
    _TakenMeanwhile
        One of them is in another visit by now.
    """
    for arrival in arrivals:
        if arrival.waits:
            waiting = update(ArrivalRow).where(
                ArrivalRow.site == site,
                ArrivalRow.sop_uid == arrival.dicom.SOPInstanceUID,
                ArrivalRow.sha256 == arrival.sha256,
                ArrivalRow.visit_id.is_(None),
            )
            if rowcount(session.execute(waiting.values(visit_id=visit_id))) != 1:
                raise _TakenMeanwhile
