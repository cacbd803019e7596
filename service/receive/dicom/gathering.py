"""From arrivals to visits: what belongs to one study becomes a visit when nothing more of it comes.

When no further object of a study has come for a while, its arrivals become a visit, in one transaction that takes all
of them or none: whatever process dies in between, and however many look, each arrival is in a visit of its own time
once.
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
from typing import Literal

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference
from data_specs.visit.context import Context
from service.logs import where_it_failed
from service.receive.accept import StoredFile, commit_visit, new_visit
from service.receive.dicom.context import by_person, context_of, only
from service.receive.multipart import LIMITS
from service.receive.orders import find_order, merge_order
from service.state import Service
from service.storage.database import database_now, rowcount
from service.storage.tables import ArrivalRow

POLL_S = 0.5
MOST_STUDIES = 32
"""Studies made into visits at a time."""
WORKLIST_SILENCE_S = 30.0
"""A worklist that did not answer is left alone for so long: studies do not wait for it one after the other."""

log = structlog.get_logger()


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
        return merge_order(context, order) if order else context

    async def _ask_worklist(self, accession_number: str) -> Context | None:
        """The worklist's answer; none where it has none, or does not answer in time: the study goes on without."""
        settings = self._service.settings
        if not settings.dicom_worklist or time.monotonic() < self._worklist_silent_until:
            return None
        from service.receive.dicom.modality_worklist import WorklistSilent, find  # noqa: PLC0415  a protocol stack, where it is used

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
